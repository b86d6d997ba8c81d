"""Rates and group gaps of image sets by each source of labels, and the agreement of the detectors on them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.estimate import Estimate, Interval, cohens_kappa, estimate_json, wilson_rate
from pipeline_lib.config import Evaluate, Rebalance
from pipeline_lib.data.tables import attribute_columns, is_for_calibration, read_table
from pipeline_lib.evaluation.detector_error import DetectorError, Observed, correct_gap, correct_rate, measure_errors
from pipeline_lib.evaluation.rates import gap_of_counts, group_gap
from pipeline_lib.evaluation.results import Kappa, Rate
from pipeline_lib.rebalance.groups import group_name, holds_of, in_group
from pipeline_lib.runtime import seeding

logger = logging.getLogger(__name__)


def read_answers(path: Path, kind: str) -> pd.DataFrame:
    """Return whether each image of a table has each attribute, nullable, by image and in the order of their names."""
    table = read_table(path, kind)
    rows = table.set_index("image_id")[attribute_columns(table, kind)].sort_index()
    return rows.astype("boolean") if kind == "labels" else (rows > 0.5).astype("boolean")


def measure_bias(
    answers: Mapping[tuple[str, str], pd.DataFrame],
    held_out: tuple[pd.DataFrame, pd.DataFrame],
    targets: Rebalance,
    least_agreement: float,
    settings: Evaluate,
    seed: int,
) -> dict[str, dict]:
    """Return rates, gaps, agreement and kappa, as `ImageSets` has them.

    Args:
        answers: which attributes images have, by image set and source of labels, by `read_answers`.
        held_out: likewise of held-out images, their labels and the referee's answers.
        targets: the config section with groups and attributes.
        least_agreement: share of the images on which the detectors must agree.
        settings: the config section of the evaluation.
        seed: seed of the run.
    """
    stages = [name for name, source in answers if source == "referee"]
    rates, gaps, kappas = {}, {}, {name: {} for name in stages}
    for attribute in targets.edited:
        rules = targets.alone(attribute).targets
        wheres = {group_name(rule.where): rule.where for rule in rules}
        errors = _referee_errors(*held_out, attribute, wheres)
        rates[attribute], counts = {}, {}
        for (name, source), found in answers.items():
            holds = holds_of(found, list(found))
            has, known = holds[attribute] == 1, ~np.isnan(holds[attribute])
            groups = {group: in_group(holds, where) & known for group, where in wheres.items()}
            seen = {group: (int((has & inside).sum()), int(inside.sum())) for group, inside in groups.items()}
            counts[name, source] = [*seen.values()]
            of_sources = rates[attribute].setdefault(name, {})
            of_sources[source] = {
                group: _rate(wilson_rate(*count, settings.confidence), count) for group, count in seen.items()
            }
            if source == "referee":
                of_sources["corrected"] = _corrected_rates(seen, errors, settings, seed, (name, attribute))
                first = answers[name, "selector"][attribute].to_numpy(bool)
                kappas[name][attribute] = {
                    group: _kappa(first[inside], has[inside]) for group, inside in groups.items()
                }
        if attribute in targets.compared:
            wanted, is_first = [rule.rate for rule in rules], attribute == targets.compared[0]
            gaps[attribute] = {name: {} for name in stages}
            for (name, source), seen in counts.items():
                gaps[attribute][name][source] = Interval.of(gap_of_counts(seen, wanted, settings.confidence))
                if source == "referee":
                    observed = [Observed(*count, error) for count, error in zip(seen, errors.values(), strict=True)]
                    stream = (name,) if is_first else (name, attribute)
                    gaps[attribute][name]["corrected"] = corrected_gap(observed, wanted, settings, seed, stream)
    agreement = {name: _agreement(answers[name, "selector"], answers[name, "referee"]) for name in stages}
    for name, attribute in itertools.product(stages, targets.edited):
        if agreement[name][attribute] < least_agreement:
            logger.warning(
                "the detectors agree on `%s` in %.3f of `%s`, less than %s; gaps of this set do not count",
                attribute, agreement[name][attribute], name, least_agreement,
            )  # fmt: skip
    return {"rate": rates, "gap": gaps, "agreement": agreement, "kappa": kappas}


def _rate(estimate: Estimate, count: tuple[int, int]) -> Rate:
    return Rate(**estimate_json(estimate), n=count[1])


def _corrected_rates(
    seen: Mapping[str, tuple[int, int]],
    errors: Mapping[str, DetectorError],
    settings: Evaluate,
    seed: int,
    stream: Sequence[str],
) -> dict[str, Rate]:
    """Return the rate of each group corrected for the detector's error, by random numbers of a stream of that name."""
    found = {}
    for group, count in seen.items():
        rng = seeding.numpy_generator(seed, "corrected", *stream, group)
        observed = Observed(*count, errors[group])
        found[group] = _rate(correct_rate(observed, settings.confidence, settings.resamples, rng), count)
    return found


def corrected_gap(
    observed: Sequence[Observed], wanted: Sequence[float], settings: Evaluate, seed: int, stream: Sequence[str]
) -> Interval:
    """Return the gap corrected for the detector's error, by random numbers of a stream of that name.

    Args:
        observed: what the detector says of each group.
        wanted: target rate of each group.
        settings: the config section of the evaluation.
        seed: seed of the run.
        stream: name of the stream.
    """
    draws = settings.resamples * comb(len(observed), 2)  # so that the tails of `group_gap` hold as many for each pair

    def gap_of(one: int, other: int, level: float) -> Estimate:
        rng = seeding.numpy_generator(seed, "corrected gap", *stream)
        return correct_gap(observed[one], observed[other], level, draws, rng)

    return Interval.of(group_gap(gap_of, wanted, settings.confidence))


def _referee_errors(
    truth: pd.DataFrame, said: pd.DataFrame, attribute: str, wheres: Mapping[str, Mapping[str, bool]]
) -> dict[str, DetectorError]:
    """Measure the referee's error in each of its groups on the held-out images that it was not calibrated on."""
    shows = truth.loc[said.index[~is_for_calibration(said.index)], attribute].dropna()
    holds = holds_of(said.loc[shows.index], list(said))
    groups = {name: in_group(holds, where) for name, where in wheres.items()}
    return measure_errors(shows.to_numpy(bool), holds[attribute] == 1, groups)


def _agreement(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    return {name: float((first[name] == second[name]).mean()) for name in first}


def _kappa(first: np.ndarray, second: np.ndarray) -> Kappa:
    agree, kappa = cohens_kappa(first, second)
    return Kappa(n=len(first), agree=agree, kappa=kappa)
