"""What a plan costs, and what an audit of its edits could show, before anything is edited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.certify import FEWEST, GROWTH, LIKELY, Stratum, Verdict, chances, estimate, judge
from pipeline_lib.rebalance.classes import Classes
from pipeline_lib.rebalance.estimate import Estimate
from pipeline_lib.rebalance.groups import any_unknown
from pipeline_lib.rebalance.plan import Audited, choose_edits
from pipeline_lib.runtime import seeding


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
    labels: int | None  # audited edits of each target from which on this one is likely found to be met; None if never
    unknown: int  # images that may be of the group, but do not count, since a label is unknown


def forecast(
    holds: Mapping[str, np.ndarray],
    targets: Sequence[RateRule],
    tolerances: Sequence[float],
    *,
    failing: Sequence[float],
    labels: int,
    confidence: float,
    seed: int,
    audited: Sequence[Audited] | None = None,
) -> list[Forecast]:
    """Forecast each target, if a share of its edits fails by showing the value that the image had.

    An audit is taken to see the share of failures that there is, rounded up to a whole number of images.

    Every image is taken to be editable, since parts are not segmented yet. Spares are not counted.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        targets: target rates, whose conditions do not overlap.
        tolerances: largest distance from each target that counts as met.
        failing: share of the edits that fail, in [0, 1], for each target.
        labels: number of audited edits of each target.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        audited: earlier edits for each target, by which more are planned; None without.

    Raises:
        DataError: a target cannot be reached.
    """
    edited = dict.fromkeys(target.attribute for target in targets)
    everywhere = np.ones(len(next(iter(holds.values()))), bool)
    chosen, counts = choose_edits(holds, dict.fromkeys(edited, everywhere), targets, seed, "dataset", audited=audited)
    classes = Classes(targets, any_unknown(holds))
    planned = _planned_edits(classes, holds, chosen)
    untouched = np.delete(np.arange(len(everywhere)), chosen["position"])
    kept = classes.count({name: holds[name][untouched] for name in classes.attributes})
    edits = [int(count["edits"]) for count in counts]

    def rate_of(number: int, labelled: int) -> Estimate:
        random = seeding.numpy_generator(seed, "forecast", number, labelled)
        strata = [
            _audited(*pair, size, math.ceil(labelled * size / edits[target]), failing[target])
            for (target, *pair), size in planned.items()
        ]
        return estimate(classes, kept, strata, np.arange(len(targets)) == number, confidence, random)

    found = []
    for number, (target, tolerance) in enumerate(zip(targets, tolerances, strict=True)):
        after, enough = rate_of(number, labels), None
        for tried in reversed(_attempts(max(edits))):  # every larger audit must do as well
            met, _ = chances(rate_of(number, tried), target.rate, tolerance, confidence)
            if met < LIKELY:
                break
            enough = tried
        verdict = judge(after, target.rate, tolerance)
        count = counts[number]
        known = (str(count["group"]), target.attribute, int(count["size"]), float(count["rate_before"]), target.rate)
        unknown = int(count.get("unknown", 0))
        found.append(Forecast(*known, edits[number], after, verdict, enough, unknown))
    return found


def _planned_edits(classes: Classes, holds: Mapping[str, np.ndarray], chosen: pd.DataFrame) -> pd.Series:
    """Count the edits by their target and the classes before and after them."""
    before = {name: holds[name][chosen["position"]] for name in classes.attributes}
    pairs = classes.of_edits(before, chosen["attribute"].to_numpy(), chosen["wanted"].to_numpy(bool))
    rows = pd.DataFrame({"target": chosen["target"].to_numpy(), "origin": pairs[0], "planned": pairs[1]})
    return rows.groupby(["target", "origin", "planned"]).size()


def _audited(origin: int, planned: int, size: int, labels: int, failing: float) -> Stratum:
    """Return an audit of edits in which the share of failures, rounded up, has been seen."""
    found = np.full(min(labels, size), planned)
    found[: math.ceil(failing * len(found) - 1e-9)] = origin
    return Stratum(origin, planned, size, found)


def _attempts(most: int) -> list[int]:
    """Return numbers of labels from 0 to `most`, each a tenth more than the one before."""
    attempts, tried = [0], FEWEST
    while tried < most:
        attempts.append(tried)
        tried = math.ceil(tried * GROWTH)
    return [*attempts, most] if most else attempts
