"""The original images drawn anew so that they have the target rates, which is what edits must be better than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.groups import group_name, in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError


def draw_at_rates(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule], seed: int) -> np.ndarray:
    """Draw as many images as there are, so that every target has its rate and every group its size.

    Of what is too frequent in a group some images are left out at random. Of what is too rare every image is repeated
    equally often, but for a random rest. Images in no group are kept.

    Args:
        holds: whether each image has each attribute, bool (n,) arrays.
        targets: target rates, whose conditions do not overlap.
        seed: seed of the run.

    Returns:
        Positions of the images, ascending, int64 (n,).

    Raises:
        DataError: a group has no image of a value that it needs.
    """
    count = len(next(iter(holds.values())))
    repeats = np.ones(count, np.int64)
    for number, target in enumerate(targets):
        group, has = in_group(holds, target.where), holds[target.attribute]
        positives = round(target.rate * int(group.sum()))
        for value, wanted in ((True, positives), (False, int(group.sum()) - positives)):
            there = np.flatnonzero(group & (has == value))
            if wanted and not len(there):
                lacking = f"{'' if value else 'not '}{target.attribute}"
                raise DataError(
                    f"rebalance.targets.{number}: no image that is {group_name(target.where)} is {lacking}, so none "
                    "can be drawn; remove `resampled` from `retrain.baselines`"
                )
            random = seeding.numpy_generator(seed, "resample", number, value)
            if wanted:
                repeats[there] = wanted // len(there)
                repeats[random.permutation(there)[: wanted % len(there)]] += 1
            else:
                repeats[there] = 0
    return np.repeat(np.arange(count), repeats)
