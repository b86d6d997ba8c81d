"""Cartoon faces of the parts of `python-avatars` (MIT), whose attributes are known exactly.

Each face is a function of (data seed, index). A bias is a target rate of an attribute where a condition holds.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import python_avatars as parts

from pipeline_lib.config import RateRule
from pipeline_lib.config.names import AVATAR_ATTRIBUTES, AVATAR_EXCHANGEABLE, AVATAR_SETTABLE
from pipeline_lib.data.avatars.settings import AvatarData
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
    """The drawing of one avatar on a background."""

    avatar: parts.Avatar
    background: str

    @cached_property
    def attributes(self) -> dict[str, bool]:
        """The ground truth of the drawing."""
        top, mouth, accessory = self.avatar.top.name, self.avatar.mouth.name, self.avatar.accessory.name
        sunglasses = accessory in SUNGLASSES
        truth = {
            "long_hair": top in LONG_HAIR,
            "blond_hair": self.avatar.hair_color.name in BLOND and top not in HATS and top != "NONE",
            "bald": top in ("NONE", "SIDES"),
            "hat": top in HATS,
            "dark_skin": self.avatar.skin_color.name in DARK_SKIN,
            "smiling": mouth in SMILING_MOUTHS,
            "mouth_open": (SMILING_MOUTHS | OTHER_MOUTHS)[mouth],
            "eyeglasses": accessory != "NONE",
            "sunglasses": sunglasses,
            "beard": self.avatar.facial_hair.name != "NONE",
            "eyes_closed": EYES[self.avatar.eyes.name] and not sunglasses,
        }
        return {name: truth[name] for name in AVATAR_ATTRIBUTES}

    def redraw(self, places: Mapping[str, Any]) -> Face:
        """Return the face with these drawings or colours in places of its avatar; all else stays as it is."""
        avatar = copy.copy(self.avatar)
        for place, drawing in places.items():
            setattr(avatar, place, drawing)
        return Face(avatar, self.background)


def face_of(settings: AvatarData, image_id: str) -> Face:
    """Draw the face of an image of the training or held-out set, with the rates of its set."""
    index = int(image_id.removeprefix(ID))
    of_held_out = index >= HELD_OUT_FROM and settings.held_out_rates is not None
    return draw_face(settings.seed, index, settings.held_out_rates if of_held_out else settings.rates)


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

    def pick(kind: Any, names: Sequence[str]) -> Any:
        return kind[names[int(rng.integers(len(names)))]]

    # in the order of these draws: another one would draw other faces
    hair = pick(parts.HairType, LONG_HAIR if drawn["long_hair"] else SHORT_HAIR)
    hat = pick(parts.HatType, HATS)
    hair_color = pick(parts.HairColor, BLOND if rng.random() < 0.3 else OTHER_HAIR_COLORS)
    hat_color = pick(parts.ClothingColor, HAT_COLORS)
    mouth = pick(parts.MouthType, tuple(SMILING_MOUTHS if drawn["smiling"] else OTHER_MOUTHS))
    eyes = pick(parts.EyeType, tuple(EYES))
    sunglasses = drawn["eyeglasses"] and rng.random() < 0.25
    accessory = pick(parts.AccessoryType, SUNGLASSES if sunglasses else CLEAR_GLASSES)
    beard = pick(parts.FacialHairType, BEARDS)
    brows = pick(parts.EyebrowType, BROWS)
    skin = pick(parts.SkinColor, DARK_SKIN if drawn["dark_skin"] else LIGHT_SKIN)
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    avatar = parts.Avatar(
        style=parts.AvatarStyle.TRANSPARENT,
        top=hat if drawn["hat"] else hair,
        hat_color=hat_color,
        hair_color=hair_color,
        facial_hair_color=hair_color,
        facial_hair=beard if drawn["beard"] else parts.FacialHairType.NONE,
        accessory=accessory if drawn["eyeglasses"] else parts.AccessoryType.NONE,
        mouth=mouth,
        eyes=eyes,
        eyebrows=brows,
        nose=parts.NoseType.DEFAULT,
        skin_color=skin,
        clothing=parts.ClothingType.SHIRT_CREW_NECK,
        clothing_color=parts.ClothingColor.GRAY_02,
    )
    return Face(avatar, background)


def variants_of(face: Face, exchanged: Sequence[str]) -> dict[str, Face]:
    """Draw a face with every possible drawing of some parts; the face is one of its own variants.

    Args:
        face: the face.
        exchanged: names of the parts, of `config.names.AVATAR_EXCHANGEABLE`.

    Returns:
        The variants by name, such as `SMILE`, or `HAPPY+ROUND` for two parts.

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
    return {
        "+".join(drawing.name for drawing in drawings): face.redraw(dict(zip(places, drawings, strict=True)))
        for drawings in itertools.product(*options)
    }


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
    places = {place: getattr(sources[part].avatar, place) for part, (place, _) in _DRAWINGS.items()}
    places |= {"top": top, "hair_color": hair.hair_color, "hat_color": hat.hat_color}
    places["facial_hair_color"] = sources["facial_hair"].avatar.facial_hair_color
    return Face(sources["skin"].avatar, sources["background"].background).redraw(places)
