"""Schedules of GAN training: resolution, learning rate and weight averaging (Karras et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

from pipeline_lib.config import GanTraining


class Growth(NamedTuple):
    """The resolution of a step, in pixels, and the fade of its newest block, in [0, 1]."""

    size: int
    fade: float


def growth(settings: GanTraining, resolution: int, index: int) -> Growth:
    """Return the growth at step `index`, in a phase of progressive growing or at the full `resolution`."""
    left = index * settings.batch / 1000
    size, first = resolution, True
    for phase in settings.growth:
        if left < phase.kimg:
            size = phase.resolution
            break
        left, first = left - phase.kimg, False
    fading = not first and left < settings.fade_kimg
    return Growth(size, left / settings.fade_kimg if fading else 1.0)


def learning_rate(settings: GanTraining, index: int, steps: int) -> float:
    """Return the learning rate at step `index` of `steps`, with a warmup at first and a lower rate at the end."""
    factor = min(1.0, (index + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if index >= steps * (1 - settings.decay_share):
        factor *= settings.decay_factor
    return settings.learning_rate * factor


def averaging_weight(settings: GanTraining, index: int) -> float:
    """Return the weight of the trained generator in the moving average, with half-life `ema_kimg`, shorter at first."""
    half_life = settings.ema_kimg * 1000
    if settings.ema_rampup:
        half_life = min(half_life, max(0.1 * index * settings.batch, settings.batch))
    return 1 - 0.5 ** (settings.batch / half_life)
