"""Sampling of training batches."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pipeline_lib.runtime import seeding


def batch_positions(index: int, batch: int, count: int, seed: int, name: str) -> Tensor:
    """Return the positions, int64 (batch,), that step `index` uses of `count` images.

    An epoch's random order is a function of (seed, name, epoch), so a resumed training sees the same images.
    """
    stream = torch.arange(index * batch, (index + 1) * batch)
    epochs = stream // count
    chosen = torch.empty_like(stream)
    for epoch in epochs.unique().tolist():
        inside = epochs == epoch
        chosen[inside] = _order(count, seed, name, epoch)[stream[inside] % count]
    return chosen


@lru_cache(maxsize=2)  # a batch may end one epoch and begin the next
def _order(count: int, seed: int, name: str, epoch: int) -> Tensor:
    return torch.randperm(count, generator=seeding.torch_generator(seed, name, "epoch", epoch))
