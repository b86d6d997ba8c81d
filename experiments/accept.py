"""The acceptance criteria of the default run, checked against the metrics of a run.

`python -m experiments.accept results/avatars` prints each criterion with the measured value, and exits with 1 if one is
not met.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline_lib.runtime.errors import PipelineError
from pipeline_lib.runtime.files import read_json

LEAST_ACCURACY, LEAST_AGREEMENT, LEAST_OVERLAP = 0.98, 0.95, 0.85
#: Least share of the planned edits that succeed, by image set and judge.
LEAST_SUCCESS = {
    "dataset": {"selector": 0.98, "referee": 0.97},
    "samples": {"selector": 0.95, "referee": 0.90},
}
LEAST_SUCCESS_BY_TRUTH = 0.97  # of the dataset's
LEAST_IN_THEIR_GROUP = 0.995  # of the dataset's edited images, by the referee
MOST_GAP = {"dataset_rebalanced": 0.03, "samples_rebalanced": 0.08}  # at most 0.006 and 0.050 over five seeds
LEAST_PSNR = {"ideal": 38.0, "inside": 29.0}  # dB, medians: to the ideal edit, and to it inside the region
MOST_LEAKAGE = 0.70  # area under the curve; 0.61 to 0.63 over five seeds
#: Gap and Fréchet distance of the retrained GAN over the control's. The gap's share was at most 0.19 over the seeds,
#: and 0.22 with seed 0 on another machine (presumably by its rounding). The distance was 0.69 to 1.88 times the
#: control's, since the distances of both GANs vary twofold from seed to seed.
MOST_OF_CONTROL, MOST_DISTANCE = 0.3, 2.5
#: Distance of the retrained GAN's worst rate from its target over the control's. With a gap that is spread evenly it is
#: the gap's share, and more if both rates are off to one side.
MOST_OF_CONTROLS_RATES = 0.5
GANS = "retrained", "control"


@dataclass(frozen=True)
class Check:
    """An acceptance criterion, the measured value, and its bound, which is the most or the least allowed."""

    promise: str
    value: float
    bound: float
    at_most: bool

    @property
    def passed(self) -> bool:
        """Whether the criterion is met; not if there is no value."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def check_run(results: Path) -> list[Check]:
    """Check `evaluation/metrics.json` of the run in `results` against every acceptance criterion."""
    metrics = read_json(results / "evaluation" / "metrics.json")
    ((attribute, gaps),) = metrics["gap"].items()
    return [
        *_gap_checks(gaps),
        _rates_check(metrics["rate"][attribute], metrics["certificate"]["targets"]),
        *_edit_checks(metrics["edits"]),
        *_truth_checks(metrics["counterfactual"]),
        at_most(
            "leakage of the dataset's edits", metrics["leakage"]["dataset"]["pooled"]["auc"]["value"], MOST_LEAKAGE
        ),
        *_detector_checks(metrics["detectors"], metrics["agreement"], attribute),
        at_least("mean intersection over union of the segmenter", metrics["segmenter"]["mean"], LEAST_OVERLAP),
        _quality_check(metrics["quality"]),
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


def _gap_checks(gaps: dict[str, Any]) -> list[Check]:
    truth = gaps["dataset"]["truth"]["value"]
    referee = {stage: judges["referee"]["value"] for stage, judges in gaps.items()}
    return [
        at_least("gap of the dataset by ground truth", truth, 0.30),
        at_least("gap of the samples as a share of the dataset's", referee["samples"] / truth, 0.5),
        at_most("|gap| of the rebalanced samples", abs(referee["samples_rebalanced"]), MOST_GAP["samples_rebalanced"]),
        *(
            at_most(
                f"|gap| of the rebalanced dataset by {judge}",
                abs(gaps["dataset_rebalanced"].get(judge, {"value": math.nan})["value"]),
                MOST_GAP["dataset_rebalanced"],
            )
            for judge in ("truth", "referee")
        ),
        at_least("gap of the control as a share of the samples'", referee["control"] / referee["samples"], 0.8),
        at_most(
            "|gap| of the retrained GAN as a share of the control's",
            abs(referee["retrained"] / referee["control"]),
            MOST_OF_CONTROL,
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


def _edit_checks(edits: dict[str, Any]) -> list[Check]:
    return [
        at_least(f"swaps of the {name} that succeed by the {judge}", counts[f"share_by_{judge}"], least)
        for name, counts in edits.items()
        for judge, least in LEAST_SUCCESS[name].items()
    ] + [
        at_least(
            "edited images of the dataset that the referee finds in their group as before",
            edits["dataset"]["share_in_their_group_by_referee"],
            LEAST_IN_THEIR_GROUP,
        )
    ]


def _truth_checks(truth: dict[str, Any]) -> list[Check]:
    return [
        at_least("swaps of the dataset that succeed by truth", truth["share_by_truth"], LEAST_SUCCESS_BY_TRUTH),
        at_least("edited images that are unchanged outside the region", truth["share_identical_outside"], 1.0),
        *(
            at_least(f"median PSNR ({name}) of the edits in dB", truth[f"median_psnr_{name}"], least)
            for name, least in LEAST_PSNR.items()
        ),
    ]


def _detector_checks(detectors: dict[str, Any], agreement: dict[str, Any], attribute: str) -> list[Check]:
    checks = [
        at_least(f"accuracy of the {judge} on `{name}`", figures["accuracy"], LEAST_ACCURACY)
        for judge, report in detectors.items()
        for name, figures in report.items()
    ]
    return checks + [
        at_least(f"agreement of the detectors on {stage}", shares[attribute], LEAST_AGREEMENT)
        for stage, shares in agreement.items()
    ]


def _quality_check(quality: dict[str, Any]) -> Check:
    distance = {stage: metrics["frechet_distance"]["value"] for stage, metrics in quality.items()}
    ratio = distance["retrained"] / distance["control"]
    return at_most("Fréchet distance of the retrained GAN over the control's", ratio, MOST_DISTANCE)


def at_least(promise: str, value: float, bound: float) -> Check:
    """Return the criterion that a value is at least the bound."""
    return Check(f"{promise} is at least {bound}", value, bound, at_most=False)


def at_most(promise: str, value: float, bound: float) -> Check:
    """Return the criterion that a value is at most the bound."""
    return Check(f"{promise} is at most {bound}", value, bound, at_most=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every criterion and whether it is met; returns 0 if all are met, 1 if not, 2 without a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results/<run>")
    options = parser.parse_args(arguments)
    try:
        checks = check_run(options.results)
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for check in checks:
        print(f"{'pass' if check.passed else 'FAIL'}  {check.promise}: {check.value:.3f}")
    minutes = minutes_at_work(options.results / "logs")
    print(
        f"      Jobs were running for {minutes:.0f} minutes, which is no criterion, since it depends on the processor."
    )
    failed = sum(not check.passed for check in checks)
    print(f"{failed} of the criteria above are not met" if failed else "all criteria above are met")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
