"""The fewest edits that reach targets of several attributes, as an integer program.

An edit changes one attribute of one image, and no image is edited twice. That suffices for joint rates too: what two
changes of one image would do to the counts, one change of each of two images does as well, where there are such images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp, minimize

from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.groups import counts_for, members

HALF_AN_IMAGE = 0.5 + 1e-6  # distance from its target at which a count of whole images is as near as can be


@dataclass(frozen=True)
class Kinds:
    """Images that are alike in all that the targets name, and in what can be edited.

    Attributes:
        holds: whether each kind has each attribute of targets and conditions, (kinds,) arrays as of `holds_of`.
        editable: whether each of the edited attributes can be changed, likewise.
        sizes: number of images, int (kinds,).
        of: kind of each image, int (n,).
    """

    holds: dict[str, np.ndarray]
    editable: dict[str, np.ndarray]
    sizes: np.ndarray
    of: np.ndarray

    @staticmethod
    def among(holds: Mapping[str, np.ndarray], may_change: Mapping[str, np.ndarray]) -> Kinds:
        """Sort images, given what they have, by `holds_of`, and what can be edited, bool (n,), by attribute."""
        columns = np.nan_to_num(np.stack([*holds.values(), *may_change.values()], axis=1, dtype=float), nan=-1)
        seen, of, sizes = np.unique(columns, axis=0, return_inverse=True, return_counts=True)
        has, can = np.split(np.where(seen < 0, np.nan, seen).T, [len(holds)])
        editable = dict(zip(may_change, can.astype(bool), strict=True))
        return Kinds(dict(zip(holds, has, strict=True)), editable, sizes, of.reshape(-1))


@dataclass(frozen=True)
class Program:
    """Images of each kind whose attribute is changed, as variables, and what the targets ask of them.

    Attributes:
        variables: kind and attribute of each variable.
        groups: what a unit of each variable does to the size of each target's group, (targets, variables).
        positives: likewise to the number of images with the attribute in it.
        before: size of each target's group, and number with the attribute, (2, targets).
        sizes: number of images of each kind.
    """

    variables: list[tuple[int, str]]
    groups: np.ndarray
    positives: np.ndarray
    before: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(kinds: Kinds, targets: Sequence[RateRule], shares: Sequence[float]) -> Program:
        """Write down the program.

        Args:
            kinds: the images.
            targets: the target rates.
            shares: share of the edits made for each target that succeed; see `own_target`.
        """
        inside, positive = _counted(kinds.holds, targets)
        before = np.stack([(member * kinds.sizes).sum(axis=1) for member in (inside, positive)])
        variables, groups, positives = [], [], []
        for attribute, can in kinds.editable.items():
            flipped = kinds.holds | {attribute: kinds.holds[attribute] == 0}
            own = own_target(kinds.holds, targets, attribute)
            changes = [after - now for after, now in zip(_counted(flipped, targets), (inside, positive), strict=True)]
            for kind in np.flatnonzero(can & (own >= 0)):
                variables.append((int(kind), attribute))
                groups.append(changes[0][:, kind] * shares[own[kind]])
                positives.append(changes[1][:, kind] * shares[own[kind]])
        shape = (len(variables), len(targets))
        return Program(variables, np.reshape(groups, shape).T, np.reshape(positives, shape).T, before, kinds.sizes)

    def excess(self, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return by how many positives each target is exceeded, as a matrix of the variables and a constant."""
        return self.positives - rates[:, None] * self.groups, self.before[1] - rates * self.before[0]

    @property
    def used(self) -> np.ndarray:
        """Which variables use images of each kind, (kinds, variables)."""
        return (np.arange(len(self.sizes))[:, None] == np.array([kind for kind, _ in self.variables])).astype(float)

    @property
    def alike(self) -> np.ndarray:
        """Which variables do the same to every target, (sorts, variables), with one row for each sort of edit."""
        attributes = [attribute for _, attribute in self.variables]
        columns = np.vstack([self.groups, self.positives, np.unique(attributes, return_inverse=True)[1]])
        sort = np.unique(columns, axis=1, return_inverse=True)[1].reshape(-1)
        return (np.arange(sort.max(initial=-1) + 1)[:, None] == sort).astype(float)

    def reached(self, edits: np.ndarray) -> np.ndarray:
        """Return the rate that each target has after some edits, (targets,); NaN for a group without images."""
        images, positives = self.before + np.stack([self.groups @ edits, self.positives @ edits])
        return np.divide(positives, images, out=np.full(len(images), np.nan), where=images > 0)


