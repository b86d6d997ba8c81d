"""Rates of a finite rebalanced dataset, from the labels of kept images and an audit of edited ones.

A kept image has its true label. What an edited image shows is known only if it was audited, so edited images are
strata, of those that were of one class and are to be of another. Some of each are drawn and labelled. The dataset is
the whole population: where every image of a stratum is labelled, nothing about it is uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.estimate import ASSUMED_ERRORS, UNKNOWN, Estimate, Finding
from pipeline_lib.audit.labels import agreement_of, check_fresh, combine_labels, read_present_labels
from pipeline_lib.audit.population import Files, Population
from pipeline_lib.config import Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import any_unknown, attributes_of, holds_of, not_counted
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json

PRIOR = 0.5  # Jeffreys' prior of a share
NEARLY_NONE = 1e-9  # in place of 0, at which a beta distribution is undefined


@dataclass(frozen=True)
class Stratum:
    """Edited images that were of one class and are to be of another, and the labels of those that were audited.

    Attributes:
        origin: number of the class before the edit.
        planned: number of the class that the edit is made for.
        size: number of images.
        found: the class of each audited image that could be determined, int (n,).
        unclear: of each other audited image the classes that it can be of, bool (m, classes).
        assumed: share of failures that is taken as seen in one more label.
    """

    origin: int
    planned: int
    size: int
    found: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    unclear: np.ndarray = field(default_factory=lambda: np.empty((0, 0), bool))
    assumed: float = ASSUMED_ERRORS

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
        return replace(self.determined(), found=np.concatenate([self.found, as_worst]))

    def determined(self) -> Stratum:
        """Return the stratum as if unclear images had not been audited."""
        return replace(self, unclear=self.unclear[:0])

    def draw(self, classes: int, draws: int, rng: np.random.Generator, more: float) -> np.ndarray:
        """Draw how many images are of each class, (draws, classes); `more`: what a failure does to the limit's sum."""
        seen = np.bincount(self.found, minlength=classes)
        counts = np.array([self.failures, self.audited - self.failures]) + PRIOR + np.array([more, -more]) / 2
        share = rng.beta(*np.maximum(counts, NEARLY_NONE), draws)
        failed = rng.binomial(self.size - self.audited, share)
        others = np.flatnonzero(np.arange(classes) != self.planned)
        prior = np.full(len(others), 1 / len(others)) if more <= 0 else (others == self.origin).astype(float)
        shares = rng.dirichlet(np.maximum(seen[others] + prior, NEARLY_NONE), draws)
        drawn = np.empty((draws, classes))
        drawn[:, others] = rng.multinomial(failed, shares)
        drawn[:, self.planned] = self.size - self.audited - failed
        return drawn + seen

    def with_labels(self, labels: int, failed: int, unclear: int) -> Stratum:
        """Return the stratum with labels like those seen, of which some failed, and some could not be determined."""
        found = np.full(labels - unclear, self.planned)
        wrong = self.found[self.found != self.planned]
        found[:failed] = np.resize(wrong, failed) if len(wrong) else self.origin
        rows = np.resize(self.unclear, (unclear, self.unclear.shape[1]))
        return replace(self, found=found, unclear=rows)


