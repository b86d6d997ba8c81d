"""The tables of a report: rounded figures under names that people read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config import RateRule
from pipeline_lib.evaluation.image_sets import COMPARED
from pipeline_lib.rebalance.estimate import Estimate
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path, read_json

SECTIONS = ("agreement", "detectors", "edits", "gap", "quality", "regions", "segmenter", "timing")
JUDGES = ("truth", "referee", "corrected", "selector")

#: How measures and judges are called where a plain replacement of underscores would not do.
NAMES = {
    "frechet_distance": "Fréchet distance",
    "truth": "true labels",
    "corrected": "referee, corrected",
    "masked_l1": "masked L1",
    "perceptual_distance_to_context_outside": "perceptual distance to the context outside",
}


def write_tables(*, metrics: Path, quality: Path, detectors: Path, edits: Path, timing: Path) -> None:
    """Write the tables of a run as CSV files.

    Args:
        metrics: JSON of `collect_metrics`.
        quality: CSV to make: a row an image set.
        detectors: CSV to make: a row for each attribute of each detector.
        edits: CSV to make: a row for each edited image set.
        timing: CSV to make: a row a job, and the total.
    """
    found = read_metrics(metrics)
    for path, table in (
        (quality, quality_table(found)),
        (detectors, detector_table(found)),
        (edits, edits_table(found)),
        (timing, timing_table(found)),
    ):
        with atomic_path(path) as beside:
            table.to_csv(beside, index=False)


def read_metrics(path: Path) -> dict[str, Any]:
    """Read the metrics of a run.

    Raises:
        DataError: the file is missing, is no JSON or lacks a section.
    """
    metrics = read_json(path)
    missing = [section for section in SECTIONS if section not in metrics]
    if missing:
        raise DataError(f"{path}: no section {', '.join(missing)}; run the rule collect_metrics again")
    return metrics


def quality_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return image quality: a row for each image set and what it was measured with, a column a metric."""
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for stage in known_stages(metrics["quality"]):
        for metric, found in metrics["quality"][stage].items():
            measured_on = (stage, found["n"], found["extractor"], found["reference"], found["n_reference"])
            rows.setdefault(measured_on, {})[readable(metric)] = rounded(found["value"])
    columns = ["image set", "images", "extractor", "reference", "reference images"]
    heads = pd.DataFrame([(readable(stage), *rest) for stage, *rest in rows], columns=columns)
    values = pd.DataFrame(list(rows.values()))
    return pd.concat([heads[columns[:2]], values, heads[columns[2:]]], axis=1)


def detector_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return how well each detector knows each attribute, on held-out images with known truth."""
    rows = [
        {
            "detector": detector,
            "attribute": readable(attribute),
            "images": found["n"],
            "with the attribute": found["positives"],
            "accuracy": rounded(found["accuracy"]),
            "sensitivity": _share(found["true_positives"], found["positives"]),
            "specificity": _share(found["negatives"] - found["false_positives"], found["negatives"]),
            "calibration error": rounded(found["calibration_error"]),
        }
        for detector, attributes in sorted(metrics["detectors"].items(), reverse=True)  # the selector comes first
        for attribute, found in attributes.items()
    ]
    return pd.DataFrame(rows)


def edits_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return how many edits were planned and how many succeeded, by the selector and by the referee."""
    rows = [
        {
            "image set": stage,
            "edits planned": found["planned"],
            "candidates tried": found["candidates"],
            "candidates successful": found["candidates_successful"],
            "edits made (selector)": found["succeeded_by_selector"],
            "share made": rounded(found["share_by_selector"]),
            "confirmed by the referee": found["succeeded_by_referee"],
            "share confirmed": rounded(found["share_by_referee"]),
            "masked L1": rounded(found["masked_l1"]),
            "rate before, wanted": "; ".join(
                f"{readable(target['group'])}: {target['rate_before']:.2f}, {target['rate_wanted']:.2f}"
                for target in found["targets"]
            ),
        }
        for stage in known_stages(metrics["edits"])
        for found in [metrics["edits"][stage]]
    ]
    return pd.DataFrame(rows)


def regions_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return how swapping a part compares with swapping the paper's box, on the same images and donors."""
    regions = {name: metrics["regions"][name] for name in ("part", "box") if name in metrics["regions"]}
    return pd.DataFrame(
        [
            {"region": name, "images": found["n"]}
            | {readable(measure): rounded(value) for measure, value in found.items() if measure != "n"}
            for name, found in regions.items()
        ]
    )


def timing_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the seconds of each job, and their total; empty where the run was not timed."""
    timing = metrics["timing"]
    total = {"total": sum(timing.values())} if timing else {}
    rows = [(rule, round(seconds, 1)) for rule, seconds in {**timing, **total}.items()]
    return pd.DataFrame(rows, columns=["rule", "seconds"])


def gap_table(metrics: Mapping[str, Any], attribute: str, least_agreement: float) -> pd.DataFrame:
    """Return the gap in `attribute` of each image set by each judge, and whether it counts."""
    gaps, agreement = metrics["gap"][attribute], metrics["agreement"]
    rows = []
    for stage in known_stages(gaps):
        by_judge = {
            readable(judge): gap_text(as_estimate(gaps[stage][judge])) if judge in gaps[stage] else "–"
            for judge in JUDGES
        }
        share = agreement[stage][attribute]
        counts = "yes" if share >= least_agreement else "no"
        rows.append({"image set": readable(stage), **by_judge, "detectors agree": share_text(share), "counts": counts})
    return pd.DataFrame(rows)


def as_estimate(found: Mapping[str, Any]) -> Estimate:
    """Return a gap as it stands in the metrics; NaN for null."""
    return Estimate(*(math.nan if number is None else number for number in (found["value"], *found["ci"])))


def gap_text(gap: Estimate) -> str:
    """Write a gap with its interval: `+0.58 [+0.52, +0.63]`."""
    if math.isnan(gap.value):
        return "unknown"
    return f"{gap.value:+z.2f} [{gap.low:+z.2f}, {gap.high:+z.2f}]"


def rates_text(rules: Sequence[RateRule]) -> str:
    """Write rates: `smiling 0.5 among “long hair” images and smiling 0.5 among “not long hair” images`."""
    return " and ".join(
        f"{readable(rule.attribute)} {rule.rate:g} among “{readable(group_name(rule.where))}” images" for rule in rules
    )


def share_text(share: float) -> str:
    """Write a share with two digits, rounded down: 0.949 must not read as the 0.95 that it fails to reach."""
    return f"{math.floor(round(share * 100, 6)) / 100:.2f}"


def readable(name: str) -> str:
    """Return a name of the tables as people write it."""
    return NAMES.get(name, name.replace("_", " "))


def rounded(value: float | None) -> float | None:
    """Return a figure with four significant digits."""
    return None if value is None else float(f"{value:.4g}")


def known_stages(names: Iterable[str]) -> list[str]:
    """Return image sets in the order in which a run makes them; JSON keeps them in that of the alphabet."""
    return sorted(names, key=COMPARED.index)


def _share(part: int, whole: int) -> float | None:
    return rounded(part / whole) if whole else None
