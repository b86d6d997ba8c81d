"""The tables of a report, with rounded values and readable names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from pipeline_lib.config.names import readable
from pipeline_lib.evaluation.results import Kappa, Metrics, Utility, in_order
from pipeline_lib.report.verdicts import has_kappa
from pipeline_lib.report.words import gap_text, percent, rate_text, share_text

SOURCES = ("truth", "referee", "corrected", "selector")

#: What was done to samples before their gap was measured.
CHANGES = {"unchanged": "none", "blur": "blur", "resampling": "resampling", "jpeg": "JPEG"}

#: Methods in the order of the table: without edits, then with them.
METHODS = {
    "original": "original dataset",
    "reweighted": "original, weights (Kamiran and Calders)",
    "resampled": "original, balanced sampling",
    "group_dro": "original, group DRO",
    "rebalanced": "rebalanced dataset",
    "rebalanced_confirmed": "rebalanced dataset, confirmed edits alone",
    "rebalanced_reweighted": "rebalanced dataset, weights",
    "ideal": "ideal edits",
}


def quality_table(metrics: Metrics) -> pd.DataFrame:
    """Return image quality, with a row per image set and way of measurement and a column per measure."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name in in_order(metrics.quality):
        for measure, found in metrics.quality[name].items():
            how = (readable(name), found.n, found.extractor, found.reference, found.n_reference)
            rows.setdefault(how, {})[readable(measure)] = _rounded(found.value)
    heads = ("image set", "images", "extractor", "reference", "reference images")
    table = pd.DataFrame([dict(zip(heads, how, strict=True)) | values for how, values in rows.items()])
    return table[[*heads[:2], *(name for name in table if name not in heads), *heads[2:]]]


def detector_table(metrics: Metrics) -> pd.DataFrame:
    """Return each detector's figures by attribute, on held-out images with known ground truth."""
    return pd.DataFrame(
        [
            {
                "detector": detector,
                "attribute": readable(attribute),
                "images": found.n,
                "with the attribute": found.positives,
                "accuracy": _rounded(found.accuracy),
                "sensitivity": _share(found.true_positives, found.positives),
                "specificity": _share(found.negatives - found.false_positives, found.negatives),
                "calibration error": round(found.calibration_error, 4),
            }
            for detector, attributes in sorted(metrics.detectors.items(), reverse=True)  # the selector comes first
            for attribute, found in attributes.items()
        ]
    )


def edits_table(metrics: Metrics) -> pd.DataFrame:
    """Return what was measured of the edits, a row per figure and a column per edited image set."""
    columns = {readable(name): _edits_of(metrics, name) for name in in_order(metrics.edits)}
    return pd.DataFrame(columns).rename_axis("figure").reset_index()


def _edits_of(metrics: Metrics, name: str) -> dict[str, str]:
    found, truth = metrics.edits[name], metrics.counterfactual if name == "dataset" else None
    figures = {
        "planned": f"{found.planned:,}",
        "succeeded, by the selector": f"{found.succeeded_by_selector:,} ({percent(found.share_by_selector)})",
        "replaced by spare edits": f"{found.replaced:,}",
        "confirmed by the referee": f"{found.succeeded_by_referee:,} ({percent(found.share_by_referee)})",
        "candidates tried": f"{found.candidates:,}",
        "candidates successful": f"{found.candidates_successful:,}",
        "still in their group, by the referee": percent(found.share_in_their_group_by_referee),
        "mean L1 to the collage": "" if found.masked_l1 is None else f"{found.masked_l1:.4f}",
        "candidates that left their group": ", ".join(
            f"{readable(entry.group)} {percent(entry.share_vetoed)}" for entry in found.ledger
        ),
        "donors, effective number, most uses": ", ".join(
            f"{entry.donors:,}, {entry.effective_donors:,.0f}, {entry.most_uses}" for entry in found.ledger
        ),
    }
    if name in metrics.leakage:
        figures["edited-versus-unedited AUC"] = rate_text(metrics.leakage[name].pooled.auc)
    if truth and truth.n:
        figures["show the value aimed at, by the closest clean rendering"] = percent(truth.share_by_truth)
        figures["closest clean rendering right about known edits"] = ", ".join(map(rate_text, truth.check.values()))
        figures["unchanged outside the region"] = percent(truth.share_identical_outside)
        figures["PSNR to the ideal edit, median"] = f"{truth.median_psnr_ideal:.1f} dB"
        figures["PSNR to it inside the region, median"] = f"{truth.median_psnr_inside:.1f} dB"
    return figures


