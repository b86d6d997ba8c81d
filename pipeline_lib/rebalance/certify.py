"""Rates of a finite rebalanced dataset, from the labels of kept images and an audit of edited ones.

A kept image has its true label. What an edited image shows is known only if it was audited, so edited images are
strata, one for each group and target value, of which some are drawn and labelled. The dataset is the whole population:
where every image of a stratum is labelled, nothing about it is uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from pipeline_lib.rebalance.estimate import UNKNOWN, Estimate
from pipeline_lib.runtime.errors import DataError

OUTSIDE = -1  # number of the group of an image that is in none
PRIOR = 0.5  # Jeffreys' prior of a share
NEARLY_NONE = 1e-9  # in place of 0, at which a beta distribution is undefined
MOST_LABELS = 2**20  # up to which the number of labels that would do is sought


class Kept(NamedTuple):
    """Images of a group that were not edited, by their labels."""

    images: int
    positives: int  # with the attribute


@dataclass(frozen=True)
class Stratum:
    """Edited images of one group that were to get one value, and the labels of those that were audited.

    Attributes:
        group: number of the group that they were in and should still be in.
        wanted: the value that they were to get.
        size: number of images.
        groups: of each audited image the number of its group, or `OUTSIDE`, int (n,).
        values: of each audited image whether it has the attribute, bool (n,).
    """

    group: int
    wanted: bool
    size: int
    groups: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.values) or len(self.groups) > self.size:
            raise DataError(
                f"audit of group {self.group}: {len(self.groups)} groups and {len(self.values)} values for "
                f"{self.size} images; there is one of each for an audited image, and no image is audited twice"
            )

    @property
    def audited(self) -> int:
        """Number of audited images."""
        return len(self.groups)

    @property
    def failures(self) -> int:
        """Number of audited images that have another value or have left their group."""
        return int(((self.groups != self.group) | (self.values != self.wanted)).sum())


class Verdict(StrEnum):
    """What is known of a target."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not enough evidence"


def estimate(
    kept: Sequence[Kept],
    strata: Sequence[Stratum],
    of: Sequence[float],
    confidence: float,
    rng: np.random.Generator,
    draws: int = 2000,
) -> Estimate:
    """Return a weighted sum of the groups' rates with its interval; NaN if a group with a weight has no images.

    Each limit leans to its side as that of Clopper and Pearson does (1934), so that the interval covers as often as it
    says where failures are rare. An interval between quantiles of one posterior would not.

    Args:
        kept: images that were not edited, by group.
        strata: edited images, of every group in `kept`.
        of: weight of each group's rate, such as (1, 0) for a rate or (1, -1) for a gap.
        confidence: level of the interval, in (0, 1).
        rng: random generator, by `runtime.seeding.numpy_generator`.
        draws: draws for each of the three figures.
    """
    weights = np.asarray(of, float)
    edited = {stratum.group for stratum in strata if stratum.size}
    if any(weights[number] and not group.images and number not in edited for number, group in enumerate(kept)):
        return UNKNOWN
    tails = (1 - confidence) / 2, 0.5, (1 + confidence) / 2
    low, middle, high = (
        float(np.quantile(draw_rates(kept, strata, draws, rng, lean * weights) @ weights, tail))
        for lean, tail in zip((-1, 0, 1), tails, strict=True)
    )
    return Estimate(middle, min(low, middle), max(middle, high))


def draw_rates(
    kept: Sequence[Kept], strata: Sequence[Stratum], draws: int, rng: np.random.Generator, lean: Sequence[float]
) -> np.ndarray:
    """Draw the rate of the attribute in each group, (draws, groups), given the audit.

    The share of failures in a stratum is drawn from the beta distribution that its audit gives. How many of the images
    that were not audited have failed is then binomial, and how they failed is drawn as often as it was seen, with a
    prior weight of one in all; where the rate leans towards failures, that weight is on the wrong value.

    Args:
        kept: images that were not edited, by group.
        strata: edited images.
        draws: number of draws.
        rng: random generator.
        lean: for each group, whether its rate leans up (above 0) or down (below), by half a failure in each stratum; 0
            draws from Jeffreys' posterior.
    """
    images = np.tile([float(group.images) for group in kept], (draws, 1))
    positives = np.tile([float(group.positives) for group in kept], (draws, 1))
    for stratum in strata:
        more = np.sign(lean[stratum.group]) * (-1 if stratum.wanted else 1)  # failures that push the rate that way
        for (group, value), counted in _draw_outcomes(stratum, len(kept), draws, rng, more).items():
            if group != OUTSIDE:
                images[:, group] += counted
                positives[:, group] += counted * value
    return positives / np.maximum(images, 1)


