"""The file that an image comes from, and how an edit is written into it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from pipeline_lib.data.images import TURNS, open_photograph
from pipeline_lib.data.originals.errors import NotEditableError
from pipeline_lib.data.originals.jpeg import check_jpeg, edit_jpeg
from pipeline_lib.data.originals.png import check_png, edit_png

CHECKS = {"JPEG": check_jpeg, "MPO": check_jpeg, "PNG": check_png}  # MPO: a JPEG with further pictures behind it
#: How upright pixels of each EXIF orientation are turned as they are stored.
TURNED_BACK = {**TURNS, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class FileFacts:
    """A file as it was found: digest of its bytes (SHA-256), their number, its format and size as it is stored.

    `not_editable` says why no edit can be written into it without changing the rest of it; None if one can.
    """

    digest: str
    bytes: int
    format: str
    width: int
    height: int
    not_editable: str | None


@dataclass(frozen=True)
class Patch:
    """New pixels of a rectangle of a photograph as it is seen, float or uint8 (h, w, 3) in [0, 255], in sRGB."""

    top: int
    left: int
    pixels: np.ndarray


def facts_of(path: Path) -> FileFacts:
    """Return what a file is that Pillow can open."""
    content = path.read_bytes()
    with Image.open(BytesIO(content)) as image:
        kind, (width, height) = image.format or "", image.size
    reason = None
    try:
        if kind not in CHECKS:
            raise NotEditableError(f"{kind} file")
        CHECKS[kind](content)
    except NotEditableError as found:
        reason = str(found)
    return FileFacts(digest_of_content(content), len(content), kind, width, height, reason)


def digest_of_content(content: bytes) -> str:
    """Return the SHA-256 digest of a file's bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_patch(path: Path, patch: Patch) -> bytes:
    """Return the contents of a file with a patch, of which nothing else changes: format, size, metadata, other pixels.

    Raises:
        NotEditableError: its format does not allow it.
        BadImageError: it cannot be read.
    """
    content = path.read_bytes()
    photograph, stored = open_photograph(path), _stored(content)
    before = np.asarray(photograph.image)
    after = before.copy()
    height, width = patch.pixels.shape[:2]
    after[patch.top : patch.top + height, patch.left : patch.left + width] = np.clip(np.rint(patch.pixels), 0, 255)
    added = _in_colours_of(after, stored) - _in_colours_of(before, stored)
    added = _turned_back(added, photograph.orientation)
    own = np.asarray(stored)
    if stored.mode in ("L", "LA"):
        added = added.mean(axis=2)
    if own.ndim == 3 and stored.mode in ("LA", "RGBA"):  # opaque, which it stays
        added = np.concatenate([added.reshape(*own.shape[:2], -1), np.zeros((*own.shape[:2], 1))], axis=2)
    if stored.format in ("JPEG", "MPO"):
        return edit_jpeg(path, own, own + added)
    return edit_png(content, np.clip(np.rint(own + added), 0, 255).astype(np.uint8))


def _stored(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def _in_colours_of(pixels: np.ndarray, stored: Image.Image) -> np.ndarray:
    """Convert sRGB pixels (H, W, 3) into the colours of a file with another profile, float."""
    profile = stored.info.get("icc_profile")
    if profile is None or stored.mode not in ("RGB", "RGBA"):
        return pixels.astype(np.float64)
    given = ImageCms.ImageCmsProfile(BytesIO(profile))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), given, "RGB", "RGB", intent)
    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform)).astype(np.float64)


def _turned_back(added: np.ndarray, orientation: int) -> np.ndarray:
    """Turn what is added to upright pixels as the file stores them."""
    if orientation not in TURNED_BACK:
        return added
    channels = [Image.fromarray(added[..., channel].astype(np.float32)) for channel in range(3)]
    return np.stack([np.asarray(channel.transpose(TURNED_BACK[orientation])) for channel in channels], axis=2)
