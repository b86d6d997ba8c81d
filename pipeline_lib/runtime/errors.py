"""The errors a person is meant to read: one line that says where, what was found and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PipelineError(Exception):
    """Base of every expected failure; the command line prints its message alone and exits with status 2."""


class ConfigError(PipelineError):
    """A config value that cannot be used; the message names the key."""


class DataError(PipelineError):
    """A file or an image that cannot be read or does not fit; the message names the file."""


class UnreachableError(DataError):
    """A file that could not be fetched over the network; the only expected failure that may pass by itself."""


class WeightsError(PipelineError):
    """A weight file that is missing, damaged or of another architecture; the message names the file."""


class DivergenceError(PipelineError):
    """A training run that broke down; the message names the last good weights."""


@contextmanager
def refuse_again(note: Path, attempt: int) -> Iterator[None]:
    """Let a scheduler repeat a job that was stopped, but not one that failed for a reason that stays.

    A scheduler's `retries` repeat every failure alike. A training that was preempted goes on from its checkpoint, and a
    network may come back; bad input, or a training that broke down, would only fail once more.

    Args:
        note: file that keeps the reason for the next attempt.
        attempt: which one this is, from 1.

    Raises:
        PipelineError: the reason of an earlier attempt.
    """
    if attempt > 1 and note.exists():
        raise PipelineError(f"not tried again, it would fail as it did: {note.read_text()}")
    note.unlink(missing_ok=True)
    try:
        yield
    except UnreachableError:
        raise
    except PipelineError as error:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{type(error).__name__}: {error}")
        raise
