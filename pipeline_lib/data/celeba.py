"""CelebA, and CelebA-HQ with the part masks of CelebAMask-HQ, in their published folder layout.

CelebA (Liu et al. 2015) lists attributes and partition in text files. CelebAMask-HQ (Lee et al. 2020) has one binary
mask per part, and a file that maps each of its images to the CelebA image it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.config import CelebAData, CelebAHQData
from pipeline_lib.config.names import CELEBA_HQ_PARTS
from pipeline_lib.data.images import PREPROCESSING, Photograph, open_photograph, square_codes
from pipeline_lib.data.sources import BadImageError, Item, Record, Source
from pipeline_lib.runtime.errors import DataError

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


def open_celeba(settings: CelebAData) -> Source:
    """List CelebA's aligned images by its own partition, of which validation, test or both are held out.

    Raises:
        DataError: a list file is missing or not in the published format.
    """
    attributes = read_attributes(_find(settings.folder, "list_attr_celeba.txt"), settings.attributes)
    partition = read_pairs(_find(settings.folder, "list_eval_partition.txt"))
    people = _read_people(settings)
    images = _find(settings.folder, "img_align_celeba")
    items = [Item(name, (images / name, None), truth, people.get(name)) for name, truth in attributes.items()]
    return _source([(item, partition.get(item.image_id)) for item in items], settings)


def open_celeba_hq(settings: CelebAHQData) -> Source:
    """List CelebA-HQ's images with their masks, by the partition of the CelebA image that each was made from.

    Raises:
        DataError: a list file is missing or not in the published format.
    """
    attributes = read_attributes(_find(settings.folder, "CelebAMask-HQ-attribute-anno.txt"), settings.attributes)
    original = read_mapping(_find(settings.folder, "CelebA-HQ-to-CelebA-mapping.txt"))
    partition, people = read_pairs(settings.partition), _read_people(settings)
    images, masks = _find(settings.folder, "CelebA-HQ-img"), _find(settings.folder, "CelebAMask-HQ-mask-anno")
    rows = []
    for name, truth in attributes.items():
        number = int(Path(name).stem)
        if number not in original:
            raise DataError(f"{settings.folder}: {name} has attributes but no line in CelebA-HQ-to-CelebA-mapping.txt")
        item = Item(name, (images / name, (masks, number)), truth, people.get(original[number]))
        rows.append((item, partition.get(original[number])))
    return _source(rows, settings)


def read_attributes(path: Path, wanted: list[str]) -> dict[str, dict[str, bool]]:
    """Read a list of attributes, with a line for their number, a line for their names and a line of 1 or -1 per image.

    Raises:
        DataError: the file is not such a list, or lacks a requested attribute.
    """
    lines = _lines(path)
    names = lines[1].split() if len(lines) > 1 else []
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{path}: no attribute {', '.join(missing)}; it has {', '.join(names) or 'none'}")
    columns = [1 + names.index(name) for name in wanted]
    found = {}
    for number, line in enumerate(lines[2:], start=3):
        cells = line.split()
        if len(cells) != 1 + len(names) or not {cells[column] for column in columns} <= {"1", "-1"}:
            raise DataError(f"{path}: line {number} is not a file name and {len(names)} values of 1 or -1")
        found[cells[0]] = {name: cells[column] == "1" for name, column in zip(wanted, columns, strict=True)}
    return found


def read_pairs(path: Path) -> dict[str, int]:
    """Read a list of file names with an integer each, such as the partition.

    Raises:
        DataError: the file is not such a list.
    """
    rows = [line.split() for line in _lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not row[1].isdigit():
            raise DataError(f"{path}: line {number} is not a file name and a number")
    return {name: int(value) for name, value in rows}


def read_mapping(path: Path) -> dict[int, str]:
    """Read the CelebA file of each CelebA-HQ image, from the columns idx, orig_idx and orig_file.

    Raises:
        DataError: the file is not such a list.
    """
    lines = _lines(path)
    if not lines or lines[0].split() != ["idx", "orig_idx", "orig_file"]:
        raise DataError(f"{path}: the first line must name the columns idx, orig_idx and orig_file")
    return {int(line.split()[0]): line.split()[2] for line in lines[1:]}


def load_parts(masks: Path, number: int, resolution: int, photograph: Photograph) -> np.ndarray:
    """Merge the binary part masks of one image.

    Returns:
        Indices into `CELEBA_HQ_PARTS`, uint8 of shape (resolution, resolution).

    Raises:
        BadImageError: a mask cannot be read, does not have the published size, or does not fit its photograph.
    """
    codes = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    folder = masks / str(number // IMAGES_PER_MASK_FOLDER)
    for name, part in MASKS.items():
        path = folder / f"{number:05d}_{name}.png"
        if path.exists():
            mask = np.asarray(open_photograph(path).image.convert("L"))
            if mask.shape != codes.shape:
                raise BadImageError(f"{path.name} is {mask.shape[1]} by {mask.shape[0]} pixels, not {MASK_SIDE} square")
            codes[mask > 127] = CELEBA_HQ_PARTS.index(part)
    if not codes.any():
        raise BadImageError(f"no masks {folder}/{number:05d}_*.png")
    return square_codes(Image.fromarray(codes), resolution, photograph, f"{folder.name}/{number:05d}_*.png")


def _source(items: Iterable[tuple[Item, int | None]], settings: CelebAData | CelebAHQData) -> Source:
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
    return Source(
        train=split["train"][: settings.images],
        held_out=split["held_out"][: settings.held_out],
        read=partial(_read, settings.resolution),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
    )


def _read(resolution: int, item: Item) -> Record:
    path, masks = item.origin
    photograph = open_photograph(path)
    codes = None if masks is None else load_parts(*masks, resolution, photograph)
    return photograph.square(resolution, codes)


def _read_people(settings: CelebAData | CelebAHQData) -> dict[str, str]:
    pairs = read_pairs(settings.identities) if settings.identities else {}
    return {name: str(number) for name, number in pairs.items()}


def _find(folder: Path, name: str) -> Path:
    """Find a published file in the folder itself or in the subfolders of the archives."""
    places = [folder, folder / "Anno", folder / "Eval", folder / "Img"]
    for place in places:
        if (place / name).exists():
            return place / name
    raise DataError(f"{folder}: no {name} here or in Anno, Eval or Img; unpack the dataset's archives here")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
