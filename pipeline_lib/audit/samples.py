"""Rates among all samples that a generator could make, from a detector's opinion of many and the labels of some.

This is prediction-powered inference (Angelopoulos et al. 2023) for a rate within a group, with a detector's opinion as
the prediction. The samples are classed by that opinion, and the labels of those that were drawn from a class stand for
the class. So labels decide what is said, and the detector only how few of them do. The limits that come with the method
are normal ones, which cover too seldom where a detector errs rarely; these here do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.estimate import ASSUMED_ERRORS, UNKNOWN, Estimate, Finding, Interval, wilson_rate
from pipeline_lib.audit.labels import agreement_of, combine_labels, read_present_labels, sealed_name
from pipeline_lib.audit.population import Files, Population
from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import attributes_of, in_group
from pipeline_lib.runtime.errors import DataError

#: What a sample is to a target: in its group with the attribute, in its group without it, or in another group.
POSITIVE, NEGATIVE, OTHER = range(3)
CLASSES = 3
RAISING, LOWERING = (2, 0, 1), (0, 2, 1)  # order in which the classes raise the rate, and lower it
CAUTION = 0.5  # observations that a limit adds on its side
MORE_SAMPLES = 10  # times as many samples as there are, if labels of all of these would not do


@dataclass(frozen=True)
class LabelledSamples:
    """Counts of the samples for one target, from which its rate follows; see `audit.estimate.Evidence`.

    Attributes:
        said: number of samples of each class by the detector, int (3,).
        seen: of the labelled samples of each class by the detector (rows) the number of each class by eye, (3, 3).
        least: the same, and samples that could not be determined count as what lowers the rate most.
        most: likewise, as what raises it most.
        can_grow: whether the generator can make more samples.
    """

    said: np.ndarray
    seen: np.ndarray
    least: np.ndarray
    most: np.ndarray
    can_grow: bool = True

    def __post_init__(self) -> None:
        if (self.most.sum(axis=1) > self.said + 1e-6).any():
            raise DataError(
                f"{int(self.most.sum())} labels for {int(self.said.sum())} samples, of {self.most.sum(axis=1)} and "
                f"{self.said} in the classes by the detector; no sample is labelled twice"
            )

    @classmethod
    def count(cls, opinions: pd.DataFrame, labels: pd.DataFrame, target: RateRule) -> LabelledSamples:
        """Count the samples for one target.

        Args:
            opinions: the detector's opinion of every sample, a bool column for each attribute, by image.
            labels: labels of samples that were drawn from these with the same probability, nullable bool columns.
            target: the target, of which the rate is not used.
        """
        classes = Classes([target])
        kind = np.where(classes.inside[0], np.where(classes.positive[0], POSITIVE, NEGATIVE), OTHER)
        is_of = kind[:, None] == np.arange(CLASSES)
        by_detector = pd.Series((classes.possible(opinions) @ is_of).argmax(axis=1), opinions.index)
        possible, rows = classes.possible(labels) @ is_of, by_detector.loc[labels.index].to_numpy()
        is_clear = possible.sum(axis=1) == 1

        def table(which: np.ndarray, gain: Sequence[int]) -> np.ndarray:
            """Count samples as the class, of those that each can be of, that gains the most."""
            by_eye = np.where(possible[which], gain, -1).argmax(axis=1)
            counts = np.zeros((CLASSES, CLASSES), int)
            np.add.at(counts, (rows[which], by_eye), 1)
            return counts

        everyone = np.full(len(rows), True)
        said = np.bincount(by_detector, minlength=CLASSES)
        return cls(said, table(is_clear, RAISING), table(everyone, LOWERING), table(everyone, RAISING))

    @property
    def labels(self) -> int:
        """Number of labelled samples."""
        return int(self.most.sum())

    @property
    def informs(self) -> bool:
        """Whether anything is known of the rate; without labels there are only opinions of it."""
        return self.labels > 0

    @property
    def size(self) -> int:
        """Number of samples."""
        return int(self.said.sum())

    def estimate(self, confidence: float, rng: np.random.Generator, draws: int = 4000) -> Estimate:
        """Return the rate of the attribute in the group among all samples that the generator could make.

        The value weights the labels of each class by the class's share of the samples, which makes it the estimate of
        prediction-powered inference for predictions of as many values as there are classes. Each limit is a quantile of
        rates that are drawn anew: the shares of what each class shows, and the share of each class, from a Dirichlet
        distribution of what was counted and half an observation that moves the rate furthest to that side. One whole
        observation would give the limits of Clopper and Pearson (1934) for two outcomes, and those of Gaffke (2005) for
        more. Half of one is enough, since it is added to each class. A class without labels can be anything.

        Args:
            confidence: level of the interval, in (0, 1).
            rng: random generator, by `runtime.seeding.numpy_generator`.
            draws: draws for each limit.

        Returns:
            The rate with its interval; NaN if no sample is found to be in the group.
        """
        labelled = self.seen.sum(axis=1, keepdims=True)  # a class without labels has the value that the detector says
        shares = np.where(labelled > 0, self.seen / np.where(labelled > 0, labelled, 1), np.eye(CLASSES))
        positive, negative, _ = self.said @ shares
        if not positive + negative:
            return UNKNOWN
        value = float(positive / (positive + negative))
        low = np.quantile(self._draw(self.least, NEGATIVE, draws, rng), (1 - confidence) / 2)
        high = np.quantile(self._draw(self.most, POSITIVE, draws, rng), (1 + confidence) / 2)
        return Estimate(value, min(value, float(low)), max(value, float(high)))

    def _draw(self, seen: np.ndarray, extreme: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rates with `CAUTION` observations more of the class `extreme`, by eye and by the detector, (draws,)."""
        more = CAUTION * (np.arange(CLASSES) == extreme)
        shares = _dirichlet(self.said + more, draws, rng)
        shown = np.stack([_dirichlet(row + more, draws, rng) for row in seen], axis=1)  # draws, by detector, by eye
        positive, negative, _ = np.einsum("dc,dck->kd", shares, shown)
        inside = positive + negative
        return np.where(inside > 0, positive / np.where(inside > 0, inside, 1), float(extreme == POSITIVE))

    def expected(self, labels: float) -> LabelledSamples:
        """Return the counts, not whole numbers, that are expected of so many labels.

        What was seen is taken with one more label of each class by the detector, which is wrong with the probability
        `ASSUMED_ERRORS`.
        """
        assumed = np.where(np.eye(CLASSES, dtype=bool), 1 - ASSUMED_ERRORS, ASSUMED_ERRORS / (CLASSES - 1))

        def scaled(seen: np.ndarray) -> np.ndarray:
            shares = (seen + assumed) / (seen.sum(axis=1, keepdims=True) + 1)
            return shares * (self.said * (labels / self.size))[:, None]

        seen = scaled(self.seen)
        if (self.least == self.most).all():
            return replace(self, seen=seen, least=seen, most=seen)
        return replace(self, seen=seen, least=scaled(self.least), most=scaled(self.most))

    def determined(self) -> LabelledSamples:
        """Return the counts without samples that could not be determined; itself if all were."""
        return self if (self.least == self.most).all() else replace(self, least=self.seen, most=self.seen)

    def larger(self) -> LabelledSamples | None:
        """Return the counts as if there were `MORE_SAMPLES` times as many samples, with the labels of these."""
        return replace(self, said=self.said * MORE_SAMPLES, can_grow=False) if self.can_grow else None


