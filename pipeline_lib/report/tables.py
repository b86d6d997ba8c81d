"""The tables of a report, with rounded values and readable names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import Inpainting, PartRegion, RateRule, Rebalance
from pipeline_lib.config.names import BASELINES, IMAGE_SETS, readable
from pipeline_lib.rebalance.groups import group_name, target_gap
from pipeline_lib.runtime import revisions
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path, read_json

SECTIONS = ("agreement", "detectors", "edits", "gap", "kappa", "quality", "rate", "regions", "segmenter", "timing")
JUDGES = ("truth", "referee", "corrected", "selector")

#: Columns of the quality table that say how its values were measured.
MEASURED_WITH = ["extractor", "reference", "reference images"]

#: Between which of more than two groups the gap is.
MANY_GROUPS = "the rate farthest above its target minus the one farthest below"

LEAST_IMAGES_OF_KAPPA = 30  # of a group; Cohen's kappa of fewer is too uncertain to doubt the detectors by it

#: Formats of a rate and of a gap; `z` writes no minus sign before 0.
RATE, GAP = "z.2f", "+z.2f"

#: What was done to samples before their gap was measured.
CHANGES = {"unchanged": "none", "blur": "blur", "resampling": "resampling", "jpeg": "JPEG"}

#: What became of a collage, by the kind of the editor.
EDITORS = {
    "latent-regression": "the collage was passed once through a masked latent-regression encoder and a frozen GAN "
    "(Chai, Wulff and Isola, ICLR 2021, section A.2.1)",
    "poisson": "its colours were fitted to those around it by Poisson blending (Pérez, Gangnet and Blake 2003), "
    "without a network",
}


def how_edited(targets: Rebalance) -> str:
    """Say in running text what was tried for each edit."""
    if isinstance(targets.edit.editor, Inpainting):
        return (
            f"For each edit a diffusion model drew the {regions_text(targets)} anew {targets.edit.candidates} times, "
            "as a prompt for the target value says."
        )
    donors = f"{targets.edit.candidates} random donors were tried"
    if targets.edit.pool:
        donors = (
            f"{targets.edit.pool} random donors were drawn, and the {targets.edit.candidates} of them were tried that "
            "differ least from the image around the region"
        )
    return (
        f"For each edit {donors}. The donor's {regions_text(targets)} was pasted into the image, and "
        f"{EDITORS[targets.edit.editor.kind]}."
    )


def regions_text(targets: Rebalance) -> str:
    """Name what is swapped in running text: `mouth`, or `mouth (for “smiling”) or eyes (for “eyeglasses”)`."""
    named = {
        attribute: readable(str(region)) if isinstance(region, PartRegion) else "rectangle"
        for attribute, region in targets.regions_by_attribute.items()
    }
    if len(named) == 1:
        return next(iter(named.values()))
    return " or ".join(f"{region} (for “{readable(attribute)}”)" for attribute, region in named.items())


@dataclass(frozen=True)
class FrechetDistances:
    """The Fréchet distances of a run in a readable form.

    Args:
        unit: power of ten in which the distances are given, such as `10⁻⁵`; empty if not needed.
        scaled: distance of each image set, in that unit.
        ratios: distance of each image set over that of the original dataset; NaN if that is not above 0.
    """

    unit: str
    scaled: dict[str, float]
    ratios: dict[str, float]

    def text(self, stage: str) -> str:
        """Write one of them: `3.79 × 10⁻⁵, 1.53 times that of the original dataset`."""
        distance, ratio = digits_text(self.scaled[stage]), self.ratios[stage]
        scaled = f"{distance} × {self.unit}" if self.unit else distance
        return scaled if math.isnan(ratio) else f"{scaled}, {digits_text(ratio)} times that of the original dataset"


def frechet_distances(quality: Mapping[str, Any]) -> FrechetDistances:
    """Return the Fréchet distances of all image sets; small ones are scaled by that of the original dataset."""
    raw = {stage: metrics["frechet_distance"]["value"] for stage, metrics in quality.items()}
    original = raw["dataset"]
    exponent = math.floor(math.log10(original)) if 0 < original < 0.1 else 0
    return FrechetDistances(
        unit=f"10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}" if exponent else "",
        scaled={stage: value / 10.0**exponent for stage, value in raw.items()},
        ratios={stage: value / original if original > 0 else math.nan for stage, value in raw.items()},
    )


@revisions.stage(revision=3)
def write_tables(*, metrics: Path, quality: Path, detectors: Path, edits: Path, timing: Path) -> None:
    """Write the tables of a run as CSV files.

    Args:
        metrics: JSON of `collect_metrics`.
        quality: CSV to write, with a row per image set.
        detectors: CSV to write, with a row per detector and attribute.
        edits: CSV to write, with a row per edited image set.
        timing: CSV to write, with a row per job and the total.
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
        DataError: the file is missing, is not JSON or lacks a section.
    """
    metrics = read_json(path)
    missing = [section for section in SECTIONS if section not in metrics]
    if missing:
        raise DataError(f"{path}: no section {', '.join(missing)}; run the rule collect_metrics again")
    return metrics


def quality_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return image quality, with a row per image set and way of measurement and a column per metric."""
    distances = frechet_distances(metrics["quality"])
    head = f"Fréchet distance, in {distances.unit}" if distances.unit else "Fréchet distance"
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for stage in known_stages(metrics["quality"]):
        for metric, found in metrics["quality"][stage].items():
            measured_on = (stage, found["n"], found["extractor"], found["reference"], found["n_reference"])
            row = rows.setdefault(measured_on, {})
            if metric == "frechet_distance":
                row[head] = rounded(distances.scaled[stage], 3)
                row["Fréchet ratio to the original dataset"] = rounded(distances.ratios[stage], 3)
            else:
                row[readable(metric)] = rounded(found["value"])
    columns = ["image set", "images", *MEASURED_WITH]
    heads = pd.DataFrame([(readable(stage), *rest) for stage, *rest in rows], columns=columns)
    values = pd.DataFrame(list(rows.values()))
    return pd.concat([heads[columns[:2]], values, heads[MEASURED_WITH]], axis=1)


