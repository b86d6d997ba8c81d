"""What a stage's result depends on besides its values: the revision at its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Stage = TypeVar("Stage", bound=Callable[..., None])


def stage(*, revision: int) -> Callable[[Stage], Stage]:
    """Mark a function as a stage with the revision of its results.

    Raise it with every change of what the stage makes of the same values. Its rules then run again, and its trainings
    start anew.
    """

    def mark(function: Stage) -> Stage:
        function.revision = revision
        return function

    return mark
