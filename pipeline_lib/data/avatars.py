"""The embedded dataset of rendered cartoon faces, whose attributes and part masks are known exactly.

The parts are those of `python-avatars` (MIT), rendered by `resvg-py`. Each face is a function of
(data seed, index). A bias is a target rate of an attribute among the faces where a condition holds.
"""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from xml.etree import ElementTree

import numpy as np
import python_avatars as parts
import resvg_py
from PIL import Image

from pipeline_lib.config import AvatarData, RateRule
from pipeline_lib.config.names import AVATAR_ATTRIBUTES, AVATAR_EXCHANGEABLE, AVATAR_PARTS, AVATAR_SETTABLE
from pipeline_lib.data.sources import Item, Record, Source
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

HELD_OUT_FROM = 10_000_000  # index of the first held-out face, beyond any training set
ID = "avatar-"  # how the id of each image begins, before the index of its face

LONG_HAIR = (
    "BOB",
    "STRAIGHT_1",
    "STRAIGHT_STRAND",
    "LONG_NOT_TOO_LONG",
    "MIA_WALLACE",
    "CURLY",
    "LOOSE_HAIR",
    "BIG_HAIR",
)
BEARDLESS = ("LOOSE_HAIR",)  # hair for which the library draws no beard; it is added here
SHORT_HAIR = ("SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED", "SHORT_CURLY", "CAESAR_SIDE_PART", "BUZZCUT", "SIDES", "NONE")
HATS = ("HAT", "TURBAN", "WINTER_HAT_3")
SMILING_MOUTHS = {"SMILE": True, "BIG_SMILE": True, "DEFAULT": True, "TWINKLE": False}  # name -> is the mouth open?
OTHER_MOUTHS = {
    "CONCERNED": True,
    "SCREAM_OPEN": True,
    "DISBELIEF": True,
    "GRIMACE": False,
    "SAD": False,
    "SERIOUS": False,
}
EYES = {"DEFAULT": False, "SIDE": False, "HAPPY": True}  # name -> are the eyes closed?
BROWS = ("DEFAULT_NATURAL", "FLAT_NATURAL", "RAISED_EXCITED_NATURAL")
CLEAR_GLASSES = ("PRESCRIPTION_2", "ROUND")
SUNGLASSES = ("WAYFARERS",)
BEARDS = ("BEARD_LIGHT", "BEARD_MEDIUM")
LIGHT_SKIN = ("PALE", "LIGHT")
DARK_SKIN = ("BROWN", "DARK_BROWN", "BLACK")
BLOND = ("BLONDE", "BLONDE_GOLDEN", "PLATINUM")
OTHER_HAIR_COLORS = ("BLACK", "BROWN", "BROWN_DARK", "AUBURN", "RED", "SILVER_GRAY")
HAT_COLORS = ("BLUE_01", "BLUE_03", "PASTEL_GREEN", "RED", "GRAY_01")
BACKGROUNDS = ("#b8d8e8", "#f3d9b1", "#c9e4ca", "#e0cbe8")

#: Exchangeable part -> where an avatar holds it, and its possible drawings.
_DRAWINGS = {
    "mouth": ("mouth", [parts.MouthType[name] for name in (*SMILING_MOUTHS, *OTHER_MOUTHS)]),
    "eyes": ("eyes", [parts.EyeType[name] for name in EYES]),
    "brows": ("eyebrows", [parts.EyebrowType[name] for name in BROWS]),
    "glasses": ("accessory", [parts.AccessoryType[name] for name in ("NONE", *CLEAR_GLASSES, *SUNGLASSES)]),
    "facial_hair": ("facial_hair", [parts.FacialHairType[name] for name in ("NONE", *BEARDS)]),
}


@dataclass(frozen=True)
class Face:
    """The drawing of one avatar and its ground truth."""

    avatar: parts.Avatar
    background: str
    attributes: dict[str, bool]


def open_avatars(settings: AvatarData) -> Source:
    """List the faces of the training and held-out sets; they are drawn when read."""

    def items(indices: range) -> list[Item]:
        return [Item(f"{ID}{index:08d}", index, _face_at(settings, index).attributes) for index in indices]

    return Source(
        train=items(range(settings.images)),
        held_out=items(range(HELD_OUT_FROM, HELD_OUT_FROM + settings.held_out)),
        read=partial(_read, settings),
        preprocessing=f"rendered by resvg-py {version('resvg-py')}",
        equal_are_copies=False,
    )