def detector_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return each detector's metrics by attribute, on held-out images with known ground truth."""
    rows = [
        {
            "detector": detector,
            "attribute": readable(attribute),
            "images": found["n"],
            "with the attribute": found["positives"],
            "accuracy": rounded(found["accuracy"]),
            "sensitivity": _share(found["true_positives"], found["positives"]),
            "specificity": _share(found["negatives"] - found["false_positives"], found["negatives"]),
            "calibration error": round(found["calibration_error"], 4),
        }
        for detector, attributes in sorted(metrics["detectors"].items(), reverse=True)  # the selector comes first
        for attribute, found in attributes.items()
    ]
    return pd.DataFrame(rows)


def edits_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return how many edits were planned and how many succeeded, by the selector and by the referee."""
    rows = [
        {
            "image set": readable(stage),
            "edits planned": found["planned"],
            "candidates tried": found["candidates"],
            "candidates successful": found["candidates_successful"],
            "edits made (selector)": found["succeeded_by_selector"],
            "share made": rounded(found["share_by_selector"]),
            "confirmed by the referee": found["succeeded_by_referee"],
            "share confirmed": rounded(found["share_by_referee"]),
            "still in their group (referee)": rounded(found["share_in_their_group_by_referee"]),
            "masked L1": rounded(found["masked_l1"]),
            **_what_edits_change(metrics, stage),
            "rate before, target rate": "; ".join(
                f"{readable(target['group'])}: {target['rate_before']:.2f}, {target['rate_wanted']:.2f}"
                for target in found["targets"]
            ),
        }
        for stage in known_stages(metrics["edits"])
        for found in [metrics["edits"][stage]]
    ]
    return pd.DataFrame(rows)


def _what_edits_change(metrics: Mapping[str, Any], stage: str) -> dict[str, object]:
    """Return how true the edits of a set are, and how well they are told from unedited images, if that was measured."""
    columns: dict[str, object] = {}
    if stage in metrics.get("leakage", {}):
        area = metrics["leakage"][stage]["pooled"]["auc"]["value"]
        columns["told from unedited images (AUC)"] = rounded(area)
    if stage == "dataset" and metrics.get("counterfactual"):
        truth = metrics["counterfactual"]
        if truth["counts"]:
            columns["share true by the nearest drawing"] = rounded(truth["share_by_truth"])
        columns |= {
            "nearest drawing right about known edits": "; ".join(map(_say_check, truth["check"].values())),
            "unchanged outside the region": rounded(truth["share_identical_outside"]),
            "dB to the ideal edit": rounded(truth["median_psnr_ideal"]),
            "dB inside the region": rounded(truth["median_psnr_inside"]),
        }
    return columns


def _say_check(check: Mapping[str, Any]) -> str:
    """Write how often the nearest drawing is right, with its interval: `0.985 [0.970, 0.993] of 500`."""
    low, high = check["ci"]
    return f"{check['value']:.3f} [{low:.3f}, {high:.3f}] of {check['n']}"


def ledger_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the edits of each target cost and changed besides, in percent where it is a share."""
    rows = []
    for stage in known_stages(metrics["edits"]):
        for entry in metrics["edits"][stage]["ledger"]:
            changed = sorted(entry["changed"].items(), key=lambda item: -item[1]["share"])
            rows.append(
                {
                    "image set": readable(stage),
                    "group": readable(entry["group"]),
                    "edits made": f"{entry['made']:,} of {entry['planned']:,}",
                    "confirmed by the referee": percent(entry["share_confirmed"]),
                    "no candidate succeeded": percent(entry["share_without_success"]),
                    "candidates that left their group": percent(entry["share_vetoed"]),
                    "donors, effective": f"{entry['donors']:,}, {entry['effective_donors']:,.0f}",
                    "most uses of a donor": entry["most_uses"],
                    "other attributes that changed most (referee)": ", ".join(
                        f"{readable(name)} {percent(found['share'])}" for name, found in changed[:3]
                    ),
                }
            )
    return pd.DataFrame(rows)


