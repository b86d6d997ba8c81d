"""Rates corrected for a detector's error (Rogan & Gladen 1978), with intervals that include its uncertainty."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline_lib.audit.estimate import UNKNOWN, Estimate
from pipeline_lib.runtime.errors import DataError

logger = logging.getLogger(__name__)

LEAST = 10  # labelled images with the attribute, and without it, by which the error of a group is measured


@dataclass(frozen=True)
class DetectorError:
    """A detector's error counts on labelled images that it was not trained on.

    Args:
        true_positives: images with the attribute that it classifies as positive.
        positives: images with the attribute.
        false_positives: images without the attribute that it classifies as positive.
        negatives: images without the attribute.
        measured_on: name of these images; equal measurements count as the same one, so their error is shared.
    """

    true_positives: int
    positives: int
    false_positives: int
    negatives: int
    measured_on: str = "all"

    @property
    def sensitivity(self) -> float:
        """Share of the positives that it classifies as positive; NaN without positives."""
        return self.true_positives / self.positives if self.positives else float("nan")

    @property
    def specificity(self) -> float:
        """Share of the negatives that it classifies as negative; NaN without negatives."""
        return 1 - self.false_positives / self.negatives if self.negatives else float("nan")


class Observed(NamedTuple):
    """The number of n images that a detector classifies as positive, and its error on such images."""

    positives: int
    n: int
    error: DetectorError


def measure_error(truth: np.ndarray, prediction: np.ndarray, measured_on: str = "all") -> DetectorError:
    """Count a detector's correct and wrong predictions, both bool (n,), on images of that name."""
    return DetectorError(
        true_positives=int((truth & prediction).sum()),
        positives=int(truth.sum()),
        false_positives=int((~truth & prediction).sum()),
        negatives=int((~truth).sum()),
        measured_on=measured_on,
    )


def measure_errors(
    truth: np.ndarray, prediction: np.ndarray, in_groups: Mapping[str, np.ndarray]
) -> dict[str, DetectorError]:
    """Measure a detector's error in each group, since error rates usually differ between groups.

    That of a group with fewer than `LEAST` images of either kind is that of all images, with a warning.

    Args:
        truth: bool (n,), the ground truth of each held-out image.
        prediction: bool (n,), the detector's prediction.
        in_groups: name of each group, and whether each image is in it, bool (n,); determined in the same way as for
            the rates to correct.
    """
    errors = {}
    for group, inside in in_groups.items():
        errors[group] = measure_error(truth[inside], prediction[inside], group)
        if min(errors[group].positives, errors[group].negatives) < LEAST:
            logger.warning(
                "group `%s` has %d labelled positives and %d negatives, fewer than %d; its rate is corrected by the "
                "error pooled over all groups. Add held-out images (`data.held_out`)",
                *(group, errors[group].positives, errors[group].negatives, LEAST),
            )
            errors[group] = measure_error(truth, prediction)
    return errors


def correct_rate(observed: Observed, confidence: float, resamples: int, rng: np.random.Generator) -> Estimate:
    """Return the rate of an attribute, corrected for the detector's error, as (rate, low, high) in [0, 1].

    With q the observed rate, the estimate is (q + specificity - 1) / (sensitivity + specificity - 1), clipped
    (Rogan & Gladen 1978). It assumes the same error rates as on the labelled images. This does not hold for images that
    were selected by the same detector. If the whole interval is clipped to a bound, the assumption is violated, and a
    warning is logged.

    The interval is a parametric bootstrap. q, sensitivity and specificity are redrawn together, each from the Jeffreys
    posterior of its own count, Beta(k + 1/2, n - k + 1/2). Binomial counts redrawn at the observed shares would treat a
    detector without a mistake on 50 images as one that never makes any.

    Args:
        observed: the detector's positives; of 0 images all three values are NaN.
        confidence: level of the interval, in (0, 1).
        resamples: bootstrap resamples.
        rng: random generator, by `runtime.seeding.numpy_generator`.

    Raises:
        DataError: the detector is no better than chance, or its error was measured without positives or negatives.
    """
    rate, (positives, n, error) = _corrected(observed), observed
    if n == 0:
        return UNKNOWN
    estimate = _interval(rate, _draw_rates(observed, _draw_error(error, resamples, rng), rng), confidence)
    if estimate.low == estimate.high:
        logger.warning(
            "%d of %d positive images are inconsistent with the error measured on `%s` (sensitivity %.3f, specificity "
            "%.3f). The detector's error on these images seems to differ; their corrected rate of %.0f is unreliable",
            *(positives, n, error.measured_on, error.sensitivity, error.specificity, rate),
        )
    return estimate


def correct_gap(
    first: Observed, second: Observed, confidence: float, resamples: int, rng: np.random.Generator
) -> Estimate:
    """Return the corrected rate of the first group minus that of the second, (gap, low, high) in [-1, 1].

    If both groups are corrected by the same measurement, both are redrawn with the same error, so that shared errors
    cancel in the difference.

    Args:
        first: the detector's positives in the first group.
        second: likewise in the second group.
        confidence: level of the interval, in (0, 1).
        resamples: bootstrap resamples.
        rng: random generator, by `runtime.seeding.numpy_generator`.

    Raises:
        DataError: the detector is no better than chance, or its error was measured without positives or negatives.
    """
    gap = _corrected(first) - _corrected(second)
    if first.n == 0 or second.n == 0:
        return UNKNOWN
    of_first = _draw_error(first.error, resamples, rng)
    of_second = of_first if second.error == first.error else _draw_error(second.error, resamples, rng)
    draws = _draw_rates(first, of_first, rng)
    draws -= _draw_rates(second, of_second, rng)
    return _interval(gap, draws, confidence)


def _corrected(observed: Observed) -> float:
    positives, n, error = observed
    if not error.positives or not error.negatives:
        raise DataError(
            f"detector error measured on `{error.measured_on}`: {error.positives} positives and {error.negatives} "
            "negatives; both must be above 0, so label more images"
        )
    informedness = error.sensitivity + error.specificity - 1
    if informedness <= 0:
        raise DataError(
            f"detector error measured on `{error.measured_on}`: sensitivity {error.sensitivity:.3f} and specificity "
            f"{error.specificity:.3f} are no better than chance, so rates cannot be corrected; train it longer"
        )
    return float(np.clip((positives / n + error.specificity - 1) / informedness, 0, 1)) if n else float("nan")


def _draw_error(error: DetectorError, resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Redraw the sensitivity and the false positive rate, each (resamples,)."""
    sensitivity = _draw_share(error.true_positives, error.positives, resamples, rng)
    return sensitivity, _draw_share(error.false_positives, error.negatives, resamples, rng)


def _draw_rates(observed: Observed, error: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Redraw the observed rate and correct it by redrawn errors, (resamples,)."""
    sensitivity, false_positive_rate = error
    excess = _draw_share(observed.positives, observed.n, len(sensitivity), rng) - false_positive_rate
    # A redrawn detector that is no better than chance does not bound the rate. The draw is then 0 or 1 by the sign of
    # the excess.
    informedness = np.maximum(sensitivity - false_positive_rate, np.finfo(float).tiny)
    with np.errstate(over="ignore"):
        return np.clip(excess / informedness, 0, 1)


def _draw_share(count: int, n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return rng.beta(count + 0.5, n - count + 0.5, resamples)


def _interval(value: float, draws: np.ndarray, confidence: float) -> Estimate:
    """Return the interval between the draws' quantiles, widened to include an estimate on a bound."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)))
