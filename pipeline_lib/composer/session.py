"""What the composer does with images: edits, the versions that were kept, and how each of them was made."""

from __future__ import annotations

import base64
import binascii
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from pipeline_lib import __version__
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import Masks, make_collage
from pipeline_lib.imaging.masks import grow
from pipeline_lib.imaging.transfer import as_pixels, to_float
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime.errors import DataError


class Request(BaseModel):
    """One edit: which pixels of an image are to come from a donor, or to have a colour.

    Attributes:
        image: name of the image or version to edit.
        mask: the pasted pixels, a byte of 0 or 1 for each of H * W in rows, in base64.
        donor: name of the image that they come from, or None.
        colour: their colour instead, each channel in 0 to 255, or None.
        buffer: width in pixels of the ring around them that the encoder fills in.
        finish: what is kept of the composite, as `rebalance.edit.finish` in a config.
    """

    model_config = ConfigDict(extra="forbid")

    image: str
    mask: str
    donor: str | None = None
    colour: tuple[int, int, int] | None = None
    buffer: int = Field(1, ge=0, le=64)
    finish: Literal["none", "region", "detail"] = "region"

    @model_validator(mode="after")
    def _has_one_source(self) -> Request:
        if (self.donor is None) == (self.colour is None):
            raise ValueError("give either a donor or a colour")
        if self.colour and not all(0 <= channel <= 255 for channel in self.colour):
            raise ValueError(f"colour: {list(self.colour)} is not in 0 to 255")
        if self.colour and self.finish == "detail":
            raise ValueError("a colour has no detail to keep; choose `region` or `none`")
        return self


@dataclass(frozen=True)
class Version:
    """An image, and how it was made: the first image and the steps from there."""

    pixels: np.ndarray  # uint8 (H, W, 3)
    original: str
    steps: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Edit:
    """The three stages of an edit, uint8 (H, W, 3), and how long it took."""

    collage: np.ndarray
    composite: np.ndarray
    finished: np.ndarray
    seconds: float


@dataclass
class Composer:
    """Edits images with an encoder and a generator, and remembers the versions that were kept.

    Args:
        inverter: encoder and generator.
        images: the images to start from, uint8 (H, W, 3) by name, all of the generator's resolution.
        models: digest of each weight file by its role, stored with a version.
        generated: whether the images to start from are samples of the generator.
    """

    inverter: Inverter
    images: Mapping[str, np.ndarray]
    models: Mapping[str, str] = field(default_factory=dict)
    generated: bool = False

    def __post_init__(self) -> None:
        self.side = self.inverter.generator.resolution
        self.versions = {name: Version(pixels, name) for name, pixels in self.images.items()}

    @torch.no_grad()
    def edit(self, request: Request) -> Edit:
        """Make an edit without keeping it.

        Raises:
            DataError: an image is unknown, or the mask is not one of this size.
        """
        start = time.perf_counter()
        context = self._pixels(request.image)
        donor = self._pixels(request.donor) if request.donor else self._plain(request.colour)
        pasted = self._mask(request.mask)
        masks = Masks(pasted, grow(pasted, request.buffer) - pasted)
        collage = make_collage(context, donor, masks.pasted)
        composite = self.inverter(collage, masks.known)
        kept = finish(context, donor, composite, masks, request.finish) if pasted.any() else context
        shown = as_pixels(torch.cat([collage, composite, kept])).cpu().numpy()
        return Edit(*shown, time.perf_counter() - start)

    def keep(self, request: Request) -> str:
        """Keep the finished edit as a new version; returns its name."""
        edit, before = self.edit(request), self._version(request.image)
        step = request.model_dump(exclude={"image"}) | {"pasted_pixels": int(self._mask(request.mask).sum())}
        if request.donor and self._version(request.donor).steps:
            step["donor_lineage"] = self.lineage(request.donor)
        numbers = itertools.count(1 + len(self.versions) - len(self.images))
        name = next(name for number in numbers if (name := f"{before.original}-edit-{number}") not in self.versions)
        self.versions[name] = Version(edit.finished, before.original, (*before.steps, step))
        return name

    def lineage(self, name: str) -> dict[str, Any]:
        """Return how a version was made, in plain values.

        Raises:
            DataError: there is no such version.
        """
        version = self._version(name)
        return {
            "synthetic": self.generated or bool(version.steps),
            "software": f"latent-rebalance {__version__}",
            "original": version.original,
            "steps": list(version.steps),
            "models": dict(self.models),
        }

    def pixels(self, name: str) -> np.ndarray:
        """Return a version, uint8 (H, W, 3); a DataError if there is none of this name."""
        return self._version(name).pixels

    def _version(self, name: str) -> Version:
        if name not in self.versions:
            raise DataError(f"no image {name}; reload the page")
        return self.versions[name]

    def _pixels(self, name: str) -> Tensor:
        pixels = np.ascontiguousarray(self._version(name).pixels)
        return to_float(torch.from_numpy(pixels).permute(2, 0, 1)[None], self.inverter.device)

    def _plain(self, colour: Sequence[int]) -> Tensor:
        plain = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
        return to_float(plain.expand(1, 3, self.side, self.side), self.inverter.device)

    def _mask(self, encoded: str) -> Tensor:
        """Return the mask (1, 1, H, W) of {0, 1}."""
        try:
            values = np.frombuffer(base64.b64decode(encoded, validate=True), np.uint8)
        except binascii.Error:
            raise DataError("the mask is not base64") from None
        if len(values) != self.side**2 or values.max(initial=0) > 1:
            raise DataError(f"the mask has {len(values)} bytes; it needs {self.side**2} of 0 or 1, one for each pixel")
        return torch.from_numpy(values.reshape(1, 1, self.side, self.side).astype(np.float32)).to(self.inverter.device)