def face_of(settings: AvatarData, image_id: str) -> Face:
    """Draw the face of an image of the training or held-out set."""
    return _face_at(settings, int(image_id.removeprefix(ID)))


def _face_at(settings: AvatarData, index: int) -> Face:
    """Draw the face with a global index, with the rates of its set."""
    of_held_out = index >= HELD_OUT_FROM and settings.held_out_rates is not None
    return draw_face(settings.seed, index, settings.held_out_rates if of_held_out else settings.rates)


def _read(settings: AvatarData, item: Item) -> Record:
    face = _face_at(settings, item.origin)
    image, codes = render_face(face, settings.resolution, settings.crop)
    return Record(image, codes)


def draw_face(seed: int, index: int, rules: Sequence[RateRule]) -> Face:
    """Draw the face with global `index` of the dataset with `seed`; later rules override earlier ones."""
    rng = seeding.numpy_generator(seed, "avatars", index)
    drawn: dict[str, bool] = {}
    for attribute, default in AVATAR_SETTABLE.items():
        rate = default
        for rule in rules:
            if rule.attribute == attribute and all(drawn.get(name) is value for name, value in rule.where.items()):
                rate = rule.rate
        drawn[attribute] = bool(rng.random() < rate)
        if drawn.get("hat"):
            drawn["long_hair"] = False  # these hats hide long hair; attributes conditioned on it are drawn later

    hair = _pick(rng, LONG_HAIR if drawn["long_hair"] else SHORT_HAIR)
    hat = _pick(rng, HATS)
    hair_color = _pick(rng, BLOND if rng.random() < 0.3 else OTHER_HAIR_COLORS)
    hat_color = _pick(rng, HAT_COLORS)
    mouths = SMILING_MOUTHS if drawn["smiling"] else OTHER_MOUTHS
    mouth = _pick(rng, tuple(mouths))
    eyes = _pick(rng, tuple(EYES))
    sunglasses = drawn["eyeglasses"] and bool(rng.random() < 0.25)
    accessory = _pick(rng, SUNGLASSES if sunglasses else CLEAR_GLASSES)
    beard = _pick(rng, BEARDS)
    brows = _pick(rng, BROWS)
    skin = _pick(rng, DARK_SKIN if drawn["dark_skin"] else LIGHT_SKIN)
    background = _pick(rng, BACKGROUNDS)

    avatar = parts.Avatar(
        style=parts.AvatarStyle.TRANSPARENT,
        top=parts.HatType[hat] if drawn["hat"] else parts.HairType[hair],
        hat_color=parts.ClothingColor[hat_color],
        hair_color=parts.HairColor[hair_color],
        facial_hair_color=parts.HairColor[hair_color],
        facial_hair=parts.FacialHairType[beard] if drawn["beard"] else parts.FacialHairType.NONE,
        accessory=parts.AccessoryType[accessory] if drawn["eyeglasses"] else parts.AccessoryType.NONE,
        mouth=parts.MouthType[mouth],
        eyes=parts.EyeType[eyes],
        eyebrows=parts.EyebrowType[brows],
        nose=parts.NoseType.DEFAULT,
        skin_color=parts.SkinColor[skin],
        clothing=parts.ClothingType.SHIRT_CREW_NECK,
        clothing_color=parts.ClothingColor.GRAY_02,
    )
    return Face(avatar, background, _attributes_of(avatar))


def _attributes_of(avatar: parts.Avatar) -> dict[str, bool]:
    """Return the ground truth of a drawing."""
    top, mouth, accessory = avatar.top.name, avatar.mouth.name, avatar.accessory.name
    sunglasses = accessory in SUNGLASSES
    truth = {
        "long_hair": top in LONG_HAIR,
        "blond_hair": avatar.hair_color.name in BLOND and top not in HATS and top != "NONE",
        "bald": top in ("NONE", "SIDES"),
        "hat": top in HATS,
        "dark_skin": avatar.skin_color.name in DARK_SKIN,
        "smiling": mouth in SMILING_MOUTHS,
        "mouth_open": (SMILING_MOUTHS | OTHER_MOUTHS)[mouth],
        "eyeglasses": accessory != "NONE",
        "sunglasses": sunglasses,
        "beard": avatar.facial_hair.name != "NONE",
        "eyes_closed": EYES[avatar.eyes.name] and not sunglasses,
    }
    return {name: truth[name] for name in AVATAR_ATTRIBUTES}


