"""Sheets for an audit: images to be labelled by eye, in one page that needs nothing else."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd

from pipeline_lib.config import Config
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import read_table
from pipeline_lib.imaging.png import data_url, encode_png
from pipeline_lib.report.tables import readable
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path, digest_of_files

UNEDITED = 0.2  # unedited images for each edited one, so that nobody can tell which are edited, and to check the source


def write_audit(config: Config, results: Path, folder: Path, count: int, sheet: int) -> tuple[Path, int]:
    """Draw images of the rebalanced dataset at random, and write a page on which they are labelled.

    The page does not say which images are edited. It saves a CSV of the labels, which `certify.labels` names in the
    config, or `rebalance.labels` to plan by them. Its column `edit` says which are edited, and with which settings.

    Args:
        config: the config of the run.
        results: its `results/<run>`.
        folder: folder of the page, made if necessary.
        count: number of edited images.
        sheet: number of the sheet, from 1 on; sheets of the same count have no image in common.

    Returns:
        The page, and the number of images on it.

    Raises:
        DataError: the run has no rebalanced dataset yet, fewer edited images, or the page exists.
    """
    page = folder / f"audit-{sheet}.html"
    if page.exists():
        raise DataError(f"{page} exists, with labels perhaps; choose another folder or `--sheet`")
    drawn = draw_audit(config, results, count, sheet)
    names, pixels = read_shards(_shards(results))
    position = {name: number for number, name in enumerate(names)}
    images = [
        (name, data_url(encode_png(pixels[position[name]])), edit)
        for name, edit in zip(drawn["image_id"], drawn["edit"], strict=True)
    ]
    targets = config.rebalance.targets
    attributes = list(dict.fromkeys(name for target in targets for name in (target.attribute, *target.where)))
    template = Template(resources.files("pipeline_lib.report").joinpath("audit.html").read_text("utf-8"))
    text = template.substitute(
        title=escape(f"{config.run}, sheet {sheet}"),
        images=json.dumps(images),
        attributes=json.dumps([[name, readable(name)] for name in attributes]),
        file=json.dumps(f"audit-{config.run}-{sheet}.csv"),
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
            "dataset": digest_of_files(*_shards(results)),
            "edit": np.where(rows["edited"], plan["attribute"].reindex(names).map(digests), ""),
        }
    )


def _shards(results: Path) -> list[Path]:
    return sorted((results / "images/dataset_rebalanced").glob("*.parquet"))