def timing_table(metrics: Metrics) -> pd.DataFrame:
    """Return the seconds of each job and their total; empty if the run was not timed."""
    total = {"total": sum(metrics.timing.values())} if metrics.timing else {}
    rows = [(job, round(seconds, 1)) for job, seconds in {**metrics.timing, **total}.items()]
    return pd.DataFrame(rows, columns=["job", "seconds"])


def gap_table(metrics: Metrics, attribute: str, least_agreement: float) -> pd.DataFrame:
    """Return the gap in `attribute` of each image set by each source of labels, and whether it counts."""
    rows = []
    for name, by_source in ((name, metrics.gap[attribute][name]) for name in in_order(metrics.gap[attribute])):
        gaps = {readable(source): gap_text(by_source[source]) if source in by_source else "–" for source in SOURCES}
        agreement = metrics.agreement[name][attribute]
        counts = {"agreement": share_text(agreement), "counts": "yes" if agreement >= least_agreement else "no"}
        kappa = {"lowest kappa of a group": _lowest_kappa(metrics.kappa[name][attribute])}
        rows.append({"image set": readable(name), **gaps, **counts, **kappa})
    return pd.DataFrame(rows)


def _lowest_kappa(by_group: Mapping[str, Kappa]) -> str:
    """Write Cohen's kappa of the detectors in the group where it is lowest: `0.93 (long hair)`."""
    known = [(found.kappa, group) for group, found in by_group.items() if has_kappa(found)]
    return f"{min(known)[0]:z.2f} ({readable(min(known)[1])})" if known else "unknown"


def robustness_table(metrics: Metrics) -> pd.DataFrame:
    """Return the gap of each GAN in samples as they are and slightly changed, by both detectors."""
    rows = []
    for name in in_order(metrics.robustness):
        by_change = metrics.robustness[name]
        for change in (change for change in CHANGES if change in by_change):
            found = by_change[change]
            gaps = {f"gap by the {detector}": gap_text(gap) for detector, gap in found.items() if metrics.gap}
            same = {f"same by the {detector}": share_text(gap.same) for detector, gap in found.items()}
            rows.append({"samples": readable(name), "change": CHANGES[change], **gaps, **same})
    return pd.DataFrame(rows)


def in_table_order(methods: Iterable[str]) -> list[str]:
    """Return methods in the order of the table."""
    return sorted(methods, key=list(METHODS).index)


def utility_table(utility: Utility) -> pd.DataFrame:
    """Return a row for each method with its figures on held-out images."""
    rows = []
    for method in in_table_order(utility.methods):
        found = utility.methods[method]
        worst = found.worst_group
        rows.append(
            {
                "classifier trained on": METHODS[method],
                "worst-group accuracy": "unknown" if worst.value is None else share_text(worst.value),
                "interval": "" if worst.value is None else f"[{share_text(worst.ci[0])}, {share_text(worst.ci[1])}]",
                "balanced accuracy": _rounded(found.balanced_accuracy.value, 3),
                "parity gap": _rounded(found.parity_gap.value, 3),
                "equalised odds difference": _rounded(found.equalized_odds.value, 3),
                "false labels": _rounded(found.label_error, 2),
            }
        )
    return pd.DataFrame(rows)


def _rounded(value: float | None, digits: int = 4) -> float:
    """Return a value rounded to significant digits; NaN for None."""
    return math.nan if value is None else float(f"{value:.{digits}g}")


def _share(part: int, whole: int) -> float:
    return _rounded(part / whole) if whole else math.nan
