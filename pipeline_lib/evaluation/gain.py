"""What is known of the gain of edits over baselines without them: intervals of worst-group accuracies, and verdicts."""

from __future__ import annotations

from enum import StrEnum
from math import ceil, sqrt

import numpy as np
from scipy.stats import norm

from pipeline_lib.rebalance import certify
from pipeline_lib.rebalance.certify import LIKELY
from pipeline_lib.rebalance.estimate import UNKNOWN, Estimate

MARGIN = 0.02  # of worst-group accuracy, up to which two methods are equivalent


class Verdict(StrEnum):
    """What is known of the gain of edits over the baselines without them."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "not enough test images"
    UNKNOWN = "could not be determined"


def interval_of(value: float, drawn: np.ndarray, confidence: float, least: float) -> Estimate:
    """Return a figure with its interval, from draws of it (3, resamples) that lean down, not at all and up.

    Which of several noisy accuracies is least is partly chance. So the least of them is found too low, and that of
    resampled ones lower by as much again, and a range is found too large. The interval between quantiles of the draws
    is moved by twice the bias that they show, so that it lies around the figure less its bias (bias correction by the
    bootstrap, Efron and Tibshirani 1993, chapter 10). It is widened if it then lacks the figure itself.

    Args:
        value: the figure; NaN if it is unknown.
        drawn: draws.
        confidence: level of the interval, in (0, 1).
        least: what the figure cannot be below; it cannot be above 1.
    """
    if np.isnan(value):
        return UNKNOWN
    bias = drawn[1].mean() - value
    limits = np.quantile(drawn[0], (1 - confidence) / 2), np.quantile(drawn[2], (1 + confidence) / 2)
    low, high = np.clip(np.array(limits) - 2 * bias, least, 1)
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def judge_gain(gain: Estimate) -> Verdict:
    """Judge a gain in worst-group accuracy by its interval.

    It is equivalent to none if the whole interval is within `MARGIN` of 0 (two one-sided tests, Schuirmann 1987), and
    else better or worse if the interval lacks 0.
    """
    if certify.judge(gain, 0.0, MARGIN) is certify.Verdict.MET:
        return Verdict.EQUIVALENT
    return Verdict.BETTER if gain.low > 0 else Verdict.WORSE if gain.high < 0 else Verdict.UNDECIDED


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
