"""Which images a training step sees, and how images come to the device."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline_lib.runtime import seeding


def batch_positions(index: int, batch: int, count: int, seed: int, name: str) -> Tensor:
    """Return the positions, int64 (batch,), that step `index` takes from `count` images.

    An epoch's random order is a function of (seed, name, epoch), so a resumed training sees the same images.
    """
    stream = torch.arange(index * batch, (index + 1) * batch)
    epochs = stream // count
    chosen = torch.empty_like(stream)
    for epoch in epochs.unique().tolist():
        order = torch.randperm(count, generator=seeding.torch_generator(seed, name, "epoch", epoch))
        inside = epochs == epoch
        chosen[inside] = order[stream[inside] % count]
    return chosen


def to_float(images: Tensor, device: torch.device | str) -> Tensor:
    """Move uint8 images (n, 3, H, W) to the device and to [-1, 1]."""
    return images.to(device, torch.float32, memory_format=torch.channels_last) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Turn images (n, 3, H, W) in [-1, 1] into uint8 (n, H, W, 3) on the CPU, as shards hold them."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
