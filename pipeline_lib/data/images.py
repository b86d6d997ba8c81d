"""Image files and mask files as arrays: the middle square, scaled, or a reason why not."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline_lib.data.sources import BadImageError, Item, Record

#: Kept in every shard: distances between image sets depend on how they were scaled.
PREPROCESSING = f"middle square, Lanczos, Pillow {PIL.__version__}"

#: Endings of files that are images.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def read_file(resolution: int, item: Item) -> Record:
    """Read an item whose origin is its path and what is true of it."""
    path, truth = item.origin
    return Record(load_square(path, resolution), None, truth)


def load_square(path: Path | BytesIO, resolution: int) -> np.ndarray:
    """Read an image, cut out the largest square in its middle and scale it.

    Returns:
        uint8 of shape (resolution, resolution, 3).

    Raises:
        BadImageError: the file is missing, damaged, too large, or its colours have no one meaning in 8-bit RGB.
    """
    image = open_image(path)
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    if image.mode not in ("RGB", "L"):
        raise BadImageError(f"its colours are stored as {image.mode}; convert it to 8-bit RGB")
    image = ImageOps.exif_transpose(image).convert("RGB")
    side = min(image.size)
    if side < resolution:
        raise BadImageError(f"{image.width} by {image.height} pixels, smaller than the {resolution} wanted")
    return np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS, _middle(image.size)))


def load_codes(path: Path, resolution: int, parts: int) -> np.ndarray:
    """Read a mask whose pixel values are part codes, cut and scaled like its image, without mixing codes.

    Returns:
        uint8 of shape (resolution, resolution).

    Raises:
        BadImageError: the file is missing, damaged, or holds a code of no part.
    """
    mask = open_image(path)
    if mask.mode not in ("L", "P", "1"):
        raise BadImageError(f"the mask {path.name} is stored as {mask.mode}; its pixels must be part codes")
    codes = np.asarray(mask.resize((resolution, resolution), Image.Resampling.NEAREST, _middle(mask.size)), np.uint8)
    if codes.max() >= parts:
        raise BadImageError(f"the mask {path.name} has the code {codes.max()}, but `data.parts` names {parts} parts")
    return codes


def open_image(path: Path | BytesIO) -> Image.Image:
    """Read an image whole, from a file or from its bytes.

    Raises:
        BadImageError: the file is missing, damaged, or too large to be an image of a dataset.
    """
    name = path.name if isinstance(path, Path) else "the image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
            image.load()
    except FileNotFoundError:
        raise BadImageError(f"no file {path}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImageError(f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise BadImageError(f"{name} cannot be read ({error})") from None
    return image


def _middle(size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