def percent(share: float | None) -> str:
    """Return a share in percent; nothing for null."""
    return "" if share is None else f"{100 * share:.1f} %"


def regions_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the comparison of swapping a part with swapping the paper's box, on the same images and donors."""
    regions = {name: metrics["regions"][name] for name in ("part", "box") if name in metrics["regions"]}
    return pd.DataFrame(
        [
            {"region": name, "images": found["n"]}
            | {readable(measure): rounded(value) for measure, value in found.items() if measure != "n"}
            for name, found in regions.items()
        ]
    )


def timing_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the seconds of each job and their total; empty if the run was not timed."""
    timing = metrics["timing"]
    total = {"total": sum(timing.values())} if timing else {}
    rows = [(rule, round(seconds, 1)) for rule, seconds in {**timing, **total}.items()]
    return pd.DataFrame(rows, columns=["rule", "seconds"])


def rates_table(metrics: Mapping[str, Any], targets: Sequence[RateRule], before: str, after: str) -> pd.DataFrame:
    """Return the referee's rates in two image sets, with a row per target and one for the group gap if there is one.

    Args:
        metrics: metrics of the run.
        targets: groups, attribute and target rates.
        before: image set to compare with.
        after: image set whose interval is shown.
    """
    attribute = targets[0].attribute
    rates, gaps = metrics["rate"][attribute], metrics["gap"].get(attribute)
    rows = []
    for target in targets:
        group = group_name(target.where)
        pair = (rates[stage]["referee"][group] for stage in (before, after))
        rows.append(_compared(readable(group), target.rate, *pair, RATE))
    if gaps:
        pair = (gaps[stage]["referee"] for stage in (before, after))
        rows.append(_compared("group gap", target_gap(targets), *pair, GAP))
    return pd.DataFrame(rows, columns=["group", "target rate", readable(before), readable(after), "interval"])


def gap_table(metrics: Mapping[str, Any], attribute: str, least_agreement: float) -> pd.DataFrame:
    """Return the gap in `attribute` of each image set by each source of labels, and whether it counts."""
    gaps, agreement = metrics["gap"][attribute], metrics["agreement"]
    rows = []
    for stage in known_stages(gaps):
        by_judge = {
            readable(judge): gap_text(as_estimate(gaps[stage][judge])) if judge in gaps[stage] else "–"
            for judge in JUDGES
        }
        share = agreement[stage][attribute]
        counts = "yes" if share >= least_agreement else "no"
        kappa = _lowest_kappa(metrics["kappa"][stage][attribute])
        agree = {"detectors agree": share_text(share), "counts": counts, "lowest kappa of a group": kappa}
        rows.append({"image set": readable(stage), **by_judge, **agree})
    return pd.DataFrame(rows)


def _lowest_kappa(by_group: Mapping[str, Any]) -> str:
    """Write Cohen's kappa of the detectors in the group where it is lowest: `0.93 (long hair, 912 images)`."""
    known = [(row["kappa"], group, row["n"]) for group, row in by_group.items() if _has_kappa(row)]
    if not known:
        return "unknown"
    kappa, group, n = min(known)
    return f"{kappa:z.2f} ({readable(group)}, {n:,} images)"


def low_kappas(kappas: Mapping[str, Any], least: float) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    """Return image set, attribute, group and figures wherever Cohen's kappa of the detectors is below `least`.

    Groups of too few images are left out.
    """
    return [
        (stage, attribute, group, found)
        for stage in known_stages(kappas)
        for attribute, groups in kappas[stage].items()
        for group, found in groups.items()
        if _has_kappa(found) and found["kappa"] < least
    ]


