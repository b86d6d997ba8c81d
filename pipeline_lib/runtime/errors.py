"""Errors for the user: one line that says where the problem is, what was found and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PipelineError(Exception):
    """Base of every expected failure; the command line prints only its message and exits with status 2."""


class ConfigError(PipelineError):
    """A config value that cannot be used; the message names the key."""


class DataError(PipelineError):
    """A file or an image that cannot be read or used; the message names the file."""


class UnreachableError(DataError):
    """A file that could not be fetched over the network; the only expected failure that may pass by itself."""


class WeightsError(PipelineError):
    """A weight file that is missing, damaged or of another architecture; the message names the file."""


class DivergenceError(PipelineError):
    """A training run that diverged; the message names the last good checkpoint."""


@contextmanager
def refuse_again(note: Path, attempt: int) -> Iterator[None]:
    """Let a scheduler retry a job that was stopped, but not one that would fail again.

    A scheduler's `retries` repeat every failure. A preempted training resumes from its checkpoint, and a network may
    come back, but bad input or a diverged training would only fail again.

    Args:
        note: file that stores the reason for the next attempt.
        attempt: number of this attempt, from 1.

    Raises:
        PipelineError: the reason of an earlier attempt.
    """
    if attempt > 1 and note.exists():
        raise PipelineError(f"not retried, because it would fail again: {note.read_text()}")
    note.unlink(missing_ok=True)
    try:
        yield
    except UnreachableError:
        raise
    except PipelineError as error:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{type(error).__name__}: {error}")
        raise
