"""Random draws as a function of (run seed, stage, index), so that results do not depend on shards or workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` of the run with `seed`."""
    text = "\x1f".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for one named stream."""
    return np.random.Generator(np.random.Philox(derive(seed, *names)))


def torch_generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator for one named stream on `device` (streams differ between device types)."""
    import torch

    return torch.Generator(device).manual_seed(derive(seed, *names))


def indexed_normal(seed: int, stage: str, indices: Iterable[int], size: int) -> np.ndarray:
    """Draw a standard normal row for each global index, independent of the batch.

    Returns:
        float32 array of shape (len(indices), size).
    """
    key = derive(seed, stage)
    rows = [np.random.Generator(np.random.Philox(key=key, counter=int(i) << 64)).standard_normal(size) for i in indices]
    return np.asarray(rows, dtype=np.float32).reshape(-1, size)
