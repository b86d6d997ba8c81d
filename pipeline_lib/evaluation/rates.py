"""Gaps between the rates of groups, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import comb, hypot
from pathlib import Path

import numpy as np

from pipeline_lib.audit.estimate import UNKNOWN, Estimate, wilson_rate
from pipeline_lib.runtime.files import read_json


def truth_counts(summary: Path) -> bool:
    """Return whether closest clean renderings count as the truth, by the JSON of `evaluate_counterfactuals`."""
    return read_json(summary)["counts"]


def gap(first: Estimate, second: Estimate) -> Estimate:
    """Return the first rate minus the second with Newcombe's hybrid score interval (1998, method 10).

    Args:
        first: a rate with its Wilson interval, on images independent of the second's.
        second: another with the same confidence level.

    Returns:
        The gap and its limits, in [-1, 1]; NaN if either rate is NaN.
    """
    difference = first.value - second.value
    below = hypot(first.value - first.low, second.high - second.value)
    above = hypot(first.high - first.value, second.value - second.low)
    return Estimate(difference, difference - below, difference + above)


def group_gap(gap_of: Callable[[int, int, float], Estimate], targets: Sequence[float], confidence: float) -> Estimate:
    """Return the gap between groups: of two the first rate minus the second, of more the largest of all pairs.

    Of more than two groups it is the distance of the rate that is farthest above its target from the one that is
    farthest below. With equal targets that is the largest rate minus the smallest. Since it is the largest of many, its
    interval is that of every pair together (Bonferroni), and ends at 0.

    Args:
        gap_of: the rate of one group minus that of another, given their numbers and the level of the interval.
        targets: target rate of each group.
        confidence: level of the interval, in (0, 1).

    Returns:
        The gap and its limits; NaN with less than two groups, or if a rate is NaN.
    """
    if len(targets) < 2:
        return UNKNOWN
    if len(targets) == 2:
        return gap_of(0, 1, confidence)
    level = 1 - (1 - confidence) / comb(len(targets), 2)
    pairs = [
        np.array(gap_of(one, other, level)) - (targets[one] - targets[other])
        for one, other in permutations(range(len(targets)), 2)
    ]
    value, low, high = map(float, np.max(pairs, axis=0))
    return Estimate(value, float(np.maximum(low, 0)), high)


def gap_of_counts(counts: Sequence[tuple[int, int]], targets: Sequence[float], confidence: float) -> Estimate:
    """Return the gap between groups of which so many images show the attribute, of so many in all."""

    def gap_of(one: int, other: int, level: float) -> Estimate:
        return gap(*(wilson_rate(*counts[number], level) for number in (one, other)))

    return group_gap(gap_of, targets, confidence)
