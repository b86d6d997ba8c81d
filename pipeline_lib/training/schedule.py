"""Schedules of GAN training: resolution, learning rate and weight averaging (Karras et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

from pipeline_lib.config import GanTraining

FADE = 0.5  # of a phase's length, over which the resolution after it is faded in
WARMUP = 100  # steps from scratch over which the learning rate rises; given weights have learned to take steps
DECAYED = 0.3  # share of the steps, at the end, with a lower learning rate


class Growth(NamedTuple):
    """The resolution of a step, in pixels, and the fade of its newest block, in [0, 1]."""

    size: int
    fade: float


def growth(settings: GanTraining, resolution: int, index: int) -> Growth:
    """Return the growth at step `index`, in a phase of progressive growing or at the full `resolution`."""
    left = index * settings.batch / 1000
    size, fading = resolution, 0.0
    for phase in settings.growth:
        if left < phase.kimg:
            size = phase.resolution
            break
        left, fading = left - phase.kimg, FADE * phase.kimg
    return Growth(size, left / fading if left < fading else 1.0)


def learning_rate(settings: GanTraining, index: int, steps: int, fresh: bool) -> float:
    """Return the learning rate at step `index` of `steps`, lower at the end, and at first too of `fresh` weights."""
    factor = min(1.0, (index + 1) / WARMUP) if fresh else 1.0
    if index >= steps * (1 - DECAYED):
        factor *= settings.decay_factor
    return settings.learning_rate * factor


def averaging_weight(settings: GanTraining, index: int, fresh: bool) -> float:
    """Return the weight of the trained generator in the moving average, with half-life `ema_kimg`.

    Of `fresh` weights it is at most a tenth of the images seen so far.
    """
    half_life = settings.ema_kimg * 1000
    if fresh:
        half_life = min(half_life, max(0.1 * index * settings.batch, settings.batch))
    return 1 - 0.5 ** (settings.batch / half_life)
