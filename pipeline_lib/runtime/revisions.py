"""Stages with a revision, which says which code made a file, and the keys of trainings that can be resumed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.files import digest_of, digest_of_files, files_below

_running: ContextVar[str | None] = ContextVar("running", default=None)


def stage(*, revision: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a function as a stage with the revision of its results.

    Raise it with every change of what the stage makes of the same values. Its rules then run again, and its trainings
    start anew. Image shards and weights say which stage made them, at which revision.
    """

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            token = _running.set(f"{function.__name__}@{revision}")
            try:
                function(**values)
            finally:
                _running.reset(token)

        run.revision = revision
        return run

    return mark


def made_by() -> dict[str, str]:
    """Return what a file that is written now says of its maker: `{"made_by": "<stage>@<revision>"}`, empty outside."""
    running = _running.get()
    return {} if running is None else {"made_by": running}


def key_of(stage: Callable[..., None], arguments: Mapping[str, Any], *, without: Collection[str] = ()) -> str:
    """Return 16 hexadecimal digits that change with all that the training of a stage depends on.

    These are the stage, its revision and its arguments. Of files and folders the contents count, and not their paths.

    Args:
        stage: the function.
        arguments: `locals()` at its beginning, so that a parameter that is added later is in the key by itself.
        without: names of those on which the training does not depend, such as outputs.
    """
    depends = {name: _by_contents(value) for name, value in arguments.items() if name not in without}
    return digest_of([stage.__name__, stage.revision, depends])


def _by_contents(value: Any) -> Any:
    """Return a value, or a config section as a dict, in which digests stand for files."""
    if hasattr(value, "model_dump"):
        return _by_contents(value.model_dump())
    if dataclasses.is_dataclass(value):
        return _by_contents(vars(value))
    if isinstance(value, Path):
        return digest_of_contents(value)
    if isinstance(value, Mapping):
        return {name: _by_contents(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_by_contents(part) for part in value]
    return value


def digest_of_contents(path: Path) -> str:
    """Return a digest of a file's bytes, or of the names and bytes of all files in a folder.

    Raises:
        WeightsError: there is no such file.
    """
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder; correct the path")
    if not path.is_dir():
        return digest_of_files(path)
    return digest_of({file.relative_to(path).as_posix(): digest_of_files(file) for file in files_below([path])})
