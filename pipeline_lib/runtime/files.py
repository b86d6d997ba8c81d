"""Atomic writing of files, and digests of values and files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline_lib.runtime.errors import DataError

_INSTALLED = Path(__file__).parents[1] / "shipped"
#: Folder of `Snakefile`, `workflow/`, `config/`, `profiles/` and `resources/`: within an installed package, or the
#: repository.
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2]


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


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name was left by a program for itself, such as a folder of thumbnails."""
    return name.startswith(".") or name in ("@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini")


def digest_of_listing(*paths: str | Path, but: str | Path) -> str:
    """Return 16 hexadecimal digits that change with name, size or time of change of any file of the folders.

    No file is opened. Folders that are links are listed too, each once. Hidden files and folders are left out.

    Args:
        paths: files and folders.
        but: a folder to leave out, should it lie below one of them.
    """
    digest = hashlib.blake2b(digest_size=8)
    seen = {os.path.realpath(but)}
    for path in map(Path, paths):
        for name, file in _list_folder(path, seen) if path.is_dir() else [("", path)]:
            with suppress(FileNotFoundError):  # a link to nothing
                status = file.stat()
                line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _list_folder(top: Path, seen: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield names and paths of the files in a folder and below it; the folders that are `seen` are left out."""
    for place, folders, files in os.walk(top, followlinks=True):  # one that cannot be listed is left out
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if not is_hidden(name):
                yield os.path.relpath(Path(place, name), top), Path(place, name)


def digest_of_files(*paths: str | Path) -> str:
    """Return 16 hexadecimal digits that change with the bytes of any of the files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
