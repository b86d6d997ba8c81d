"""Atomic writing of files, and digests of values and files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline_lib.runtime.errors import DataError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` to write to; on success sync it and rename it to `path`, else remove it.

    The rename is atomic on POSIX file systems, so a reader sees either the old or the complete new file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())  # some writers create files that only their owner can read
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the rule that makes it") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); delete it and run again") from None


def digest_of(value: Any) -> str:
    """Return 16 hexadecimal digits that change with the JSON form of `value`, in which paths are strings.

    Other types that JSON lacks raise a TypeError, because the text of a set or object can differ between processes.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=os.fspath)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def files_below(folders: Iterable[str | Path]) -> list[Path]:
    """Return every file of the folders, in order."""
    return [path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file()]


def digest_of_files(*paths: str | Path) -> str:
    """Return 16 hexadecimal digits that change with the bytes of any of the files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
