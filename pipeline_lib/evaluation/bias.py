"""Rates and group gaps of every image set, and the agreement of the detectors on them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.estimate import Estimate, cohens_kappa, estimate_json, wilson_rate
from pipeline_lib.config import Detectors, Evaluate, Rebalance
from pipeline_lib.data.tables import attribute_columns, is_for_calibration, read_table, write_table
from pipeline_lib.evaluation.detector_error import DetectorError, Observed, correct_gap, measure_errors
from pipeline_lib.evaluation.rates import corrected_rows, gap, group_gap, rate_rows, truth_counts
from pipeline_lib.rebalance.groups import group_name, holds_of, in_group
from pipeline_lib.runtime import revisions, seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, write_json

logger = logging.getLogger(__name__)


@revisions.stage(revision=6)
def evaluate_bias(
    *,
    truth: Path,
    rebalanced_truth: list[Path],
    checked: list[Path],
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
    kappa: Path,
) -> None:
    """Measure rates and group gaps of every image set by each source of labels, and the detectors' agreement.

    Images of which a label is unknown do not count.

    The sources of labels, called judges in the tables, are ground truth (for the original dataset, and for the
    rebalanced one where the truth of its edits is known), the selector, the referee, and the referee corrected for its
    error on held-out images. Each source also determines the groups.

    Args:
        truth: labels of the original dataset.
        rebalanced_truth: labels of the rebalanced dataset, by `evaluate_counterfactuals`; empty if they are unknown.
        checked: JSON of it, which says whether they count; likewise.
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
        kappa: JSON {stage: {attribute: {group: {"n", "agree", "kappa"}}}} to write, with the images of each group by
            the referee, those on which the detectors agree, and Cohen's kappa; null where both answer alike of all.
    """
    judged = {("dataset", "truth"): _holds(truth, "labels")}
    if rebalanced_truth and truth_counts(*checked):
        judged["dataset_rebalanced", "truth"] = _holds(*rebalanced_truth, "labels")
    stages, by_selector = [path.stem for path in referee], {path.stem: path for path in selector}
    for stage, path in zip(stages, referee, strict=True):
        judged[stage, "selector"] = _holds(by_selector[stage], "scores")
        judged[stage, "referee"] = _holds(path, "scores")
        if not judged[stage, "selector"].index.equals(judged[stage, "referee"].index):
            raise DataError(f"{path}: scores of other images than {by_selector[stage]}; run the workflow again")
    held_out = _holds(held_out_truth, "labels"), _holds(held_out_referee, "scores")

    rows: list[pd.DataFrame] = []
    found_gaps: dict[str, dict[str, dict[str, object]]] = {
        attribute: {stage: {} for stage in stages} for attribute in targets.compared
    }
    by_group: dict[str, dict[str, dict[str, object]]] = {stage: {} for stage in stages}
    for attribute in targets.edited:
        rules = targets.alone(attribute).targets
        wheres, wanted = {group_name(rule.where): rule.where for rule in rules}, [rule.rate for rule in rules]
        errors = _referee_errors(*held_out, attribute, wheres)
        for (stage, judge), found in judged.items():
            holds = holds_of(found, list(found))
            has, known = holds[attribute] == 1, ~np.isnan(holds[attribute])
            groups = {name: in_group(holds, where) & known for name, where in wheres.items()}
            tables = {judge: rate_rows(stage, judge, attribute, has, groups, settings.confidence)}
            if judge == "referee":
                tables["corrected"] = corrected_rows(
                    stage, attribute, has, groups, errors, settings.confidence, settings.resamples, seed
                )
            rows += tables.values()
            if judge == "referee":
                by_group[stage][attribute] = _agreement_by_group(judged[stage, "selector"][attribute], has, groups)
            if attribute not in found_gaps:
                continue
            observed = [
                Observed(int((has & inside).sum()), int(inside.sum()), errors[name]) for name, inside in groups.items()
            ]
            found_gaps[attribute][stage][judge] = _gap_of(observed, wanted, settings)
            if judge == "referee":
                stream = (stage,) if attribute == targets.compared[0] else (stage, attribute)
                found_gaps[attribute][stage]["corrected"] = _corrected_gap(observed, wanted, settings, seed, stream)
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
    write_json(kappa, by_group)


def _holds(path: Path, kind: str) -> pd.DataFrame:
    """Return whether each image of a table has each attribute, nullable, by image and in the order of their names."""
    table = read_table(path, kind)
    rows = table.set_index("image_id")[attribute_columns(table, kind)].sort_index()
    return rows.astype("boolean") if kind == "labels" else (rows > 0.5).astype("boolean")


def _referee_errors(
    truth: pd.DataFrame, said: pd.DataFrame, attribute: str, wheres: Mapping[str, Mapping[str, bool]]
) -> dict[str, DetectorError]:
    """Measure the referee's error in each of its groups on the held-out images that it was not calibrated on."""
    shows = truth.loc[said.index[~is_for_calibration(said.index)], attribute].dropna()
    holds = holds_of(said.loc[shows.index], list(said))
    groups = {name: in_group(holds, where) for name, where in wheres.items()}
    return measure_errors(shows.to_numpy(bool), holds[attribute] == 1, groups, fall_back_to_pooled=True)


def _gap_of(observed: Sequence[Observed], wanted: Sequence[float], settings: Evaluate) -> dict[str, object]:
    """Return the gap between groups whose target rates are `wanted`, by what is observed of each."""

    def gap_of(one: int, other: int, level: float) -> Estimate:
        return gap(*(wilson_rate(observed[number].positives, observed[number].n, level) for number in (one, other)))

    return estimate_json(group_gap(gap_of, wanted, settings.confidence))


def _corrected_gap(
    observed: Sequence[Observed], wanted: Sequence[float], settings: Evaluate, seed: int, stream: Sequence[str]
) -> dict[str, object]:
    """Return the gap corrected for the detector's error, by draws of random numbers of a stream of that name."""
    draws = settings.resamples * comb(len(observed), 2)  # so that the tails of `group_gap` hold as many for each pair

    def gap_of(one: int, other: int, level: float) -> Estimate:
        rng = seeding.numpy_generator(seed, "corrected gap", *stream)
        return correct_gap(observed[one], observed[other], level, draws, rng)

    return estimate_json(group_gap(gap_of, wanted, settings.confidence))


def _agreement(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    return {name: float((first[name] == second[name]).mean()) for name in first}


def _agreement_by_group(
    first: pd.Series, second: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name, inside in groups.items():
        agree, kappa = cohens_kappa(first.to_numpy(bool)[inside], second[inside])
        found[name] = {"n": int(inside.sum()), "agree": agree, "kappa": kappa}
    return found