def _has_kappa(found: Mapping[str, Any]) -> bool:
    """Return whether Cohen's kappa is known of a group, and of enough images to tell anything."""
    return found["kappa"] is not None and found["n"] >= LEAST_IMAGES_OF_KAPPA


def robustness_table(metrics: Mapping[str, Any], targets: Rebalance) -> pd.DataFrame:
    """Return the gap of each GAN in samples as they are and slightly changed, by both detectors.

    A single target of the first attribute has no gap, and no column of it.
    """
    has_gap = len(targets.first_attribute().targets) > 1
    rows = []
    for stage in known_stages(metrics.get("robustness", {})):
        by_change = metrics["robustness"][stage]
        for change, judges in ((change, by_change[change]) for change in CHANGES if change in by_change):
            gaps = {readable(judge): gap_text(as_estimate(found)) for judge, found in judges.items() if has_gap}
            same = {f"same by {readable(judge)}": share_text(found["same"]) for judge, found in judges.items()}
            rows.append({"samples": readable(stage), "change": CHANGES[change], **gaps, **same})
    return pd.DataFrame(rows)


def denied_groups(edits: Mapping[str, Any], least_agreement: float) -> dict[tuple[str, str], float]:
    """Return the attributes and groups of which the referee confirms too few edits, with the share that it does.

    Args:
        edits: what `evaluate_edits` found of one image set.
        least_agreement: share of the edits that is enough.
    """
    return {
        (entry["attribute"], entry["group"]): entry["share_confirmed"]
        for entry in edits["ledger"]
        if entry["made"] and entry["share_confirmed"] < least_agreement
    }


def as_estimate(found: Mapping[str, Any]) -> Estimate:
    """Return a gap from the metrics, with NaN for null."""
    return Estimate(*(math.nan if number is None else number for number in (found["value"], *found["ci"])))


def groups_text(targets: Rebalance) -> str:
    """Name the groups between which the gap of a section with one attribute is: `long hair minus not long hair`."""
    if len(targets.targets) > 2:
        return MANY_GROUPS
    return " minus ".join(readable(group_name(target.where)) for target in targets.targets)


def rate_text(rate: Estimate) -> str:
    """Write a rate with its interval: `0.58 [0.52, 0.63]`."""
    return " ".join(filter(None, _texts(rate, RATE)))


def gap_text(gap: Estimate) -> str:
    """Write a gap with its interval: `+0.58 [+0.52, +0.63]`."""
    return " ".join(filter(None, _texts(gap, GAP)))


def rates_text(rules: Sequence[RateRule]) -> str:
    """Write rates: `smiling 0.5 among “long hair” images and smiling 0.5 among “not long hair” images`."""
    return " and ".join(
        f"{readable(rule.attribute)} {rule.rate:g} among “{readable(group_name(rule.where))}” images" for rule in rules
    )


def digits_text(value: float) -> str:
    """Write a figure with three significant digits and no exponent: `0.0123`, `1.50`, `24.7`, `1234`."""
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, decimals)}f}"


def share_text(share: float) -> str:
    """Write a share with two digits, rounded down, so that 0.949 does not appear to reach 0.95."""
    return f"{math.floor(round(share * 100, 6)) / 100:.2f}"


def rounded(value: float | None, digits: int = 4) -> float:
    """Return a value rounded to significant digits; NaN for null."""
    return math.nan if value is None else float(f"{value:.{digits}g}")


def known_stages(names: Iterable[str]) -> list[str]:
    """Return image sets in the order in which a run makes them, since JSON files sort them alphabetically."""
    return sorted(names, key=(*IMAGE_SETS, *BASELINES).index)


def _compared(
    name: str, target: float, before: Mapping[str, Any], after: Mapping[str, Any], style: str
) -> tuple[str, ...]:
    """Write a row of the table of rates."""
    return name, format(target, style), _texts(as_estimate(before), style)[0], *_texts(as_estimate(after), style)


def _texts(estimate: Estimate, style: str) -> tuple[str, str]:
    """Write a rate or a gap, and its interval: `+0.58` and `[+0.52, +0.63]`."""
    if math.isnan(estimate.value):
        return "unknown", ""
    value, low, high = (format(number, style) for number in estimate)
    return value, f"[{low}, {high}]"


def _share(part: int, whole: int) -> float:
    return rounded(part / whole) if whole else math.nan
