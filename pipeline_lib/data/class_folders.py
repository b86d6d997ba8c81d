"""Images in one folder for each class, as in exported LSUN scenes, where the folder's name is the label."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pipeline_lib.config import ClassFolderData
from pipeline_lib.data.images import PREPROCESSING, SUFFIXES, read_file
from pipeline_lib.data.sources import Item, LeftOut, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import is_hidden


def open_class_folders(settings: ClassFolderData) -> Source:
    """List the images of every class folder; an image has an attribute if it is in one of the attribute's folders.

    Raises:
        DataError: a folder is missing or contains no image, or an image is in two of them.
    """
    classes = {name: set(map(Path, folders)) for name, folders in settings.attributes.items()}
    named = set(map(Path, settings.others)).union(*classes.values())
    items: list[Item] = []
    left_out = [
        LeftOut(path.name, "a folder that is no class of `data.attributes` or `data.others`")
        for path in sorted(settings.folder.iterdir())
        if path.is_dir() and not any(Path(path.name) in (name, *name.parents) for name in named)
    ]
    class_of: dict[Path, Path] = {}
    for name in sorted(named):
        images, others = _list_files(settings.folder / name)
        if not images:
            raise DataError(
                f"{settings.folder / name}: no images ({', '.join(sorted(SUFFIXES))}); correct `data.attributes` or "
                "the folder"
            )
        truth = {attribute: name in folders for attribute, folders in classes.items()}
        for path in images:
            if class_of.setdefault(path, name) != name:
                raise DataError(
                    f"{path}: this image is in two classes, {class_of[path]} and {name}; name class folders in "
                    "`data.attributes` and `data.others` of which none is in another"
                )
            items.append(Item(path.relative_to(settings.folder).as_posix(), path, truth))
        left_out += [LeftOut(path.relative_to(settings.folder).as_posix(), reason) for path, reason in others]
    train, held_out = divide(items, hold_out(len(items), settings.held_out, settings.seed))
    return Source(
        train=train,
        held_out=held_out,
        read=partial(read_file, settings.resolution),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
        left_out=left_out,
    )


def _list_files(top: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the images in a folder and the folders below it, and what else is there with the reason to leave it."""
    images: list[Path] = []
    others: list[tuple[Path, str]] = []
    for folder, below, files in os.walk(top):
        for path in [Path(folder, name) for name in below]:
            if is_hidden(path.name) or path.is_symlink():
                others.append((path, "a hidden folder" if is_hidden(path.name) else "a link to a folder"))
                below.remove(path.name)
        for path in [Path(folder, name) for name in files]:
            if is_hidden(path.name):
                others.append((path, "a hidden file"))
            elif path.suffix.lower() in SUFFIXES:
                images.append(path)
            else:
                others.append((path, "a file of a type that is not read"))
    return sorted(images), sorted(others)
