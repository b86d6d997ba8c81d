"""Which target rates the rebalanced dataset meets, by true labels and an audit, without any detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.config import Certify, RateRule, Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.counterfactual import LEAST_ACCURACY
from pipeline_lib.evaluation.rates import estimate_json
from pipeline_lib.rebalance.audit import agreement_of_audits, check_different, check_fresh, combine_audits, read_audit
from pipeline_lib.rebalance.certify import OUTSIDE, Kept, Stratum, Verdict, estimate, judge, labels_needed
from pipeline_lib.rebalance.groups import group_name, in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import digest_of_files, read_json, write_json

#: Why nothing is known of unedited images.
UNLABELLED, TOUCHED = "unlabelled", "touched"


def certify_targets(
    *,
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

    Unedited images count by their labels. Edited images count by their truth where it is known, as of avatars, and else
    by the labels of an audit, which stands for those that were not audited.

    Args:
        assembled: label table of the rebalanced dataset.
        plan: table of its edits.
        truth: label table with the truth of edited images too; empty if it is unknown.
        checked: JSON of `evaluate_counterfactuals`, which says whether that truth counts; likewise.
        rebalanced: shards of the rebalanced dataset, which an audit must be of.
        audit: CSV files with labels of edited images, which are taken instead of the truth; empty without an audit.
        targets: the config section with the targets.
        settings: the config section with their tolerances.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        certificate: JSON to write, with a verdict for each target.

    Raises:
        DataError: the audit cannot be used.
    """
    rules = targets.targets
    attributes = sorted({name for target in rules for name in (target.attribute, *target.where)})
    table, edits = read_table(assembled, "assembled"), read_table(plan, "plan").set_index("image_id")
    edits = edits.loc[table.loc[table["edited"], "image_id"]]
    source, known = None, None
    if audit:
        source, digest = "audit", digest_of_files(*rebalanced)
        sheets = {str(path): read_audit(path, set(table["image_id"]), attributes, digest) for path in audit}
        check_different(audit)
        check_fresh(audit, targets.labels or [])
        known = combine_audits(list(sheets.values()))
    elif truth and _counts(checked[0]):
        source = "truth"
        known = read_table(truth[0], "labels").set_index("image_id").loc[edits.index, attributes].astype("boolean")
    kept = table[~table["edited"]]
    unknown = None if set(attributes) <= set(table) and kept[attributes].notna().all(axis=None) else UNLABELLED
    if "touched" in kept and kept["touched"].any():
        unknown = TOUCHED
    counts = [_count(kept, target) for target in rules] if unknown is None else None
    strata = [_stratum(edits, known, rules, number, wanted) for number in range(len(rules)) for wanted in (False, True)]
    strata = [stratum for stratum in strata if stratum.size]
    found = [
        _certify(
            rules, number, tolerance, counts, strata, confidence, seeding.numpy_generator(seed, "certificate", number)
        )
        for number, tolerance in enumerate(settings.tolerances(len(rules)))
    ]
    said = {"source": source, "confidence": confidence, "targets": found, "unknown": unknown}
    if source == "audit" and unknown is None:
        said["labels"] = _check_labels(kept, known, rules[0].attribute)
        said["agreement"] = agreement_of_audits(sheets)
    write_json(certificate, said)


def _counts(checked: Path) -> bool:
    """Return whether the truth of edits counts, because it was right about unedited images."""
    accuracy = read_json(checked)["accuracy_on_unedited"]
    return accuracy is not None and accuracy >= LEAST_ACCURACY


def _count(kept: pd.DataFrame, target: RateRule) -> Kept:
    """Count the unedited images of a target's group, and those with the attribute."""
    inside = _members(kept, target)
    return Kept(int(inside.sum()), int((inside & kept[target.attribute].to_numpy(bool)).sum()))


def _check_labels(kept: pd.DataFrame, known: pd.DataFrame, attribute: str) -> dict[str, int]:
    """Count the unedited images in an audit, those on which it agrees with their labels, and those it cannot tell."""
    labels = kept.set_index("image_id")[attribute]
    seen = known[attribute].loc[known.index.intersection(labels.index)]
    told = seen.dropna()
    agree = int((told.astype(bool) == labels.loc[told.index].astype(bool)).sum())
    return {"audited": len(seen), "agree": agree, "unclear": len(seen) - len(told)}


def _stratum(
    edits: pd.DataFrame, known: pd.DataFrame | None, rules: Sequence[RateRule], number: int, wanted: bool
) -> Stratum:
    """Return the edited images that were to get a value for one target, with the labels that are known."""
    planned = edits.index[(edits["target"] == number) & (edits["wanted"] == wanted)]
    if known is None:
        return Stratum(number, wanted, len(planned), np.empty(0, int), np.empty(0, bool))
    labelled = known.loc[known.index.intersection(planned)]
    unclear = labelled.isna().any(axis=1).to_numpy()  # counts as failed, since an edit must be seen to be right
    labelled = labelled.fillna(False)
    groups = np.full(len(labelled), OUTSIDE)
    for group, rule in enumerate(rules):
        groups[_members(labelled, rule)] = group
    groups[unclear] = number
    values = np.where(unclear, not wanted, labelled[rules[number].attribute].to_numpy(bool))
    return Stratum(number, wanted, len(planned), groups, values)


def _members(rows: pd.DataFrame, target: RateRule) -> np.ndarray:
    """Return which rows are in a target's group, bool (n,)."""
    holds = {name: rows[name].to_numpy(bool) for name in (target.attribute, *target.where)}
    return in_group(holds, target.where)


def _certify(
    rules: Sequence[RateRule],
    number: int,
    tolerance: float,
    kept: list[Kept] | None,
    strata: Sequence[Stratum],
    confidence: float,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Return what is known of one target, in plain values."""
    target, own = rules[number], [stratum for stratum in strata if stratum.group == number]
    said: dict[str, Any] = {
        "group": group_name(target.where),
        "attribute": target.attribute,
        "target": target.rate,
        "tolerance": tolerance,
        "edited": sum(stratum.size for stratum in own),
        "audited": sum(stratum.audited for stratum in own),
        "labels_there": sum(stratum.audited for stratum in strata),
    }
    if kept is None:
        return said | {"rate": None, "verdict": Verdict.UNKNOWN, "labels_needed": None}
    of = np.arange(len(rules)) == number
    rate = estimate(kept, strata, of, confidence, random)
    verdict, needed = judge(rate, target.rate, tolerance), None
    if verdict is Verdict.UNKNOWN:
        needed = labels_needed(kept, strata, target.rate, tolerance, of, confidence, random)
    return said | {"rate": estimate_json(rate), "verdict": verdict, "labels_needed": needed}
