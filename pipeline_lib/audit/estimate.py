"""Rates with intervals, verdicts on them, and how many labels a verdict needs."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from scipy.stats import binomtest, norm

from pipeline_lib.runtime.results import Result

FEWEST = 16  # labels with which the search for enough of them starts
GROWTH = 1.1  # factor of one more attempt
LIKELY = 0.8  # probability of a verdict from which on labels are likely to be enough
ASSUMED_ERRORS = 0.02  # share of the edits that are taken to fail, or of a detector's errors, before any is labelled


class Estimate(NamedTuple):
    """A rate or a difference of rates with the limits of its interval; all NaN without images."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


class Verdict(StrEnum):
    """What is known of a target."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not enough evidence"


class Interval(Result):
    """A figure with the limits of its interval."""

    value: float | None
    ci: tuple[float | None, float | None]

    @property
    def estimate(self) -> Estimate:
        """The figure with NaN for what is unknown."""
        return Estimate(*(math.nan if number is None else number for number in (self.value, *self.ci)))

    @classmethod
    def of(cls, estimate: Estimate) -> Interval:
        """Return an estimate with six digits, and None for NaN."""
        return cls(**estimate_json(estimate))


class Evidence(Protocol):
    """What labels by eye and counts of images say of one rate; see `audit.dataset` and `audit.samples`."""

    @property
    def labels(self) -> int:
        """Number of images labelled so far."""

    @property
    def size(self) -> int:
        """Number of images that could be labelled."""

    @property
    def informs(self) -> bool:
        """Whether anything is known of the rate."""

    def estimate(self, confidence: float, rng: np.random.Generator) -> Estimate:
        """Return the rate with its interval."""

    def expected(self, labels: float) -> Evidence:
        """Return what so many labels are expected to give if errors stay as frequent as they were seen to be."""

    def determined(self) -> Evidence:
        """Return the evidence without images of which it could not be determined what they show; itself if all were."""

    def larger(self) -> Evidence | None:
        """Return what a larger population would give; None if there is none."""


class Needed(NamedTuple):
    """How many labels are likely to decide a target (None: no number), and how many images they are drawn from."""

    labels: int | None
    size: int


class Finding(NamedTuple):
    """The rate of a target (None: nothing is known), whether it is met, and what would decide it if it is open."""

    rate: Estimate | None
    verdict: Verdict
    needed: Needed | None


def wilson_rate(positives: int, n: int, confidence: float) -> Estimate:
    """Return a rate with Wilson's score interval (1927); NaN if n is 0."""
    if n == 0:
        return UNKNOWN
    limits = binomtest(positives, n).proportion_ci(confidence, method="wilson")
    return Estimate(positives / n, float(limits.low), float(limits.high))


def estimate_json(estimate: Estimate) -> dict[str, object]:
    """Return an estimate for JSON, with six digits and null for NaN."""
    value, low, high = (None if np.isnan(number) else round(float(number), 6) for number in estimate)
    return {"value": value, "ci": [low, high]}


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> tuple[int, float | None]:
    """Return on how many images two labellers or detectors agree, and Cohen's kappa (1960).

    Kappa is None if they would agree on all by chance, or without images.

    Args:
        first: answers of one, bool or str (n,).
        second: answers of the other.
    """
    agree = int((first == second).sum())
    by_chance = sum(float((first == answer).mean() * (second == answer).mean()) for answer in np.unique(first))
    kappa = (agree / len(first) - by_chance) / (1 - by_chance) if len(first) and by_chance < 1 else None
    return agree, kappa


def decide(found: Estimate, target: float, tolerance: float) -> Verdict:
    """Decide on a target by two one-sided tests (Schuirmann 1987).

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


def chances(
    expected: Estimate, target: float, tolerance: float, confidence: float, determined: Estimate | None = None
) -> tuple[float, float]:
    """Return how likely a target is found to be met, and missed, by estimates that scatter normally about this one.

    Images that could not be determined widen an interval without scatter, so the scatter is that of `determined`, the
    estimate without them.
    """
    below, above = expected.value - expected.low, expected.high - expected.value
    scattered = expected if determined is None else determined
    spread = max((scattered.high - scattered.low) / 2 / norm.ppf((1 + confidence) / 2), np.finfo(float).tiny)
    lowest, highest = target - tolerance + below, target + tolerance - above  # of values found to meet it
    at = norm(expected.value, spread)
    met = max(0.0, at.cdf(highest) - at.cdf(lowest))
    return float(met), float(at.cdf(target - tolerance - above) + at.sf(target + tolerance + below))


def labels_needed(
    evidence: Evidence, target: float, tolerance: float, confidence: float, rng: np.random.Generator
) -> Needed:
    """Return how many labels in all would decide a target in a share `LIKELY` of all audits.

    Args:
        evidence: what is known so far; if labels of the whole population would not do, the search goes on in the
            larger one, if there is one.
        target: the rate that was asked for.
        tolerance: largest distance from it that counts as met.
        confidence: level of the interval that decides, in (0, 1).
        rng: random generator.
    """
    labels = float(min(max(FEWEST, evidence.labels), evidence.size))
    while labels < GROWTH * evidence.size:
        labels = min(labels, evidence.size)
        expected = evidence.expected(labels)
        found, clear = expected.estimate(confidence, rng), expected.determined()
        determined = found if clear is expected else clear.estimate(confidence, rng)
        if sum(chances(found, target, tolerance, confidence, determined)) >= LIKELY:
            return Needed(math.ceil(labels), evidence.size)
        labels *= GROWTH
    larger = evidence.larger()
    return labels_needed(larger, target, tolerance, confidence, rng) if larger else Needed(None, evidence.size)


def assess(evidence: Evidence, target: float, tolerance: float, confidence: float, rng: np.random.Generator) -> Finding:
    """Estimate the rate of a target and decide on it, or say how many labels would; see `labels_needed`."""
    rate = evidence.estimate(confidence, rng) if evidence.informs else None
    verdict = decide(rate, target, tolerance) if rate else Verdict.UNKNOWN
    is_open = verdict is Verdict.UNKNOWN
    return Finding(rate, verdict, labels_needed(evidence, target, tolerance, confidence, rng) if is_open else None)
