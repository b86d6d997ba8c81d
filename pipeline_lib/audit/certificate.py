"""Certificates: which target rates the rebalanced dataset and the samples of the retrained GAN meet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline_lib.audit.dataset import RebalancedDataset
from pipeline_lib.audit.estimate import Interval, Verdict, assess
from pipeline_lib.audit.population import Files
from pipeline_lib.audit.samples import RetrainedSamples
from pipeline_lib.config import Certify, Rebalance
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.results import Result
from pipeline_lib.runtime.revisions import stage


class FoundTarget(Result):
    """What is known of one target: its rate (None: nothing), and how many labels are likely to decide it."""

    group: str
    attribute: str
    target: float
    tolerance: float
    rate: Interval | None
    verdict: Verdict
    labels_needed: int | None


class FoundInDataset(FoundTarget):
    """Of the edits of the target's group, and of all labels; with images whose membership is unknown."""

    edited: int
    audited: int
    labels_there: int
    not_counted: int = 0


class Errors(Result):
    """Labelled samples, and those about which the referee is wrong."""

    n: int
    wrong: int


class FoundInSamples(FoundTarget):
    """The referee's rate, the samples that could be determined (`told`) with those on which it agrees, its errors."""

    by_referee: Interval
    told: int
    agree: int
    errors: dict[Literal["with", "without"], Errors]
    samples_needed: int | None


class Agreement(Result):
    """How often two files of labels agree."""

    files: list[str]
    attribute: str
    images: int
    agree: int
    kappa: float | None


class CheckedLabels(Result):
    """Unedited images in an audit, those on which it agrees with their labels, and those not determined."""

    audited: int
    agree: int
    unclear: int


class Certificate(Result):
    """What is known, by what, at which level; audited images that could not be determined, and agreement of files."""

    source: Literal["audit", "truth"] | None
    confidence: float
    unclear: int = 0
    agreement: tuple[Agreement, ...] = ()


class DatasetCertificate(Certificate):
    """Of the rebalanced dataset."""

    targets: list[FoundInDataset]
    labels: CheckedLabels | None = None


class SamplesCertificate(Certificate):
    """Of all samples that the retrained GAN could make."""

    targets: list[FoundInSamples]
    samples: int
    labels: int
    assumed_errors: float


@stage(revision=6)
def certify(
    *,
    files: Files,
    audit: list[Path],
    targets: Rebalance,
    settings: Certify,
    confidence: float,
    seed: int,
    certificate: Path,
) -> None:
    """Estimate each target's rate in the rebalanced dataset or among all samples that a GAN could make, and decide.

    Args:
        files: what the certificate is of.
        audit: `certify.labels`.
        targets: the config section with the targets, and the labels that edits were planned by.
        settings: the config section with their tolerances.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        certificate: JSON of `DatasetCertificate` or of `SamplesCertificate` to write.

    Raises:
        DataError: the labels cannot be used.
    """
    population = (RetrainedSamples if files.retrained else RebalancedDataset)(files, audit, targets)
    rules, found = targets.targets, []
    for number, (rule, tolerance) in enumerate(zip(rules, settings.tolerances(len(rules)), strict=True)):
        evidence, random = population.evidence(number), seeding.numpy_generator(seed, population.stream, number)
        finding = assess(evidence, rule.rate, tolerance, confidence, random)
        found.append(
            {
                "group": group_name(rule.where),
                "attribute": rule.attribute,
                "target": rule.rate,
                "tolerance": tolerance,
                "rate": finding.rate and Interval.of(finding.rate),
                "verdict": finding.verdict,
                "labels_needed": finding.needed and finding.needed.labels,
            }
            | population.details(number, evidence, finding, confidence)
        )
    kind = SamplesCertificate if files.retrained else DatasetCertificate
    kind(targets=found, confidence=confidence, **population.summary()).write(certificate)
