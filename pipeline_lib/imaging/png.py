"""Images as PNG files in memory, and the text chunk that says how an image was made."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

LINEAGE = "latent-rebalance"  # key of the text chunk


def encode_png(pixels: np.ndarray, lineage: Mapping[str, Any] | None = None, level: int = 6) -> bytes:
    """Return an image, uint8 (H, W, 3), as a PNG file.

    Args:
        pixels: the image.
        lineage: how it was made, in plain values, for an iTXt chunk of JSON with the key `LINEAGE`.
        level: compression, from 1 (fastest) to 9 (smallest).
    """
    info = PngInfo()
    if lineage is not None:
        info.add_itxt(LINEAGE, json.dumps(lineage))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level, pnginfo=info)
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
