"""Planning of the fewest edits that reach the target rates, on images drawn at random."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.rebalance.groups import (
    attributes_of,
    counts_for,
    group_name,
    in_group,
    members,
    not_counted,
)
from pipeline_lib.rebalance.program import Kinds, Program, fewest_edits, nearest_rates, own_target
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

LEAST_IN_GROUP = 30  # images of a dataset
LEAST_OF_BOTH = 10  # images of the rarer value in a group from which a detector can learn the attribute
DIGITS = 9  # of a rate, so that it gives the same number of images in any dataset


class Audited(NamedTuple):
    """Earlier edits for one target that were audited."""

    edits: int
    succeeded: int  # with the value that they were to get, and in their group


def refuse_small_groups(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule], name: str) -> None:
    """Refuse targets in groups of fewer than `LEAST_IN_GROUP` known images, of whose rates little can be known.

    Conditions on an attribute that is edited itself do not count, since the plan decides how many images meet them.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        targets: target rates.
        name: name of the image set.

    Raises:
        DataError: names the target, the group and its size.
    """
    edited = {target.attribute for target in targets}
    for number, target in enumerate(targets):
        where = {attribute: value for attribute, value in target.where.items() if attribute not in edited}
        group = target.model_copy(update={"where": where})
        size, unknown = int(counts_for(holds, group).sum()), not_counted(holds, group)
        if size < LEAST_IN_GROUP and (where or unknown):
            more = f", beside {unknown} of which a label is unknown" if unknown else ""
            named = any(value and "=" in attribute for attribute, value in where.items())
            hint = " (if it means unknown, name that value in `data.unknown`)" if named else ""
            raise DataError(
                f"rebalance.targets.{number}: {size} images of `{name}` are {group_name(where)}{more}, and a rate of "
                f"fewer than {LEAST_IN_GROUP} can hardly be known; add images of this group, or drop the target{hint}"
            )


def refuse_without_donors(
    holds: Mapping[str, np.ndarray],
    settings: Rebalance,
    name: str,
    may_change: Mapping[str, np.ndarray] | None = None,
    learnt: bool = True,
) -> None:
    """Refuse targets for which no image can be a donor, or none from which it could be told that an edit succeeds.

    An edit takes its region from an image that has the wanted value, unless a diffusion model draws it. If the labels
    of the attribute are those of a condition, or their opposite, in all but a few images (fewer than `LEAST_OF_BOTH`
    with the rarer value, where the condition holds and where it does not), then no detector can learn which of the two
    it sees, and no edit is found to succeed.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        settings: the config section.
        name: name of the image set.
        may_change: which images have a part that can be exchanged, bool (n,), for each attribute that has a target;
            None: all.
        learnt: whether the selector is trained on these images; one that is given may tell what they cannot teach.

    Raises:
        DataError: names the target, the attribute and the value.
    """
    for number, target in enumerate(settings.targets):
        has, group = holds[target.attribute], counts_for(holds, target)
        needed = round(target.rate * group.sum()) - int((group & (has == 1)).sum())
        if not needed:
            continue
        value = group_name({target.attribute: needed > 0})
        donors = int(((has == (needed > 0)) & (may_change[target.attribute] if may_change else True)).sum())
        least = (settings.edit.pool or settings.edit.candidates) if settings.edit.donors == "with-attribute" else 1
        if donors < least and settings.edit.editor.takes_donor:
            raise DataError(
                f"rebalance.targets.{number}: {abs(needed)} images of `{name}` that are {group_name(target.where)} are "
                f"to become {value}, and {donors} images of any group can be their donors, fewer than {least}; add "
                f"images that are {value}, or drop the target"
            )
        if not learnt:
            continue
        conditions = {group_name(target.where): _meets(holds, target.where)} | {
            condition: holds[condition] for condition in target.where
        }
        for condition, meets in conditions.items():
            rare = [min(int(((has == has_it) & (meets == side)).sum()) for has_it in (1, 0)) for side in (1, 0)]
            if max(rare) < LEAST_OF_BOTH:
                raise DataError(
                    f"rebalance.targets.{number}: in `{name}` {target.attribute} is the same as {condition} or its "
                    f"opposite in all but {rare[0]} of the images that are {condition} and {rare[1]} of the others, "
                    f"fewer than {LEAST_OF_BOTH} in both, so nobody can learn to tell an image that became {value} "
                    "from one of another group; add images in which they differ, or use other groups"
                )


def _meets(holds: Mapping[str, np.ndarray], where: Mapping[str, bool]) -> np.ndarray:
    """Return 1 for images that match every condition, 0 for those that do not, and NaN where it is unknown, (n,)."""
    fails = np.zeros(len(next(iter(holds.values()))), bool)
    for name, value in where.items():
        fails |= holds[name] == (not value)
    return np.where(in_group(holds, where), 1.0, np.where(fails, 0.0, np.nan))


def choose_edits(
    holds: Mapping[str, np.ndarray],
    may_change: Mapping[str, np.ndarray],
    targets: Sequence[RateRule],
    seed: int,
    name: str,
    spares: float = 0.0,
    audited: Sequence[Audited] | None = None,
) -> tuple[pd.DataFrame, list[dict[str, object]]]:
    """Choose the fewest edits that reach every target rate.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        may_change: which images can be edited, bool (n,), for each attribute that has a target.
        targets: target rates, of which those of one attribute do not overlap.
        seed: seed of the run.
        name: name of the image set, for the random stream.
        spares: share of the edits of each target that are planned beyond those that are needed, as far as there are
            images.
        audited: earlier edits for each target. Where a share of them failed, as many more are planned as make up for
            that share. None: all edits are taken to succeed.

    Returns:
        One row per edit (position, target, attribute, wanted, spare), ordered by position, and the counts of each
        target, with `unknown` if there are images that may be of its group but do not count. `spare` is 0 for an edit
        that is needed, and else the place in the order in which spares are used.

    Raises:
        DataError: a target's group has no images, or too few that can be edited; or no earlier edit for it is known to
            have succeeded.
    """
    counts: list[dict[str, object]] = []
    shares = []
    inside, positive = members(holds, targets)
    for number, target in enumerate(targets):
        size, present = int(inside[number].sum()), int(positive[number].sum())
        unknown = not_counted(holds, target)
        if not size:
            more = f" (but {unknown} of which a label is unknown may be)" if unknown else ""
            raise DataError(
                f"rebalance.targets.{number}: no image of `{name}` is {group_name(target.where)}{more}; drop it"
            )
        is_met = round(target.rate * size) == present
        shares.append(1.0 if audited is None or is_met else _share(audited[number], number))
        counts.append(
            {
                "group": group_name(target.where),
                "attribute": target.attribute,
                "size": size,
                "rate_before": present / size,
                "rate_wanted": target.rate,
                **({"unknown": unknown} if unknown else {}),
            }
        )
    choose = _choose_by_target if len(may_change) == 1 else _choose_by_program
    chosen = choose(holds, may_change, targets, seed, name, spares, shares)
    edits = pd.DataFrame(sorted(chosen), columns=["position", "target", "attribute", "wanted", "spare"])
    needed = needed_edits(edits).groupby("target").size().reindex(range(len(targets)), fill_value=0)
    for number, count in enumerate(counts):
        count["edits"] = int(needed[number])
        count |= {} if audited is None else {"audited": audited[number]._asdict()}
    return edits, counts


_Edit = tuple[int, int, str, bool, int]  # position, target, attribute, wanted, spare


def _choose_by_target(
    holds: Mapping[str, np.ndarray],
    may_change: Mapping[str, np.ndarray],
    targets: Sequence[RateRule],
    seed: int,
    name: str,
    spares: float,
    shares: Sequence[float],
) -> list[_Edit]:
    """Choose the edits of targets of one attribute, each of which needs as many as it is away from its rate."""
    edits = []
    for number, (target, share) in enumerate(zip(targets, shares, strict=True)):
        group, has = counts_for(holds, target), holds[target.attribute] == 1
        size, present = int(group.sum()), int((group & has).sum())
        wanted = round(target.rate * size)
        rises = wanted > present
        candidates = np.flatnonzero(group & (has != rises) & may_change[target.attribute])
        needed = round(abs(wanted - present) / share)
        if needed > len(candidates):
            reached = present + (1 if rises else -1) * share * len(candidates)
            raise DataError(
                f"rebalance.targets.{number}: rate {target.rate} needs {needed} edits of `{name}`, but only "
                f"{len(candidates)} images that are {group_name(target.where)} can be edited; the nearest rate is "
                f"{reached / size:.{DIGITS}f}"
            )
        rng = seeding.numpy_generator(seed, "plan", name, number)
        more = math.ceil(spares * needed)
        for place, position in enumerate(rng.permutation(candidates)[: needed + more]):
            edits.append((int(position), number, target.attribute, rises, max(0, place - needed + 1)))
    return edits


def _choose_by_program(
    holds: Mapping[str, np.ndarray],
    may_change: Mapping[str, np.ndarray],
    targets: Sequence[RateRule],
    seed: int,
    name: str,
    spares: float,
    shares: Sequence[float],
) -> list[_Edit]:
    """Choose the edits of targets of several attributes; see `rebalance.program`.

    Of each kind of images those of its first attribute are taken from the beginning of a random order, and those of the
    others from its end, so that edits of two attributes stay when more are planned.
    """
    kinds = Kinds.among({attribute: holds[attribute] for attribute in attributes_of(targets)}, may_change)
    program = Program.of(kinds, targets, shares)
    rates = [target.rate for target in targets]
    planned = fewest_edits(program, rates)
    if planned is None:
        nearest = ", ".join(f"{rate:.{DIGITS}f}" for rate in nearest_rates(program, rates))
        raise DataError(
            f"rebalance.targets: no choice of images of `{name}` reaches all rates, because too few can be edited or "
            f"the rates contradict each other; the nearest are {nearest}"
        )
    own = {attribute: own_target(holds, targets, attribute) for attribute in may_change}

    def edits_of(variable: int, places: np.ndarray) -> list[_Edit]:
        attribute = program.variables[variable][1]
        lacks = holds[attribute] == 0
        return [(int(place), int(own[attribute][place]), attribute, bool(lacks[place]), 0) for place in places]

    edits, extra = [], []
    for kind in range(len(kinds.sizes)):
        of_kind = [number for number, (other, _) in enumerate(program.variables) if other == kind]
        free = seeding.numpy_generator(seed, "plan", name, "kind", kind).permutation(np.flatnonzero(kinds.of == kind))
        for variable in of_kind:
            if variable == of_kind[0]:
                taken, free = np.split(free, [planned[variable]])
            else:
                free, taken = np.split(free, [len(free) - planned[variable]])
            edits += edits_of(variable, taken)
        for variable in of_kind:
            more, free = np.split(free, [math.ceil(spares * planned[variable])])
            extra += edits_of(variable, more)
    used: Counter[int] = Counter()
    for place in seeding.numpy_generator(seed, "plan", name, "spares").permutation(len(extra)):
        position, target, attribute, wanted, _ = extra[place]
        used[target] += 1
        edits.append((position, target, attribute, wanted, used[target]))
    return edits


def _share(audited: Audited, number: int) -> float:
    """Return the share of audited edits that succeeded."""
    if not audited.succeeded:
        found = f"none of {audited.edits} audited edits succeeded" if audited.edits else "no edit was audited"
        mend = "change the editor, the region or the donors" if audited.edits else "label a larger sheet"
        raise DataError(f"rebalance.labels: for `rebalance.targets.{number}` {found}; {mend}")
    return audited.succeeded / audited.edits


def needed_edits(plan: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a plan that are needed, without spares."""
    return plan if "spare" not in plan else plan[plan["spare"] == 0]


def made_edits(plan: pd.DataFrame, succeeded: Collection[str]) -> pd.DataFrame:
    """Return the rows of a plan that are made: what is needed and succeeded, and a spare for each that failed.

    Args:
        plan: table of edits.
        succeeded: names of the images whose edit succeeded.

    Returns:
        The rows in their order. Of the spares of a target the first that succeeded are used.
    """
    made = plan[plan["image_id"].isin(succeeded)]
    if "spare" not in plan:
        return made
    needed = needed_edits(plan).groupby("target").size()
    used = made.sort_values("spare", kind="stable").groupby("target").cumcount()
    return made[used.reindex(made.index) < made["target"].map(needed)]
