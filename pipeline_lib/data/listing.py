"""Which files of a folder may be images of a dataset, for the readers of folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from pipeline_lib.data.images import SUFFIXES
from pipeline_lib.data.sources import LeftOut
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import is_hidden


def list_files(folder: Path, skipped: Collection[Path] = ()) -> tuple[list[str], list[LeftOut]]:
    """Return the files below a folder by their paths relative to it, in order, and what is hidden or not searched.

    Args:
        folder: where to look.
        skipped: files and folders that are passed over in silence.

    Raises:
        DataError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable")

    files: list[str] = []
    others: list[LeftOut] = []
    for place, folders, names in os.walk(folder, onerror=fail):
        inside = Path(place).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        folders[:] = [name for name in folders if Path(place, name) not in skipped]
        for name in list(folders):
            if is_hidden(name) or Path(place, name).is_symlink():
                reason = "a hidden folder" if is_hidden(name) else "a link to a folder"
                others.append(left_out(prefix + name, f"{reason}, which is not searched"))
                folders.remove(name)
        for name in names:
            if is_hidden(name):
                others.append(left_out(prefix + name, "a hidden file"))
            elif Path(place, name) not in skipped:
                files.append(prefix + name)
    return sorted(files), sorted(others, key=lambda left: left.name)


def is_file(path: Path) -> bool:
    """Return whether a file is there; a path that is too long is none."""
    return os.path.isfile(path)  # noqa: PTH113 - that of Path raises an error


def is_image(name: str) -> bool:
    """Return whether a file is an image by its suffix."""
    return Path(name).suffix.lower() in SUFFIXES


def left_out(name: str, reason: str) -> LeftOut:
    """Return a file or folder that is left out; what of its name is not UTF-8 is replaced."""
    return LeftOut(os.fsencode(name).decode(errors="replace"), reason)


def normalised(name: str) -> str:
    """Return a name in Unicode's form NFC, in which a config and a label table name files.

    Raises:
        DataError: the name on disk is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{left_out(name, '').name}: the name of this file is not UTF-8; rename it") from None
    return unicodedata.normalize("NFC", name)
