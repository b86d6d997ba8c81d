"""Which images a training step sees, and how images come to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from pipeline_lib.runtime import seeding

T = TypeVar("T")


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


def upload(rows: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor of the CPU to the device without waiting for it."""
    if torch.device(device).type != "cuda":
        return rows.to(device)
    return rows.pin_memory().to(device, non_blocking=True)


def download(found: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Start to copy tensors to the CPU; what is returned waits until they are there."""
    if all(tensor.device.type != "cuda" for tensor in found.values()):
        return lambda: {name: tensor.cpu() for name, tensor in found.items()}
    copies = {name: torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for name, t in found.items()}
    for name, copy in copies.items():
        copy.copy_(found[name], non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> dict[str, Tensor]:
        arrived.synchronize()
        return copies

    return wait


def to_float(images: Tensor, device: torch.device | str) -> Tensor:
    """Move uint8 images (n, 3, H, W) to the device and there to [-1, 1]."""
    return upload(images, device).to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1


def as_pixels(images: Tensor) -> Tensor:
    """Turn images (n, 3, H, W) in [-1, 1] into uint8 (n, H, W, 3), where they are."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def to_uint8(images: Tensor) -> Tensor:
    """Turn images (n, 3, H, W) in [-1, 1] into uint8 (n, H, W, 3) on the CPU, as shards hold them."""
    return as_pixels(images).cpu()


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Make items in a thread, `depth` of them before they are asked for."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, source, end))
            yield item


def one_behind(items: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Call what was started last but one, so that the device is at work on the next while a result is awaited."""
    started = None
    for item in items:
        if started is not None:
            yield started()
        started = item
    if started is not None:
        yield started()
