"""Is the balance real, and what did it cost? The stages that judge every image set of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config import Detectors, Evaluate, Rebalance
from pipeline_lib.data.tables import attribute_columns, read_table, read_tables, write_table
from pipeline_lib.evaluation.bias import corrected_rows, gap, group_name, rate_rows
from pipeline_lib.evaluation.image_sets import COMPARED
from pipeline_lib.rebalance.estimate import DetectorError, Estimate, Observed, correct_gap, measure_errors
from pipeline_lib.rebalance.plan import in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import digest_of, read_json, write_json

logger = logging.getLogger(__name__)


def evaluate_bias(
    *,
    truth: Path,
    held_out_truth: Path,
    held_out_referee: Path,
    selector: list[Path],
    referee: list[Path],
    targets: Rebalance,
    detectors: Detectors,
    settings: Evaluate,
    run: str,
    seed: int,
    bias: Path,
    gaps: Path,
    agreement: Path,
) -> None:
    """Take the rates and gaps of every image set, as each judge sees them, and say where the detectors agree.

    Judges are the truth (of the dataset), the selector, the referee, and the referee corrected for its error on
    held-out images. Each judge says for itself which group an image is in.

    Args:
        truth: labels of the dataset.
        held_out_truth: labels of the held-out set.
        held_out_referee: the referee's scores of the held-out set.
        selector: the selector's scores, one table for each of `COMPARED`.
        referee: the referee's scores, likewise.
        targets: the config section that names groups and attribute.
        detectors: the config section with the least agreement.
        settings: the config section of the evaluation.
        run: name of the run, kept in the file.
        seed: of the run.
        bias: table to make.
        gaps: JSON to make: {stage: {judge: {"value", "ci": [low, high]}}}.
        agreement: JSON to make: {stage: {attribute: share of images on which the detectors agree}}.
    """
    attribute = targets.targets[0].attribute
    wheres = {group_name(target.where): target.where for target in targets.targets}
    judged = {("dataset", "truth"): _holds(read_table(truth, "labels"), "labels")}
    for stage, selector_scores, referee_scores in zip(COMPARED, selector, referee, strict=True):
        judged[stage, "selector"] = _holds(read_table(selector_scores, "scores"), "scores")
        judged[stage, "referee"] = _holds(read_table(referee_scores, "scores"), "scores")

    errors = _referee_errors(held_out_truth, held_out_referee, attribute, wheres)
    rows, found_gaps = [], {stage: {} for stage in COMPARED}
    for (stage, judge), holds in judged.items():
        groups = {name: in_group(holds, where) for name, where in wheres.items()}
        table = rate_rows(stage, judge, attribute, holds[attribute], groups, settings.confidence)
        rows.append(table)
        found_gaps[stage][judge] = _gap_of(table)
        if judge == "referee":
            rows.append(
                corrected_rows(
                    stage, attribute, holds[attribute], groups, errors, settings.confidence, settings.resamples, seed
                )
            )
            found_gaps[stage]["corrected"] = _corrected_gap(stage, holds[attribute], groups, errors, settings, seed)
    agreed = {stage: _agreement(judged[stage, "selector"], judged[stage, "referee"]) for stage in COMPARED}
    for stage, shares in agreed.items():
        if shares[attribute] < detectors.least_agreement:
            logger.warning(
                "the detectors agree on `%s` in %.3f of `%s`, less than %s: no gap of that set counts",
                attribute, shares[attribute], stage, detectors.least_agreement,
            )  # fmt: skip
    digest = digest_of([targets.model_dump(), settings.model_dump()])
    write_table(bias, "bias", pd.concat(rows, ignore_index=True), {"run": run, "config_digest": digest})
    write_json(gaps, found_gaps)
    write_json(agreement, agreed)


def _holds(table: pd.DataFrame, kind: str) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() > 0.5 for name in attribute_columns(table, kind)}


def _referee_errors(
    truth: Path, scores: Path, attribute: str, wheres: Mapping[str, Mapping[str, bool]]
) -> dict[str, DetectorError]:
    """Measure the referee's error in each group as it sees them, on the half of the held-out images it never met."""
    labels = read_table(truth, "labels").iloc[1::2]
    said = _holds(read_table(scores, "scores").iloc[1::2], "scores")
    groups = {name: in_group(said, where) for name, where in wheres.items()}
    return measure_errors(labels[attribute].to_numpy(bool), said[attribute], groups, fall_back_to_pooled=True)


def _gap_of(table: pd.DataFrame) -> dict[str, object]:
    first, second = (Estimate(row.rate, row.ci_low, row.ci_high) for row in table.iloc[:2].itertuples())
    return _as_json(gap(first, second))