def own_target(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule], attribute: str) -> np.ndarray:
    """Return the number of the target that an edit of an attribute is made for, int (n,); -1 without one.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        targets: the target rates, of which those of one attribute do not overlap.
        attribute: what is edited.
    """
    own = np.full(len(next(iter(holds.values()))), -1)
    for number, target in enumerate(targets):
        if target.attribute == attribute:
            own[counts_for(holds, target)] = number
    return own


def fewest_edits(program: Program, rates: Sequence[float]) -> np.ndarray | None:
    """Return how many images of each variable to edit, so that every target is as near as whole images allow.

    Of all plans with the fewest edits the one is taken that spreads them most evenly. Edits that do the same to every
    target are of one sort, and of these the sum of the squared numbers, each divided by the images that there are, is
    least. Within a sort images are edited in proportion to their number.

    Args:
        program: the program.
        rates: target rates.

    Returns:
        int (variables,); None if no plan reaches the targets.
    """
    matrix, constant = program.excess(np.asarray(rates))
    near = LinearConstraint(matrix, -HALF_AN_IMAGE - constant, HALF_AN_IMAGE - constant)
    room = LinearConstraint(program.used, ub=program.sizes)
    ones = np.ones(len(program.variables))
    fewest = _solve(ones, [near, room])
    if fewest is None or not fewest.any():
        return fewest if fewest is None else fewest.astype(int)
    even = _spread(program, fewest, near)
    # the nearest whole numbers: of each variable the distance to `even` is a variable of its own
    identity, nothing = np.eye(len(ones)), np.zeros_like(program.used)
    limits = [
        LinearConstraint(np.hstack([near.A, np.zeros_like(near.A)]), near.lb, near.ub),
        LinearConstraint(np.hstack([program.used, nothing]), ub=program.sizes),
        LinearConstraint(np.hstack([ones, 0 * ones])[None], fewest.sum(), fewest.sum()),
        LinearConstraint(np.hstack([identity, -identity]), ub=even),
        LinearConstraint(np.hstack([identity, identity]), lb=even),
    ]
    return _solve(np.concatenate([0 * ones, ones]), limits, np.repeat([1, 0], len(ones)))[: len(ones)].astype(int)


def _spread(program: Program, fewest: np.ndarray, near: LinearConstraint) -> np.ndarray:
    """Return the most even plan with as many edits as `fewest` has, in fractions of images, (variables,)."""
    sorts = program.alike
    images = program.sizes[[kind for kind, _ in program.variables]].astype(float)
    there = sorts @ images
    effect = near.A @ sorts.T / sorts.sum(axis=1)  # variables of one sort have the same column
    same = LinearConstraint(np.ones((1, len(there))), fewest.sum(), fewest.sum())
    found = minimize(
        lambda edits: (edits**2 / there).sum(),
        sorts @ fewest,
        jac=lambda edits: 2 * edits / there,
        method="SLSQP",
        bounds=Bounds(0, there),
        constraints=[LinearConstraint(effect, near.lb, near.ub), same],
        options={"maxiter": 500},
    )
    return images * (sorts.T @ (np.clip(found.x, 0, there) / there))


def nearest_rates(program: Program, rates: Sequence[float]) -> np.ndarray:
    """Return the rates that can be reached with the least sum of missing or excessive images, (targets,)."""
    matrix, constant = program.excess(np.asarray(rates))
    ones = np.ones(len(constant))
    identity, nothing = np.eye(len(constant)), np.zeros((len(program.sizes), len(constant)))
    limits = [
        LinearConstraint(np.hstack([matrix, -identity]), ub=-constant),
        LinearConstraint(np.hstack([matrix, identity]), lb=-constant),
        LinearConstraint(np.hstack([program.used, nothing]), ub=program.sizes),
    ]
    cost = np.concatenate([np.full(len(program.variables), 1e-6), ones])
    found = _solve(cost, limits, np.repeat([1, 0], [len(program.variables), len(constant)]))
    return program.reached(found[: len(program.variables)])


def _counted(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule]) -> tuple[np.ndarray, np.ndarray]:
    """Return `members` as numbers that can be subtracted."""
    inside, positive = members(holds, targets)
    return inside.astype(int), positive.astype(int)


def _solve(cost: np.ndarray, limits: Sequence[LinearConstraint], whole: np.ndarray | None = None) -> np.ndarray | None:
    """Return the cheapest solution that is not negative and, unless said otherwise, of whole numbers."""
    integrality = np.ones(len(cost)) if whole is None else whole
    found = milp(cost, constraints=limits, integrality=integrality, bounds=Bounds(0, np.inf))
    return None if found.x is None else np.where(integrality > 0, found.x.round(), found.x)
