"""Rates corrected for a detector's error (Rogan & Gladen 1978), with intervals that know how little was measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline_lib.runtime.errors import DataError

logger = logging.getLogger(__name__)


class Estimate(NamedTuple):
    """A rate or a difference of rates, and the limits of its interval; all NaN where there was nothing to count."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class DetectorError:
    """What a detector gets right on labelled images that it did not learn from.

    Args:
        true_positives: images with the attribute that it finds.
        positives: images with the attribute.
        false_positives: images without the attribute that it takes for positive.
        negatives: images without the attribute.
        measured_on: name of these images; equal measurements are one and the same, so their error is shared.
    """

    true_positives: int
    positives: int
    false_positives: int
    negatives: int
    measured_on: str = "all"

    @property
    def sensitivity(self) -> float:
        """Share of the positives that it finds; NaN where there are none."""
        return self.true_positives / self.positives if self.positives else float("nan")

    @property
    def specificity(self) -> float:
        """Share of the negatives that it leaves alone; NaN where there are none."""
        return 1 - self.false_positives / self.negatives if self.negatives else float("nan")


class Observed(NamedTuple):
    """How many of n images a detector takes for positive, and how it errs on images like these."""

    positives: int
    n: int
    error: DetectorError


def measure_error(truth: np.ndarray, prediction: np.ndarray, measured_on: str = "all") -> DetectorError:
    """Count a detector's right and wrong answers.

    Args:
        truth: bool (n,), whether each image has the attribute.
        prediction: bool (n,), whether the detector says so.
        measured_on: name of the images.

    Raises:
        ValueError: the arrays are not boolean or differ in shape.
    """
    _check_booleans(truth, prediction)
    return DetectorError(
        true_positives=int((truth & prediction).sum()),
        positives=int(truth.sum()),
        false_positives=int((~truth & prediction).sum()),
        negatives=int((~truth).sum()),
        measured_on=measured_on,
    )


def measure_errors(
    truth: np.ndarray,
    prediction: np.ndarray,
    in_groups: Mapping[str, np.ndarray],
    least: int = 10,
    fall_back_to_pooled: bool = False,
) -> dict[str, DetectorError]:
    """Measure a detector's error in each group, since a detector rarely errs alike in all of them.

    Args:
        truth: bool (n,), whether each held-out image has the attribute.
        prediction: bool (n,), whether the detector says so.
        in_groups: name of each group, and whether each image is in it, bool (n,); judged as the groups are that the
            errors are meant to correct.
        least: images with the attribute, and without it, that a group needs.
        fall_back_to_pooled: take the error over all images for a group with fewer, and log so.

    Raises:
        DataError: a group has too few labelled images, and the fallback was not chosen.
    """
    errors = {}
    for group, inside in in_groups.items():
        _check_booleans(truth, inside)
        error = measure_error(truth[inside], prediction[inside], group)
        if min(error.positives, error.negatives) < least:
            found = f"group `{group}` has {error.positives} labelled positives and {error.negatives} negatives"
            if not fall_back_to_pooled:
                raise DataError(
                    f"{found}, of {least} that an error rate needs; label more images (`data.held_out`), "
                    "or choose the error pooled over all groups"
                )
            logger.warning("%s, of %d wanted: its rate is corrected by the error pooled over all groups", found, least)
            error = measure_error(truth, prediction, "all")
        errors[group] = error
    return errors


