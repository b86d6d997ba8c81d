"""Edits of a JPEG file in its DCT blocks: those of the edit change, and every other byte of the image stays.

What an edit adds to the pixels is transformed, quantised by the file's own tables and added to the coefficients (ITU
T.81, A.3), so that nothing is compressed twice. Header, metadata and whatever follows the image are kept as they are.
The scan is coded anew (F.1.2) by the file's own Huffman tables, or by such as fit the new scan where the file has
tables of its own that lack a code.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.fft import dctn

from pipeline_lib.data.originals.errors import NotEditableError
from pipeline_lib.data.originals.huffman import (
    ZIGZAG,
    Channel,
    HuffmanTable,
    MissingCodeError,
    encode_scan,
    fitting_tables,
)
from pipeline_lib.runtime.errors import DataError

SIDE = 8  # of a block, in pixels
SOI, EOI, SOS, DQT, DHT, DRI, SOF, ADOBE = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, (0xC0, 0xC1), 0xEE
OTHER_FRAMES = {
    0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "progressive and arithmetic",
}  # fmt: skip


@dataclass(frozen=True)
class _Component:
    """A colour channel: its sampling factors, and the numbers of its tables."""

    horizontal: int
    vertical: int
    quantisation: int
    dc: int
    ac: int


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a JPEG file are, and what its header says."""

    height: int
    width: int
    components: list[_Component]
    quantisation: dict[int, np.ndarray]  # (8, 8) by the number of a table
    huffman: dict[tuple[int, int], HuffmanTable]  # by class (0: DC, 1: AC) and number
    tables: list[tuple[int, int]]  # start and end of each segment of Huffman tables
    restart: int  # interval in units of the scan, 0: none
    scan: tuple[int, int]  # start and end of the coded image


def check_jpeg(content: bytes) -> None:
    """Refuse a JPEG file into which no edit can be written.

    Raises:
        NotEditableError: it is not a baseline or extended JPEG of 8 bits in one scan, in grey or YCbCr.
    """
    _read_layout(content)


def edit_jpeg(path: Path, before: np.ndarray, after: np.ndarray) -> bytes:
    """Return the contents of a JPEG file with an edit.

    Args:
        path: the file.
        before: its pixels as they are decoded, uint8 (H, W, 3), or (H, W) of a grey one, without its orientation.
        after: the same with the edit, float or uint8 in [0, 255].

    Raises:
        NotEditableError: it cannot be written back.
        DataError: the package jpeglib is missing.
    """
    try:
        import jpeglib
    except ImportError:
        raise DataError(f"{path}: JPEG files need jpeglib; run `pip install latent-rebalance[photos]`") from None
    content = path.read_bytes()
    layout = _read_layout(content)
    if before.shape[:2] != (layout.height, layout.width):
        raise NotEditableError(f"decodes to {before.shape[1]} x {before.shape[0]}, its header says otherwise")
    read = jpeglib.read_dct(str(path))
    coefficients = [np.array(channel) for channel in (read.Y, read.Cb, read.Cr)[: len(layout.components)]]
    added = _channels(after.astype(np.float64) - before)
    highest = [max(getattr(component, name) for component in layout.components) for name in ("vertical", "horizontal")]
    for component, channel, blocks in zip(layout.components, added, coefficients, strict=True):
        steps = highest[0] // component.vertical, highest[1] // component.horizontal
        _add(blocks, channel, steps, layout.quantisation[component.quantisation])
    scans = [
        Channel(blocks, (one.vertical, one.horizontal), (one.dc, one.ac))
        for blocks, one in zip(coefficients, layout.components, strict=True)
    ]
    try:
        scan, head = encode_scan(scans, layout.huffman, layout.restart), content[: layout.scan[0]]
    except MissingCodeError:
        fitting = fitting_tables(scans, layout.restart)
        scan, head = encode_scan(scans, fitting, layout.restart), _with_tables(content, layout, fitting)
    return head + scan + content[layout.scan[1] :]


def _channels(added: np.ndarray) -> list[np.ndarray]:
    """Return what an edit adds to the channels of the file, from what it adds to grey or to RGB (JFIF)."""
    if added.ndim == 2:
        return [added]
    red, green, blue = added[..., 0], added[..., 1], added[..., 2]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return [luma, (blue - luma) / 1.772, (red - luma) / 1.402]


