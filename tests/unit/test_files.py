"""Files are whole or absent, and digests tell values apart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import (
    atomic_path,
    digest_of,
    digest_of_files,
    digest_of_listing,
    read_json,
    write_json,
)

WRITE_HALF_AND_WAIT = """
import sys
from pipeline_lib.runtime.files import atomic_path
with atomic_path(sys.argv[1]) as beside:
    beside.write_text("half")
    print("half written", flush=True)
    sys.stdin.readline()
"""


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "table.parquet"
    with atomic_path(target) as beside:
        beside.write_bytes(b"whole")
        assert not target.exists()
        assert beside.parent == target.parent  # on the same file system, or the rename would be a copy
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_nothing_new_and_the_old_file_intact(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    target = tmp_path / "metrics.json"
    target.write_text("old")
    with pytest.raises(failure), atomic_path(target) as beside:
        beside.write_text("half")
        raise failure
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "forgotten"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_the_old_file_intact(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    target.write_text("old")
    command = [sys.executable, "-c", WRITE_HALF_AND_WAIT, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "half written\n"
        writer.send_signal(signal.SIGKILL)
    assert target.read_text() == "old"


def test_json_survives_a_round_trip(tmp_path: Path) -> None:
    value = {"gap": {"smiling": {"value": 0.125, "ci": [-1.5e-9, None]}}, "name": "Fréchet"}
    write_json(tmp_path / "metrics.json", value)
    assert read_json(tmp_path / "metrics.json") == value


def test_json_without_a_standard_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_unreadable_json_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_order_of_keys_and_the_kind_of_sequence_change_no_digest() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": (1, 2), "a": 1})


def test_every_value_has_its_digest() -> None:
    values = [{}, [], None, 0, 0.5, "0", [0, 1], [1, 0], {"a": [0]}, {"a": 0}, Path("a/b"), Path("a/c"), True]
    assert len({digest_of(value) for value in values}) == len(values)


def test_a_path_has_the_digest_of_its_text() -> None:
    assert digest_of({"weights": Path("a/b")}) == digest_of({"weights": "a/b"})


def test_a_value_without_a_stable_text_has_no_digest() -> None:
    with pytest.raises(TypeError):
        digest_of({"attributes": {"smiling", "hat"}})


def test_a_digest_of_files_follows_bytes_and_order_but_no_names(tmp_path: Path) -> None:
    one, two, split = tmp_path / "one", tmp_path / "two", tmp_path / "split"
    one.write_bytes(b"ab")
    two.write_bytes(b"cd")
    before = digest_of_files(one, two)
    assert digest_of_files(two, one) != before

    one.rename(tmp_path / "renamed")
    assert digest_of_files(tmp_path / "renamed", two) == before

    split.write_bytes(b"abc")
    two.write_bytes(b"d")
    assert digest_of_files(split, two) != before


def test_json_files_have_sorted_keys_and_end_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == ["a", "b"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    for name in ("a.jpg", "deep/b.jpg", ".cache/c.jpg", "results/run/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/e.jpg").touch()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "deep/round").symlink_to(folder)
    (folder / "nothing.jpg").symlink_to(tmp_path / "nowhere")
    return folder


def replace(folder: Path) -> None:
    status = (folder / "deep/b.jpg").stat()
    (folder / "deep/b.jpg").write_text("b.jpg/deep")  # as long as before
    os.utime(folder / "deep/b.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        (lambda folder: None, False),
        (replace, True),
        (lambda folder: (folder / "a.jpg").rename(folder / "b.jpg"), True),
        (lambda folder: (folder / "a.jpg").unlink(), True),
        (lambda folder: (folder / "linked/f.jpg").touch(), True),
        (lambda folder: (folder / ".cache/f.jpg").touch(), False),
        (lambda folder: (folder / "deep/Thumbs.db").touch(), False),
        (lambda folder: (folder / "results/run/d.png").write_text("more"), False),
    ],
)
def test_a_listing_tells_whether_a_file_was_replaced(photographs: Path, change: Callable, is_seen: bool) -> None:
    def digest() -> str:
        return digest_of_listing(photographs, photographs / "a.jpg", but=photographs / "results")

    before = digest()
    change(photographs)
    assert (digest() != before) == is_seen


def test_a_listing_is_the_same_wherever_the_folder_is(photographs: Path) -> None:
    before = digest_of_listing(photographs, but="results")
    shutil.move(photographs, photographs.with_name("moved"))
    assert digest_of_listing(photographs.with_name("moved"), but="results") == before