@dataclass(frozen=True)
class EditedDataset:
    """What is known of a weighted sum of the targets' rates in a rebalanced dataset; see `audit.estimate.Evidence`.

    Attributes:
        classes: what the targets tell apart.
        kept: number of images of each class that were not edited, int (classes,).
        strata: edited images.
        of: weight of each target's rate, such as (1, 0) for a rate or (1, -1) for a gap.
    """

    classes: Classes
    kept: np.ndarray
    strata: Sequence[Stratum]
    of: Sequence[float] | np.ndarray
    informs: bool = True  # of what was not edited

    @property
    def labels(self) -> int:
        """Number of audited images."""
        return sum(stratum.audited for stratum in self.strata)

    @property
    def size(self) -> int:
        """Number of edited images."""
        return sum(stratum.size for stratum in self.strata)

    def estimate(self, confidence: float, rng: np.random.Generator, draws: int = 2000) -> Estimate:
        """Return the sum with its interval; NaN if a group with a weight has no images.

        The limits are one-sided and as cautious as those of Clopper and Pearson (1934), so that the interval covers as
        often as it says where failures are rare; an interval between quantiles of one posterior would not. An audited
        image that could not be determined counts for each limit as what is worst for it, and for the value not at all.

        Args:
            confidence: level of the interval, in (0, 1).
            rng: random generator, by `runtime.seeding.numpy_generator`.
            draws: draws for each of the three figures.
        """
        weights = np.asarray(self.of, float)
        if (np.isnan(self.classes.rates(self._planned())) & (weights != 0)).any():
            return UNKNOWN
        tails = (1 - confidence) / 2, 0.5, (1 + confidence) / 2
        low, middle, high = (
            float(np.quantile(self._draw(draws, rng, side * weights) @ weights, tail))
            for side, tail in zip((-1, 0, 1), tails, strict=True)
        )
        return Estimate(float(np.clip(middle, low, high)), low, high)

    def _draw(self, draws: int, rng: np.random.Generator, raised: np.ndarray) -> np.ndarray:
        """Draw the rate of each target, (draws, targets), given the audit; 0 for a group without images.

        The share of failures in a stratum is drawn from the beta distribution that its audit gives. How many of the
        images that were not audited have failed is then binomial, and how they failed is drawn as often as it was seen,
        with a prior weight of one in all; where failures raise the sum, that weight is on an edit that changed nothing.

        Args:
            draws: number of draws.
            rng: random generator.
            raised: weights of a sum of the rates that is raised by half a failure in each stratum and by all unclear
                images, (targets,); 0 draws from Jeffreys' posterior.
        """
        gained = self.classes.gradient(self._planned() + PRIOR, raised)  # with images of all classes, so none is a tie
        counts = np.tile(np.asarray(self.kept, float), (draws, 1))
        for stratum in self.strata:
            more = np.sign(gained[stratum.origin] - gained[stratum.planned])
            clear = stratum.resolved(gained) if raised.any() else stratum.determined()
            counts += clear.draw(len(self.classes), draws, rng, more)
        return np.nan_to_num(self.classes.rates(counts))

    def _planned(self) -> np.ndarray:
        """Return how many images of each class there are if no edit fails, (classes,)."""
        counts = np.array(self.kept, float)
        for stratum in self.strata:
            counts[stratum.planned] += stratum.size
        return counts

    def expected(self, labels: float) -> EditedDataset:
        """Return what so many labels in all are expected to give, with as many failures and unclear ones as were seen.

        The number of failures is rounded up in all strata together, and in each by largest remainders, since one more
        in each of many would be far too many. A stratum that has as many labels stays as it is.
        """
        counts = [math.ceil(labels * stratum.size / self.size) for stratum in self.strata]
        pairs = list(zip(self.strata, counts, strict=True))
        grows = np.array([count > own.audited for own, count in pairs])
        unclear = np.array([round(count * len(own.unclear) / max(1, own.audited)) for own, count in pairs], int)
        shares = [(own.failures + own.assumed) / (len(own.found) + 1) for own in self.strata]
        failing = (np.array(counts, int) - unclear) * shares * grows
        failed = np.floor(failing).astype(int)
        failed[np.argsort(failed - failing, kind="stable")[: math.ceil(failing.sum() - 1e-9) - failed.sum()]] += 1
        strata = [
            own.with_labels(count, failed[number], unclear[number]) if grows[number] else own
            for number, (own, count) in enumerate(pairs)
        ]
        return replace(self, strata=strata)

    def determined(self) -> EditedDataset:
        """Return the evidence without audited images that could not be determined; itself if all were."""
        if not any(len(stratum.unclear) for stratum in self.strata):
            return self
        return replace(self, strata=[stratum.determined() for stratum in self.strata])

    def larger(self) -> None:
        """Return None: there are no more edits."""
        return None


