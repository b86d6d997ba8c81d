"""The typed config: the one source of defaults, of the JSON schema and of `config/README.md`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of the config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GrowthPhase(Section):
    """A phase of progressive growing."""

    resolution: int
    kimg: Positive


class Augmentation(Section):
    """What the discriminator sees varied, on real and generated images alike."""

    brightness: Share = 0.2
    contrast: Share = 0.4
    shift: Share = Field(0.0625, description="largest shift, as a share of the image's side")


class GanTraining(Section):
    """One adversarial training."""

    kimg: Positive
    batch: int = 16
    learning_rate: Positive = 2e-3
    gamma: float = 3.0
    penalty_every: int = 8
    warmup_steps: int = 100
    decay_share: Share = 0.3
    decay_factor: float = 0.3
    ema_kimg: Positive = 10
    ema_rampup: bool = True
    growth: list[GrowthPhase] = []
    fade_kimg: float = 0
    blur_sigma: float = 3
    blur_share: Share = 0.25
    augment: Augmentation = Augmentation()
    collapse_loss: float = 0.02
