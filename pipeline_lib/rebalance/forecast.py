"""What a plan costs, and what an audit of its edits could show, before anything is edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.certify import Kept, Stratum, Verdict, estimate, judge
from pipeline_lib.rebalance.estimate import Estimate
from pipeline_lib.rebalance.plan import choose_edits
from pipeline_lib.runtime import seeding

FEWEST = 8  # labels with which the search for enough of them starts
GROWTH = 1.25  # factor of one more attempt


class Forecast(NamedTuple):
    """What is to be expected of one target."""

    group: str
    attribute: str
    size: int  # images of the group
    before: float  # rate of the attribute
    target: float
    edits: int
    after: Estimate  # rate that an audit would find
    verdict: Verdict
    labels: int | None  # of edited images of this group that would show that the target is met; None if none would


def forecast(
    holds: Mapping[str, np.ndarray],
    targets: Sequence[RateRule],
    tolerances: Sequence[float],
    *,
    failing: float,
    labels: int,
    confidence: float,
    seed: int,
) -> list[Forecast]:
    """Forecast each target, if a share of the edits fails by showing the value that the image had.

    Every image is taken to be editable, since parts are not segmented yet. Spares are not counted.

    Args:
        holds: whether each image has each attribute, bool (n,) arrays.
        targets: target rates, whose conditions do not overlap.
        tolerances: largest distance from each target that counts as met.
        failing: share of the edits that fail, in [0, 1].
        labels: number of audited edits of each target.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.

    Raises:
        DataError: a target cannot be reached.
    """
    everywhere = np.ones(len(next(iter(holds.values()))), bool)
    _, counts = choose_edits(holds, everywhere, targets, seed, "dataset")
    found = []
    for number, (target, tolerance, count) in enumerate(zip(targets, tolerances, counts, strict=True)):
        size, edits = int(count["size"]), int(count["edits"])
        positives = round(float(count["rate_before"]) * size)
        rises = target.rate * size > positives
        kept = [Kept(size - edits, positives - (0 if rises else edits))]

        def audited(labelled: int, edits: int = edits, rises: bool = rises) -> list[Stratum]:
            values = np.full(min(labelled, edits), rises)
            values[: round(failing * len(values))] = not rises
            return [Stratum(0, rises, edits, np.zeros(len(values), int), values)] if edits else []

        rng = seeding.numpy_generator(seed, "forecast", number)
        after = estimate(kept, audited(labels), (1.0,), confidence, rng)
        verdict = judge(after, target.rate, tolerance)
        needed, tried = None, 0
        while needed is None and tried < edits:
            tried = min(edits, max(FEWEST, int(np.ceil(tried * GROWTH))))
            if judge(estimate(kept, audited(tried), (1.0,), confidence, rng), target.rate, tolerance) is Verdict.MET:
                needed = tried
        found.append(
            Forecast(
                *(str(count["group"]), target.attribute, size, float(count["rate_before"]), target.rate, edits),
                *(after, verdict, needed if edits else 0),
            )
        )
    return found
