"""Images in one folder for each class, as in exported LSUN scenes, where the folder's name is the label."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from pipeline_lib.config.base import Folder, Share
from pipeline_lib.data.images import PREPROCESSING, SUFFIXES, read_file
from pipeline_lib.data.listing import is_image, left_out, list_files, normalised
from pipeline_lib.data.reader import BadImages, Reader, Resolution
from pipeline_lib.data.sources import Item, LeftOut, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError


class ClassFolderData(Reader):
    """One folder for each class, as in exported LSUN scenes, where the folder's name is the label."""

    reader: Literal["class-folders"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder with a subfolder for each class")
    attributes: dict[str, list[str]] = Field(
        min_length=1, description="class folders whose images have the attribute, by attribute"
    )
    others: list[str] = Field([], description="further class folders, whose images have no attribute")
    held_out: Share = Field(0.1, description="share of held-out images, split off at random")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    seed: int = Field(0, description="seed of the random split")

    @property
    def plain_names(self) -> list[str]:
        return list(self.attributes)

    def known_attributes(self) -> Sequence[str]:
        named = {f"attributes.{attribute}": folders for attribute, folders in self.attributes.items()}
        for key, folders in {**named, "others": self.others}.items():
            for folder in (self.folder / name for name in folders):
                if not folder.is_dir():
                    raise ValueError(f"`data.{key}`: no folder {folder}; correct the name")
        return self.plain_names

    def open(self) -> Source:
        """List the images of every class folder; an image has an attribute if it is in one of the attribute's folders.

        Raises:
            DataError: a folder is missing or contains no image, an image is in two of them, or a name is not UTF-8 or
                twice there in different Unicode forms.
        """
        classes = {name: set(map(Path, folders)) for name, folders in self.attributes.items()}
        named = sorted(set(map(Path, self.others)).union(*classes.values()))
        place_of = {name: _place(self.folder, name) for name in named}
        items: dict[str, Item] = {}
        class_of: dict[str, Path] = {}
        left: list[LeftOut] = []
        for name, place in place_of.items():
            files, others = list_files(place)
            within = PurePosixPath(place.relative_to(self.folder))
            if not any(map(is_image, files)):
                raise DataError(
                    f"{place}: no images ({', '.join(sorted(SUFFIXES))}); correct `data.attributes` or the folder"
                )
            truth = {attribute: name in folders for attribute, folders in classes.items()}
            for path in sorted(place / file for file in files if is_image(file)):
                image_id = normalised(path.relative_to(self.folder).as_posix())
                if image_id in items:
                    if items[image_id].origin != path:
                        raise DataError(f"{path}: two files have this name, in different Unicode forms; remove one")
                    raise DataError(
                        f"{path}: this image is in two classes, {class_of[image_id]} and {name}; name class folders in "
                        "`data.attributes` and `data.others` of which none is in another"
                    )
                class_of[image_id], items[image_id] = name, Item(image_id, path, truth)
            others += [left_out(file, "a file of a type that is not read") for file in files if not is_image(file)]
            left += [LeftOut(str(within / other.name), other.reason) for other in others]
        left += _strays(self.folder, [place.relative_to(self.folder) for place in place_of.values()])
        train, held_out = divide(list(items.values()), hold_out(len(items), self.held_out, self.seed))
        return Source(
            train=train,
            held_out=held_out,
            read=partial(read_file, self.resolution),
            preprocessing=PREPROCESSING,
            tolerated=self.bad_images,
            left_out=left,
        )


def _place(folder: Path, name: Path) -> Path:
    """Return where a class folder is, which a disk may spell in another Unicode form."""
    for part in name.parts:
        wanted = unicodedata.normalize("NFC", part)
        same = [path for path in folder.glob("*/") if unicodedata.normalize("NFC", path.name) == wanted]
        if len(same) != 1:
            fault = "two folders have this name, in different Unicode forms" if same else "no such folder"
            raise DataError(f"{folder / part}: {fault}; correct `data.attributes` or the folder")
        folder = same[0]
    return folder


def _strays(folder: Path, classes: list[Path]) -> Iterator[LeftOut]:
    """Yield what is in no class; of a folder that holds none, the folder alone."""
    if Path() in classes:
        return
    files, others = list_files(folder, {folder / name for name in classes})
    yield from others
    above = {PurePosixPath(parent) for name in classes for parent in name.parents}
    seen = set()
    for file in map(PurePosixPath, files):
        stray = next((parent for parent in reversed(file.parents) if parent not in above), file)
        if stray not in seen:
            seen.add(stray)
            kind = "file" if stray == file else "folder"
            yield left_out(str(stray), f"a {kind} that is in no class of `data.attributes` or `data.others`")
