"""Which target rates the rebalanced dataset meets, by true labels and an audit, without any detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.estimate import Verdict, estimate_json, judge
from pipeline_lib.audit.labels import (
    agreement_of_audits,
    check_different,
    check_fresh,
    combine_audits,
    digests_of_dataset,
    read_audit,
)
from pipeline_lib.audit.strata import Stratum, estimate, labels_needed
from pipeline_lib.config import Certify, RateRule, Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import any_unknown, attributes_of, group_name, holds_of, not_counted
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import read_json, write_json
from pipeline_lib.runtime.revisions import stage

#: Why nothing is known of unedited images.
UNLABELLED = "unlabelled"


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
    their truth where it is known, as of avatars, and else by the labels of an audit, which stands for those that were
    not audited. An edited image of which it could not be told what it shows counts for each limit of an interval as
    what is worst for it.

    Args:
        labels: label table of the dataset before it was edited.
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
        certificate: JSON to write, with a verdict for each target, and the number of unedited images that may be of
            its group but do not count, since a label is unknown, if there are any (`not_counted`).

    Raises:
        DataError: the audit cannot be used.
    """
    rules, before = targets.targets, read_table(labels, "labels").set_index("image_id")
    attributes = attributes_of(rules)
    classes = Classes(rules, any_unknown(holds_of(before, attributes)))
    table, edits = read_table(assembled, "assembled"), read_table(plan, "plan").set_index("image_id")
    edits = edits.loc[table.loc[table["edited"], "image_id"]]
    source, known = None, None
    if audit:
        source, digests = "audit", digests_of_dataset(rebalanced)
        sheets = {str(path): read_audit(path, set(table["image_id"]), attributes, digests) for path in audit}
        check_different(audit)
        check_fresh(audit, targets.labels or [])
        known = combine_audits(list(sheets.values()))
    elif truth and read_json(*checked)["counts"]:
        source = "truth"
        known = read_table(truth[0], "labels").set_index("image_id").loc[edits.index, attributes].astype("boolean")
    kept = table[~table["edited"]]
    labelled = set(attributes) <= set(table) and kept[attributes].notna().any().all()
    unknown = None if labelled else UNLABELLED
    holds = holds_of(kept, attributes) if labelled else {}
    counts = classes.count(holds) if unknown is None else None
    strata = edited_strata(classes, before, edits, known)
    found = [
        _certify(
            *(classes, rules, number, tolerance, counts, strata, confidence),
            seeding.numpy_generator(seed, "certificate", number),
        )
        for number, tolerance in enumerate(settings.tolerances(len(rules)))
    ]
    for entry, rule in zip(found, rules, strict=True):
        if holds and (uncounted := not_counted(holds, rule)):
            entry["not_counted"] = uncounted
    said = {"source": source, "confidence": confidence, "targets": found, "unknown": unknown}
    if source == "audit" and unknown is None:
        said["unclear"] = sum(len(stratum.unclear) for stratum in strata)
        said["labels"] = _check_labels(kept, known, rules)
        said["agreement"] = agreement_of_audits(sheets)
    write_json(certificate, said)


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
        return [Stratum(*pair, size, np.empty(0, int)) for pair, size in sizes.items()]
    labelled = rows.loc[known.index.intersection(rows.index)]
    possible = classes.possible(known.loc[labelled.index, classes.attributes].to_numpy(float, na_value=np.nan))
    told = possible.sum(axis=1) == 1
    strata = []
    for pair, size in sizes.items():
        own = ((labelled["origin"] == pair[0]) & (labelled["planned"] == pair[1])).to_numpy()
        strata.append(Stratum(*pair, size, possible[own & told].argmax(axis=1), possible[own & ~told]))
    return strata


def _check_labels(kept: pd.DataFrame, known: pd.DataFrame, rules: Sequence[RateRule]) -> dict[str, int]:
    """Count the unedited images in an audit, those on which it agrees with their labels, and those it cannot tell."""
    attributes = list(dict.fromkeys(rule.attribute for rule in rules))
    labels = kept.set_index("image_id")[attributes].dropna()
    seen = known[attributes].loc[known.index.intersection(labels.index)]
    told = seen.dropna()
    agree = int((told.astype(bool) == labels.loc[told.index].astype(bool)).all(axis=1).sum())
    return {"audited": len(seen), "agree": agree, "unclear": len(seen) - len(told)}


def _certify(
    classes: Classes,
    rules: Sequence[RateRule],
    number: int,
    tolerance: float,
    kept: np.ndarray | None,
    strata: Sequence[Stratum],
    confidence: float,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Return what is known of one target, in plain values."""
    target, own = rules[number], [stratum for stratum in strata if classes.inside[number, stratum.origin]]
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
    rate = estimate(classes, kept, strata, of, confidence, random)
    verdict, needed = judge(rate, target.rate, tolerance), None
    if verdict is Verdict.UNKNOWN:
        needed = labels_needed(classes, kept, strata, target.rate, tolerance, of, confidence, random)
    return said | {"rate": estimate_json(rate), "verdict": verdict, "labels_needed": needed}
