"""Transfer of images to the device and back, and conversion between uint8 and [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def upload(rows: Tensor, device: torch.device | str) -> Tensor:
    """Copy a CPU tensor to the device asynchronously; a tensor on the device is returned as it is."""
    if torch.device(device).type != "cuda" or rows.is_cuda:
        return rows.to(device)
    return rows.pin_memory().to(device, non_blocking=True)


def download(found: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Start to copy tensors to the CPU; the returned function waits for them."""
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
    """Move uint8 images (n, 3, H, W) to the device and convert them there to [-1, 1]."""
    return upload(images, device).to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1


def as_pixels(images: Tensor) -> Tensor:
    """Convert images (n, 3, H, W) in [-1, 1] to uint8 (n, H, W, 3) on the same device."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def to_uint8(images: Tensor) -> Tensor:
    """Convert images (n, 3, H, W) in [-1, 1] to uint8 (n, H, W, 3) on the CPU, the layout of shards."""
    return as_pixels(images).cpu()


def at_once(side: int, of_64: int = 64) -> int:
    """Return how many images of a side in pixels, at least one, take the memory of `of_64` images of 64 pixels."""
    return max(1, of_64 * 64**2 // side**2)


def batch_for(side: int, batch: int) -> int:
    """Return `batch`, or, above 256 pixels, as many images as take the memory of `batch` images of 256 pixels."""
    return min(batch, at_once(side, 16 * batch))
