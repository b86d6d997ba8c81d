"""Export of an image set of a run as a folder that can be published."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from pipeline_lib.data.shards import open_shard
from pipeline_lib.release.cards import dataset_card, model_card
from pipeline_lib.release.formats import FORMATS
from pipeline_lib.release.image_sets import ImageSet, open_image_set
from pipeline_lib.release.provenance import CONFIG, FILE
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files, write_json


def export(run: Path, name: str, folder: Path, form: str = "imagefolder") -> ImageSet:
    """Write an image set of a finished run as a folder, with what made it.

    The folder appears under its name when it is complete. Until then its content is in a folder beside it, which the
    next export removes if this one is killed.

    Args:
        run: folder of the run, such as results/avatars.
        name: name of the image set, such as dataset_rebalanced.
        folder: output folder; must be empty if it exists.
        form: a key of `FORMATS`.

    Returns:
        What was exported.

    Raises:
        DataError: the run is not finished or has no such set, the folder is not empty, or a file cannot be named.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: not empty; use another folder, so that nothing is overwritten")
    image_set = open_image_set(run, name)
    with _complete_folder(folder) as beside:
        FORMATS[form](image_set, beside)
        write_json(beside / FILE, image_set.provenance)
        text = yaml.safe_dump(image_set.provenance["config"], sort_keys=False, allow_unicode=True)
        (beside / CONFIG).write_text(text, encoding="utf-8")
        has_croissant = form == "imagefolder" and importlib.util.find_spec("mlcroissant") is not None
        card = dataset_card(image_set, form, has_croissant)
        (beside / "README.md").write_text(card, encoding="utf-8")
        if has_croissant:
            from pipeline_lib.release.croissant import croissant

            said = yaml.safe_load(card.split("---\n")[1])
            write_json(beside / "croissant.json", croissant(image_set, beside, said["pretty_name"], said["license"]))
        elif form == "imagefolder":
            logging.warning("no croissant.json, which mlcroissant makes; run: pip install 'latent-rebalance[release]'")
        if image_set.retrained:
            _write_model(image_set, image_set.retrained, beside / "model")
    return image_set


def _write_model(image_set: ImageSet, weights: Path, folder: Path) -> None:
    """Write the retrained GAN with its card."""
    samples = image_set.run.images("retrained", 1)[0]
    drawn_by = open_shard(samples).schema_arrow.metadata.get(b"generator_digest", b"").decode()
    if drawn_by != digest_of_files(weights):
        raise DataError(f"{samples}: not drawn by {weights}, so its rates are of another GAN; run the workflow again")
    folder.mkdir()
    shutil.copyfile(weights, folder / weights.name)
    (folder / "README.md").write_text(model_card(image_set, image_set.run.metrics), encoding="utf-8")


@contextmanager
def _complete_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` that takes its name on success and is removed otherwise."""
    folder = folder.resolve()
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # left by an export that was killed
    beside.mkdir(parents=True)
    try:
        yield beside
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