def _corrected_gap(
    stage: str,
    has_attribute: np.ndarray,
    groups: Mapping[str, np.ndarray],
    errors: Mapping[str, DetectorError],
    settings: Evaluate,
    seed: int,
) -> dict[str, object]:
    first, second = (
        Observed(int((has_attribute & inside).sum()), int(inside.sum()), errors[name])
        for name, inside in list(groups.items())[:2]
    )
    rng = seeding.numpy_generator(seed, "corrected gap", stage)
    return _as_json(correct_gap(first, second, settings.confidence, settings.resamples, rng))


def _as_json(estimate: Estimate) -> dict[str, object]:
    value, low, high = (None if np.isnan(number) else round(float(number), 6) for number in estimate)
    return {"value": value, "ci": [low, high]}


def _agreement(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float((first[name] == second[name]).mean()) for name in first}


def evaluate_edits(
    *,
    candidates: list[Path],
    plan: Path,
    referee_scores: Path,
    summary: Path,
    edits: Path,
) -> None:
    """Count how many planned swaps succeeded, by the selector that chose and by the referee that judges.

    Args:
        candidates: the tables of all shards.
        plan: the table of edits.
        referee_scores: the referee's scores of the rebalanced set.
        summary: the plan's JSON.
        edits: JSON to make.
    """
    tried, planned = read_tables(candidates, "candidates"), read_table(plan, "plan")
    chosen = tried[tried["chosen"]].merge(planned[["image_id", "attribute", "wanted"]], on="image_id")
    scores = read_table(referee_scores, "scores").set_index("image_id")
    attribute = planned["attribute"].iloc[0] if len(planned) else ""
    agreed = scores.loc[chosen["image_id"], attribute].to_numpy() > 0.5 if len(chosen) else np.empty(0)
    held = int((agreed == chosen["wanted"].to_numpy()).sum())
    write_json(
        edits,
        {
            "planned": len(planned),
            "candidates": len(tried),
            "candidates_successful": int(tried["success"].sum()),
            "succeeded_by_selector": len(chosen),
            "succeeded_by_referee": held,
            "share_by_selector": len(chosen) / max(1, len(planned)),
            "share_by_referee": held / max(1, len(planned)),
            "masked_l1": float(chosen["masked_l1"].mean()) if len(chosen) else None,
            "targets": read_json(summary)["targets"],
        },
    )


def collect_metrics(
    *,
    bias: Path,
    gaps: Path,
    agreement: Path,
    quality: Path,
    regions: list[Path],
    samples_edits: Path,
    dataset_edits: Path,
    detectors: list[Path],
    segmenter: list[Path],
    targets: Rebalance,
    benchmarks: Path,
    metrics: Path,
) -> None:
    """Put every figure of a run into one JSON file.

    Args:
        bias: table of `evaluate_bias`.
        gaps: JSON of `evaluate_bias`.
        agreement: JSON of `evaluate_bias`.
        quality: table of `evaluate_quality`.
        regions: JSON of `compare_regions`; none where there are no parts to compare with a box.
        samples_edits: JSON of `evaluate_edits` for the samples.
        dataset_edits: the same for the dataset.
        detectors: reports of selector and referee.
        segmenter: report of the segmenter; none where there is none.
        targets: the config section that names the attribute.
        benchmarks: folder of Snakemake's benchmark files; empty when run without it.
        metrics: JSON to make.
    """
    table = read_table(quality, "quality")
    by_stage = {
        stage: {
            row.metric: {
                "value": row.value, "extractor": row.extractor, "reference": row.reference,
                "n": row.n, "n_reference": row.n_reference,
            }
            for row in rows.itertuples()
        }
        for stage, rows in table.groupby("stage", sort=False)
    }  # fmt: skip
    write_json(
        metrics,
        {
            "rate": {targets.targets[0].attribute: _rates(read_table(bias, "bias"))},
            "gap": {targets.targets[0].attribute: read_json(gaps)},
            "agreement": read_json(agreement),
            "quality": by_stage,
            "edits": {"samples": read_json(samples_edits), "dataset": read_json(dataset_edits)},
            "regions": read_json(*regions) if regions else {},
            "detectors": {path.stem: read_json(path) for path in detectors},
            "segmenter": read_json(*segmenter) if segmenter else None,
            "timing": _timing(benchmarks),
        },
    )


def _rates(bias: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    """Return {stage: {judge: {group: {"value", "ci", "n"}}}}."""
    rates: dict[str, dict[str, dict[str, object]]] = {}
    for row in bias.itertuples():
        figures = _as_json(Estimate(row.rate, row.ci_low, row.ci_high)) | {"n": row.n}
        rates.setdefault(row.stage, {}).setdefault(row.judge, {})[row.group] = figures
    return rates


def _timing(benchmarks: Path) -> dict[str, float]:
    """Read the wall seconds of each job from Snakemake's benchmark files."""
    return {
        path.relative_to(benchmarks).with_suffix("").as_posix(): float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        for path in sorted(benchmarks.rglob("*.tsv"))
    }
