"""Images in one folder for each class, as LSUN's scenes are exported: the folder's name is the label."""

from __future__ import annotations

from functools import partial

from pipeline_lib.config import ClassFolderData
from pipeline_lib.data.images import PREPROCESSING, load_square
from pipeline_lib.data.sources import Item, Record, Source
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def open_class_folders(settings: ClassFolderData) -> Source:
    """List the images of every class folder; an attribute holds if the image lies in one of its folders.

    Raises:
        DataError: a folder is missing or holds no image.
    """
    items = []
    for name in sorted(
        {folder for folders in settings.attributes.values() for folder in folders} | set(settings.others)
    ):
        folder = settings.folder / name
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise DataError(
                f"{folder}: no image ({', '.join(sorted(SUFFIXES))}); correct `data.attributes` or the folder"
            )
        truth = {attribute: name in folders for attribute, folders in settings.attributes.items()}
        items += [Item(path.relative_to(settings.folder).as_posix(), (path, truth)) for path in paths]
    order = seeding.numpy_generator(settings.seed, "held out").permutation(len(items))
    held_out = order < round(settings.held_out * len(items))
    return Source(
        train=[item for item, held in zip(items, held_out, strict=True) if not held],
        held_out=[item for item, held in zip(items, held_out, strict=True) if held],
        read=partial(_read, settings.resolution),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
    )


def _read(resolution: int, item: Item) -> Record:
    path, truth = item.origin
    return Record(load_square(path, resolution), None, truth)
