"""Image grids as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline_lib.runtime.files import atomic_path


def save_grid(path: str | Path, images: torch.Tensor, columns: int, scale: int = 1) -> None:
    """Write images (n, 3, h, w) in [-1, 1] row by row, each pixel enlarged `scale` times."""
    pixels = ((images.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    n, _, height, width = pixels.shape
    rows = -(-n // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for position, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        top, left = (position // columns) * height, (position % columns) * width
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    with atomic_path(path) as beside:
        picture.save(beside, format="PNG", optimize=True)
