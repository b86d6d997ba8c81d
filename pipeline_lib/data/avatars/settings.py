"""The keys of the embedded dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline_lib.config.base import RateRule
from pipeline_lib.config.messages import check_name
from pipeline_lib.config.names import AVATAR_ATTRIBUTES, AVATAR_PARTS, AVATAR_SETTABLE
from pipeline_lib.data.reader import Reader


class AvatarData(Reader):
    """The embedded dataset of rendered cartoon faces with known ground truth."""

    #: Left, top and side of the square crop, in units of the 264 by 280 drawing: the face with its hair.
    crop: ClassVar[tuple[float, float, float]] = (54, 30, 156)

    reader: Literal["avatars"] = Field("avatars", description="reader of the dataset")
    images: Annotated[int, Field(ge=64)] = Field(5000, description="training images")
    held_out: Annotated[int, Field(ge=64)] = Field(2000, description="held-out images")
    resolution: Literal[32, 64, 128, 256] = Field(64, description="side of the images in pixels")
    seed: int = Field(0, description="seed of the faces; each is a function of (seed, index)")
    rates: list[RateRule] = Field(
        [
            RateRule(where={"long_hair": True}, attribute="smiling", rate=0.8),
            RateRule(where={"long_hair": False}, attribute="smiling", rate=0.2),
        ],
        description="rates in the dataset, including its bias; a later rule overrides an earlier one",
    )
    held_out_rates: list[RateRule] | None = Field(
        None, description="rates among held-out images, such as even ones; null: those of the dataset"
    )

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first."""
        return AVATAR_PARTS

    def known_attributes(self) -> Sequence[str]:
        order = list(AVATAR_SETTABLE)
        for key in ("rates", "held_out_rates"):
            for rule in getattr(self, key) or ():
                check_name(f"data.{key}.attribute", rule.attribute, order)
                for name in rule.where:
                    check_name(f"data.{key}.where", name, order[: order.index(rule.attribute)])
        return AVATAR_ATTRIBUTES
