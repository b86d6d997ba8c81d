"""The three verdicts of a run: whether the dataset meets its targets, whether the GAN does, and whether edits help."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.audit.estimate import Estimate, Verdict
from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.config.names import BASELINES
from pipeline_lib.evaluation.gain import Comparison
from pipeline_lib.evaluation.results import Edits, Interval, Kappa, Metrics
from pipeline_lib.rebalance.groups import group_name, target_gap

#: Distances from the target gap and from a target rate up to which a GAN has almost no bias; rates that are each as far
#: away on opposite sides leave such a gap.
SMALL_GAP, SMALL_DISTANCE = 0.1, 0.05
LEAST_KAPPA = 0.6  # below which agreement beyond chance is at most moderate (Landis and Koch 1977)
LEAST_IMAGES_OF_KAPPA = 30  # of a group; Cohen's kappa of fewer is too uncertain to doubt the detectors by it

HELD = {Verdict.MET: True, Verdict.MISSED: False, Verdict.UNKNOWN: None}
HELPS = {Comparison.BETTER: True, Comparison.WORSE: False, Comparison.EQUIVALENT: False}


@dataclass(frozen=True)
class Bias:
    """The bias of the retrained GAN in one attribute, beside that of the control, by the referee.

    Attributes:
        attribute: name of the attribute.
        gap: distance of each GAN's group gap from the target gap, of the baselines too; empty without a gap.
        rate: distance from its target of the rate that is furthest away, of retrained and control.
        halved: whether both are at most half of the control's, with intervals that do not overlap; None if undecided.
        doubtful: whether the detectors disagree on too many samples for the GANs to be compared.
        corrected_halved: `halved` by rates that are corrected for the referee's errors.
    """

    attribute: str
    gap: dict[str, Estimate]
    rate: dict[str, Estimate]
    halved: bool | None
    doubtful: bool
    corrected_halved: bool | None

    @property
    def is_small(self) -> bool:
        """Whether the control GAN has almost no bias, so that the comparison proves nothing."""
        gap = self.gap.get("control")
        return (gap is None or gap.value <= SMALL_GAP) and self.rate["control"].value <= SMALL_DISTANCE

    @property
    def baselines(self) -> dict[str, Estimate]:
        """Distance of the gap of each further GAN."""
        return {name: self.gap[name] for name in BASELINES if name in self.gap}


@dataclass(frozen=True)
class Verdicts:
    """True for met, False for not met, None for what cannot be decided.

    The dataset meets its targets if its certificate says so of each. The GAN does if labels of its samples say so of
    each target, and if by the referee its bias is at most half of the control's in each attribute. It does not if one
    of these is denied. Edits help if the best classifier with them has a better worst group than the best without.
    """

    dataset: bool | None
    gan: bool | None
    classifier: bool | None
    biases: list[Bias]


def conclude(metrics: Metrics, targets: Rebalance, least_agreement: float) -> Verdicts:
    """Draw the verdicts of a run.

    Args:
        metrics: its metrics.
        targets: groups, attributes and target rates.
        least_agreement: agreement of the detectors below which rates of an image set do not count.
    """
    biases, of_gan = [], None
    if metrics.certificate_samples is not None:
        biases = [_bias_of(metrics, targets.alone(name), least_agreement) for name in targets.edited]
        held = [HELD[target.verdict] for target in metrics.certificate_samples.targets]
        of_gan = all_of([*(bias.halved for bias in biases), *held])
    return Verdicts(
        dataset=all_of(HELD[target.verdict] for target in metrics.certificate.targets),
        gan=of_gan,
        classifier=HELPS.get(metrics.utility.gain.verdict) if metrics.utility else None,
        biases=biases,
    )


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """Return False if any answer is, None if none is but one is unknown, and True otherwise."""
    found = list(answers)
    return False if False in found else None if None in found else True


def _bias_of(metrics: Metrics, targets: Rebalance, least_agreement: float) -> Bias:
    """Compare the GANs in the attribute of a section with one."""
    (attribute,) = targets.edited
    doubtful = any(metrics.agreement[name][attribute] < least_agreement for name in ("retrained", "control"))
    gap, rate, halved = _compare_gans(metrics, attribute, targets.targets, "referee")
    _, _, corrected = _compare_gans(metrics, attribute, targets.targets, "corrected")
    return Bias(attribute, gap, rate, None if doubtful else halved, doubtful, corrected)


def _compare_gans(
    metrics: Metrics, attribute: str, rules: Sequence[RateRule], source: str
) -> tuple[dict[str, Estimate], dict[str, Estimate], bool | None]:
    """Return the distance of each GAN from the target gap and of its furthest rate, and whether both are halved."""
    rate = {name: furthest(metrics.rate[attribute][name][source], rules) for name in ("retrained", "control")}
    halved = is_halved(rate["retrained"], rate["control"], SMALL_DISTANCE)
    if attribute not in metrics.gap:
        return {}, rate, halved
    gap = {
        name: excess_of(found[source].estimate, target_gap(rules))
        for name, found in metrics.gap[attribute].items()
        if name in ("retrained", "control", *BASELINES)
    }
    of_gap = is_halved(gap["retrained"], gap["control"], SMALL_GAP)
    if gap["control"].value <= SMALL_GAP and rate["control"].value > SMALL_DISTANCE:  # its rates alone are biased
        of_gap = None if math.isnan(gap["retrained"].value) else gap["retrained"].value <= SMALL_GAP
    return gap, rate, all_of([of_gap, halved])


def furthest(rates: Mapping[str, Interval], rules: Sequence[RateRule]) -> Estimate:
    """Return the distance of the rate that is furthest from its target; NaN if a rate is unknown."""
    distances = [excess_of(rates[group_name(rule.where)].estimate, rule.rate) for rule in rules]
    return Estimate(*map(float, np.max(distances, axis=0)))


def excess_of(gap: Estimate, target: float) -> Estimate:
    """Return the distance of a gap from the target gap, with the smallest and largest distance of its interval."""
    near, far = sorted((abs(gap.low - target), abs(gap.high - target)))
    return Estimate(abs(gap.value - target), 0.0 if gap.low <= target <= gap.high else near, far)


def is_halved(retrained: Estimate, control: Estimate, small: float) -> bool | None:
    """Return whether a distance is at most half of the control's; None if intervals overlap or the control's is small.

    Args:
        retrained: distance of the retrained GAN from what was asked for.
        control: that of the control GAN.
        small: up to which distance of the control GAN there is nothing to halve.
    """
    if math.isnan(retrained.value) or math.isnan(control.value) or control.value <= small:
        return None
    if retrained.value > control.value / 2:
        return False
    return True if retrained.high < control.low else None


def denied_edits(edits: Edits, least_agreement: float) -> dict[tuple[str, str], float]:
    """Return attribute and group of the targets of which the referee confirms too few edits, with the share it does."""
    return {
        (entry.attribute, entry.group): entry.share_confirmed
        for entry in edits.ledger
        if entry.made and entry.share_confirmed < least_agreement
    }


def low_kappas(metrics: Metrics) -> list[tuple[str, str, str, Kappa]]:
    """Return image set, attribute, group and agreement wherever the detectors agree hardly more than by chance."""
    return [
        (name, attribute, group, found)
        for name in metrics.image_sets
        for attribute, groups in metrics.kappa[name].items()
        for group, found in groups.items()
        if has_kappa(found) and found.kappa < LEAST_KAPPA
    ]


def has_kappa(found: Kappa) -> bool:
    """Return whether Cohen's kappa is known of a group, and of enough images to tell anything."""
    return found.kappa is not None and found.n >= LEAST_IMAGES_OF_KAPPA
