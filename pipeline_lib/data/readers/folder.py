"""A folder of images with a label table and optional part masks."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline_lib.config.base import Folder, Share
from pipeline_lib.data.images import PREPROCESSING, load_codes, open_photograph
from pipeline_lib.data.labels import Labels, image_name, read_labels
from pipeline_lib.data.listing import is_file, is_image, left_out, list_files
from pipeline_lib.data.reader import TABLE, BadImages, Cell, Resolution, TableReader
from pipeline_lib.data.sources import BadImageError, Item, LeftOut, Record, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError

SPLITS = {"train": "train", "held_out": "held_out"}


class FolderData(TableReader):
    """A folder of images with a label table and optional part masks."""

    reader: Literal["folder"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder of the images; those without a row in the label table are left out")
    labels: Path = Field(description=f"{TABLE}, one row per image")
    id_column: str = Field("image", description="column with the path of the image, relative to `folder`")
    edited_labels: Literal["known", "confirmed"] = Field(
        "known",
        description="what edited images of an export of this library are taken to show; known: what was labelled, "
        "drawn or carried over, and else nothing; confirmed: else the value aimed at, if `confirmed_by` names anybody",
    )
    split_column: str | None = Field(None, description="column with `train` or `held_out`; null: split at random")
    split_values: dict[Cell, Literal["train", "held_out"]] | None = Field(
        None, description="what the cells of `split_column` mean, such as {0: train, 2: held_out}; null: as written"
    )
    held_out: Share = Field(0.1, description="share of held-out images in a random split")
    masks: Folder | None = Field(
        None, description="folder of part masks <image>.png whose pixel values are part codes; null: swap a box"
    )
    parts: list[str] = Field([], description="names of the part codes, starting at 0")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    seed: int = Field(0, description="seed of the random split")

    @model_validator(mode="after")
    def _masks_have_names(self) -> FolderData:
        if (self.masks is None) != (not self.parts):
            raise ValueError("`masks` and `parts` must be set together, a folder of masks and the names of its codes")
        return self

    @model_validator(mode="after")
    def _split_values_have_a_column(self) -> FolderData:
        if self.split_values and self.split_column is None:
            raise ValueError("`split_values` are cells of `split_column`, which is not set; set it")
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks; empty without masks."""
        return tuple(self.parts)

    def known_attributes(self) -> Sequence[str]:
        self.check_columns("id_column", "person_column", "split_column")
        return self.attributes

    def open(self) -> Source:
        """Read the label table, find its images in the folder, and split them.

        Raises:
            DataError: the table or the folder cannot be read, the table has a row that says nothing or is in doubt, or
                two images have one mask.
        """
        labels = read_labels(self, image_name, self.split_column, self.edited_labels == "confirmed")
        held = _held_out(labels, self)
        folder, masks = self.folder.resolve(), None if self.masks is None else self.masks.resolve()
        files, others = list_files(folder, {self.labels.resolve(), *([] if masks is None else [masks])})
        found = _spelled(folder, files, labels.names)
        mask_of = {} if masks is None else _masks_of(self, labels.names, masks)
        used = {*found.values(), *(mask_of.values() if masks == folder else ())}
        places = {part.as_posix() for name in used for part in (PurePosixPath(name), *PurePosixPath(name).parents)}
        items = [
            Item(name, (found.get(name, name), mask_of.get(name)), truth, person)
            for name, truth, person in zip(labels.names, labels.truth, labels.persons, strict=True)
        ]
        train, held_out = divide(items, held)
        return Source(
            train=train,
            held_out=held_out,
            read=partial(_read, self),
            preprocessing=PREPROCESSING,
            tolerated=self.bad_images,
            left_out=[
                *(left for left in others if left.name not in places),
                *(_left_out(file) for file in files if file not in used),
            ],
            missing=[name for name in labels.names if name not in found or (masks is not None and name not in mask_of)],
            values=labels.values,
        )


def _read(settings: FolderData, item: Item) -> Record:
    path, mask = item.origin
    photograph = open_photograph(settings.folder / path)
    codes = None
    if settings.masks is not None:
        if mask is None:
            raise BadImageError(f"no file {(settings.masks / item.image_id).with_suffix('.png')}")
        codes = load_codes(settings.masks / mask, settings.resolution, len(settings.parts), photograph)
    return photograph.square(settings.resolution, codes)


def _held_out(labels: Labels, settings: FolderData) -> np.ndarray:
    if labels.splits is None:
        return hold_out(len(labels.names), settings.held_out, settings.seed, labels.persons)
    meaning = settings.split_values or SPLITS
    for name, split in zip(labels.names, labels.splits, strict=True):
        if split not in meaning:
            raise DataError(
                f"{settings.labels}: `{settings.split_column}` is {split!r} for {name}; it must be one of "
                f"{', '.join(meaning)}, or say in `data.split_values` what it means"
            )
    return np.array([meaning[split] == "held_out" for split in labels.splits], bool)


def _spelled(folder: Path, files: Sequence[str], wanted: Collection[str]) -> dict[str, str]:
    """Return the spelling on disk of each wanted path that is there, which is in Unicode's form NFC.

    The `files` are those that were searched; a path that is hidden or behind a link is there as it is written.
    """
    wanted, found = set(wanted), {}
    for file in files:
        name = unicodedata.normalize("NFC", file)
        if name in wanted and found.setdefault(name, file) != file:
            raise DataError(f"{folder}: two files are named {name}, in different Unicode forms; remove one")
    return found | {name: name for name in wanted - found.keys() if is_file(folder / name)}


def _masks_of(settings: FolderData, names: Sequence[str], folder: Path) -> dict[str, str]:
    """Return the path of each image's mask that is in the folder of masks, as it is spelled there."""
    image_of: dict[str, str] = {}
    for name in names:
        mask = PurePosixPath(name).with_suffix(".png").as_posix()
        if image_of.setdefault(mask, name) != name:
            raise DataError(
                f"{settings.labels}: {image_of[mask]} and {name} have one mask, {mask}; rename one image and its mask"
            )
    found = _spelled(folder, list_files(folder)[0], image_of)
    return {name: found[mask] for mask, name in image_of.items() if mask in found}


def _left_out(file: str) -> LeftOut:
    """Say why a file is no image of the label table."""
    if is_image(file):
        return left_out(file, "a file without a row in the label table")
    suffix = PurePosixPath(file).suffix.lower() or "no suffix"
    return left_out(file, f"no row in the label table, and {suffix} is no kind of image that is read")