def draw_variants(face: Face, exchanged: Sequence[str]) -> Iterator[tuple[str, Face]]:
    """Draw a face with every possible drawing of some parts; all else stays as it is.

    Args:
        face: the face, which is one of its own variants.
        exchanged: names of the parts, of `config.names.AVATAR_EXCHANGEABLE`.

    Yields:
        The name of the variant, such as `SMILE`, or `HAPPY+ROUND` for two parts, and the face with its attributes.

    Raises:
        DataError: a part has no drawings to exchange.
    """
    unknown = ", ".join(sorted(set(exchanged) - set(AVATAR_EXCHANGEABLE)))
    if unknown or not exchanged:
        known = ", ".join(AVATAR_EXCHANGEABLE)
        raise DataError(
            f"rebalance.edit.region: no drawings to exchange of {unknown or 'no part'}; the parts are {known}"
        )
    places, options = zip(*(_DRAWINGS[part] for part in exchanged), strict=True)
    for drawings in itertools.product(*options):
        avatar = copy.copy(face.avatar)
        for place, drawing in zip(places, drawings, strict=True):
            setattr(avatar, place, drawing)
        yield "+".join(drawing.name for drawing in drawings), Face(avatar, face.background, _attributes_of(avatar))


def combine_faces(sources: Mapping[str, Face]) -> Face | None:
    """Draw one face with each part of another, which is what a collage of these parts should become.

    Args:
        sources: the face that gives each of `AVATAR_PARTS`; a part that it lacks is left out.

    Returns:
        The face, or None if there is no such drawing, since hats are drawn without hair.
    """
    hair, hat = sources["hair"].avatar, sources["hat"].avatar
    top = parts.HairType.NONE if hair.top.name in HATS else hair.top
    if hat.top.name in HATS:
        if top is not parts.HairType.NONE:
            return None
        top = hat.top
    avatar = copy.copy(sources["skin"].avatar)
    avatar.top, avatar.hair_color, avatar.hat_color = top, hair.hair_color, hat.hat_color
    for part, (place, _) in _DRAWINGS.items():
        setattr(avatar, place, getattr(sources[part].avatar, place))
    avatar.facial_hair_color = sources["facial_hair"].avatar.facial_hair_color
    return Face(avatar, sources["background"].background, _attributes_of(avatar))


def render_image(face: Face, resolution: int, crop: tuple[float, float, float]) -> np.ndarray:
    """Render a face as `render_face` does, without its part codes."""
    return _rasterise(_cropped(face, resolution, crop), resolution, face.background)


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
    return image, _nearest_code(codes)


def _cropped(face: Face, resolution: int, crop: tuple[float, float, float]) -> ElementTree.Element:
    drawing = ElementTree.fromstring(face.avatar.render())
    if face.avatar.top.name in BEARDLESS:
        _add_beard(drawing, face.avatar)
    left, top, side = crop
    for key, value in (("width", resolution), ("height", resolution), ("viewBox", f"{left} {top} {side} {side}")):
        drawing.set(key, str(value))
    return drawing


def _add_beard(drawing: ElementTree.Element, avatar: parts.Avatar) -> None:
    """Draw the beard of an avatar over its hair, as with other hair, if it has one."""
    shaven = copy.copy(avatar)
    shaven.top = parts.HairType.NONE
    beard = _group(ElementTree.fromstring(shaven.render()), "_Facial-Hair")
    _group(drawing, "_Top")[0].append(beard)


def _group(drawing: ElementTree.Element, ending: str) -> ElementTree.Element:
    """Return the first group of a drawing whose id ends like this."""
    return next(element for element in drawing.iter() if element.get("id", "").endswith(ending))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


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


_CODE_STEP = 25


def _code_color(code: int) -> str:
    return f"#{_CODE_STEP * code:02x}8080"


def _nearest_code(colors: np.ndarray) -> np.ndarray:
    red = colors[..., 0].astype(np.int32)
    return np.minimum((red + _CODE_STEP // 2) // _CODE_STEP, len(AVATAR_PARTS) - 1).astype(np.uint8)
