"""Images come out of a shard as they went in, and a damaged shard is refused."""

from __future__ import annotations

import tempfile
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline_lib.data import shards as storage
from pipeline_lib.data.shards import (
    ROWS_PER_GROUP,
    count_images,
    digest_of_images,
    iterate_batches,
    iterate_shards,
    read_shards,
    shard_writer,
    shards_in,
)
from pipeline_lib.data.tables import read_table
from pipeline_lib.runtime.errors import DataError

COUNT = ROWS_PER_GROUP + 88


def draw(count, side=4):
    names = [f"image-{number:05d}" for number in range(count)]
    return names, np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def write(path, names, images, chunk=10_000):
    with shard_writer(path, images.shape[1], {"run": "toy"}) as writer:
        for start in range(0, len(names), chunk):
            writer.add(names[start : start + chunk], images[start : start + chunk])
    return path


def test_images_and_ids_survive_a_round_trip_over_several_shards(tmp_path):
    names, images = draw(COUNT)
    paths = [write(tmp_path / "0.parquet", names[:550], images[:550])]
    paths.append(write(tmp_path / "1.parquet", names[550:], images[550:]))
    found_names, found = read_shards(paths)
    assert found_names == names
    np.testing.assert_array_equal(found, images)
    assert count_images(paths) == COUNT


@pytest.mark.parametrize("chunk", [1, 7, ROWS_PER_GROUP])
def test_how_images_are_handed_over_changes_no_byte(tmp_path, chunk):
    names, images = draw(COUNT)
    whole = write(tmp_path / "whole.parquet", names, images)
    assert write(tmp_path / "chunked.parquet", names, images, chunk).read_bytes() == whole.read_bytes()


def test_a_reader_holds_one_row_group_at_a_time(tmp_path):
    path = write(tmp_path / "0.parquet", *draw(COUNT))
    assert [len(names) for names, _ in iterate_shards([path])] == [ROWS_PER_GROUP, COUNT - ROWS_PER_GROUP]


@pytest.mark.parametrize("size", [1, 100, ROWS_PER_GROUP, 5000])
def test_batches_have_their_size_however_images_are_spread(tmp_path, size):
    names, images = draw(COUNT)
    bounds = [0, 3, 550, 550, COUNT]
    paths = [
        write(tmp_path / f"{start}-{stop}.parquet", names[start:stop], images[start:stop])
        for start, stop in pairwise(bounds)
    ]
    batches = list(iterate_batches(paths, size))
    assert [len(batch_names) for batch_names, _ in batches[:-1]] == [size] * (COUNT // size - (COUNT % size == 0))
    assert [name for batch_names, _ in batches for name in batch_names] == names
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in batches]), images)


def test_metadata_stays_with_the_images(tmp_path):
    metadata = pq.read_schema(write(tmp_path / "0.parquet", *draw(2))).metadata
    assert (metadata[b"run"], metadata[b"resolution"]) == (b"toy", b"4")


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 4, 4, 3), np.float32)])
def test_images_of_another_size_or_type_are_refused_and_leave_no_file(tmp_path, images):
    with pytest.raises(ValueError, match="a shard takes"), shard_writer(tmp_path / "0.parquet", 4) as writer:
        writer.add(["a", "b"], images)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_shard_is_whole_but_a_set_without_images_is_an_error(tmp_path):
    empty = write(tmp_path / "0.parquet", [], np.zeros((0, 4, 4, 3), np.uint8))
    full = write(tmp_path / "1.parquet", *draw(3))
    assert len(read_shards([empty, full])[0]) == 3
    with pytest.raises(DataError, match=r"0\.parquet: no image"):
        read_shards([empty])


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    else:  # a few bytes of pixels overwritten
        content[len(content) // 3 : len(content) // 3 + 8] = b"\xff" * 8
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "truncated", "emptied", "overwritten"])
def test_a_damaged_shard_is_named_in_one_line(tmp_path, how):
    path = write(tmp_path / "0.parquet", *draw(100))
    damage(path, how)
    with pytest.raises(DataError) as caught:
        read_shards([path])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_table_is_no_shard_and_a_shard_no_table(tmp_path):
    shard = write(tmp_path / "0.parquet", *draw(2))
    with pytest.raises(DataError, match="a table of kind unknown, expected labels"):
        read_table(shard, "labels")
    pq.write_table(pq.read_table(shard).select(["image_id"]), tmp_path / "table.parquet")
    with pytest.raises(DataError, match="not an image shard"):
        read_shards([tmp_path / "table.parquet"])


def test_a_large_set_is_mapped_from_a_scratch_file_that_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    names, images = draw(COUNT)
    path = write(tmp_path / "0.parquet", names, images)
    found_names, found = read_shards([path], most_bytes=images.nbytes - 1)
    assert isinstance(found, np.memmap)
    assert found_names == names
    np.testing.assert_array_equal(found[::-7], images[::-7])
    assert not list((tmp_path / "scratch").iterdir())
    assert not isinstance(read_shards([path], most_bytes=images.nbytes)[1], np.memmap)


def test_a_full_scratch_folder_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "posix_fallocate", full)
    path = write(tmp_path / "0.parquet", *draw(3))
    with pytest.raises(DataError, match=r"no room for .* \(No space left on device\); set TMPDIR"):
        read_shards([path], most_bytes=1)


def test_a_digest_of_images_is_of_their_ids_and_pixels_alone(tmp_path):
    names, images = draw(COUNT)
    digest = digest_of_images([write(tmp_path / "0.parquet", names, images)])
    table = pq.read_table(tmp_path / "0.parquet")
    pq.write_table(table, tmp_path / "1.parquet", compression="gzip", row_group_size=7)  # with the same metadata
    assert digest_of_images([tmp_path / "1.parquet"]) == digest
    with shard_writer(tmp_path / "2.parquet", 4, {"run": "another"}) as writer:
        writer.add(names, images)
    assert digest_of_images([tmp_path / "2.parquet"]) == digest
    halves = [write(tmp_path / f"{3 + half}.parquet", names[half::2], images[half::2]) for half in (0, 1)]
    assert digest_of_images(halves) == digest_of_images(halves[::-1]) == digest

    other = images.copy()
    other[-1, 0, 0, 0] ^= 1
    exchanged = [names[1], names[0], *names[2:]]
    for number, (of_other, pixels) in enumerate([(names, other), (exchanged, images), (names[:-1], images[:-1])]):
        assert digest_of_images([write(tmp_path / f"{5 + number}.parquet", of_other, pixels)]) != digest
    first = [digest_of_images([tmp_path / f"{shard}.parquet"], first=20) for shard in (0, 5, 6)]
    assert first[0] == first[1] != first[2]


def test_shards_stand_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.candidates.parquet").touch()
        (tmp_path / f"{number}.images.parquet").touch()
    (tmp_path / ".3.candidates.parquet.77.part").touch()  # unfinished
    assert [path.name for path in shards_in(tmp_path, "images.parquet")] == [f"{n}.images.parquet" for n in range(12)]
    assert shards_in(tmp_path / "nothing") == []
