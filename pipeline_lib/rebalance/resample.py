"""The original images drawn anew so that they have the target rates, which is what edits must be better than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.groups import attributes_of, group_name, members
from pipeline_lib.rebalance.program import Kinds
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

ROUNDS = 1000  # of raking; targets whose groups are nested, or of one attribute, need one
VANISHED = 1e-9  # images; what raking has made so few has a rate of 0
CLOSE = 1e-6  # distance from its target at which a rate counts as reached


def draw_at_rates(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule], seed: int) -> np.ndarray:
    """Draw as many images as there are, so that every target has its rate.

    Images that differ in an attribute without targets stay as many as they were, so that groups by hair, for example,
    keep their sizes. Of what is too frequent some images are left out at random. Of what is too rare every image is
    repeated equally often, but for a random rest. Images in no group are kept, and so are those of which an attribute
    with targets is unknown.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        targets: target rates, of which those of one attribute do not overlap.
        seed: seed of the run.

    Returns:
        Positions of the images, ascending, int64 (n,).

    Raises:
        DataError: a group has no image of a value that it needs, or the rates cannot be reached together.
    """
    kinds = Kinds.among({name: holds[name] for name in attributes_of(targets)}, {})
    changed = {target.attribute for target in targets}
    kept = [
        np.isnan(values) if name in changed else np.nan_to_num(values, nan=-1) for name, values in kinds.holds.items()
    ]
    stratum = np.unique(np.stack([np.zeros(len(kinds.sizes)), *kept]), axis=1, return_inverse=True)[1].reshape(-1)
    repeats = np.zeros(len(kinds.of), np.int64)
    for kind, count in enumerate(_whole(rake(kinds, stratum, targets), stratum)):
        there = np.flatnonzero(kinds.of == kind)
        more, rest = divmod(count, len(there))
        repeats[there] = more
        repeats[seeding.numpy_generator(seed, "resample", kind).permutation(there)[:rest]] += 1
    return np.repeat(np.arange(len(repeats)), repeats)


def rake(kinds: Kinds, stratum: np.ndarray, targets: Sequence[RateRule]) -> np.ndarray:
    """Return how many images of each kind give the targets their rates, by raking (Deming and Stephan 1940).

    In turn the images of each target's group with its attribute, and those without it, are multiplied by what gives it
    its rate, and those of each stratum by what gives it its size, until nothing changes any more.

    Args:
        kinds: the images.
        stratum: number of the stratum of each kind, int (kinds,), whose size is kept.
        targets: the target rates.

    Returns:
        Fractions of images, (kinds,).

    Raises:
        DataError: a group has no image of a value that it needs, or the rates cannot be reached together without
            emptying a group.
    """
    inside, positive = members(kinds.holds, targets)
    wanted = np.array([target.rate for target in targets])
    _check_halves(inside, positive, targets)
    sizes, counts = np.bincount(stratum, kinds.sizes), kinds.sizes.astype(float)
    for _ in range(ROUNDS):
        for with_it, group, rate in zip(positive, inside, wanted, strict=True):
            there = counts[group].sum()
            _scale_to(counts, with_it, rate * there)
            _scale_to(counts, group & ~with_it, (1 - rate) * there)
        for number, size in enumerate(sizes):
            _scale_to(counts, stratum == number, size)
        images = inside @ counts
        if (images[inside.any(axis=1)] <= VANISHED).any():
            break
        if (abs(positive @ counts - wanted * images) <= CLOSE * images).all():
            return counts
    raise DataError(
        "rebalance.targets: no choice among the original images has all of these rates; change one, or remove "
        "`resampled` from `retrain.baselines`"
    )


def _check_halves(inside: np.ndarray, positive: np.ndarray, targets: Sequence[RateRule]) -> None:
    """Raise an error if a group has no image of a value that its target needs."""
    for number, (target, group, with_it) in enumerate(zip(targets, inside, positive, strict=True)):
        for is_there, rate, name in (
            (with_it.any(), target.rate, target.attribute),
            ((group & ~with_it).any(), 1 - target.rate, f"not {target.attribute}"),
        ):
            if group.any() and rate and not is_there:
                raise DataError(
                    f"rebalance.targets.{number}: no image that is {group_name(target.where)} is {name}, so none can "
                    "be drawn; remove `resampled` from `retrain.baselines`"
                )


def _scale_to(counts: np.ndarray, which: np.ndarray, total: float) -> None:
    """Multiply some counts in place, so that they sum to `total`; what has vanished stays so."""
    there = counts[which].sum()
    counts[which] *= total / there if there > VANISHED else 0


def _whole(counts: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Round counts so that every stratum keeps its sum, the largest fractions upwards, int64 (kinds,)."""
    whole = np.floor(counts + CLOSE).astype(np.int64)
    for number in range(stratum.max() + 1):
        of_stratum = np.flatnonzero(stratum == number)
        lacking = round(counts[of_stratum].sum()) - whole[of_stratum].sum()
        fractions = counts[of_stratum] - whole[of_stratum]
        whole[of_stratum[np.argsort(-fractions, kind="stable")[:lacking]]] += 1
    return whole
