"""FFHQ (Karras et al. 2019) as published, with a label table, since the dataset itself has no attributes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline_lib.config.base import Count, Folder
from pipeline_lib.data.images import PREPROCESSING, read_file
from pipeline_lib.data.labels import read_labels
from pipeline_lib.data.listing import is_file
from pipeline_lib.data.reader import TABLE, BadImages, Resolution, TableReader
from pipeline_lib.data.sources import Item, LeftOut, Source
from pipeline_lib.runtime.errors import DataError

PARTS_OF_ENTRY = {"images": "image", "thumbnails": "thumbnail"}  # folder on disk -> entry in the JSON


class FFHQData(TableReader):
    """FFHQ as published, with a label table; its validation images are held out."""

    reader: Literal["ffhq"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder with images1024x1024/ or thumbnails128x128/")
    metadata: Path = Field(description="path of ffhq-dataset-v2.json")
    files: Literal["images", "thumbnails"] = Field(
        "images", description="files to read: images of 1024 pixels or thumbnails of 128"
    )
    images: Count | None = Field(
        None, description="number of training images, taken from the first labelled one on; null: all"
    )
    held_out: Count | None = Field(None, description="number of held-out images, likewise; null: all")
    labels: Path = Field(description=f"{TABLE}, one row per image; FFHQ itself has none")
    id_column: str = Field("image_number", description="column with the image's number")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01

    def open(self) -> Source:
        """List the labelled images; those of the category `validation` in the dataset's JSON are held out.

        Raises:
            DataError: the JSON or the labels cannot be read, or a labelled image is not in the JSON.
        """
        entries = _read_entries(self.metadata)
        labels = read_labels(self, _number)
        split: dict[str, list[Item]] = {"training": [], "validation": []}
        for number, attributes, person in zip(labels.names, labels.truth, labels.persons, strict=True):
            entry = entries.get(number)
            try:
                path = self.folder / entry[PARTS_OF_ENTRY[self.files]]["file_path"]
                split[entry["category"]].append(Item(_padded(number), path, attributes, person))
            except (TypeError, KeyError):
                raise DataError(f"{self.labels}: image {number} has no entry in {self.metadata}") from None
        train, held_out = split["training"][: self.images], split["validation"][: self.held_out]
        others = sorted(entries.keys() - set(labels.names), key=_padded)
        return Source(
            train=train,
            held_out=held_out,
            read=partial(read_file, self.resolution),
            preprocessing=PREPROCESSING,
            tolerated=self.bad_images,
            left_out=[LeftOut(_padded(number), "an image without a row in the label table") for number in others],
            values=labels.values,
            missing=[item.image_id for item in (*train, *held_out) if not is_file(item.origin)],
        )


def _number(text: str) -> str:
    """Return an image's number as the JSON has it, `7` for `00007`."""
    if not text.isdecimal():
        raise ValueError("not the number of an image; write it with digits alone")
    return str(int(text))


def _padded(number: str) -> str:
    return f"{number:0>5}"


def _read_entries(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        with path.open() as file:
            entries = json.load(file)
        if not isinstance(entries, dict):
            raise ValueError("a list, not entries by number")
        return entries
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); download ffhq-dataset-v2.json again") from None
