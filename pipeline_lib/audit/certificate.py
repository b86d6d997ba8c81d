"""Certificates: which target rates the rebalanced dataset and the samples of the retrained GAN meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.edits import EditedDataset, edited_strata
from pipeline_lib.audit.estimate import (
    ASSUMED_ERRORS,
    Evidence,
    Interval,
    Needed,
    Verdict,
    decide,
    labels_needed,
    wilson_rate,
)
from pipeline_lib.audit.labels import (
    agreement_of,
    check_fresh,
    combine_labels,
    digest_of_set,
    read_present_labels,
    sealed_name,
)
from pipeline_lib.audit.samples import NEGATIVE, POSITIVE, LabelledSamples
from pipeline_lib.config import Certify, RateRule, Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import any_unknown, attributes_of, group_name, holds_of, in_group, not_counted
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.results import Result
from pipeline_lib.runtime.revisions import stage

#: Why nothing is known of unedited images.
UNLABELLED = "unlabelled"


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
    """Of the rebalanced dataset; `unknown` says why nothing is known of unedited images, if so."""

    targets: list[FoundInDataset]
    unknown: Literal["unlabelled"] | None
    labels: CheckedLabels | None = None


class SamplesCertificate(Certificate):
    """Of all samples that the retrained GAN could make."""

    targets: list[FoundInSamples]
    samples: int
    labels: int
    assumed_errors: float


@stage(revision=5)
def certify_targets(
    *,
    labels: Path,
    assembled: Path,
    plan: Path,
    truth: list[Path],
    checked: list[Path],
    rebalanced: list[Path],
    audit: list[Path],
    targets: Rebalance,
    settings: Certify,
    confidence: float,
    seed: int,
    certificate: Path,
) -> None:
    """Estimate each target's rate in the rebalanced dataset, and say whether the target is met.

    Unedited images count by their labels, and not for a target of which a label is unknown. Edited images count by
    their truth where it is known, as of avatars, and else by labels by eye, which stand for those not labelled.

    Args:
        labels: label table of the dataset before it was edited.
        assembled: label table of the rebalanced dataset.
        plan: table of its edits.
        truth: label table with the truth of edited images too; empty if it is unknown.
        checked: JSON of `evaluate_counterfactuals`, which says whether that truth counts; likewise.
        rebalanced: shards of the rebalanced dataset, which an audit must be of.
        audit: `certify.labels`; those of edited images are taken instead of the truth.
        targets: the config section with the targets, and the labels that edits were planned by.
        settings: the config section with their tolerances.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        certificate: JSON of `DatasetCertificate` to write.

    Raises:
        DataError: the labels cannot be used.
    """
    rules, before = targets.targets, read_table(labels, "labels").set_index("image_id")
    attributes = attributes_of(rules)
    classes = Classes(rules, any_unknown(holds_of(before, attributes)))
    table, edits = read_table(assembled, "assembled"), read_table(plan, "plan").set_index("image_id")
    edits = edits.loc[table.loc[table["edited"], "image_id"]]
    source, known = None, None
    digest = digest_of_set("dataset_rebalanced", rebalanced) if audit else ""
    sheets = read_present_labels(audit, "dataset_rebalanced", set(table["image_id"]), attributes, digest)
    if sheets:
        source, known = "audit", combine_labels(list(sheets.values()))
        check_fresh([Path(file) for file in sheets], targets.labels or [])
    elif truth and read_json(*checked)["counts"]:
        source = "truth"
        known = read_table(truth[0], "labels").set_index("image_id").loc[edits.index, attributes].astype("boolean")
    kept = table[~table["edited"]]
    labelled = set(attributes) <= set(table) and kept[attributes].notna().any().all()
    unknown = None if labelled else UNLABELLED
    holds = holds_of(kept, attributes) if labelled else {}
    counts = classes.count(holds) if unknown is None else None
    strata = edited_strata(classes, before, edits, known)
    found = []
    for number, (rule, tolerance) in enumerate(zip(rules, settings.tolerances(len(rules)), strict=True)):
        of = np.arange(len(rules)) == number
        evidence = None if counts is None else EditedDataset(classes, counts, strata, of)
        random = seeding.numpy_generator(seed, "certificate", number)
        said, _ = _certify(rule, tolerance, evidence, confidence, random)
        own = [stratum for stratum in strata if classes.inside[number, stratum.origin]]
        said |= {"edited": sum(each.size for each in own), "audited": sum(each.audited for each in own)}
        said["labels_there"] = sum(each.audited for each in strata)
        if holds and (uncounted := not_counted(holds, rule)):
            said["not_counted"] = uncounted
        found.append(FoundInDataset(**said))
    more: dict[str, Any] = {}
    if source == "audit" and unknown is None:
        more = {"unclear": sum(len(stratum.unclear) for stratum in strata), "labels": _check_labels(kept, known, rules)}
        more["agreement"] = agreement_of(sheets)
    DatasetCertificate(source=source, confidence=confidence, targets=found, unknown=unknown, **more).write(certificate)


@stage(revision=4)
def certify_samples(
    *,
    retrained: Path,
    control: Path,
    images: list[Path],
    audit: list[Path],
    targets: Rebalance,
    settings: Certify,
    confidence: float,
    seed: int,
    certificate: Path,
) -> None:
    """Estimate each target's rate among all samples that the retrained GAN could make, and say whether it is met.

    Args:
        retrained: the referee's scores of its samples.
        control: those of the control GAN's samples, of which some are among those of an audit.
        images: shards of the retrained GAN's samples.
        audit: `certify.labels`; without any of samples, no rate is known.
        targets: the config section with the targets.
        settings: the config section with their tolerances.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        certificate: JSON of `SamplesCertificate` to write.

    Raises:
        DataError: the labels cannot be used.
    """
    rules = targets.targets
    attributes = attributes_of(rules)
    scores = read_table(retrained, "scores").set_index("image_id")
    opinions = (scores[attributes] > 0.5).rename(index=sealed_name)
    names = {*opinions.index, *map(sealed_name, read_table(control, "scores")["image_id"])}
    digest = digest_of_set("retrained", images) if audit else ""
    sheets = {
        file: read[read.index.isin(opinions.index)]
        for file, read in read_present_labels(audit, "retrained", names, attributes, digest).items()
    }
    nothing = pd.DataFrame(columns=attributes, dtype="boolean")
    labels = combine_labels(list(sheets.values())) if sheets else nothing
    found = []
    for number, (rule, tolerance) in enumerate(zip(rules, settings.tolerances(len(rules)), strict=True)):
        evidence = LabelledSamples.count(opinions, labels, rule)
        random = seeding.numpy_generator(seed, "certificate of samples", number)
        said, needed = _certify(rule, tolerance, evidence, confidence, random, labelled=evidence.labels > 0)
        positive, negative = (int(evidence.said[of]) for of in (POSITIVE, NEGATIVE))
        found.append(
            FoundInSamples(
                **said,
                by_referee=Interval.of(wilson_rate(positive, positive + negative, confidence)),
                told=int(evidence.seen.sum()),
                agree=int(evidence.seen.trace()),
                errors=_errors(opinions, labels, rule),
                samples_needed=needed.size if needed else None,
            )
        )
    SamplesCertificate(
        source="audit" if sheets else None,
        confidence=confidence,
        targets=found,
        samples=len(opinions),
        labels=len(labels),
        unclear=int(labels.isna().any(axis=1).sum()),
        assumed_errors=ASSUMED_ERRORS,
        agreement=agreement_of(sheets),
    ).write(certificate)


def _certify(
    rule: RateRule,
    tolerance: float,
    evidence: Evidence | None,
    confidence: float,
    random: np.random.Generator,
    labelled: bool = True,
) -> tuple[dict[str, Any], Needed | None]:
    """Return the fields of a `FoundTarget`, and what would decide the target if it is open.

    Args:
        rule: the target.
        tolerance: largest distance from its rate that counts as met.
        evidence: what is known of the rate; None: nothing.
        confidence: level of the interval.
        random: random generator.
        labelled: whether there are labels, without which the evidence only tells how many are needed.
    """
    rate = evidence.estimate(confidence, random) if evidence and labelled else None
    verdict = decide(rate, rule.rate, tolerance) if rate else Verdict.UNKNOWN
    is_open = evidence and verdict is Verdict.UNKNOWN
    needed = labels_needed(evidence, rule.rate, tolerance, confidence, random) if is_open else None
    asked = {"group": group_name(rule.where), "attribute": rule.attribute, "target": rule.rate, "tolerance": tolerance}
    return asked | {
        "rate": rate and Interval.of(rate),
        "verdict": verdict,
        "labels_needed": needed.labels if needed else None,
    }, needed


def _check_labels(kept: pd.DataFrame, known: pd.DataFrame, rules: Sequence[RateRule]) -> dict[str, int]:
    """Return the fields of `CheckedLabels`."""
    attributes = list(dict.fromkeys(rule.attribute for rule in rules))
    labels = kept.set_index("image_id")[attributes].dropna()
    seen = known[attributes].loc[known.index.intersection(labels.index)]
    clear = seen.dropna()
    agree = int((clear.astype(bool) == labels.loc[clear.index].astype(bool)).all(axis=1).sum())
    return {"audited": len(seen), "agree": agree, "unclear": len(seen) - len(clear)}


def _errors(opinions: pd.DataFrame, labels: pd.DataFrame, target: RateRule) -> dict[str, dict[str, int]]:
    """Count the labelled samples of a group with and without the attribute, and about how many the referee is wrong."""
    clear = labels[[*target.where, target.attribute]].dropna().astype(bool)
    clear = clear[in_group({name: clear[name].to_numpy() for name in clear}, target.where)]
    shows = clear[target.attribute].to_numpy()
    wrong = opinions.loc[clear.index, target.attribute].to_numpy(bool) != shows
    return {
        name: {"n": int(value.sum()), "wrong": int((wrong & value).sum())}
        for name, value in (("with", shows), ("without", ~shows))
    }