def _draw_outcomes(
    stratum: Stratum, groups: int, draws: int, rng: np.random.Generator, more: float
) -> dict[tuple[int, bool], np.ndarray]:
    """Draw how many images of a stratum are in each group with each value, (draws,) for each of both."""
    outcomes = [(group, value) for group in (OUTSIDE, *range(groups)) for value in (False, True)]
    seen = {key: int(((stratum.groups == key[0]) & (stratum.values == key[1])).sum()) for key in outcomes}
    planned = (stratum.group, stratum.wanted)
    counts = np.array([stratum.failures, stratum.audited - stratum.failures]) + PRIOR + np.array([more, -more]) / 2
    share = rng.beta(*np.maximum(counts, NEARLY_NONE), draws)
    failed = rng.binomial(stratum.size - stratum.audited, share)
    others = [key for key in outcomes if key != planned]
    worst = (stratum.group, not stratum.wanted)  # the failure that moves the group's own rate most
    prior = {key: 1 / len(others) if more <= 0 else float(key == worst) for key in others}
    shares = rng.dirichlet([max(seen[key] + prior[key], NEARLY_NONE) for key in others], draws)
    counted = dict(zip(others, rng.multinomial(failed, shares).T, strict=True))
    counted[planned] = stratum.size - stratum.audited - failed
    return {key: counted[key] + seen[key] for key in outcomes}


def judge(found: Estimate, target: float, tolerance: float) -> Verdict:
    """Judge a target by two one-sided tests (Schuirmann 1987).

    It is met if the whole interval is within the tolerance of the target, and missed if it is wholly beyond. With an
    interval at a level of 1 - 2 a, the probability of a false "met" at a distance equal to the tolerance is at most a.

    Args:
        found: estimate of the rate or of the gap.
        target: the rate or the gap that was asked for.
        tolerance: largest distance from it that still counts as met.
    """
    low, high = found.low - target, found.high - target
    if -tolerance <= low and high <= tolerance:
        return Verdict.MET
    return Verdict.MISSED if low > tolerance or high < -tolerance else Verdict.UNKNOWN


def labels_needed(
    kept: Sequence[Kept],
    strata: Sequence[Stratum],
    target: float,
    tolerance: float,
    of: Sequence[float],
    confidence: float,
    rng: np.random.Generator,
) -> int | None:
    """Return how many labels in all would decide a target, if failures stay as frequent as they were seen to be.

    That many do in about half of all audits.

    Args:
        kept: images that were not edited, by group.
        strata: edited images, with the audit so far.
        target: the rate or the gap that was asked for.
        tolerance: largest distance from it that counts as met.
        of: weight of each group's rate in what is judged, such as (1, 0) for a rate or (1, -1) for a gap.
        confidence: level of the interval that decides, in (0, 1).
        rng: random generator.

    Returns:
        Number of audited images in all strata together; None if even labels of all edited images would not tell.
    """
    sizes = np.array([stratum.size for stratum in strata], float)
    labels = max(8, sum(stratum.audited for stratum in strata))
    while True:
        planned = np.minimum(np.ceil(labels * sizes / max(1.0, sizes.sum())), sizes).astype(int)
        expected = [_expect(stratum, int(count)) for stratum, count in zip(strata, planned, strict=True)]
        if judge(estimate(kept, expected, of, confidence, rng), target, tolerance) is not Verdict.UNKNOWN:
            return int(planned.sum())
        if labels >= min(sizes.sum(), MOST_LABELS):
            return None
        labels = int(np.ceil(labels * 1.25))


def _expect(stratum: Stratum, count: int) -> Stratum:
    """Return a stratum with `count` labels in which failures are as frequent as in its audit so far."""
    if count <= stratum.audited:
        return stratum
    as_planned = np.full(count, stratum.group), np.full(count, stratum.wanted)
    share = (stratum.failures + PRIOR) / (stratum.audited + 2 * PRIOR) if stratum.audited else 0.0
    failed = round(share * count)
    wrong = (stratum.groups != stratum.group) | (stratum.values != stratum.wanted)
    groups, values = as_planned
    if wrong.any():
        places = np.resize(np.flatnonzero(wrong), failed)
        groups[:failed], values[:failed] = stratum.groups[places], stratum.values[places]
    else:
        values[:failed] = not stratum.wanted
    return replace(stratum, groups=groups, values=values)
