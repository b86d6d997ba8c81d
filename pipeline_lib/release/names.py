"""Names of exported files, which every common system can store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline_lib.data.images import SUFFIXES
from pipeline_lib.runtime.errors import DataError

#: Names that Windows keeps for devices, whatever follows after a dot.
#: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
MEND = "rename the image in the source, or use a format that numbers its files (celeba, webdataset)"


def file_names(image_ids: Sequence[str]) -> list[str]:
    """Return a PNG file name for each image, with its folders.

    Raises:
        DataError: a name is no file name on Windows, leads out of the folder, or differs from another one only in case.
    """
    names, taken = [], {}
    for image_id in image_ids:
        path = PurePosixPath(image_id)
        name = (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()
        for part in name.split("/"):
            if reason := _reason(part):
                raise DataError(f"image {image_id}: `{part}` is no file name on Windows, because {reason}; {MEND}")
        name += ".png"
        other = taken.setdefault(name.casefold(), image_id)
        if other != image_id:
            raise DataError(f"images {other} and {image_id}: both would be the file {name} on Windows; {MEND}")
        names.append(name)
    return names


def _reason(part: str) -> str | None:
    """Return why a part of a path is no file name; None if it is one."""
    if found := FORBIDDEN.search(part):
        return f"it has the character {found[0]!r}"
    if DEVICES.fullmatch(part):
        return "it is the name of a device"
    if part in ("", ".", "..") or part[-1] in ". ":
        return "it is empty or ends with a dot or a space"
    return None
