"""Huffman coding of quantised DCT coefficients into the scan of a baseline JPEG file (ITU T.81, F.1.2 and K.2)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

AREA = 64


def _diagonal(row: int, column: int) -> tuple[int, int]:
    """Return the diagonal of a coefficient, and its place there: in turns from below and from above."""
    return row + column, column if (row + column) % 2 == 0 else row


#: Place in a block, row by row, of each coefficient in zigzag order.
ZIGZAG = np.array(sorted(range(AREA), key=lambda place: _diagonal(*divmod(place, 8))))
END_OF_BLOCK, SIXTEEN_ZEROS = 0x00, 0xF0
LONGEST = 16  # bits of a code


class MissingCodeError(Exception):
    """A Huffman table has no code for a symbol."""


@dataclass(frozen=True)
class HuffmanTable:
    """A Huffman table as a JPEG file has it: the number of codes of each length from 1 to 16, and their symbols."""

    counts: tuple[int, ...]
    symbols: tuple[int, ...]

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return code and length of each symbol, both (256,); a length of 0 means that it has none."""
        codes, lengths = np.zeros(256, np.int64), np.zeros(256, np.int64)
        code, position = 0, 0
        for length, count in enumerate(self.counts, start=1):
            for symbol in self.symbols[position : position + count]:
                codes[symbol], lengths[symbol] = code, length
                code += 1
            position += count
            code <<= 1
        return codes, lengths


class Channel(NamedTuple):
    """A colour channel of a scan: blocks (h, w, 8, 8), sampling factors, and the numbers of its DC and AC tables."""

    blocks: np.ndarray
    sampling: tuple[int, int]
    tables: tuple[int, int]


class _Symbols(NamedTuple):
    """The symbols of a scan in order: table's class and number, symbol, extra bits and their count, and interval."""

    kind: np.ndarray
    number: np.ndarray
    symbol: np.ndarray
    extra: np.ndarray
    bits: np.ndarray
    interval: np.ndarray


def encode_scan(channels: Sequence[Channel], tables: Mapping[tuple[int, int], HuffmanTable], restart: int = 0) -> bytes:
    """Return the coded scan of an image.

    Args:
        channels: its colour channels, interleaved if there are several.
        tables: Huffman tables by class (0: DC, 1: AC) and number.
        restart: units of the scan between two restart markers; 0: there are none.

    Raises:
        MissingCodeError: a table has no code for a symbol that the scan needs.
    """
    symbols = _symbols(channels, restart)
    codes, lengths = np.zeros(len(symbols.symbol), np.int64), np.zeros(len(symbols.symbol), np.int64)
    for (kind, number), table in tables.items():
        own = (symbols.kind == kind) & (symbols.number == number)
        of_table = table.codes()
        codes[own], lengths[own] = (values[symbols.symbol[own]] for values in of_table)
    if (lengths == 0).any():
        raise MissingCodeError
    words = codes << symbols.bits | symbols.extra
    return _packed(words, lengths + symbols.bits, symbols.interval)


def fitting_tables(channels: Sequence[Channel], restart: int = 0) -> dict[tuple[int, int], HuffmanTable]:
    """Return the tables with which the scan is shortest, by class and number (K.2)."""
    symbols = _symbols(channels, restart)
    used = sorted({*zip(symbols.kind.tolist(), symbols.number.tolist(), strict=True)})
    return {
        (kind, number): _fit(
            np.bincount(symbols.symbol[(symbols.kind == kind) & (symbols.number == number)], minlength=256)
        )
        for kind, number in used
    }


def _fit(frequencies: np.ndarray) -> HuffmanTable:
    """Return the table for symbols of these frequencies (256,), of which no code is longer than 16 bits or all ones."""
    weights = {symbol: int(count) for symbol, count in enumerate(frequencies) if count} | {256: 1}  # 256: all ones
    members = {symbol: [symbol] for symbol in weights}
    lengths = dict.fromkeys(weights, 0)
    while len(weights) > 1:
        first, second = sorted(weights, key=lambda symbol: (weights[symbol], -symbol))[:2]
        weights[first] += weights.pop(second)
        members[first] += members.pop(second)
        for symbol in members[first]:
            lengths[symbol] += 1
    counts = np.bincount(list(lengths.values()), minlength=33)
    for length in range(len(counts) - 1, LONGEST, -1):
        while counts[length]:  # two of the longest become one shorter, and a shorter one makes room for the other
            shorter = max(place for place in range(1, length - 1) if counts[place])
            counts[length] -= 2
            counts[length - 1] += 1
            counts[shorter + 1] += 2
            counts[shorter] -= 1
    counts[np.flatnonzero(counts)[-1]] -= 1  # the code of all ones
    in_order = sorted((symbol for symbol in lengths if symbol != 256), key=lambda symbol: (lengths[symbol], symbol))
    return HuffmanTable(tuple(int(count) for count in counts[1 : LONGEST + 1]), tuple(in_order))


