"""The acceptance criteria of the default run, checked against the metrics of a run.

`python -m experiments.accept results/avatars` prints each criterion with the measured value, and exits with 1 if one is
not met.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.runs import Check, at_least, at_most, failures_of
from pipeline_lib.runtime.errors import PipelineError
from pipeline_lib.runtime.files import read_json

#: Least share of the planned edits that succeed, by image set and detector.
LEAST_SUCCESS = {
    "dataset": {"selector": 0.98, "referee": 0.97},
    "samples": {"selector": 0.95, "referee": 0.90},
}
#: Distance of the retrained GAN's worst rate from its target over the control's. With a gap that is spread evenly it is
#: the gap's share, and more if both rates are off to one side.
MOST_OF_CONTROLS_RATES = 0.5
GANS = "retrained", "control"


def check_run(results: Path) -> list[Check]:
    """Check `evaluation/metrics.json` of the run in `results` against every acceptance criterion."""
    metrics = read_json(results / "evaluation" / "metrics.json")
    ((attribute, gaps),) = metrics["gap"].items()
    return [
        *_gap_checks(gaps),
        _rates_check(metrics["rate"][attribute], metrics["certificate"]["targets"]),
        *_edit_checks(metrics["edits"], metrics["counterfactual"], metrics["leakage"]),
        *(
            at_least(f"accuracy of the {detector} on `{name}`", figures["accuracy"], 0.98)
            for detector, report in metrics["detectors"].items()
            for name, figures in report.items()
        ),
        *(
            at_least(f"agreement of the detectors on {stage}", shares[attribute], 0.95)
            for stage, shares in metrics["agreement"].items()
        ),
        at_least("mean intersection over union of the segmenter", metrics["segmenter"]["mean"], 0.85),
        # it was 0.69 to 1.88 over five seeds, since the distances of both GANs vary twofold from seed to seed
        at_most(
            "Fréchet distance of the retrained GAN over the control's",
            _distance_of(metrics, "retrained") / _distance_of(metrics, "control"),
            2.5,
        ),
    ]


def _distance_of(metrics: dict[str, Any], stage: str) -> float:
    return metrics["quality"][stage]["frechet_distance"]["value"]


def _gap_checks(gaps: dict[str, Any]) -> list[Check]:
    truth = gaps["dataset"]["truth"]["value"]
    referee = {stage: by_detector["referee"]["value"] for stage, by_detector in gaps.items()}
    rebalanced = {by: gaps["dataset_rebalanced"].get(by, {"value": math.nan})["value"] for by in ("truth", "referee")}
    return [
        at_least("gap of the dataset by ground truth", truth, 0.30),
        at_least("gap of the samples as a share of the dataset's", referee["samples"] / truth, 0.5),
        # at most 0.050 over five seeds, and 0.006 in the dataset
        at_most("|gap| of the rebalanced samples", abs(referee["samples_rebalanced"]), 0.08),
        *(at_most(f"|gap| of the rebalanced dataset by {by}", abs(gap), 0.03) for by, gap in rebalanced.items()),
        at_least("gap of the control as a share of the samples'", referee["control"] / referee["samples"], 0.8),
        # at most 0.19 over five seeds, and 0.22 with seed 0 on another machine (presumably by its rounding)
        at_most(
            "|gap| of the retrained GAN as a share of the control's",
            abs(referee["retrained"] / referee["control"]),
            0.3,
        ),
    ]


def _rates_check(rates: dict[str, Any], targets: list[dict[str, Any]]) -> Check:
    promise = "distance of the retrained GAN's worst rate from its target as a share of the control's"
    found = {stage: {group: row["value"] for group, row in rates[stage]["referee"].items()} for stage in GANS}
    groups = [target["group"] for target in targets]
    empty = [f"`{group}` of {stage}" for stage in GANS for group in groups if found[stage][group] is None]
    if empty:
        return at_most(f"{promise} (unknown: no images in {', '.join(empty)})", math.nan, MOST_OF_CONTROLS_RATES)
    retrained, control = (
        max(abs(found[stage][target["group"]] - target["target"]) for target in targets) for stage in GANS
    )
    if control == 0:
        return at_most(f"{promise} (unknown: the control is on target)", math.nan, MOST_OF_CONTROLS_RATES)
    return at_most(promise, retrained / control, MOST_OF_CONTROLS_RATES)


def _edit_checks(edits: dict[str, Any], truth: dict[str, Any], leakage: dict[str, Any]) -> list[Check]:
    in_group = edits["dataset"]["share_in_their_group_by_referee"]
    return [
        *(
            at_least(f"swaps of the {name} that succeed by the {detector}", counts[f"share_by_{detector}"], least)
            for name, counts in edits.items()
            for detector, least in LEAST_SUCCESS[name].items()
        ),
        at_least("edited images of the dataset that the referee finds in their group as before", in_group, 0.995),
        at_least("swaps of the dataset that succeed by truth", truth["share_by_truth"], 0.97),
        at_least("edited images that are unchanged outside the region", truth["share_identical_outside"], 1.0),
        at_least("median PSNR (ideal) of the edits in dB", truth["median_psnr_ideal"], 38.0),
        at_least("median PSNR (inside) of the edits in dB", truth["median_psnr_inside"], 29.0),
        # area under the curve; 0.61 to 0.63 over five seeds
        at_most("leakage of the dataset's edits", leakage["dataset"]["pooled"]["auc"]["value"], 0.70),
    ]


def minutes_at_work(logs: Path) -> float:
    """Return the time in which at least one job was running, by the first and last lines of the jobs' logs."""
    spans = []
    for path in logs.rglob("*.log"):
        lines = path.read_text(encoding="utf-8").splitlines()
        spans.append([datetime.fromisoformat(line[:23].replace(",", ".")) for line in (lines[0], lines[-1])])
    seconds, end = 0.0, datetime.min
    for first, last in sorted(spans):
        seconds += max(0.0, (last - max(first, end)).total_seconds())
        end = max(end, last)
    return seconds / 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every criterion and whether it is met; returns 0 if all are met, 1 if not, 2 without a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results/<run>")
    options = parser.parse_args(arguments)
    try:
        failed = failures_of(check_run(options.results))
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    minutes = minutes_at_work(options.results / "logs")
    print(
        f"      Jobs were running for {minutes:.0f} minutes, which is no criterion, since it depends on the processor."
    )
    print(f"{failed} of the criteria above are not met" if failed else "all criteria above are met")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
