"""CelebA, and CelebA-HQ with the part masks of CelebAMask-HQ, in their published folder layout.

CelebA (Liu et al. 2015) lists attributes and partition in text files. CelebAMask-HQ (Lee et al. 2020) has one binary
mask per part, and a file that maps each of its images to the CelebA image it was made from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline_lib.config.base import Count, Folder
from pipeline_lib.config.columns import column_of
from pipeline_lib.config.messages import check_name
from pipeline_lib.config.names import CELEBA_ATTRIBUTES, CELEBA_HQ_PARTS
from pipeline_lib.data.images import PREPROCESSING, Photograph, open_photograph, square_codes
from pipeline_lib.data.labels import read_column, refuse_strangers
from pipeline_lib.data.listing import is_file
from pipeline_lib.data.reader import UNKNOWN, BadImages, Cell, Reader, Resolution
from pipeline_lib.data.sources import BadImageError, Item, Record, Source
from pipeline_lib.runtime.errors import DataError

VALUES = ("1", "-1", "")  # of an attribute; blank ones are unknown
TRAIN = 0  # in CelebA's partition
HELD_OUT = {"validation": {1}, "test": {2}, "both": {1, 2}}
IMAGES_PER_MASK_FOLDER = 2000
MASK_SIDE = 512

#: File of CelebAMask-HQ -> part, in its authors' order from back to front.
MASKS = {
    "skin": "skin",
    "nose": "nose",
    "eye_g": "glasses",
    "l_eye": "eyes",
    "r_eye": "eyes",
    "l_brow": "brows",
    "r_brow": "brows",
    "l_ear": "ears",
    "r_ear": "ears",
    "mouth": "mouth",
    "u_lip": "mouth",
    "l_lip": "mouth",
    "hair": "hair",
    "hat": "hat",
    "ear_r": "earrings",
    "neck_l": "necklace",
    "neck": "neck",
    "cloth": "clothes",
}


class _CelebA(Reader):
    """What CelebA and CelebA-HQ have in common."""

    folder: Folder
    identities: Path | None = Field(
        None, description="CelebA's identity_CelebA.txt; identities are then split between the two detectors"
    )
    attributes: list[str] = Field(["Smiling", "Male"], min_length=1, description="attributes to read")
    unknown: list[Cell] = Field([], description=UNKNOWN)
    images: Count | None = Field(None, description="number of training images, taken from the first on; null: all")
    held_out: Count | None = Field(None, description="number of held-out images, taken from the first on; null: all")
    held_out_from: Literal["both", "validation", "test"] = Field(
        "both", description="part of CelebA's partition that is held out"
    )
    bad_images: BadImages = 0.01

    def known_attributes(self) -> Sequence[str]:
        for name in self.attributes:
            check_name("data.attributes", column_of(name), CELEBA_ATTRIBUTES)
        return self.attributes


class CelebAData(_CelebA):
    """CelebA's aligned images as published; its validation images, test images or both are held out."""

    reader: Literal["celeba"] = Field(description="reader of the dataset")
    folder: Folder = Field(
        description="folder with img_align_celeba/, list_attr_celeba and list_eval_partition, both .txt or .csv"
    )
    resolution: Literal[32, 64, 128] = Field(
        128, description="side in pixels to which the centre crop of 178 pixels is resized"
    )

    def open(self) -> Source:
        """List CelebA's aligned images by its own partition, of which validation, test or both are held out.

        Raises:
            DataError: a list file is missing or not in the published format.
        """
        lists = [
            _find(self.folder, f"{name}.txt", f"{name}.csv") for name in ("list_attr_celeba", "list_eval_partition")
        ]
        attributes, partition = read_attributes(lists[0], self.attributes, self.unknown), read_pairs(lists[1])
        people = _read_people(self)
        images = _find(self.folder, "img_align_celeba/img_align_celeba", "img_align_celeba")  # Kaggle's are nested
        items = [Item(name, (images / name, None), truth, people.get(name)) for name, truth in attributes.items()]
        return _source([(item, partition.get(item.image_id)) for item in items], self)


