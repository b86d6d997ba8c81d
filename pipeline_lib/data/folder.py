"""A folder of images with a label table and optional part masks."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline_lib.config import FolderData
from pipeline_lib.data.images import PREPROCESSING, load_codes, open_photograph
from pipeline_lib.data.labels import Labels, image_name, read_labels
from pipeline_lib.data.listing import is_file, is_image, left_out, list_files
from pipeline_lib.data.sources import BadImageError, Item, LeftOut, Record, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError

SPLITS = {"train": "train", "held_out": "held_out"}


def open_folder(settings: FolderData) -> Source:
    """Read the label table, find its images in the folder, and split them.

    Raises:
        DataError: the table or the folder cannot be read, the table has a row that says nothing or is in doubt, or two
            images have one mask.
    """
    labels = read_labels(settings, image_name, settings.split_column)
    held = _held_out(labels, settings)
    folder, masks = settings.folder.resolve(), None if settings.masks is None else settings.masks.resolve()
    files, others = list_files(folder, {settings.labels.resolve(), *([] if masks is None else [masks])})
    found = _spelled(folder, files, labels.names)
    mask_of = {} if masks is None else _masks_of(settings, labels.names, masks)
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
        read=partial(_read, settings),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
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
