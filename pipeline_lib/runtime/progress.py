"""Progress of long stages, as a bar on a terminal or as occasional lines in a log."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

logger = logging.getLogger("pipeline_lib.progress")

LINE_SECONDS = 20.0  # between two lines in a log


class Progress:
    """Show the progress of a stage, its speed and the remaining time.

    Args:
        name: name of the stage.
        total: number of images or other units.
        done: number completed by an earlier run.
        unit: unit of the count.
    """

    def __init__(self, name: str, total: int, done: int = 0, unit: str = "img"):
        self._name, self._total, self._done, self._unit = name, total, done, unit
        self._first, self._started, self._last_line = done, time.monotonic(), time.monotonic()
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = RichProgress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total, completed=self._done, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        elapsed = time.monotonic() - self._started
        logger.info("%s: %s of %s in %.0f s", self._name, f"{self._done:,}", f"{self._total:,} {self._unit}", elapsed)

    @property
    def done(self) -> int:
        """Return the number completed."""
        return self._done

    def advance(self, amount: int) -> None:
        """Add `amount` to the number completed."""
        self._done += amount
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._line("")

    def show(self, values: dict[str, float]) -> None:
        """Show metrics next to the bar."""
        note = " ".join(f"{name} {value:.3g}" for name, value in values.items())
        if self._bar:
            self._bar.update(self._task, note=f"{self._rate():.0f} {self._unit}/s {note}")
        elif time.monotonic() - self._last_line > LINE_SECONDS / 2:
            self._line(note)

    def _rate(self) -> float:
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._started)

    def _line(self, note: str) -> None:
        self._last_line = time.monotonic()
        left = (self._total - self._done) / max(1e-9, self._rate())
        share = 100 * self._done / max(1, self._total)
        text = "%s: %s of %s %s (%.0f%%), %.0f %s/s, %d:%02d left %s"
        done, total = f"{self._done:,}", f"{self._total:,}"
        minutes, seconds = divmod(int(left), 60)
        logger.info(text, self._name, done, total, self._unit, share, self._rate(), self._unit, minutes, seconds, note)
