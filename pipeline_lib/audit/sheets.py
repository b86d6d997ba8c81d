"""Sheets for an audit: images to be labelled by eye, in one page that needs nothing else."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd

from pipeline_lib.audit.labels import digests_of_dataset, digests_of_samples, sealed_name
from pipeline_lib.config import Config
from pipeline_lib.config.names import readable
from pipeline_lib.data.shards import read_shards, shards_in
from pipeline_lib.data.tables import read_table
from pipeline_lib.imaging.png import data_url, encode_png
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path

#: Unedited images for each edited one, so that nobody can tell which are edited, and to check the source; likewise
#: samples of the control GAN for each one of the retrained GAN.
UNEDITED = 0.2


def write_audit(
    config: Config, results: Path, folder: Path, count: int, sheet: int, of: str = "dataset_rebalanced"
) -> tuple[Path, int]:
    """Draw images at random, and write a page on which they are labelled.

    The page does not say which images are edited, or which GAN made a sample. It saves a CSV of the labels, which
    `certify.labels` names in the config, or `rebalance.labels` to plan by them, or `certify.samples` if they are of
    samples. Its column `edit` says which images are edited, and with which settings.

    Args:
        config: the config of the run.
        results: its `results/<run>`.
        folder: folder of the page, made if necessary.
        count: number of edited images, or of samples of the retrained GAN.
        sheet: number of the sheet, from 1 on; sheets of the same count have no image in common.
        of: the image set, a key of `AUDITED`.

    Returns:
        The page, and the number of images on it.

    Raises:
        DataError: the run has no such images yet, or fewer, or the page exists.
    """
    of_samples = of != "dataset_rebalanced"
    page = folder / f"audit-{'samples-' * of_samples}{sheet}.html"
    if page.exists():
        raise DataError(f"{page} exists, with labels perhaps; choose another folder or `--sheet`")
    drawn = (draw_samples if of_samples else draw_audit)(config, results, count, sheet)
    sets = (of, "control") if of_samples else (of,)
    names, pixels = read_shards([path for name in sets for path in _shards(results, name)])
    position = {sealed_name(name) if of_samples else name: number for number, name in enumerate(names)}
    images = [
        (name, data_url(encode_png(pixels[position[name]])), edit)
        for name, edit in zip(drawn["image_id"], drawn["edit"], strict=True)
    ]
    targets = config.rebalance.targets
    attributes = list(dict.fromkeys(name for target in targets for name in (target.attribute, *target.where)))
    template = Template(resources.files("pipeline_lib.audit").joinpath("templates/sheet.html").read_text("utf-8"))
    text = template.substitute(
        title=escape(f"{config.run}, sheet {sheet}"),
        images=json.dumps(images),
        attributes=json.dumps([[name, readable(name)] for name in attributes]),
        file=json.dumps(f"audit-{config.run}-{'samples-' * of_samples}{sheet}.csv"),
        of=json.dumps(drawn["dataset"].iloc[0]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(page) as beside:
        beside.write_text(text, encoding="utf-8")
    return page, len(images)


def draw_audit(config: Config, results: Path, count: int, sheet: int) -> pd.DataFrame:
    """Draw `count` edited images with the same probability, and mix in some unedited ones; see `write_audit`.

    Returns:
        The columns `image_id`, `dataset` and `edit` of the CSV, in the order of the page.

    Raises:
        DataError: the run has no rebalanced dataset yet, or fewer edited images.
    """
    table_path = results / "labels/dataset_rebalanced.parquet"
    if not table_path.exists():
        raise DataError(f"{table_path}: this run has no rebalanced dataset yet; run it first")
    table = read_table(table_path, "assembled")
    places = {edited: np.flatnonzero(table["edited"].to_numpy() == edited) for edited in (True, False)}
    if sheet * count > len(places[True]):
        raise DataError(
            f"sheet {sheet} of {count} edited images: only {len(places[True])} images of this run are edited; use a "
            "smaller `--count` or `--sheet`"
        )
    random = seeding.numpy_generator(config.seed, "audit")
    shuffled = {edited: random.permutation(found) for edited, found in places.items()}
    share = round(UNEDITED * count)
    drawn = np.concatenate(
        [shuffled[True][(sheet - 1) * count : sheet * count], shuffled[False][(sheet - 1) * share : sheet * share]]
    )
    rows = table.iloc[seeding.numpy_generator(config.seed, "audit", sheet).permutation(drawn)]
    plan = read_table(results / "plan/dataset.parquet", "plan").set_index("image_id")
    digests = {attribute: config.rebalance.edits_digest(attribute) for attribute in config.rebalance.edited}
    names = rows["image_id"].to_numpy()
    return pd.DataFrame(
        {
            "image_id": names,
            "dataset": digests_of_dataset(_shards(results, "dataset_rebalanced"))[0],
            "edit": np.where(rows["edited"], plan["attribute"].reindex(names).map(digests), ""),
        }
    )


def draw_samples(config: Config, results: Path, count: int, sheet: int) -> pd.DataFrame:
    """Draw `count` samples of the retrained GAN with the same probability, and mix in some of the control GAN.

    Returns:
        The columns `image_id`, `dataset` and `edit` of the CSV, in the order of the page. A sample has a name of which
        its GAN cannot be told, by `sealed_name`.

    Raises:
        DataError: the run has no samples of the retrained GAN yet, or fewer.
    """
    scores = {name: results / f"scores/referee/{name}.parquet" for name in ("retrained", "control")}
    for path in scores.values():
        if not path.exists():
            raise DataError(f"{path}: this run has no samples of a retrained GAN yet; run it first, with `retrain`")
    names = {name: read_table(path, "scores")["image_id"].to_numpy() for name, path in scores.items()}
    if sheet * count > len(names["retrained"]):
        raise DataError(
            f"sheet {sheet} of {count} samples: this run has {len(names['retrained'])} of its retrained GAN; use a "
            "smaller `--count` or `--sheet`, or increase `retrain.samples`"
        )
    drawn = [
        seeding.numpy_generator(config.seed, "audit", name).permutation(found)[(sheet - 1) * share : sheet * share]
        for (name, found), share in zip(names.items(), (count, round(UNEDITED * count)), strict=True)
    ]
    mixed = seeding.numpy_generator(config.seed, "audit", "samples", sheet).permutation(np.concatenate(drawn))
    digest = digests_of_samples(_shards(results, "retrained"), config.sample.truncation, config.seed)[0]
    return pd.DataFrame({"image_id": list(map(sealed_name, mixed)), "dataset": digest, "edit": ""})


def _shards(results: Path, name: str) -> list[Path]:
    """Return the shards of an image set of a run."""
    return shards_in(results / "images" / name)
