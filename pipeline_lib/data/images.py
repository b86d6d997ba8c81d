"""Reading image and mask files as arrays: upright, in 8-bit sRGB, centre-cropped and resized."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from pipeline_lib.data.sources import BadImageError, Item, Record

#: Stored in every shard, because distances between image sets depend on how the images were resized.
PREPROCESSING = f"upright, sRGB by relative colorimetric intent, middle square, Lanczos, Pillow {PIL.__version__}"

#: Suffixes of image files.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif"}
#: Formats that are read, by content and not by suffix; Pillow reads more, some of them with external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF")

#: How the stored pixels of each EXIF orientation are turned upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UPRIGHT = (0, 1)  # cameras write 0 for "unknown", and every viewer shows such a file as it is stored
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height

#: Colour modes that are converted to RGB without loss of meaning, and what is said of it.
CONVERSIONS = {
    "1": "1-bit to RGB",
    "L": "grey to RGB",
    "P": "palette to RGB",
    "YCbCr": "YCbCr to RGB",
    "CMYK": "CMYK to RGB",
}
OPAQUE = 250  # an alpha of which changes no colour by more than 5 of 255 levels, whatever lies behind
LEVELS_OF_12_BITS = 16  # of 256, which 12-bit values fill in 16 bits
SAME_LEVELS = 2  # a profile that moves no colour by more is taken for sRGB's own


class Decoded(NamedTuple):
    """A decoded file.

    Attributes:
        image: its pixels, upright, in the file's colour mode.
        orientation: EXIF orientation of the stored pixels, 1 to 8; None if the file has none.
        deep: whether the file has 16 bits a channel.
        adobe: whether EXIF, and not a profile, says that the colours are Adobe RGB.
    """

    image: Image.Image
    orientation: int | None
    deep: bool
    adobe: bool


@dataclass(frozen=True)
class Photograph:
    """An image as it is meant to be seen.

    Attributes:
        image: mode RGB, upright, in sRGB.
        name: of its file, for messages.
        orientation: EXIF orientation of the stored pixels, 1 to 8.
        conversions: what was converted, as in `Record`.
    """

    image: Image.Image
    name: str
    orientation: int
    conversions: tuple[str, ...]

    def square(self, resolution: int, codes: np.ndarray | None = None) -> Record:
        """Centre-crop the image to a square, resize it, and put it beside its part codes.

        Raises:
            BadImageError: the image is smaller than the square.
        """
        width, height = self.image.size
        if min(width, height) < resolution:
            raise BadImageError(f"{self.name} has {width} by {height} pixels, less than the required {resolution}")
        square = self.image.resize((resolution, resolution), Image.Resampling.LANCZOS, _middle(self.image.size))
        return Record(np.asarray(square), codes, self.conversions)


def read_file(resolution: int, item: Item) -> Record:
    """Read an item whose origin is a path."""
    return load_square(item.origin, resolution)


def load_square(path: Path | BytesIO, resolution: int) -> Record:
    """Read an image without a mask, centre-crop it to a square and resize it.

    Raises:
        BadImageError: as of `open_photograph` and `Photograph.square`.
    """
    return open_photograph(path).square(resolution)


def load_codes(path: Path, resolution: int, parts: int, photograph: Photograph) -> np.ndarray:
    """Read a mask whose pixel values are part codes, cropped and resized like its image without interpolation.

    Returns:
        uint8 of shape (resolution, resolution).

    Raises:
        BadImageError: the file is missing, damaged, does not fit its image, or contains a code that is not a part.
    """
    mask = decode(path)
    if mask.image.mode not in ("L", "P", "1"):
        mode = mask.image.mode
        raise BadImageError(f"the mask {path.name} has the colour mode {mode}; its pixels must be part codes")
    codes = square_codes(mask.image, resolution, photograph, path.name, mask.orientation is not None)
    if codes.max() >= parts:
        raise BadImageError(f"the mask {path.name} has the code {codes.max()}, but `data.parts` names {parts} parts")
    return codes


def square_codes(
    mask: Image.Image, resolution: int, photograph: Photograph, name: str, upright: bool = False
) -> np.ndarray:
    """Turn a mask as its photograph is turned, crop it to a square and resize it without interpolation.

    A mask without EXIF may have been made for the pixels as they are stored or as they are shown; its size must tell.

    Args:
        mask: part codes, of the photograph's size or scaled alike, modes L, P or 1.
        resolution: side of the square in pixels.
        photograph: the mask's image.
        name: of the mask, for messages.
        upright: whether the mask is known to show the photograph upright.

    Raises:
        BadImageError: the mask has another shape than its image, or either way fits.
    """
    shown = photograph.image.size
    ways = {1: shown}
    if not upright and photograph.orientation != 1:
        ways[photograph.orientation] = shown[::-1] if photograph.orientation in SIDEWAYS else shown
    fitting = [way for way, size in ways.items() if _of_one_shape(mask.size, size)]
    if not fitting:
        raise BadImageError(
            f"the mask {name} has {mask.width} by {mask.height} pixels, but its image {shown[0]} by {shown[1]}; "
            "make the mask anew, or scale it to the image's width and height"
        )
    if len(fitting) > 1:
        raise BadImageError(
            f"the mask {name} may be made for its image as stored or as turned by EXIF orientation "
            f"{photograph.orientation}; save the image as the mask shows it, without EXIF orientation"
        )
    if fitting[0] != 1:
        mask = mask.transpose(TURNS[fitting[0]])
    codes = mask.resize((resolution, resolution), Image.Resampling.NEAREST, _middle(mask.size))
    return np.asarray(codes, np.uint8)


def open_photograph(path: Path | BytesIO) -> Photograph:
    """Read an image upright in 8-bit sRGB.

    Of 16 bits the upper eight are kept. Colours are converted by the file's profile with the relative colorimetric
    intent and black point compensation, which keep every colour that sRGB has; the perceptual intent would move these,
    too. An image without a profile is taken for sRGB. Chunks of PNG such as gAMA and cHRM are not read.

    Raises:
        BadImageError: the file is missing, damaged, too large, transparent or animated, or its colours or its
            orientation are unknown.
    """
    name = _name(path)
    image, orientation, deep, adobe = decode(path)
    conversions: tuple[str, ...] = ()
    if deep:
        image = _upper_bits(image, name)
        conversions += ("16 to 8 bits",)
    if image.has_transparency_data:
        image, alpha = _without_alpha(image, name)
        if alpha < OPAQUE:
            raise BadImageError(f"{name} is transparent; put it on a background and save it without transparency")
        conversions += ("opaque alpha dropped" if alpha == 255 else "nearly opaque alpha dropped",)
    if image.mode != "RGB" and image.mode not in CONVERSIONS:
        raise BadImageError(f"the colour mode of {name} is {image.mode}; convert it to 8-bit RGB")
    if deep and image.mode in ("L", "RGB") and np.asarray(image).max() < LEVELS_OF_12_BITS:
        raise BadImageError(f"{name} fills at most 12 of its 16 bits; scale its values to the full range")
    if adobe and "icc_profile" not in image.info:
        raise BadImageError(f"{name} is Adobe RGB by its EXIF, but has no colour profile; convert it to sRGB")
    image, converted = _in_srgb(image, name)
    return Photograph(image, name, orientation or 1, conversions + converted)


def decode(path: Path | BytesIO) -> Decoded:
    """Read an entire file and turn its pixels upright.

    Raises:
        BadImageError: the file is missing, damaged, too large or animated, or its orientation is unknown.
    """
    name = _name(path)
    with _fault_of(name), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            animated = image.format != "MPO" and getattr(image, "is_animated", False)  # an MPO begins with the photo
            deep = image.format in ("PNG", "TIFF") and any(";16" in str(tile.args) for tile in image.tile)
            inverted = image.format == "TIFF" and image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
            before = len(warned)
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            if "exif" in image.info:  # once more, since Pillow may have passed over an error the first time
                Image.Exif().load(image.info["exif"])
            damage = warned[before:]  # where EXIF breaks off, Pillow only warns
            adobe = _is_adobe(image.getexif())
            image.load()
            if orientation in TURNS and image.format != "TIFF":  # which Pillow has turned
                image = image.transpose(TURNS[orientation])
    if animated:
        raise BadImageError(f"{name} contains several images; save the one that is labelled")
    if orientation is None and damage:
        reason = _line(damage[0].message)
        raise BadImageError(f"the orientation of {name} is unknown, as its EXIF is damaged ({reason}); remove the EXIF")
    if orientation not in (None, *UPRIGHT, *TURNS):
        raise BadImageError(f"the EXIF orientation of {name} is {orientation!r}, not 1 to 8; correct or remove it")
    if deep and inverted and image.mode.startswith("I;16"):  # which Pillow does not turn round
        raise BadImageError(f"{name} has 16 bits, and 0 for white; convert it to 8-bit RGB")
    return Decoded(image, 1 if orientation in UPRIGHT else orientation, deep, adobe)


def _is_adobe(exif: Image.Exif) -> bool:
    """Whether EXIF says Adobe RGB, as cameras do (DCF 2.0: interoperability R03) that embed no profile."""
    try:
        return (
            ExifTags.IFD.Interop in exif.get_ifd(ExifTags.IFD.Exif) and exif.get_ifd(ExifTags.IFD.Interop)[1] == "R03"
        )
    except Exception:  # an unreadable directory says nothing; orientation lies in another
        return False


def _upper_bits(image: Image.Image, name: str) -> Image.Image:
    """Return the upper eight of 16 bits; of colours, Pillow has read no others."""
    if "transparency" in image.info:
        raise BadImageError(f"{name} has a transparent colour of 16 bits; save it without transparency")
    if not image.mode.startswith("I;16"):
        return image
    upper = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    upper.info = image.info
    return upper


def _without_alpha(image: Image.Image, name: str) -> tuple[Image.Image, int]:
    """Return an image without its transparency, and its lowest alpha."""
    with _fault_of(name):
        lowest = image.convert("RGBA").getextrema()[3][0]
        if image.mode in ("LA", "RGBA"):
            image = image.convert(image.mode[:-1])
        image.info.pop("transparency", None)
        return image, lowest


def _in_srgb(image: Image.Image, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an image of the mode RGB, or one of `CONVERSIONS`, to RGB by its profile, and say what was done."""
    done = (CONVERSIONS[image.mode],) if image.mode in CONVERSIONS else ()
    with _fault_of(name):
        if "icc_profile" not in image.info:
            return image.convert("RGB"), ("CMYK without a profile to RGB",) if image.mode == "CMYK" else done
        pixels = image.convert({"1": "L", "L": "L", "CMYK": "CMYK"}.get(image.mode, "RGB"))
    with _fault_of(f"the colour profile of {name}"):
        mode, transform, profile = _transform(image.info["icc_profile"], pixels.mode)
        pixels = pixels.convert(mode)
        if transform is None:
            return pixels.convert("RGB"), done
        return ImageCms.applyTransform(pixels, transform), (*done, f"{profile} to sRGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None, str]:
    """Return the mode of the pixels that a profile takes, the transform from it to sRGB, and its name.

    Names do not tell sRGB, which many profiles describe with small differences, so the transform is tried on a grid of
    colours; it is None if it would not change them, so that pixels of ordinary files stay as they are.
    """
    given = ImageCms.ImageCmsProfile(BytesIO(profile))
    if mode == "L" and given.profile.xcolor_space.strip() != "GRAY":
        mode = "RGB"  # a grey is also a colour of an RGB profile
    described = given.profile.profile_description or ""
    transform = ImageCms.buildTransform(
        given,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    printable = "".join(character if character.isprintable() else " " for character in described)
    called = " ".join(printable.split())[:60] or "a profile without a name"
    if mode == "CMYK":
        return mode, transform, called
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.arange(256, dtype=np.uint8) if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), -1)
    colours = Image.fromarray(grid.reshape(1, -1, *grid.shape[3:]))
    moved = np.asarray(ImageCms.applyTransform(colours, transform), int) - np.asarray(colours.convert("RGB"))
    return mode, None if np.abs(moved).max() <= SAME_LEVELS else transform, called


@contextmanager
def _fault_of(name: str) -> Iterator[None]:
    """Blame the file for whatever Pillow raises; no more than calls of Pillow belong inside."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadImageError(f"no file {error.filename}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImageError(f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; reduce its size") from None
    except UnidentifiedImageError:
        raise BadImageError(f"{name} cannot be read (damaged, or none of {', '.join(FORMATS)})") from None
    except Exception as error:  # on damaged files decoders raise anything, from struct.error to MemoryError
        raise BadImageError(f"{name} cannot be read ({_line(error)})") from error


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _name(path: Path | BytesIO) -> str:
    return path.name if isinstance(path, Path) else "the image"


def _middle(size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _of_one_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a size is another one scaled and rounded to whole pixels."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(other)
