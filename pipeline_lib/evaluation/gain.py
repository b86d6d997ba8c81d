"""What is known of the gain of edits over baselines without them: intervals of worst-group accuracies, and verdicts."""

from __future__ import annotations

from enum import StrEnum
from math import ceil, sqrt

import numpy as np
from scipy.stats import beta, norm

from pipeline_lib.audit.estimate import LIKELY, UNKNOWN, Estimate, Verdict, decide

MARGIN = 0.02  # of worst-group accuracy, up to which two methods are equivalent
NO_VARIANCE = 1e-12  # of draws that are all the same but for rounding
LEAST_STRENGTH = 0.01  # sum of the two parameters of a beta distribution; with less it is at its ends alone


class Comparison(StrEnum):
    """What is known of the gain of edits over the baselines without them."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "not enough test images"
    UNKNOWN = "could not be determined"


def least_of(found: np.ndarray, drawn: np.ndarray, confidence: float, among: int = 1, floor: float = 0) -> Estimate:
    """Return the least of k accuracies, the mean of it over trainings, with an interval that is valid for the true one.

    Which of several noisy accuracies is least is partly chance. So the least that is found is low on average, the more
    so the more they are alike, and a bootstrap shows only a part of that. The limits are made of those of each accuracy
    instead. The lower one is the least of the lower limits, since it exceeds the true least only if the limit of the
    truly least accuracy does (Berger 1982). The upper one is the least of upper limits at a k-th of the error
    (Bonferroni), since the true least exceeds none of the true ones. Where trainings differ in what is least, the mean
    of the least is below the least of the means, and the lower limit is moved by that.

    Limits of an accuracy are quantiles of the beta distribution with the mean and the variance of its draws. For one
    training they are those of Clopper and Pearson (1934), and they can be of any level whatever the number of draws.

    Args:
        found: accuracies, (seeds, k); a figure is unknown if one is NaN.
        drawn: draws of their means over seeds (3, resamples, k), that lean down, not at all and up.
        confidence: level of the interval, in (0, 1).
        among: number of such figures of which the largest is meant, by which the error of the lower limit is divided.
        floor: what an accuracy cannot be below; it cannot be above 1.
    """
    if np.isnan(found).any():
        return UNKNOWN
    tail = (1 - confidence) / 2
    value, least = found.min(axis=1).mean(), found.mean(axis=0).min()
    low = _quantiles(drawn[0], tail / among, floor).min() - (least - value)
    high = _quantiles(drawn[2], 1 - tail / found.shape[1], floor).min()
    return Estimate(float(value), float(np.clip(low, floor, value)), max(float(high), float(value)))


def _quantiles(drawn: np.ndarray, level: float, floor: float) -> np.ndarray:
    """Return a quantile, (k,), of the beta distributions on [floor, 1] with the moments of draws (resamples, k)."""
    span = 1 - floor
    mean, variance = (drawn.mean(axis=0) - floor) / span, drawn.var(axis=0) / span**2
    varies = variance > NO_VARIANCE
    strength = np.maximum(mean * (1 - mean) / np.where(varies, variance, 1) - 1, LEAST_STRENGTH)
    found = np.where(varies, beta.ppf(level, mean * strength, (1 - mean) * strength), mean)
    return floor + span * found


def judge_gain(gain: Estimate) -> Comparison:
    """Judge a gain in worst-group accuracy by its interval.

    It is equivalent to none if the whole interval is within `MARGIN` of 0 (two one-sided tests, Schuirmann 1987), and
    else better or worse if the interval lacks 0.
    """
    if decide(gain, 0.0, MARGIN) is Verdict.MET:
        return Comparison.EQUIVALENT
    return Comparison.BETTER if gain.low > 0 else Comparison.WORSE if gain.high < 0 else Comparison.UNDECIDED


def images_needed(gain: Estimate, tested: int, confidence: float) -> int:
    """Return how many held-out images would give a verdict in a share `LIKELY` of runs if the gain is as found.

    Cells keep their shares, and the interval is taken to be due to images alone. Where trainings differ, more seeds are
    needed too.
    """
    quantile = norm.ppf((1 + confidence) / 2)
    error = (gain.high - gain.low) / 2 / quantile
    found, needed, chance = (gain.low + gain.high) / 2, tested, 0.0
    while chance < LIKELY:
        needed = ceil(1.25 * needed)
        of_needed = norm(found, error * sqrt(tested / needed))
        reach = quantile * of_needed.std()
        within = MARGIN - reach  # of 0, where an estimate is judged equivalent; it is better or worse beyond the reach
        chance = of_needed.sf(reach) + of_needed.cdf(-reach) + max(0.0, of_needed.cdf(within) - of_needed.cdf(-within))
    return needed