def correct_rate(
    observed_positives: int,
    n: int,
    error: DetectorError,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> Estimate:
    """Return the rate of an attribute that would make the detector see what it saw, (rate, low, high) in [0, 1].

    With q the observed rate, the estimate is (q + specificity - 1) / (sensitivity + specificity - 1), clipped
    (Rogan & Gladen 1978). It holds where the detector errs as it did on its labelled images: not on images that this
    very detector has selected, whose positives it all accepted. Where the whole interval is clipped to a bound, that
    assumption has failed, and a warning is logged.

    The interval is a parametric bootstrap: q, sensitivity and specificity are redrawn together, each from the Jeffreys
    posterior of its own count, Beta(k + 1/2, n - k + 1/2). Redrawing binomial counts at the observed shares instead
    would take a detector that made no mistake on 50 images for one that makes none ever.

    Args:
        observed_positives: images that the detector takes for positive.
        n: images that it judged; for none, all three values are NaN.
        error: of the detector on images like these.
        confidence: of the interval, in (0, 1).
        resamples: size of the bootstrap.
        rng: its random generator, by `runtime.seeding.numpy_generator`.

    Raises:
        DataError: the detector is no better than chance, or its error was measured without positives or negatives.
    """
    rate = _corrected(observed_positives, n, error)
    if n == 0:
        return UNKNOWN
    draws = _draw_rates(observed_positives, n, _draw_error(error, resamples, rng), resamples, rng)
    estimate = _interval(rate, draws, confidence)
    if estimate.low == estimate.high:
        logger.warning(
            "%d of %d images seen as positive do not fit the error measured on `%s` (sensitivity %.3f, specificity "
            "%.3f): the detector seems to err otherwise on these images; mistrust their corrected rate of %.0f",
            *(observed_positives, n, error.measured_on, error.sensitivity, error.specificity, rate),
        )
    return estimate


def correct_gap(
    first: Observed, second: Observed, confidence: float, resamples: int, rng: np.random.Generator
) -> Estimate:
    """Return the corrected rate of the first group minus that of the second, (gap, low, high) in [-1, 1].

    Where both groups are corrected by one measurement, both are redrawn with one error, so that it cancels as far as
    it does in truth.

    Args:
        first: what the detector saw in the first group.
        second: and in the second.
        confidence: of the interval, in (0, 1).
        resamples: size of the bootstrap.
        rng: its random generator, by `runtime.seeding.numpy_generator`.

    Raises:
        DataError: the detector is no better than chance, or its error was measured without positives or negatives.
    """
    gap = _corrected(*first) - _corrected(*second)
    if first.n == 0 or second.n == 0:
        return UNKNOWN
    of_first = _draw_error(first.error, resamples, rng)
    of_second = of_first if second.error == first.error else _draw_error(second.error, resamples, rng)
    draws = _draw_rates(first.positives, first.n, of_first, resamples, rng)
    draws -= _draw_rates(second.positives, second.n, of_second, resamples, rng)
    return _interval(gap, draws, confidence)


def _corrected(positives: int, n: int, error: DetectorError) -> float:
    if not error.positives or not error.negatives:
        raise DataError(
            f"detector error measured on `{error.measured_on}`: {error.positives} positives and {error.negatives} "
            "negatives; neither may be 0: label more images"
        )
    informedness = error.sensitivity + error.specificity - 1
    if informedness <= 0:
        raise DataError(
            f"detector error measured on `{error.measured_on}`: sensitivity {error.sensitivity:.3f} and specificity "
            f"{error.specificity:.3f} are no better than chance, so no rate follows from it; train the detector better"
        )
    if n == 0:
        return float("nan")
    return float(np.clip((positives / n + error.specificity - 1) / informedness, 0, 1))


def _draw_error(error: DetectorError, resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Redraw sensitivity and the rate of false positives, each (resamples,)."""
    sensitivity = _draw_share(error.true_positives, error.positives, resamples, rng)
    return sensitivity, _draw_share(error.false_positives, error.negatives, resamples, rng)


def _draw_rates(
    positives: int, n: int, error: tuple[np.ndarray, np.ndarray], resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Redraw the observed rate and correct it by redrawn errors, (resamples,)."""
    sensitivity, false_positive_rate = error
    excess = _draw_share(positives, n, resamples, rng) - false_positive_rate
    # A redrawn detector may be no better than chance: it then bounds the rate on neither side, and the draw falls on
    # 0 or 1 by the sign of the excess.
    informedness = np.maximum(sensitivity - false_positive_rate, np.finfo(float).tiny)
    with np.errstate(over="ignore"):
        return np.clip(excess / informedness, 0, 1)


def _draw_share(count: int, n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return rng.beta(count + 0.5, n - count + 0.5, resamples)


def _interval(value: float, draws: np.ndarray, confidence: float) -> Estimate:
    """Take the interval between the draws' quantiles, widened to hold the estimate where that lies on a bound."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def _check_booleans(*arrays: np.ndarray) -> None:
    kinds = [(array.dtype, array.shape) for array in arrays]
    if any(kind != (np.dtype(bool), arrays[0].shape) for kind in kinds):
        raise ValueError(f"arrays of {kinds}; give booleans of one shape, and leave out images of unknown truth")
