"""FFHQ (Karras et al. 2019) as published, with a label table, since the dataset itself has no attributes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from pipeline_lib.config import FFHQData
from pipeline_lib.data.folder import read_labels, read_truth
from pipeline_lib.data.images import PREPROCESSING, read_file
from pipeline_lib.data.sources import Item, Source
from pipeline_lib.runtime.errors import DataError

PARTS_OF_ENTRY = {"images": "image", "thumbnails": "thumbnail"}  # folder on disk -> entry in the JSON


def open_ffhq(settings: FFHQData) -> Source:
    """List the labelled images; those of the category `validation` in the dataset's JSON are held out.

    Raises:
        DataError: the JSON or the labels cannot be read, or a labelled image is not in the JSON.
    """
    entries = _read_entries(settings.metadata)
    table = read_labels(settings.labels, settings.id_column)
    truth = read_truth(table, settings.labels, settings.id_column, settings.attributes)
    split: dict[str, list[Item]] = {"training": [], "validation": []}
    for number, attributes in zip(table[settings.id_column].astype(str), truth, strict=True):
        entry = entries.get(str(int(number)) if number.isdigit() else number)
        try:
            path = settings.folder / entry[PARTS_OF_ENTRY[settings.files]]["file_path"]
            split[entry["category"]].append(Item(f"{int(number):05d}", path, attributes))
        except (TypeError, KeyError):
            raise DataError(f"{settings.labels}: image {number} has no entry in {settings.metadata}") from None
    return Source(
        train=split["training"][: settings.images],
        held_out=split["validation"][: settings.held_out],
        read=partial(read_file, settings.resolution),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
    )


def _read_entries(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        with path.open() as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); download ffhq-dataset-v2.json again") from None
