"""Names of exported files, which every common system can store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from pipeline_lib.data.images import SUFFIXES
from pipeline_lib.runtime.errors import DataError

#: Names that Windows keeps for devices, whatever follows after a dot.
#: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
MEND = "rename the image in the source, or use a format that numbers its files (celeba, webdataset)"


def file_name(image_id: str) -> str:
    """Return the name of an image's PNG file, with its folders."""
    path = PurePosixPath(image_id)
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix() + ".png"


def check_file_names(image_ids: Iterable[str]) -> None:
    """Check that every image has a file name of its own on every common system.

    Raises:
        DataError: a name is no file name on Windows, leads out of the folder, or differs from another one only in case.
    """
    taken: set[bytes] = set()
    for image_id in image_ids:
        name = file_name(image_id)
        for part in name.removesuffix(".png").split("/"):
            if reason := _reason(part):
                raise DataError(f"image {image_id}: `{part}` is no file name on Windows, because {reason}; {MEND}")
        digest = hashlib.blake2b(name.casefold().encode(), digest_size=8).digest()  # a tenth of the name's memory
        if digest in taken:
            raise DataError(f"image {image_id}: another image would be the file {name} on Windows, too; {MEND}")
        taken.add(digest)


def _reason(part: str) -> str | None:
    """Return why a part of a path is no file name; None if it is one."""
    if found := FORBIDDEN.search(part):
        return f"it has the character {found[0]!r}"
    if DEVICES.fullmatch(part):
        return "it is the name of a device"
    if part in ("", ".", "..") or part[-1] in ". ":
        return "it is empty or ends with a dot or a space"
    return None
