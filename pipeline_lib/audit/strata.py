"""Rates of a finite rebalanced dataset, from the labels of kept images and an audit of edited ones.

A kept image has its true label. What an edited image shows is known only if it was audited, so edited images are
strata, of those that were of one class and are to be of another. Some of each are drawn and labelled. The dataset is
the whole population: where every image of a stratum is labelled, nothing about it is uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.estimate import UNKNOWN, Estimate
from pipeline_lib.runtime.errors import DataError

PRIOR = 0.5  # Jeffreys' prior of a share
NEARLY_NONE = 1e-9  # in place of 0, at which a beta distribution is undefined
FEWEST = 16  # labels with which the search for enough of them starts
GROWTH = 1.1  # factor of one more attempt
LIKELY = 0.8  # probability of a verdict from which on labels are likely to be enough
ASSUMED_ERRORS = 0.02  # share of the edits that are taken to fail, or of a detector's errors, before any is labelled


@dataclass(frozen=True)
class Stratum:
    """Edited images that were of one class and are to be of another, and the labels of those that were audited.

    Attributes:
        origin: number of the class before the edit.
        planned: number of the class that the edit is made for.
        size: number of images.
        found: of each audited image of which it could be told the number of its class, int (n,).
        unclear: of each other audited image the classes that it can be of, bool (m, classes).
    """

    origin: int
    planned: int
    size: int
    found: np.ndarray
    unclear: np.ndarray = field(default_factory=lambda: np.empty((0, 0), bool))

    def __post_init__(self) -> None:
        if self.audited > self.size:
            raise DataError(
                f"audit of edits from class {self.origin} to {self.planned}: {self.audited} labels for {self.size} "
                "images; no image is audited twice"
            )

    @property
    def audited(self) -> int:
        """Number of audited images."""
        return len(self.found) + len(self.unclear)

    @property
    def failures(self) -> int:
        """Number of audited images that are known to be of another class than was planned."""
        return int((self.found != self.planned).sum())

    def resolved(self, gained: np.ndarray) -> Stratum:
        """Return the stratum with each unclear image in the class, of those that it can be of, that gains the most."""
        if not len(self.unclear):
            return self
        as_worst = np.where(self.unclear, gained, -np.inf).argmax(axis=1)
        return Stratum(self.origin, self.planned, self.size, np.concatenate([self.found, as_worst]))

    def told(self) -> Stratum:
        """Return the stratum as if unclear images had not been audited."""
        return Stratum(self.origin, self.planned, self.size, self.found)


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
    says where failures are rare. An interval between quantiles of one posterior would not. An audited image of which it
    could not be told what it shows counts for each limit as what is worst for it, and for the value not at all.

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
    return Estimate(float(np.clip(middle, low, high)), low, high)


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
        lean: weights of a sum of the rates that leans up, by half a failure in each stratum and by all unclear images,
            (targets,); 0 draws from Jeffreys' posterior.
    """
    gained = classes.gradient(_planned(kept, strata) + PRIOR, lean)  # with images of all classes, so that none is a tie
    counts = np.tile(np.asarray(kept, float), (draws, 1))
    for stratum in strata:
        more = np.sign(gained[stratum.origin] - gained[stratum.planned])  # what a failure does to the sum
        clear = stratum.resolved(gained) if lean.any() else stratum.told()
        counts += _draw_outcomes(clear, len(classes), draws, rng, more)
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


def chances(
    expected: Estimate, target: float, tolerance: float, confidence: float, told: Estimate | None = None
) -> tuple[float, float]:
    """Return how likely a target is found to be met, and missed, by estimates that scatter normally about this one.

    Unclear images widen an interval without scatter, so the scatter is that of `told`, the estimate without them.
    """
    below, above = expected.value - expected.low, expected.high - expected.value
    scattered = expected if told is None else told
    spread = max((scattered.high - scattered.low) / 2 / norm.ppf((1 + confidence) / 2), np.finfo(float).tiny)
    lowest, highest = target - tolerance + below, target + tolerance - above  # that are judged to meet it
    at = norm(expected.value, spread)
    met = max(0.0, at.cdf(highest) - at.cdf(lowest))
    return float(met), float(at.cdf(target - tolerance - above) + at.sf(target + tolerance + below))


def likely_labels(
    expect: Callable[[float], tuple[Estimate, Estimate]],
    fewest: float,
    most: float,
    target: float,
    tolerance: float,
    confidence: float,
) -> int | None:
    """Return how many labels decide a target in a share `LIKELY` of all audits; None if not even `most` do.

    Args:
        expect: the estimates that are expected of so many labels, not always a whole number: with unclear images, and
            without them.
        fewest: number of labels with which the search starts.
        most: number of labels with which it ends.
        target: the rate or the gap that was asked for.
        tolerance: largest distance from it that counts as met.
        confidence: level of the interval that decides, in (0, 1).
    """
    labels = float(fewest)
    while labels < GROWTH * most:
        labels = min(labels, most)
        found, told = expect(labels)
        if sum(chances(found, target, tolerance, confidence, told)) >= LIKELY:
            return math.ceil(labels)
        labels *= GROWTH
    return None


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

    That many do in a share `LIKELY` of all audits. What was seen is taken with one more label of each stratum, which is
    a failure with the probability `ASSUMED_ERRORS`.

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
    edits = sum(stratum.size for stratum in strata)

    def expect(labels: float) -> tuple[Estimate, Estimate]:
        expected = _expect(strata, [math.ceil(labels * stratum.size / edits) for stratum in strata])
        found = estimate(classes, kept, expected, of, confidence, rng)
        if not any(len(stratum.unclear) for stratum in expected):
            return found, found
        return found, estimate(classes, kept, [stratum.told() for stratum in expected], of, confidence, rng)

    fewest = max(FEWEST, sum(stratum.audited for stratum in strata))
    return likely_labels(expect, min(fewest, edits), edits, target, tolerance, confidence)


def _expect(strata: Sequence[Stratum], counts: Sequence[int]) -> list[Stratum]:
    """Return strata with so many labels, of which as many fail or are unclear as in the audit so far.

    The number of failures is rounded up in all strata together, and in each by largest remainders, since one more in
    each of many would be far too many. A stratum that has as many labels stays as it is.
    """
    grows = [count > stratum.audited for stratum, count in zip(strata, counts, strict=True)]
    unclear = [round(count * len(own.unclear) / max(1, own.audited)) for own, count in zip(strata, counts, strict=True)]
    told = np.array(counts, int) - np.array(unclear, int)
    failing = told * [(own.failures + ASSUMED_ERRORS) / (len(own.found) + 1) for own in strata] * np.array(grows, int)
    failed = np.floor(failing).astype(int)
    failed[np.argsort(failed - failing, kind="stable")[: math.ceil(failing.sum()) - failed.sum()]] += 1
    return [
        _with_labels(own, told[number], failed[number], unclear[number]) if grows[number] else own
        for number, own in enumerate(strata)
    ]


def _with_labels(stratum: Stratum, told: int, failed: int, unclear: int) -> Stratum:
    """Return a stratum with labels like those seen: so many that were told, of which some failed, and unclear ones."""
    found = np.full(told, stratum.planned)
    wrong = stratum.found[stratum.found != stratum.planned]
    found[:failed] = np.resize(wrong, failed) if len(wrong) else stratum.origin
    rows = np.resize(stratum.unclear, (unclear, stratum.unclear.shape[1]))
    return Stratum(stratum.origin, stratum.planned, stratum.size, found, rows)
