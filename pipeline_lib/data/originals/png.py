"""Edits of a PNG file: its pixels change, and every chunk that holds none of them stays as it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline_lib.data.originals.errors import NotEditableError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}  # mode by the colour type of a file


def check_png(content: bytes) -> None:
    """Refuse a PNG file into which no edit can be written.

    Raises:
        NotEditableError: it has a palette, is interlaced, or has other than 8 bits a channel.
    """
    _mode(content)


def edit_png(content: bytes, after: np.ndarray) -> bytes:
    """Return the contents of a PNG file with other pixels, uint8 (H, W) or (H, W, channels) in its own colour mode.

    Raises:
        NotEditableError: it cannot be written back.
    """
    coded = BytesIO()
    Image.fromarray(after, _mode(content)).save(coded, "PNG", compress_level=6)
    pixels = b"".join(chunk for name, chunk in _chunks(coded.getvalue()) if name == b"IDAT")
    parts, written = [SIGNATURE], False
    for name, chunk in _chunks(content):
        if name != b"IDAT":
            parts.append(chunk)
        elif not written:
            parts.append(pixels)
            written = True
    return b"".join(parts)


def _mode(content: bytes) -> str:
    name, header = next(_chunks(content), (b"", b""))
    if name != b"IHDR":
        raise NotEditableError("no PNG header that can be read")
    _, _, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header[8:21])
    if bits != 8:
        raise NotEditableError(f"PNG of {bits} bits")
    if kind not in KINDS:
        raise NotEditableError("PNG with a palette")
    if interlaced:
        raise NotEditableError("interlaced PNG")
    return KINDS[kind]


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and all bytes of each chunk."""
    place = len(SIGNATURE)
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place:end]
        place = end
