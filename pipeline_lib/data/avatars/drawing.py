"""Drawing of cartoon faces and their part masks as pixels, by `resvg-py`; they are also a dataset to read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import python_avatars as parts
import resvg_py
from PIL import Image

from pipeline_lib.config.names import AVATAR_PARTS
from pipeline_lib.data.avatars.faces import Face, variants_of
from pipeline_lib.data.avatars.settings import AvatarData

BEARDLESS = ("LOOSE_HAIR",)  # hair for which `python-avatars` draws no beard; it is added here

#: Suffix of a drawing group's id -> the part that the group belongs to, with everything inside it.
_PART_OF_GROUP = {
    "transparent_Body": "skin",
    "transparent_Mouth": "mouth",
    "transparent_Nose": "nose",
    "transparent_Eyes": "eyes",
    "transparent_Eyebrow": "brows",
    "_Facial-Hair": "facial_hair",
    "_Accessory": "glasses",
}
_SHAPES = {"path", "rect", "circle", "ellipse", "polygon", "polyline", "line", "use"}
_NOT_DRAWN = {"defs", "mask", "clipPath", "filter", "title", "desc"}
_SHADOW_CASTING = {"hair", "hat", "glasses", "facial_hair"}
_SHADOW_BELOW = 0.5  # shapes of those parts with a lower opacity are only shading
_CODE_STEP = 25  # in red between the colours of two parts


def render_image(face: Face, resolution: int, crop: tuple[float, float, float]) -> np.ndarray:
    """Render a face as `render_face` does, without its part codes."""
    return _rasterise(_cropped(face, resolution, crop), resolution, face.background)


class Renderings(NamedTuple):
    """A face with every drawing of some parts: names and attributes of the variants, and images, uint8 (n, H, W, 3)."""

    names: list[str]
    attributes: list[dict[str, bool]]
    images: np.ndarray


def render_variants(settings: AvatarData, exchanged: Sequence[str], face: Face) -> Renderings:
    """Render a face with every drawing of some parts; see `variants_of`. It uses no torch, for worker processes."""
    variants = variants_of(face, exchanged)
    images = [render_image(variant, settings.resolution, settings.crop) for variant in variants.values()]
    return Renderings(list(variants), [variant.attributes for variant in variants.values()], np.stack(images))


def render_face(face: Face, resolution: int, crop: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Render a face and its part labels.

    Args:
        face: the face to render.
        resolution: side of the square image in pixels.
        crop: left, top and side of the square crop, in the drawing's units (the drawing is 264 by 280).

    Returns:
        The image, uint8 of shape (resolution, resolution, 3), and the part codes, uint8 of shape
        (resolution, resolution), indices into `AVATAR_PARTS`.
    """
    drawing = _cropped(face, resolution, crop)
    image = _rasterise(drawing, resolution, face.background)
    _paint_labels(drawing, top="hat" if face.attributes["hat"] else "hair")
    codes = _rasterise(drawing, resolution, _code_color(0), shape_rendering="crisp_edges")
    return image, _codes_of(codes)


def _cropped(face: Face, resolution: int, crop: tuple[float, float, float]) -> ElementTree.Element:
    drawing = ElementTree.fromstring(face.avatar.render())
    if face.avatar.top.name in BEARDLESS:  # a beard is then drawn over the hair, as with other hair
        bald = ElementTree.fromstring(face.redraw({"top": parts.HairType.NONE}).avatar.render())
        _group(drawing, "_Top")[0].append(_group(bald, "_Facial-Hair"))
    left, top, side = crop
    for key, value in (("width", resolution), ("height", resolution), ("viewBox", f"{left} {top} {side} {side}")):
        drawing.set(key, str(value))
    return drawing


def _group(drawing: ElementTree.Element, ending: str) -> ElementTree.Element:
    """Return the first group of a drawing whose id ends like this."""
    return next(element for element in drawing.iter() if element.get("id", "").endswith(ending))


def _rasterise(drawing: ElementTree.Element, resolution: int, background: str, **options: str) -> np.ndarray:
    png = resvg_py.svg_to_bytes(
        svg_string=ElementTree.tostring(drawing, encoding="unicode"),
        width=resolution,
        height=resolution,
        background=background,
        skip_system_fonts=True,
        **options,
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _paint_labels(element: ElementTree.Element, top: str, part: str = "background", opacity: float = 1.0) -> None:
    """Repaint a drawing in place so that each visible shape has the flat code colour of its part.

    `top` is the part in the drawing's top group, "hair" or "hat".
    """
    for child in list(element):
        tag = child.tag.rsplit("}", 1)[-1]
        if tag in _NOT_DRAWN:
            continue
        name = child.get("id", "")
        own_part = top if name == "transparent_Top" else part
        for ending, named in _PART_OF_GROUP.items():
            if name.endswith(ending):
                own_part = named
        own_opacity = opacity * float(child.get("opacity", 1)) * float(child.get("fill-opacity", 1))
        shade = own_part in _SHADOW_CASTING and own_opacity < _SHADOW_BELOW
        if tag in _SHAPES and (shade or child.get("filter") or child.get("fill") == "none"):
            element.remove(child)
            continue
        if tag in _SHAPES or child.get("fill", "none") != "none":
            child.set("fill", _code_color(AVATAR_PARTS.index(own_part)))
        _paint_labels(child, top, own_part, own_opacity)
        for attribute in ("opacity", "fill-opacity", "stroke", "filter", "style"):
            child.attrib.pop(attribute, None)


def _code_color(code: int) -> str:
    return f"#{_CODE_STEP * code:02x}8080"


def _codes_of(colors: np.ndarray) -> np.ndarray:
    red = colors[..., 0].astype(np.int32)
    return np.minimum((red + _CODE_STEP // 2) // _CODE_STEP, len(AVATAR_PARTS) - 1).astype(np.uint8)