def _add(blocks: np.ndarray, channel: np.ndarray, steps: tuple[int, int], quantisation: np.ndarray) -> None:
    """Add to blocks (h, w, 8, 8) what is added to a channel (H, W), of which a sample stands for `steps` pixels."""
    rows, columns = (count * SIDE * step for count, step in zip(blocks.shape[:2], steps, strict=True))
    height, width = min(rows, channel.shape[0]), min(columns, channel.shape[1])
    whole = np.pad(channel[:height, :width], ((0, rows - height), (0, columns - width)), mode="edge")
    sampled = whole.reshape(rows // steps[0], steps[0], columns // steps[1], steps[1]).mean(axis=(1, 3))
    of_blocks = sampled.reshape(blocks.shape[0], SIDE, blocks.shape[1], SIDE).transpose(0, 2, 1, 3)
    touched = np.abs(of_blocks).max(axis=(2, 3)) > 0
    changes = dctn(of_blocks[touched], axes=(1, 2), norm="ortho") / quantisation
    limit = 1023  # of a coefficient of 8 bits
    blocks[touched] = np.clip(blocks[touched] + np.rint(changes), -limit, limit).astype(blocks.dtype)


def _read_layout(content: bytes) -> _Layout:
    """Read the header of a JPEG file.

    Raises:
        NotEditableError: it is of a kind that cannot be written back.
    """
    frame: tuple[int, int, list[tuple[int, ...]]] | None = None
    quantisation: dict[int, np.ndarray] = {}
    huffman: dict[tuple[int, int], HuffmanTable] = {}
    tables: list[tuple[int, int]] = []
    restart, transform = 0, 1
    for marker, start, end in _segments(content):
        body = content[start + 4 : end]
        if marker == DQT:
            quantisation |= _quantisation_tables(body)
        elif marker == DHT:
            tables.append((start, end))
            huffman |= _huffman_tables(body)
        elif marker == DRI:
            (restart,) = struct.unpack(">H", body[:2])
        elif marker == ADOBE and body.startswith(b"Adobe"):
            transform = body[11]
        elif marker in OTHER_FRAMES:
            raise NotEditableError(f"{OTHER_FRAMES[marker]} JPEG")
        elif marker in SOF:
            frame = _frame(body)
        elif marker == SOS:
            if frame is None:
                break
            return _Layout(
                *frame[:2],
                _components(frame[2], body, transform),
                quantisation,
                huffman,
                tables,
                restart,
                (end, _end_of_scan(content, end)),
            )
    raise NotEditableError("no JPEG header that can be read")


def _segments(content: bytes) -> Sequence[tuple[int, int, int]]:
    """Return marker, start and end of each segment up to the first scan's."""
    if content[:2] != bytes([0xFF, SOI]):
        raise NotEditableError("no JPEG")
    found, place = [], 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        found.append((marker, place, end))
        if marker == SOS:
            break
        place = end
    return found


def _frame(body: bytes) -> tuple[int, int, list[tuple[int, ...]]]:
    bits, height, width, count = struct.unpack(">BHHB", body[:6])
    if bits != 8:
        raise NotEditableError(f"JPEG of {bits} bits")
    if count not in (1, 3):
        raise NotEditableError(f"JPEG of {count} channels")
    return height, width, [tuple(body[6 + 3 * place : 9 + 3 * place]) for place in range(count)]


def _components(frame: list[tuple[int, ...]], scan: bytes, transform: int) -> list[_Component]:
    """Return the colour channels of a frame that one scan holds all of."""
    if scan[0] != len(frame):
        raise NotEditableError("JPEG in several scans")
    if len(frame) == 3 and (transform != 1 or bytes(one[0] for one in frame) == b"RGB"):
        raise NotEditableError("JPEG in RGB instead of YCbCr")
    numbers = {scan[1 + 2 * place]: divmod(scan[2 + 2 * place], 16) for place in range(scan[0])}
    found = [_Component(*divmod(sampling, 16), table, *numbers.get(name, (0, 0))) for name, sampling, table in frame]
    for axis in ("horizontal", "vertical"):
        highest = max(getattr(component, axis) for component in found)
        if any(highest % getattr(component, axis) for component in found):
            raise NotEditableError("JPEG with unusual sampling of its channels")
    return found


def _quantisation_tables(body: bytes) -> dict[int, np.ndarray]:
    found, place = {}, 0
    while place < len(body):
        wide, number = divmod(body[place], 16)
        kind = np.dtype(">u2" if wide else "u1")
        values = np.frombuffer(body, kind, 64, place + 1)
        table = np.zeros(64)
        table[ZIGZAG] = values
        found[number] = table.reshape(SIDE, SIDE)
        place += 1 + 64 * kind.itemsize
    return found


def _huffman_tables(body: bytes) -> dict[tuple[int, int], HuffmanTable]:
    found, place = {}, 0
    while place < len(body):
        counts = tuple(body[place + 1 : place + 17])
        end = place + 17 + sum(counts)
        found[divmod(body[place], 16)] = HuffmanTable(counts, tuple(body[place + 17 : end]))
        place = end
    return found


def _with_tables(content: bytes, layout: _Layout, tables: Mapping[tuple[int, int], HuffmanTable]) -> bytes:
    """Return the header with other Huffman tables, each in the segment in which it was."""
    parts, place = [], 0
    for start, end in layout.tables:
        of_segment = _huffman_tables(content[start + 4 : end])
        body = b"".join(
            bytes([key[0] << 4 | key[1], *table.counts, *table.symbols])
            for key, table in ((key, tables.get(key, own)) for key, own in of_segment.items())
        )
        parts += [content[place:start], bytes([0xFF, DHT]), struct.pack(">H", len(body) + 2), body]
        place = end
    return b"".join([*parts, content[place : layout.scan[0]]])


def _end_of_scan(content: bytes, start: int) -> int:
    """Return where the coded image ends: at the first marker that is neither a stuffed byte nor a restart."""
    place = start
    while (place := content.find(b"\xff", place)) >= 0 and place + 1 < len(content):
        following = content[place + 1]
        if following == EOI:
            return place
        if following != 0 and not 0xD0 <= following <= 0xD7:
            raise NotEditableError("JPEG in several scans")
        place += 2
    raise NotEditableError("JPEG whose image is cut off")
