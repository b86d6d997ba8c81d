"""Which target rates the retrained GAN meets, by labels of some of its samples and the referee's opinion of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.audit.estimate import Verdict, estimate_json, judge, wilson_rate
from pipeline_lib.audit.labels import (
    agreement_of_audits,
    check_different,
    combine_audits,
    digests_of_samples,
    read_audit,
    sealed_name,
)
from pipeline_lib.audit.samples import (
    NEGATIVE,
    POSITIVE,
    count_labels,
    estimate_rate,
    labels_needed,
)
from pipeline_lib.audit.strata import ASSUMED_ERRORS
from pipeline_lib.config import Certify, RateRule, Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import attributes_of, group_name, in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import stage


@stage(revision=4)
def certify_samples(
    *,
    retrained: Path,
    control: Path,
    images: list[Path],
    audit: list[Path],
    targets: Rebalance,
    settings: Certify,
    truncation: float,
    confidence: float,
    seed: int,
    certificate: Path,
) -> None:
    """Estimate each target's rate among all samples that the retrained GAN could make, and say whether it is met.

    Args:
        retrained: the referee's scores of its samples.
        control: those of the control GAN's samples, of which some are among those of an audit.
        images: shards of the retrained GAN's samples.
        audit: CSV files with labels of samples; without any, no rate is known.
        targets: the config section with the targets.
        settings: the config section with their tolerances.
        truncation: `sample.truncation`.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        certificate: JSON to write, with a verdict for each target.

    Raises:
        DataError: the audit cannot be used.
    """
    rules = targets.targets
    attributes = attributes_of(rules)
    scores = read_table(retrained, "scores").set_index("image_id")
    opinions = (scores[attributes] > 0.5).rename(index=sealed_name)
    others = set(map(sealed_name, read_table(control, "scores")["image_id"]))
    sheets: dict[str, pd.DataFrame] = {}
    if audit:
        digests = digests_of_samples(images, truncation, seed)
        check_different(audit, "certify.samples")
        for path in audit:
            read = read_audit(path, {*opinions.index, *others}, attributes, digests, "the retrained GAN")
            sheets[str(path)] = read[read.index.isin(opinions.index)]
            if sheets[str(path)].empty:
                raise DataError(f"{path}: no labels of samples of the retrained GAN; label the sheet and save it again")
    labels = combine_audits(list(sheets.values())) if sheets else pd.DataFrame(columns=attributes, dtype="boolean")
    tolerances = settings.tolerances(len(rules))
    found = [
        _certify(number, rule, tolerance, opinions, labels, confidence, seed)
        for number, (rule, tolerance) in enumerate(zip(rules, tolerances, strict=True))
    ]
    said = {"source": "audit" if audit else None, "confidence": confidence, "targets": found, "samples": len(opinions)}
    said |= {"labels": len(labels), "unclear": int(labels.isna().any(axis=1).sum()), "assumed_errors": ASSUMED_ERRORS}
    write_json(certificate, said | {"agreement": agreement_of_audits(sheets)})


def _certify(
    number: int,
    target: RateRule,
    tolerance: float,
    opinions: pd.DataFrame,
    labels: pd.DataFrame,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Return what is known of one target, in plain values."""
    random = seeding.numpy_generator(seed, "certificate of samples", number)
    counts = count_labels(opinions, labels, target)
    positive, negative = (int(counts.said[said]) for said in (POSITIVE, NEGATIVE))
    said: dict[str, Any] = {
        "group": group_name(target.where),
        "attribute": target.attribute,
        "target": target.rate,
        "tolerance": tolerance,
        "by_referee": estimate_json(wilson_rate(positive, positive + negative, confidence)),
        "told": int(counts.seen.sum()),
        "agree": int(counts.seen.trace()),
        "errors": _errors(opinions, labels, target),
        "rate": None,
        "verdict": Verdict.UNKNOWN,
        "labels_needed": None,
        "samples_needed": None,
    }
    if counts.labels:
        rate = estimate_rate(counts, confidence, random)
        said |= {"rate": estimate_json(rate), "verdict": judge(rate, target.rate, tolerance)}
    if said["verdict"] is Verdict.UNKNOWN:
        needed = labels_needed(counts, target.rate, tolerance, confidence, random)
        said |= {"labels_needed": needed.labels, "samples_needed": needed.samples}
    return said


def _errors(opinions: pd.DataFrame, labels: pd.DataFrame, target: RateRule) -> dict[str, dict[str, int]]:
    """Count the labelled samples of a group with and without the attribute, and about how many the referee is wrong."""
    told = labels[[*target.where, target.attribute]].dropna().astype(bool)
    told = told[in_group({name: told[name].to_numpy() for name in told}, target.where)]
    shows = told[target.attribute].to_numpy()
    wrong = opinions.loc[told.index, target.attribute].to_numpy(bool) != shows
    return {
        name: {"n": int(value.sum()), "wrong": int((wrong & value).sum())}
        for name, value in (("with", shows), ("without", ~shows))
    }
