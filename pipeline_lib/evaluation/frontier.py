"""What other choices among the candidates of a run would have given: the group gap against realism, by the referee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.config import Rebalance
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.editing.replay import choose_again
from pipeline_lib.rebalance.groups import counts_for, holds_of, target_gap
from pipeline_lib.rebalance.judged import confirmed, read_judged, seen_by_referee
from pipeline_lib.rebalance.plan import made_edits, needed_edits
from pipeline_lib.runtime.errors import UnansweredError
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import stage

THRESHOLDS = (0.8, 0.95)
REALISM = ("seam", "masked_l1")  # columns of the table of candidates that compare pixels


@stage(revision=2)
def evaluate_frontier(
    *,
    candidates: list[Path],
    judged: list[Path],
    plan: Path,
    labels: Path,
    settings: Rebalance,
    frontier: Path,
) -> None:
    """Measure what the dataset would have become by other choices among the candidates of its edits.

    Each choice differs from the run's own in one rule: fewer candidates, another threshold or way to choose, or no
    veto. It is made from the tables alone. What its edits show is said by the referee, never by the selector that chose
    them. Unedited images count by their labels, and not at all where one is unknown.

    Args:
        candidates: the tables of candidates of all shards.
        judged: the referee's scores of them.
        plan: the table of edits.
        labels: label table of the dataset before the edits.
        settings: the config section of the run.
        frontier: JSON to write, with an entry for each choice, the run's own first, and the reason of each choice that
            the tables cannot answer.

    Raises:
        DataError: the referee's scores are missing, or are of other candidates.
    """
    found, edits, before = read_tables(candidates, "candidates"), read_table(plan, "plan"), read_table(labels, "labels")
    scores = read_judged(judged, found)
    entries = [{"rule": "own", "value": None, **measure_choice(found, scores, edits, before, settings)}]
    refused = {}
    for rule, value in other_rules(found, settings):
        try:
            chosen = choose_again(found, edits, settings, **{rule: value})
        except UnansweredError as error:
            refused[rule] = str(error)
        else:
            entries.append({"rule": rule, "value": value, **measure_choice(chosen, scores, edits, before, settings)})
    wanted = target_gap(settings.first_attribute().targets)
    write_json(frontier, {"target_gap": wanted, "choices": entries, "refused": refused})


def other_rules(candidates: pd.DataFrame, settings: Rebalance) -> list[tuple[str, Any]]:
    """Return the names and values of the rules that choices differ in; the names are arguments of `replay`."""
    if candidates.empty:
        return []
    tried = int(candidates["candidate"].max()) + 1
    fewer = [2**power for power in range(tried.bit_length()) if 2**power < tried]
    return [
        *(("candidates", count) for count in fewer),
        *(("threshold", threshold) for threshold in THRESHOLDS),
        ("choose", "strongest" if settings.edit.choose == "seam" else "seam"),
        ("veto", False),
    ]


def measure_choice(
    chosen: pd.DataFrame, judged: pd.DataFrame, plan: pd.DataFrame, labels: pd.DataFrame, settings: Rebalance
) -> dict[str, Any]:
    """Return the figures of one choice.

    - `edits` counts the edits that are needed, `made` those that are made, spares included, and `confirmed` those of
      them that the referee finds to have the wanted value in their group.
    - `gap` is the group gap in the dataset with these edits; None if a group is empty, or of a single target.
    - `distance` is the absolute difference of that gap from the target gap, or of a single target's rate from it.
    - `seam` and `masked_l1` are means over the edits that are made; None if there is none.

    Args:
        chosen: table of candidates with the choice.
        judged: the referee's scores of all candidates.
        plan: the table of edits.
        labels: label table of the dataset before the edits.
        settings: the config section of the run.
    """
    taken = chosen[chosen["chosen"]]
    made = made_edits(plan, set(taken["image_id"]))[["image_id", "target", "wanted"]]
    made = made.merge(taken[["image_id", "candidate", *REALISM]], on="image_id")
    seen = seen_by_referee(made, judged)
    rates, compared = [], settings.first_attribute().targets
    for target in compared:
        rows = labels.set_index("image_id")[[target.attribute, *target.where]].astype("boolean")
        rows.loc[seen.index] = seen[rows.columns]
        holds = holds_of(rows, list(rows))
        inside = counts_for(holds, target)
        rates.append(float((holds[target.attribute] == 1)[inside].mean()) if inside.any() else np.nan)
    away = np.array(rates) - [target.rate for target in compared]
    gap = rates[0] - rates[1] if len(rates) == 2 else np.ptp(away) if len(rates) > 2 else np.nan
    return {
        "edits": len(needed_edits(plan)),
        "made": len(made),
        "confirmed": int(confirmed(made, seen, settings.targets).sum()),
        "gap": _or_none(gap),
        "distance": _or_none(abs(away[0] if len(rates) == 1 else gap - target_gap(compared))),
        **{name: _or_none(made[name].mean()) for name in REALISM},
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