def _symbols(channels: Sequence[Channel], restart: int) -> _Symbols:
    """Return the symbols of a scan: of each block the size of its DC difference, and runs of zeros between its ACs."""
    coefficients, dc_table, ac_table, channel, unit = _in_scan_order(channels)
    intervals = unit // restart if restart else np.zeros_like(unit)
    differences = coefficients[:, 0].copy()
    for number in np.unique(channel):
        own = np.flatnonzero(channel == number)
        before = np.concatenate([[0], coefficients[own[:-1], 0]])
        before[np.flatnonzero(np.diff(intervals[own], prepend=-1))] = 0  # of the first block after a restart
        differences[own] -= before
    block, place = np.nonzero(coefficients[:, 1:])
    values = coefficients[block, place + 1]
    run = np.diff(place, prepend=0) - 1
    first = np.diff(block, prepend=-1) > 0
    run[first] = place[first]
    long = np.repeat(np.arange(len(run)), run // 16)  # sixteen zeros at a time, before the coefficient itself
    last = np.zeros(len(coefficients), np.int64)
    np.maximum.at(last, block, place + 1)
    ended = np.flatnonzero(last < AREA - 1)
    sizes, of_differences = _size(values), _size(differences)
    rows = [  # block, order within it, class, symbol, value, size
        _rows(np.arange(len(differences)), -1, 0, of_differences, differences, of_differences),
        _rows(block[long], 4 * place[long], 1, SIXTEEN_ZEROS, 0, 0),
        _rows(block, 4 * place + 1, 1, (run % 16) << 4 | sizes, values, sizes),
        _rows(ended, 4 * AREA, 1, END_OF_BLOCK, 0, 0),
    ]
    of_block, order, kind, symbol, value, bits = np.concatenate(rows, axis=1)
    sequence = np.lexsort((order, of_block))
    of_block, kind, symbol, value, bits = (column[sequence] for column in (of_block, kind, symbol, value, bits))
    extra = np.where(value < 0, value + (1 << bits) - 1, value)
    number = np.where(kind == 0, dc_table[of_block], ac_table[of_block])
    return _Symbols(kind, number, symbol, extra, bits, intervals[of_block])


def _rows(block: np.ndarray, *columns: np.ndarray | int) -> np.ndarray:
    return np.stack([np.broadcast_to(column, block.shape) for column in (block, *columns)]).astype(np.int64)


def _size(values: np.ndarray) -> np.ndarray:
    """Return the bits that the magnitude of each value needs; 0 of a zero."""
    return np.frexp(np.abs(values).astype(np.float64))[1] * (values != 0)


def _in_scan_order(channels: Sequence[Channel]) -> tuple[np.ndarray, ...]:
    """Return coefficients (n, 64) in zigzag order, their DC and AC tables, channel, and unit of the scan, all (n,)."""
    if len(channels) == 1:  # not interleaved: a unit is one block
        blocks = channels[0].blocks.reshape(-1, AREA)[:, ZIGZAG].astype(np.int64)
        everywhere = np.zeros(len(blocks), np.int64)
        dc, ac = channels[0].tables
        return blocks, everywhere + dc, everywhere + ac, everywhere, np.arange(len(blocks))
    rows = max(-(-channel.blocks.shape[0] // channel.sampling[0]) for channel in channels)
    columns = max(-(-channel.blocks.shape[1] // channel.sampling[1]) for channel in channels)
    parts, tables = [], []
    for number, channel in enumerate(channels):
        vertical, horizontal = channel.sampling
        parts.append(_units(channel, rows, columns))
        tables += [(*channel.tables, number)] * (vertical * horizontal)
    blocks = np.concatenate(parts, axis=1)
    dc, ac, channel_of = np.tile(np.array(tables), (rows * columns, 1)).T
    unit = np.repeat(np.arange(rows * columns), blocks.shape[1])
    return blocks.reshape(-1, AREA)[:, ZIGZAG].astype(np.int64), dc, ac, channel_of, unit


def _units(channel: Channel, rows: int, columns: int) -> np.ndarray:
    """Return the blocks of a channel by unit of the scan, (rows * columns, blocks of a unit, 64).

    Those beyond the image are flat, and as light as the block before them, as libjpeg has them.
    """
    vertical, horizontal = channel.sampling
    height, width = channel.blocks.shape[:2]
    whole = np.zeros((rows * vertical, columns * horizontal, AREA), channel.blocks.dtype)
    whole[:height, :width] = channel.blocks.reshape(height, width, AREA)
    beyond = np.ones(whole.shape[:2], bool)
    beyond[:height, :width] = False

    def by_unit(values: np.ndarray) -> np.ndarray:
        apart = values.reshape(rows, vertical, columns, horizontal, -1).transpose(0, 2, 1, 3, 4)
        return apart.reshape(rows * columns, vertical * horizontal, -1)

    units, beyond = by_unit(whole), by_unit(beyond)[..., 0]
    for place in range(1, vertical * horizontal):
        units[beyond[:, place], place, 0] = units[beyond[:, place], place - 1, 0]
    return units


def _packed(words: np.ndarray, lengths: np.ndarray, intervals: np.ndarray) -> bytes:
    """Return words of so many bits one after the other, with restart markers between intervals."""
    width = int(lengths.max())
    bits = (words[:, None] >> np.arange(width - 1, -1, -1)) & 1
    used = np.arange(width) >= width - lengths[:, None]
    edges = np.flatnonzero(np.diff(intervals, prepend=-1, append=-1))
    parts = []
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        of_interval = bits[start:end][used[start:end]].astype(np.uint8)
        filled = np.concatenate([of_interval, np.ones(-len(of_interval) % 8, np.uint8)])
        coded = np.packbits(filled)
        coded = np.insert(coded, np.flatnonzero(coded == 0xFF) + 1, 0)
        parts.append((bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b"") + coded.tobytes())
    return b"".join(parts)