def edited_strata(
    classes: Classes, labels: pd.DataFrame, edits: pd.DataFrame, known: pd.DataFrame | None
) -> list[Stratum]:
    """Return edited images by the classes before the edit and after it, with what is known of them.

    Args:
        classes: what the targets tell apart.
        labels: labels of the images before the edit, by image.
        edits: rows of the plan, by image.
        known: nullable bool columns of what edited images show, by image; None if nothing is known.
    """
    before = holds_of(labels.loc[edits.index], classes.attributes)
    pairs = classes.of_edits(before, edits["attribute"].to_numpy(), edits["wanted"].to_numpy(bool))
    rows = pd.DataFrame(dict(zip(("origin", "planned"), pairs, strict=True)), index=edits.index)
    sizes = rows.groupby(["origin", "planned"]).size()
    if known is None:
        return [Stratum(*pair, size) for pair, size in sizes.items()]
    labelled = rows.loc[known.index.intersection(rows.index)]
    possible = classes.possible(known.loc[labelled.index])
    is_clear = possible.sum(axis=1) == 1
    strata = []
    for pair, size in sizes.items():
        own = ((labelled["origin"] == pair[0]) & (labelled["planned"] == pair[1])).to_numpy()
        strata.append(Stratum(*pair, size, possible[own & is_clear].argmax(axis=1), possible[own & ~is_clear]))
    return strata


class RebalancedDataset(Population):
    """The rebalanced dataset, of which unedited images count by their labels.

    Edited images count by their truth where it is known, as of avatars, and else by labels by eye, which stand for
    those not labelled. An image of which a label is unknown does not count for a target that needs it.
    """

    stream = "certificate"

    def __init__(self, files: Files, audit: Sequence[Path], targets: Rebalance):
        self._rules = targets.targets
        attributes = attributes_of(self._rules)
        before, table = (
            read_table(files.labels, "labels").set_index("image_id"),
            read_table(files.assembled, "assembled"),
        )
        edits = read_table(files.plan, "plan").set_index("image_id").loc[table.loc[table["edited"], "image_id"]]
        names = set(table["image_id"])
        self._sheets = read_present_labels(audit, "dataset_rebalanced", names, attributes, files.images)
        self._source, self._known = None, None
        if self._sheets:
            self._source, self._known = "audit", combine_labels(list(self._sheets.values()), attributes)
            check_fresh([Path(file) for file in self._sheets], targets.labels or [])
        elif files.truth and read_json(files.checked)["counts"]:
            self._source = "truth"
            known = read_table(files.truth, "labels").set_index("image_id").loc[edits.index, attributes]
            self._known = known.astype("boolean")
        self._kept = table[~table["edited"]].set_index("image_id")
        self._holds = holds_of(self._kept, attributes)
        self._classes = Classes(self._rules, any_unknown(holds_of(before, attributes)))
        self._counts = self._classes.count(self._holds)
        self._strata = edited_strata(self._classes, before, edits, self._known)

    def evidence(self, number: int) -> EditedDataset:
        return EditedDataset(self._classes, self._counts, self._strata, np.arange(len(self._rules)) == number)

    def details(self, number: int, evidence: EditedDataset, found: Finding, confidence: float) -> dict[str, object]:
        own = [stratum for stratum in self._strata if self._classes.inside[number, stratum.origin]]
        uncounted = not_counted(self._holds, self._rules[number])
        return {
            "edited": sum(stratum.size for stratum in own),
            "audited": sum(stratum.audited for stratum in own),
            "labels_there": evidence.labels,
            **({"not_counted": uncounted} if uncounted else {}),
        }

    def summary(self) -> dict[str, object]:
        if self._source != "audit":
            return {"source": self._source}
        return {
            "source": "audit",
            "unclear": sum(len(stratum.unclear) for stratum in self._strata),
            "labels": check_labels(self._kept, self._known, [rule.attribute for rule in self._rules]),
            "agreement": agreement_of(self._sheets),
        }


def check_labels(kept: pd.DataFrame, audited: pd.DataFrame, attributes: Sequence[str]) -> dict[str, int]:
    """Compare the known labels of unedited images with those of an audit; returns the fields of `CheckedLabels`."""
    labels = kept[list(dict.fromkeys(attributes))].dropna()
    seen = audited.loc[audited.index.intersection(labels.index), list(labels)]
    clear = seen.dropna()
    agree = int((clear.astype(bool) == labels.loc[clear.index].astype(bool)).all(axis=1).sum())
    return {"audited": len(seen), "agree": agree, "unclear": len(seen) - len(clear)}