def _dirichlet(counts: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw shares with these counts as parameters, (draws, classes); a class of which none was counted has none."""
    gamma = np.maximum(rng.standard_gamma(counts, (draws, len(counts))), np.finfo(float).tiny * (counts > 0))
    return gamma / gamma.sum(axis=1, keepdims=True)


class RetrainedSamples(Population):
    """All samples that the retrained GAN could make; without labels of some, no rate is known."""

    stream = "certificate of samples"

    def __init__(self, files: Files, audit: Sequence[Path], targets: Rebalance):
        self._rules = targets.targets
        attributes = attributes_of(self._rules)
        scores = read_table(files.retrained, "scores").set_index("image_id")
        self._opinions = (scores[attributes] > 0.5).rename(index=sealed_name)
        names = {*self._opinions.index, *map(sealed_name, read_table(files.control, "scores")["image_id"])}
        read = read_present_labels(audit, "retrained", names, attributes, files.images)
        self._sheets = {file: labels[labels.index.isin(self._opinions.index)] for file, labels in read.items()}
        self._labels = combine_labels(list(self._sheets.values()), attributes)

    def evidence(self, number: int) -> LabelledSamples:
        return LabelledSamples.count(self._opinions, self._labels, self._rules[number])

    def details(self, number: int, evidence: LabelledSamples, found: Finding, confidence: float) -> dict[str, object]:
        positive, negative = (int(evidence.said[of]) for of in (POSITIVE, NEGATIVE))
        return {
            "by_referee": Interval.of(wilson_rate(positive, positive + negative, confidence)),
            "told": int(evidence.seen.sum()),
            "agree": int(evidence.seen.trace()),
            "errors": self._errors(self._rules[number]),
            "samples_needed": found.needed and found.needed.size,
        }

    def summary(self) -> dict[str, object]:
        return {
            "source": "audit" if self._sheets else None,
            "samples": len(self._opinions),
            "labels": len(self._labels),
            "unclear": int(self._labels.isna().any(axis=1).sum()),
            "assumed_errors": ASSUMED_ERRORS,
            "agreement": agreement_of(self._sheets),
        }

    def _errors(self, target: RateRule) -> dict[str, dict[str, int]]:
        """Count labelled samples of a group with and without the attribute, and about how many the referee is wrong."""
        clear = self._labels[[*target.where, target.attribute]].dropna().astype(bool)
        clear = clear[in_group({name: clear[name].to_numpy() for name in clear}, target.where)]
        shows = clear[target.attribute].to_numpy()
        wrong = self._opinions.loc[clear.index, target.attribute].to_numpy(bool) != shows
        return {
            name: {"n": int(value.sum()), "wrong": int((wrong & value).sum())}
            for name, value in (("with", shows), ("without", ~shows))
        }
