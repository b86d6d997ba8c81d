"""Resumable downloads, verified against the checksum recorded on first use."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

from pipeline_lib.runtime.errors import DataError, UnreachableError
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.txt"  # next to the files; lines "<sha256>  <name>", the format of sha256sum
CHUNK = 1 << 20
GONE = (401, 403, 404, 410)  # answers that do not pass by themselves


@stage(revision=1)
def fetch_published(*, url: str, file: Path) -> None:
    """Download a file unless it exists.

    On the first download its checksum is recorded in `checksums.txt` next to it. Later downloads give the same bytes or
    an error. An interrupted download is kept as `<file>.part` and resumed by the next call.

    Args:
        url: URL of the file.
        file: where to store it.

    Raises:
        UnreachableError: the download fails in a way that may pass.
        DataError: there is no such file on the server, the checksum does not match, or pooch is not installed.
    """
    if file.exists():
        logger.info("%s exists already; not downloaded", file)
        return
    try:
        import pooch
        import requests
    except ImportError:
        raise DataError(
            f"{file}: downloading needs pooch; run `pip install latent-rebalance[fetch]`, or save {url} there yourself"
        ) from None
    file.parent.mkdir(parents=True, exist_ok=True)
    known = read_checksums(file.parent).get(file.name)
    part = file.with_name(f"{file.name}.part")
    try:
        pooch.retrieve(url, known, fname=file.name, path=file.parent, downloader=_Resuming(part))
    except requests.RequestException as error:
        status = getattr(error.response, "status_code", None)
        if status in GONE:
            raise DataError(
                f"{file}: {url} is not there (the server answered {status}); correct the URL, or save the file there"
            ) from None
        raise UnreachableError(
            f"{file}: {url} could not be downloaded ({error}); try again, or save it there"
        ) from None
    except ValueError:
        raise DataError(
            f"{file}: the content of {url} has changed since the first download (checksum {known}); "
            f"if this is intended, remove its line from {file.parent / CHECKSUMS}"
        ) from None
    if known is None:
        _record(file)


def read_checksums(folder: Path) -> dict[str, str]:
    """Return the recorded SHA-256 digest of each file name."""
    path = folder / CHECKSUMS
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def _record(file: Path) -> None:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    known = read_checksums(file.parent) | {file.name: digest}
    with atomic_path(file.parent / CHECKSUMS) as beside:
        beside.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(known.items())))


class _Resuming:
    """A downloader for pooch that resumes interrupted downloads."""

    def __init__(self, part: Path):
        self._part = part

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        import requests

        done = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Range": f"bytes={done}-"} if done else {}
        with requests.get(url, stream=True, timeout=30, headers=headers) as answer:
            if answer.status_code == requests.codes.range_not_satisfiable:  # the part is already as long as the file
                self._part.unlink()
                return self(url, output_file, _)
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial_content
            done = done if resumed else 0
            total = done + int(answer.headers.get("Content-Length", 0))
            with self._part.open("ab" if resumed else "wb") as file, Progress(url, total, done, "bytes") as progress:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    progress.advance(len(chunk))
        shutil.move(self._part, output_file)
        return None
