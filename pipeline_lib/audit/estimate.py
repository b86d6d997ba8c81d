"""Estimates with intervals, verdicts on them, and agreement."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


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


def wilson_rate(positives: int, n: int, confidence: float) -> Estimate:
    """Return a rate with Wilson's score interval (1927); NaN if n is 0."""
    if n == 0:
        return UNKNOWN
    limits = binomtest(positives, n).proportion_ci(confidence, method="wilson")
    return Estimate(positives / n, float(limits.low), float(limits.high))


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> tuple[int, float | None]:
    """Return on how many images two labellers or detectors agree, and Cohen's kappa (1960).

    Kappa is the agreement beyond that of two who answer as often in the same way, but at random, as a share of what is
    possible; None if that is nothing, or without images.

    Args:
        first: answers of one, bool or str (n,).
        second: answers of the other.
    """
    agree = int((first == second).sum())
    by_chance = sum(float((first == answer).mean() * (second == answer).mean()) for answer in np.unique(first))
    kappa = (agree / len(first) - by_chance) / (1 - by_chance) if len(first) and by_chance < 1 else None
    return agree, kappa


def estimate_json(estimate: Estimate) -> dict[str, object]:
    """Return an estimate for JSON, with six digits and null for NaN."""
    value, low, high = (None if np.isnan(number) else round(float(number), 6) for number in estimate)
    return {"value": value, "ci": [low, high]}
