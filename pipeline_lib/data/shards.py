"""Image shards, lossless Parquet files of many images keyed by `image_id`."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import made_by

ROWS_PER_GROUP = 512  # images that a reader holds in memory at a time
LARGEST_IN_MEMORY = 2**28  # bytes of images; a larger set is mapped from a scratch file


class ShardWriter:
    """Collects images into row groups; made by `shard_writer`."""

    def __init__(self, writer: pq.ParquetWriter, resolution: int):
        self._writer = writer
        self._resolution = resolution
        self._names: list[str] = []
        self._pixels: list[np.ndarray] = []  # stacks of images, together as many as there are names

    def add(self, image_ids: Sequence[str], images: np.ndarray) -> None:
        """Add uint8 images of shape (n, resolution, resolution, 3)."""
        expected = (len(image_ids), self._resolution, self._resolution, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(f"images of shape {images.shape}, {images.dtype}; a shard takes {expected}, uint8")
        self._names.extend(image_ids)
        self._pixels.append(np.array(images))  # a copy: the caller may go on with its own
        if len(self._names) >= ROWS_PER_GROUP:
            self._write(len(self._names) // ROWS_PER_GROUP * ROWS_PER_GROUP)

    def flush(self) -> None:
        """Write the remaining images; a shard without images gets an empty row group."""
        self._write(len(self._names))

    def _write(self, rows: int) -> None:
        """Write the first `rows` of the images collected, in row groups."""
        shape = (-1, self._resolution, self._resolution, 3)
        pixels = np.concatenate([np.empty((0, *shape[1:]), np.uint8), *self._pixels])
        schema = self._writer.schema
        flat = pa.py_buffer(pixels[:rows])
        columns = [
            pa.array(self._names[:rows], pa.string()),
            pa.FixedSizeBinaryArray.from_buffers(schema.field("pixels").type, rows, [None, flat]),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=ROWS_PER_GROUP)
        self._names, self._pixels = self._names[rows:], [pixels[rows:]]


@contextmanager
def shard_writer(path: str | Path, resolution: int, metadata: dict[str, str] | None = None) -> Iterator[ShardWriter]:
    """Write one shard batch by batch; the file appears under its name when the `with` block ends without an error.

    Args:
        path: the file to write.
        resolution: side of the square images in pixels.
        metadata: strings stored in the file with the images, beside the stage that writes it.
    """
    schema = pa.schema(
        [("image_id", pa.string()), ("pixels", pa.binary(resolution * resolution * 3))],
        metadata={"resolution": str(resolution), "layout": "uint8 HWC RGB", **(metadata or {}), **made_by()},
    )
    with (
        atomic_path(path) as beside,
        pq.ParquetWriter(
            beside, schema, compression="zstd", use_dictionary=["image_id"], write_page_checksum=True
        ) as writer,
    ):
        shard = ShardWriter(writer, resolution)
        yield shard
        shard.flush()


def open_shard(path: str | Path) -> pq.ParquetFile:
    """Open a shard.

    Raises:
        DataError: the file is missing, damaged or not an image shard.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image shard; run the rule that makes it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable image shard ({error}); delete it and run again") from None
    if file.schema_arrow.names != ["image_id", "pixels"]:
        raise DataError(f"{path}: columns {file.schema_arrow.names}, expected image_id and pixels; not an image shard")
    return file


def resolution_of(path: str | Path) -> int:
    """Return the side in pixels of a shard's images."""
    return int(open_shard(path).schema_arrow.metadata[b"resolution"])


