"""Rates and group gaps of every image set, and the agreement of the detectors on them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config import Detectors, Evaluate, Rebalance
from pipeline_lib.data.tables import attribute_columns, read_table, write_table
from pipeline_lib.evaluation.rates import corrected_rows, estimate_json, gap, rate_rows
from pipeline_lib.rebalance.estimate import DetectorError, Estimate, Observed, correct_gap, measure_errors
from pipeline_lib.rebalance.groups import group_name, holds_of, in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import digest_of, write_json

logger = logging.getLogger(__name__)


def evaluate_bias(
    *,
    truth: Path,
    rebalanced_truth: list[Path],
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
    """Measure rates and group gaps of every image set by each source of labels, and the detectors' agreement.

    Images of which a label is unknown do not count.

    The sources of labels, called judges in the tables, are ground truth (for the original dataset, and for the
    rebalanced one where the truth of its edits is known), the selector, the referee, and the referee corrected for its
    error on held-out images. Each source also determines the groups.

    Args:
        truth: labels of the original dataset.
        rebalanced_truth: labels of the rebalanced dataset, by `evaluate_counterfactuals`; empty if they are unknown.
        held_out_truth: labels of the held-out set.
        held_out_referee: the referee's scores of the held-out set.
        selector: the selector's scores, a table for each image set, under its name.
        referee: the referee's scores, likewise.
        targets: the config section with groups and attributes.
        detectors: the config section with the required agreement.
        settings: the config section of the evaluation.
        run: name of the run, stored in the file.
        seed: seed of the run.
        bias: table to write.
        gaps: JSON {attribute: {stage: {judge: {"value", "ci": [low, high]}}}} to write, of the attributes with targets
            in two groups.
        agreement: JSON {stage: {attribute: share of images on which the detectors agree}} to write.
    """
    judged = {("dataset", "truth"): _holds(read_table(truth, "labels"), "labels")}
    if rebalanced_truth:
        judged["dataset_rebalanced", "truth"] = _holds(read_table(*rebalanced_truth, "labels"), "labels")
    stages, by_selector = [path.stem for path in referee], {path.stem: path for path in selector}
    for stage, path in zip(stages, referee, strict=True):
        judged[stage, "selector"] = _holds(read_table(by_selector[stage], "scores"), "scores")
        judged[stage, "referee"] = _holds(read_table(path, "scores"), "scores")

    rows: list[pd.DataFrame] = []
    found_gaps: dict[str, dict[str, dict[str, object]]] = {
        attribute: {stage: {} for stage in stages} for attribute in targets.compared
    }
    for attribute in targets.edited:
        wheres = {group_name(target.where): target.where for target in targets.alone(attribute).targets}
        errors = _referee_errors(held_out_truth, held_out_referee, attribute, wheres)
        for (stage, judge), holds in judged.items():
            has = holds[attribute] == 1
            known = ~np.isnan(holds[attribute])
            groups = {name: in_group(holds, where) & known for name, where in wheres.items()}
            tables = {judge: rate_rows(stage, judge, attribute, has, groups, settings.confidence)}
            if judge == "referee":
                tables["corrected"] = corrected_rows(
                    stage, attribute, has, groups, errors, settings.confidence, settings.resamples, seed
                )
            rows += tables.values()
            if attribute not in found_gaps:
                continue
            found_gaps[attribute][stage][judge] = _gap_of(tables[judge])
            if judge == "referee":
                found_gaps[attribute][stage]["corrected"] = _corrected_gap(stage, has, groups, errors, settings, seed)
    agreed = {stage: _agreement(judged[stage, "selector"], judged[stage, "referee"]) for stage in stages}
    for stage, attribute in itertools.product(stages, targets.edited):
        if agreed[stage][attribute] < detectors.least_agreement:
            logger.warning(
                "the detectors agree on `%s` in %.3f of `%s`, less than %s; gaps of this set do not count",
                attribute, agreed[stage][attribute], stage, detectors.least_agreement,
            )  # fmt: skip
    digest = digest_of([targets.model_dump(), settings.model_dump()])
    write_table(bias, "bias", pd.concat(rows, ignore_index=True), {"run": run, "config_digest": digest})
    write_json(gaps, found_gaps)
    write_json(agreement, agreed)


def _holds(table: pd.DataFrame, kind: str) -> dict[str, np.ndarray]:
    return holds_of(table, attribute_columns(table, kind))


def _referee_errors(
    truth: Path, scores: Path, attribute: str, wheres: Mapping[str, Mapping[str, bool]]
) -> dict[str, DetectorError]:
    """Measure the referee's error in each of its groups on the held-out images that it was not calibrated on."""
    labels = read_table(truth, "labels").iloc[1::2]
    known = labels[attribute].notna().to_numpy()
    said = _holds(read_table(scores, "scores").iloc[1::2][known], "scores")
    groups = {name: in_group(said, where) for name, where in wheres.items()}
    has = labels.loc[known, attribute].to_numpy(bool)
    return measure_errors(has, said[attribute] == 1, groups, fall_back_to_pooled=True)


def _gap_of(table: pd.DataFrame) -> dict[str, object]:
    first, second = (Estimate(row.rate, row.ci_low, row.ci_high) for row in table.iloc[:2].itertuples())
    return estimate_json(gap(first, second))


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
    return estimate_json(correct_gap(first, second, settings.confidence, settings.resamples, rng))


def _agreement(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float((first[name] == second[name]).mean()) for name in first}
