"""Images in one folder for each class, as in exported LSUN scenes, where the folder's name is the label."""

from __future__ import annotations

from functools import partial

from pipeline_lib.config import ClassFolderData
from pipeline_lib.data.images import PREPROCESSING, SUFFIXES, read_file
from pipeline_lib.data.sources import Item, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError


def open_class_folders(settings: ClassFolderData) -> Source:
    """List the images of every class folder; an image has an attribute if it is in one of the attribute's folders.

    Raises:
        DataError: a folder is missing or contains no image.
    """
    items = []
    for name in sorted(set(settings.others).union(*settings.attributes.values())):
        folder = settings.folder / name
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise DataError(
                f"{folder}: no images ({', '.join(sorted(SUFFIXES))}); correct `data.attributes` or the folder"
            )
        truth = {attribute: name in folders for attribute, folders in settings.attributes.items()}
        items += [Item(path.relative_to(settings.folder).as_posix(), path, truth) for path in paths]
    train, held_out = divide(items, hold_out(len(items), settings.held_out, settings.seed))
    return Source(
        train=train,
        held_out=held_out,
        read=partial(read_file, settings.resolution),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
    )
