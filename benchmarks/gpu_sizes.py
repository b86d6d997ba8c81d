"""What the sections of `benchmarks.gpu` share: where and how large they run, and a row of what they find."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Setting:
    """Where a section runs.

    Attributes:
        device: the GPU, or the CPU without one.
        folder: empty, for scratch files.
        full: whether at full size, which takes a GPU.
        kept: folder beside the report, for what the next call needs.
        seconds: time that the section has.
    """

    device: torch.device
    folder: Path
    full: bool
    kept: Path
    seconds: float

    @classmethod
    def here(cls, folder: Path, kept: Path, seconds: float) -> Setting:
        """Return the setting of this machine."""
        cuda = torch.cuda.is_available()
        return cls(torch.device("cuda:0" if cuda else "cpu"), folder, cuda, kept, seconds)

    def size(self, full: int, tiny: int) -> int:
        """Return the size for this setting."""
        return full if self.full else tiny


@dataclass(frozen=True)
class Found:
    """A row of the report: a value with what it is held against, and whether it passes; None: it is only told."""

    name: str
    value: str
    against: str = ""
    passed: bool | None = None
    number: float | None = None
