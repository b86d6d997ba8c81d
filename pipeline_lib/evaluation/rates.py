"""Rates of an attribute by group and group gaps, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import comb, hypot
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.estimate import UNKNOWN, Estimate, wilson_rate
from pipeline_lib.data.tables import SCHEMAS
from pipeline_lib.evaluation.detector_error import DetectorError, correct_rate
from pipeline_lib.runtime import seeding
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


def rate_rows(
    stage: str,
    judge: str,
    attribute: str,
    has_attribute: np.ndarray,
    in_groups: Mapping[str, np.ndarray],
    confidence: float,
) -> pd.DataFrame:
    """Return the rows of an image set and source of labels in a table of kind `bias`, with Wilson intervals.

    Args:
        stage: name of the image set.
        judge: source of labels, `truth`, `selector` or `referee`.
        attribute: attribute whose rate is measured.
        has_attribute: bool (n,), without images whose label is unknown.
        in_groups: name of each group, and whether each image is in it, bool (n,). An empty group's rate is NaN.
        confidence: level of the intervals, in (0, 1).

    Raises:
        ValueError: the arrays are not boolean or differ in shape.
    """

    def estimate(_: str, positives: int, n: int) -> Estimate:
        return wilson_rate(positives, n, confidence)

    return _rows(stage, judge, attribute, has_attribute, in_groups, estimate)


def corrected_rows(
    stage: str,
    attribute: str,
    has_attribute: np.ndarray,
    in_groups: Mapping[str, np.ndarray],
    errors: Mapping[str, DetectorError],
    confidence: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the rows with the judge `corrected`, a detector's rates corrected for its error in each group.

    Args:
        stage: name of the image set.
        attribute: attribute whose rate is measured.
        has_attribute: bool (n,), by the detector.
        in_groups: name of each group, and whether each image is in it, bool (n,). An empty group's rate is NaN.
        errors: errors of the detector in each group, by `evaluation.detector_error.measure_errors`.
        confidence: level of the intervals, in (0, 1).
        resamples: bootstrap resamples.
        seed: seed of the run.

    Raises:
        DataError: the detector is no better than chance in a group.
        ValueError: the arrays are not boolean or differ in shape.
    """

    def estimate(group: str, positives: int, n: int) -> Estimate:
        rng = seeding.numpy_generator(seed, "corrected", stage, attribute, group)
        return correct_rate(positives, n, errors[group], confidence, resamples, rng)

    return _rows(stage, "corrected", attribute, has_attribute, in_groups, estimate)


def _rows(
    stage: str,
    judge: str,
    attribute: str,
    has_attribute: np.ndarray,
    in_groups: Mapping[str, np.ndarray],
    estimate: Callable[[str, int, int], Estimate],
) -> pd.DataFrame:
    rows = []
    for group, inside in in_groups.items():
        for array in (has_attribute, inside):
            if array.dtype != bool or array.shape != has_attribute.shape:
                raise ValueError(
                    f"{stage}, {judge}, group `{group}`: {array.dtype} of shape {array.shape}; expected booleans of "
                    f"shape {has_attribute.shape}, without images whose label is unknown"
                )
        n = int(inside.sum())
        rows.append((stage, judge, group, attribute, n, *estimate(group, int((has_attribute & inside).sum()), n)))
    return pd.DataFrame(rows, columns=SCHEMAS["bias"].names)
