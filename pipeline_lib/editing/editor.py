"""The interface of an editor, which makes a composite of a context, a donor and the masks of what is swapped."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from pipeline_lib.imaging.collages import Masks


class EditRequest(NamedTuple):
    """What editors need that draw a part by themselves instead of taking it from the donor."""

    wanted: Tensor  # target value, bool (n,)
    seeds: Tensor  # of each composite's noise, int64 (n,)


class Editor(Protocol):
    """Makes composites (n, 3, H, W) in [-1, 1] of contexts and donors of that shape.

    `request` is None where an image gets a part without an aim, as in a comparison of regions.
    """

    precision: str

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor: ...
