"""Images as PNG files in memory, for pages that hold their pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def encode_png(pixels: np.ndarray, info: PngInfo | None = None, level: int = 6) -> bytes:
    """Return an image, uint8 (H, W, 3), as a PNG file.

    Args:
        pixels: the image.
        info: text chunks.
        level: compression, from 1 (fastest) to 9 (smallest).
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level, pnginfo=info)
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