def iterate_shards(paths: Sequence[str | Path]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield image ids and uint8 images (n, resolution, resolution, 3) of one row group after another."""
    for path in paths:
        file = open_shard(path)
        side = int(file.schema_arrow.metadata[b"resolution"])
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{path}: image group {group} is damaged ({error}); delete it and run again") from None
            pixels = table.column("pixels").combine_chunks()
            flat = np.frombuffer(pixels.buffers()[1], np.uint8, offset=pixels.offset * side * side * 3)
            images = flat[: table.num_rows * side * side * 3].reshape(table.num_rows, side, side, 3)
            yield table.column("image_id").to_pylist(), images


def iterate_batches(paths: Sequence[str | Path], size: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield image ids and uint8 images (n, resolution, resolution, 3) in batches of `size`; the last may be smaller.

    Batches span row groups and shards. A network's rounding for one image depends on its batch, so batches that ended
    with each shard would make results depend on the number of shards in their last digits.
    """
    names: list[str] = []
    images = np.empty(0, np.uint8)
    for group_names, group in iterate_shards(paths):
        images = np.concatenate([images, group]) if names else group
        names += group_names
        while len(names) >= size:
            yield names[:size], images[:size]
            names, images = names[size:], images[size:]
    if names:
        yield names, images


def read_shards(paths: Sequence[str | Path], most_bytes: int = LARGEST_IN_MEMORY) -> tuple[list[str], np.ndarray]:
    """Read entire shards for random access, as ids and uint8 images (n, resolution, resolution, 3).

    Images of more than `most_bytes` in total are written to an unnamed file in the temporary folder and memory-mapped,
    so that only accessed images take memory. The file is freed with the last reference to the images. Processes that
    train together on a node share one.

    Raises:
        DataError: a shard is missing or damaged, there are no images, or the temporary folder is full.
    """
    count = count_images(paths)
    if not count:
        raise DataError(f"{', '.join(map(str, paths))}: no images in these shards")
    shape = (count, *[resolution_of(paths[0])] * 2, 3)
    if math.prod(shape) > most_bytes:
        return _map_shards(paths, shape)
    pixels = np.empty(shape, np.uint8)
    names: list[str] = []
    for group_names, images in iterate_shards(paths):
        pixels[len(names) : len(names) + len(group_names)] = images
        names += group_names
    return names, pixels


def _map_shards(paths: Sequence[str | Path], shape: tuple[int, ...]) -> tuple[list[str], np.ndarray]:
    """Write images to a scratch file and map it only for reading, so that images not accessed take no memory."""

    def fill(file: BinaryIO) -> None:
        try:
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()}: no room for {math.prod(shape) / 2**30:.1f} GiB of images "
                f"({error.strerror}); set TMPDIR to a larger disk"
            ) from None
        for _, images in iterate_shards(paths):
            file.write(images.data)
        file.flush()

    with ranks.scratch_file(fill) as file:
        pixels = np.memmap(file, np.uint8, "r+", shape=shape)
    names = [open_shard(path).read(columns=["image_id"])["image_id"].to_pylist() for path in paths]
    return [name for of_shard in names for name in of_shard], pixels


def count_images(paths: Sequence[str | Path]) -> int:
    """Count images without reading them."""
    return sum(open_shard(path).metadata.num_rows for path in paths)


def shards_in(folder: str | Path, kind: str = "parquet") -> list[Path]:
    """Return the shards of a folder, `0.parquet` or `0.{kind}`, in the order of their numbers; empty without any."""
    return sorted(Path(folder).glob(f"*.{kind}"), key=lambda path: int(path.name.partition(".")[0]))


def digest_of_images(paths: Sequence[str | Path], first: int | None = None) -> str:
    """Return 16 hexadecimal digits that change with the id or a pixel of any image, and with nothing else.

    Labels that people made are bound to images by it. So it is the same if images are written again by another run,
    in other shards, or by another version of the library that compresses them.

    Args:
        paths: shards, in the order of their numbers.
        first: number of images that count, from the first on; None: all.
    """
    images = (pair for names, pixels in iterate_shards(paths) for pair in zip(names, pixels, strict=True))
    found = sorted(
        hashlib.blake2b(pixels.tobytes(), key=hashlib.blake2b(name.encode()).digest(), digest_size=16).digest()
        for name, pixels in islice(images, first)
    )
    return hashlib.blake2b(b"".join(found), digest_size=8).hexdigest()