class CelebAHQData(_CelebA):
    """CelebA-HQ with the part masks of CelebAMask-HQ; CelebA's validation images, test images or both are held out."""

    reader: Literal["celeba-hq"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder with CelebA-HQ-img/, CelebAMask-HQ-mask-anno/ and two text files")
    partition: Path = Field(description="CelebA's list_eval_partition, .txt or .csv")
    resolution: Resolution = 256

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first."""
        return CELEBA_HQ_PARTS

    def open(self) -> Source:
        """List CelebA-HQ's images with their masks, by the partition of the CelebA image that each was made from.

        Raises:
            DataError: a list file is missing or not in the published format.
        """
        anno = _find(self.folder, "CelebAMask-HQ-attribute-anno.txt")
        attributes = read_attributes(anno, self.attributes, self.unknown)
        original = read_mapping(_find(self.folder, "CelebA-HQ-to-CelebA-mapping.txt"))
        partition, people = read_pairs(self.partition), _read_people(self)
        images, masks = _find(self.folder, "CelebA-HQ-img"), _find(self.folder, "CelebAMask-HQ-mask-anno")
        rows = []
        for name, truth in attributes.items():
            stem = Path(name).stem
            if not stem.isdecimal():
                raise DataError(f"{anno}: {name} is not the number of an image, as in 0.jpg; download the list again")
            number = int(stem)
            if number not in original:
                raise DataError(f"{self.folder}: {name} has attributes but no line in CelebA-HQ-to-CelebA-mapping.txt")
            item = Item(name, (images / name, (masks, number)), truth, people.get(original[number]))
            rows.append((item, partition.get(original[number])))
        return _source(rows, self)


def read_attributes(path: Path, wanted: list[str], unknown: Sequence[str] = ()) -> dict[str, dict[str, bool | None]]:
    """Read a list of attributes, of which each image has 1 or -1.

    The published text has a line for the number of images, a line for the names of the attributes and a line for each
    image. Kaggle's CSV has a line of names, of which the first is that of the images.

    Raises:
        DataError: the file is not such a list, lacks a requested attribute, or names an image twice.
    """
    rows = _fields(path)
    header, rows = (rows[:1], rows[1:]) if _is_csv(path) else (rows[1:2], rows[2:])
    columns = header[0][1][_is_csv(path) :] if header else []
    for number, fields in rows:
        if len(fields) != len(columns) + 1:
            raise DataError(f"{path}: line {number} is not a file name and {len(columns)} values of 1 or -1")
    column = {attribute: column_of(attribute, columns) for attribute in wanted}
    if missing := [name for name in column.values() if name not in columns]:
        raise DataError(f"{path}: no attribute {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    cells = {name: [fields[1 + columns.index(name)] for _, fields in rows] for name in column.values()}
    refuse_strangers(unknown, cells, path)
    images = _each_once(path, [fields[0] for _, fields in rows])
    for name, found in cells.items():
        odd = next((row for row, cell in enumerate(found) if cell not in {*VALUES, *unknown}), None)
        if name in column and odd is not None:
            raise DataError(
                f"{path}: {images[odd]}: `{name}` is {found[odd]!r}, neither 1 nor -1; "
                "say in `data.unknown` if it means unknown"
            )
    truth = {
        attribute: read_column(cells[name], attribute, unknown, lambda row: f"{path}: {images[row]}", name)
        for attribute, name in column.items()
    }
    of_images = (dict(zip(truth, values, strict=True)) for values in zip(*truth.values(), strict=True))
    return dict(zip(images, of_images, strict=True))


def read_pairs(path: Path) -> dict[str, int]:
    """Read a list of file names with an integer each, such as the partition, as text or as Kaggle's CSV with a header.

    Raises:
        DataError: the file is not such a list, or names an image twice.
    """
    rows = _fields(path)[_is_csv(path) :]
    for number, fields in rows:
        if len(fields) != 2 or not fields[1].isdecimal():
            raise DataError(f"{path}: line {number} is not a file name and a number")
    _each_once(path, [name for _, (name, _) in rows])
    return {name: int(value) for _, (name, value) in rows}


def read_mapping(path: Path) -> dict[int, str]:
    """Read the CelebA file of each CelebA-HQ image, from the columns idx, orig_idx and orig_file.

    Raises:
        DataError: the file is not such a list.
    """
    rows = _fields(path)
    if not rows or rows[0][1] != ["idx", "orig_idx", "orig_file"]:
        raise DataError(f"{path}: the first line must name the columns idx, orig_idx and orig_file")
    for number, fields in rows[1:]:
        if len(fields) != 3 or not fields[0].isdecimal():
            raise DataError(f"{path}: line {number} is not two numbers and a file name; download the list again")
    return {int(index): original for _, (index, _, original) in rows[1:]}


def load_parts(masks: Path, number: int, resolution: int, photograph: Photograph) -> np.ndarray:
    """Merge the binary part masks of one image.

    Returns:
        Indices into `CELEBA_HQ_PARTS`, uint8 of shape (resolution, resolution).

    Raises:
        BadImageError: a mask cannot be read, does not have the published size, or does not fit its photograph.
    """
    codes = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    name = f"{number // IMAGES_PER_MASK_FOLDER}/{number:05d}_*.png"
    for path, part in _mask_files(masks, number):
        if path.exists():
            mask = np.asarray(open_photograph(path).image.convert("L"))
            if mask.shape != codes.shape:
                raise BadImageError(f"{path.name} is {mask.shape[1]} by {mask.shape[0]} pixels, not {MASK_SIDE} square")
            codes[mask > 127] = CELEBA_HQ_PARTS.index(part)
    if not codes.any():
        raise BadImageError(f"no masks {masks / name}")
    return square_codes(Image.fromarray(codes), resolution, photograph, name)


def _mask_files(masks: Path, number: int) -> list[tuple[Path, str]]:
    """Return the files that an image's masks may have, with the part of each, from back to front."""
    folder = masks / str(number // IMAGES_PER_MASK_FOLDER)
    return [(folder / f"{number:05d}_{name}.png", part) for name, part in MASKS.items()]


def _is_there(path: Path, masks: tuple[Path, int] | None) -> bool:
    return is_file(path) and (masks is None or any(is_file(mask) for mask, _ in _mask_files(*masks)))


def _source(items: Iterable[tuple[Item, int | None]], settings: _CelebA) -> Source:
    split: dict[str, list[Item]] = {"train": [], "held_out": []}
    for item, partition in items:
        if partition is None:
            raise DataError(f"{settings.folder}: {item.image_id} has no partition; download the lists again")
        if settings.identities and item.person is None:
            raise DataError(f"{settings.identities}: no line for the image of {item.image_id}; download the list again")
        if partition == TRAIN:
            split["train"].append(item)
        elif partition in HELD_OUT[settings.held_out_from]:
            split["held_out"].append(item)
    train, held_out = split["train"][: settings.images], split["held_out"][: settings.held_out]
    return Source(
        train=train,
        held_out=held_out,
        read=partial(_read, settings.resolution),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
        missing=[item.image_id for item in (*train, *held_out) if not _is_there(*item.origin)],
    )


def _read(resolution: int, item: Item) -> Record:
    path, masks = item.origin
    photograph = open_photograph(path)
    codes = None if masks is None else load_parts(*masks, resolution, photograph)
    return photograph.square(resolution, codes)


def _read_people(settings: _CelebA) -> dict[str, str]:
    pairs = read_pairs(settings.identities) if settings.identities else {}
    return {name: str(number) for name, number in pairs.items()}


def _find(folder: Path, *names: str) -> Path:
    """Find a published file, by the first of its names, in the folder itself or in the subfolders of the archives."""
    for name in names:
        for place in (folder, folder / "Anno", folder / "Eval", folder / "Img"):
            if (place / name).exists():
                return place / name
    raise DataError(
        f"{folder}: no {' or '.join(names)} here or in Anno, Eval or Img; unpack the dataset's archives here"
    )


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _each_once(path: Path, images: list[str]) -> list[str]:
    if len(set(images)) < len(images):
        twice = next(name for place, name in enumerate(images) if images.index(name) < place)
        raise DataError(f"{path}: {twice} appears in two lines; download the list again")
    return images


def _fields(path: Path) -> list[tuple[int, list[str]]]:
    """Return the fields of each line that is not blank, with its number; those of a text have blanks between them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file) if _is_csv(path) else (line.split() for line in file)
            return [(number, fields) for number, fields in enumerate(lines, start=1) if any(fields)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
