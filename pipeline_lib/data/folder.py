"""A folder of images with a label table and optional part masks."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline_lib.config import FolderData
from pipeline_lib.data.images import PREPROCESSING, SUFFIXES, load_codes, open_photograph
from pipeline_lib.data.labels import Labels, image_name, read_labels
from pipeline_lib.data.sources import Item, LeftOut, Record, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError

SPLITS = {"train": "train", "held_out": "held_out"}


def open_folder(settings: FolderData) -> Source:
    """Read the label table, find its images in the folder, and split them.

    Raises:
        DataError: the table or the folder cannot be read, the table has a row that says nothing or is in doubt, two
            images have one mask, or a person is on both sides of the split.
    """
    labels = read_labels(settings, image_name, settings.split_column)
    held = _held_out(labels, settings)
    masks = None if settings.masks is None else settings.masks.resolve()
    files, unsearched = _list_files(settings.folder.resolve(), {settings.labels.resolve(), masks})
    found = _spelled(settings.folder, files, labels.names)
    mask_of = dict.fromkeys(labels.names) if masks is None else _masks_of(settings, labels.names, masks)
    used = {*found.values(), *(mask_of.values() if masks == settings.folder.resolve() else ())}
    items = [
        Item(name, (found.get(name, name), mask_of[name]), truth, person)
        for name, truth, person in zip(labels.names, labels.truth, labels.persons, strict=True)
    ]
    train, held_out = divide(items, held)
    return Source(
        train=train,
        held_out=held_out,
        read=partial(_read, settings),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
        left_out=_left_out([file for file in files if file not in used], unsearched, labels.names),
        missing=[name for name in labels.names if name not in found],
        values=labels.values,
    )


def _read(settings: FolderData, item: Item) -> Record:
    path, mask = item.origin
    photograph = open_photograph(settings.folder / path)
    codes = None
    if settings.masks is not None:
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


def _list_files(folder: Path, skipped: Collection[Path | None]) -> tuple[list[str], list[str]]:
    """Return the files below a folder, and the folders that are not searched because they are hidden or links.

    Both are paths relative to the folder, in order. What is skipped is in neither.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable")

    files, unsearched = [], []
    for place, folders, names in os.walk(folder, onerror=fail):
        inside = Path(place).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        closed = {name for name in folders if name.startswith(".") or Path(place, name).is_symlink()}
        unsearched += [prefix + name for name in closed]
        folders[:] = [name for name in folders if name not in closed and Path(place, name) not in skipped]
        files += [prefix + name for name in names]
    skipped_files = {path.relative_to(folder).as_posix() for path in skipped if path and path.is_relative_to(folder)}
    return sorted(set(files) - skipped_files), sorted(unsearched)


def _spelled(folder: Path, files: Sequence[str], wanted: Collection[str]) -> dict[str, str]:
    """Return the spelling on disk of each wanted path, which is in Unicode's form NFC."""
    wanted, found = set(wanted), {}
    for file in files:
        name = unicodedata.normalize("NFC", file)
        if name in wanted and found.setdefault(name, file) != file:
            raise DataError(f"{folder}: two files are named {name}, in different Unicode forms; remove one")
    return found


def _masks_of(settings: FolderData, names: Sequence[str], folder: Path) -> dict[str, str]:
    """Return the path of each image's mask in the folder of masks, as it is spelled there."""
    image_of: dict[str, str] = {}
    for name in names:
        mask = PurePosixPath(name).with_suffix(".png").as_posix()
        if image_of.setdefault(mask, name) != name:
            raise DataError(
                f"{settings.labels}: {image_of[mask]} and {name} have one mask, {mask}; rename one image and its mask"
            )
    found = _spelled(folder, _list_files(folder, ())[0], image_of)
    return {name: found.get(mask, mask) for mask, name in image_of.items()}


def _left_out(files: Sequence[str], unsearched: Sequence[str], names: Sequence[str]) -> list[LeftOut]:
    """Say why files and folders that are not searched are no images of the label table, which has the `names`."""
    found = [
        LeftOut(folder, "a hidden folder or a link to one, which is not searched")
        for folder in unsearched
        if not any(name.startswith(f"{folder}/") for name in names)
    ]
    for file in map(PurePosixPath, files):
        if file.name.startswith("."):
            reason = "a hidden file"
        elif file.suffix.lower() in SUFFIXES:
            reason = "a file without a row in the label table"
        else:
            reason = (
                f"no row in the label table, and {file.suffix.lower() or 'no suffix'} is no kind of image that is read"
            )
        found.append(LeftOut(os.fsencode(file).decode(errors="replace"), reason))
    return found
