"""Reading image and mask files as arrays, centre-cropped and resized."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline_lib.data.sources import BadImageError, Item, Record

#: Stored in every shard, because distances between image sets depend on how the images were resized.
PREPROCESSING = f"middle square, Lanczos, Pillow {PIL.__version__}"

#: Suffixes of image files.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def read_file(resolution: int, item: Item) -> Record:
    """Read an item whose origin is a path."""
    return Record(load_square(item.origin, resolution))


def load_square(path: Path | BytesIO, resolution: int) -> np.ndarray:
    """Read an image, centre-crop it to a square and resize it.

    Returns:
        uint8 of shape (resolution, resolution, 3).

    Raises:
        BadImageError: the file is missing, damaged, too small, too large, or of an unsupported colour mode.
    """
    image = open_image(path)
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    if image.mode not in ("RGB", "L"):
        raise BadImageError(f"its colour mode is {image.mode}; convert it to 8-bit RGB")
    image = ImageOps.exif_transpose(image).convert("RGB")
    side = min(image.size)
    if side < resolution:
        raise BadImageError(f"{image.width} by {image.height} pixels, less than the required {resolution}")
    return np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS, _middle(image.size)))


def load_codes(path: Path, resolution: int, parts: int) -> np.ndarray:
    """Read a mask whose pixel values are part codes, cropped and resized like its image without interpolation.

    Returns:
        uint8 of shape (resolution, resolution).

    Raises:
        BadImageError: the file is missing, damaged, or contains a code that is not a part.
    """
    mask = open_image(path)
    if mask.mode not in ("L", "P", "1"):
        raise BadImageError(f"the mask {path.name} has the colour mode {mask.mode}; its pixels must be part codes")
    codes = np.asarray(mask.resize((resolution, resolution), Image.Resampling.NEAREST, _middle(mask.size)), np.uint8)
    if codes.max() >= parts:
        raise BadImageError(f"the mask {path.name} has the code {codes.max()}, but `data.parts` names {parts} parts")
    return codes


def open_image(path: Path | BytesIO) -> Image.Image:
    """Read an entire image from a file or from its bytes.

    Raises:
        BadImageError: the file is missing, damaged or too large.
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
        raise BadImageError(f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; reduce its size") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise BadImageError(f"{name} cannot be read ({error})") from None
    return image


def _middle(size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
