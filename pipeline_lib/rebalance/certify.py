"""Rates of a finite rebalanced dataset, from the labels of kept images and an audit of edited ones.

A kept image has its true label. What an edited image shows is known only if it was audited, so edited images are
strata, of those that were of one class and are to be of another. Some of each are drawn and labelled. The dataset is
the whole population: where every image of a stratum is labelled, nothing about it is uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from pipeline_lib.rebalance.classes import Classes
from pipeline_lib.rebalance.estimate import UNKNOWN, Estimate
from pipeline_lib.runtime.errors import DataError

PRIOR = 0.5  # Jeffreys' prior of a share
NEARLY_NONE = 1e-9  # in place of 0, at which a beta distribution is undefined
MOST_LABELS = 2**20  # up to which the number of labels that would do is sought


@dataclass(frozen=True)
class Stratum:
    """Edited images that were of one class and are to be of another, and the labels of those that were audited.

    Attributes:
        origin: number of the class before the edit.
        planned: number of the class that the edit is made for.
        size: number of images.
        found: of each audited image the number of its class, int (n,).
    """

    origin: int
    planned: int
    size: int
    found: np.ndarray

    def __post_init__(self) -> None:
        if len(self.found) > self.size:
            raise DataError(
                f"audit of edits from class {self.origin} to {self.planned}: {len(self.found)} labels for {self.size} "
                "images; no image is audited twice"
            )

    @property
    def audited(self) -> int:
        """Number of audited images."""
        return len(self.found)

    @property
    def failures(self) -> int:
        """Number of audited images that are of another class than was planned."""
        return int((self.found != self.planned).sum())


class Verdict(StrEnum):
    """What is known of a target."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not enough evidence"


def estimate(
    classes: Classes,
    kept: np.ndarray,
    strata: Sequence[Stratum],
    of: Sequence[float],
    confidence: float,
    rng: np.random.Generator,
    draws: int = 2000,
) -> Estimate:
    """Return a weighted sum of the targets' rates with its interval; NaN if a group with a weight has no images.

    Each limit leans to its side as that of Clopper and Pearson does (1934), so that the interval covers as often as it
    says where failures are rare. An interval between quantiles of one posterior would not.

    Args:
        classes: what the targets tell apart.
        kept: number of images of each class that were not edited, int (classes,).
        strata: edited images, of all classes.
        of: weight of each target's rate, such as (1, 0) for a rate or (1, -1) for a gap.
        confidence: level of the interval, in (0, 1).
        rng: random generator, by `runtime.seeding.numpy_generator`.
        draws: draws for each of the three figures.
    """
    weights = np.asarray(of, float)
    if (np.isnan(classes.rates(_planned(kept, strata))) & (weights != 0)).any():
        return UNKNOWN
    tails = (1 - confidence) / 2, 0.5, (1 + confidence) / 2
    low, middle, high = (
        float(np.quantile(draw_rates(classes, kept, strata, draws, rng, lean * weights) @ weights, tail))
        for lean, tail in zip((-1, 0, 1), tails, strict=True)
    )
    return Estimate(middle, min(low, middle), max(middle, high))


def draw_rates(
    classes: Classes,
    kept: np.ndarray,
    strata: Sequence[Stratum],
    draws: int,
    rng: np.random.Generator,
    lean: np.ndarray,
) -> np.ndarray:
    """Draw the rate of each target, (draws, targets), given the audit; 0 for a group without images.

    The share of failures in a stratum is drawn from the beta distribution that its audit gives. How many of the images
    that were not audited have failed is then binomial, and how they failed is drawn as often as it was seen, with a
    prior weight of one in all; where the rate leans towards failures, that weight is on an edit that changed nothing.

    Args:
        classes: what the targets tell apart.
        kept: number of images of each class that were not edited, int (classes,).
        strata: edited images.
        draws: number of draws.
        rng: random generator.
        lean: weights of a sum of the rates that leans up, by half a failure in each stratum, (targets,); 0 draws from
            Jeffreys' posterior.
    """
    gained = classes.gradient(_planned(kept, strata), lean)
    counts = np.tile(np.asarray(kept, float), (draws, 1))
    for stratum in strata:
        more = np.sign(gained[stratum.origin] - gained[stratum.planned])  # what a failure does to the sum
        counts += _draw_outcomes(stratum, len(classes), draws, rng, more)
    return np.nan_to_num(classes.rates(counts))


def _planned(kept: np.ndarray, strata: Sequence[Stratum]) -> np.ndarray:
    """Return how many images of each class there are if no edit fails, (classes,)."""
    counts = np.array(kept, float)
    for stratum in strata:
        counts[stratum.planned] += stratum.size
    return counts


def _draw_outcomes(stratum: Stratum, classes: int, draws: int, rng: np.random.Generator, more: float) -> np.ndarray:
    """Draw how many images of a stratum are of each class, (draws, classes)."""
    seen = np.bincount(stratum.found, minlength=classes)
    counts = np.array([stratum.failures, stratum.audited - stratum.failures]) + PRIOR + np.array([more, -more]) / 2
    share = rng.beta(*np.maximum(counts, NEARLY_NONE), draws)
    failed = rng.binomial(stratum.size - stratum.audited, share)
    others = np.flatnonzero(np.arange(classes) != stratum.planned)
    prior = np.full(len(others), 1 / len(others)) if more <= 0 else (others == stratum.origin).astype(float)
    shares = rng.dirichlet(np.maximum(seen[others] + prior, NEARLY_NONE), draws)
    drawn = np.empty((draws, classes))
    drawn[:, others] = rng.multinomial(failed, shares)
    drawn[:, stratum.planned] = stratum.size - stratum.audited - failed
    return drawn + seen


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
    classes: Classes,
    kept: np.ndarray,
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
        classes: what the targets tell apart.
        kept: number of images of each class that were not edited, int (classes,).
        strata: edited images, with the audit so far.
        target: the rate or the gap that was asked for.
        tolerance: largest distance from it that counts as met.
        of: weight of each target's rate in what is judged, such as (1, 0) for a rate or (1, -1) for a gap.
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
        if judge(estimate(classes, kept, expected, of, confidence, rng), target, tolerance) is not Verdict.UNKNOWN:
            return int(planned.sum())
        if labels >= min(sizes.sum(), MOST_LABELS):
            return None
        labels = int(np.ceil(labels * 1.25))


def _expect(stratum: Stratum, count: int) -> Stratum:
    """Return a stratum with `count` labels in which failures are as frequent as in its audit so far."""
    if count <= stratum.audited:
        return stratum
    share = (stratum.failures + PRIOR) / (stratum.audited + 2 * PRIOR) if stratum.audited else 0.0
    failed = round(share * count)
    wrong = stratum.found[stratum.found != stratum.planned]
    found = np.full(count, stratum.planned)
    found[:failed] = np.resize(wrong, failed) if len(wrong) else stratum.origin
    return replace(stratum, found=found)
