"""Success rates of the planned edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_lib.config import Rebalance
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.evaluation.ledger import ledger_of
from pipeline_lib.evaluation.results import Edits
from pipeline_lib.rebalance.groups import attributes_of
from pipeline_lib.rebalance.plan import made_edits, needed_edits
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.revisions import stage


@stage(revision=3)
def evaluate_edits(
    *,
    candidates: list[Path],
    plan: Path,
    referee_scores: Path,
    scores_before: Path,
    summary: Path,
    settings: Rebalance,
    edits: Path,
) -> None:
    """Count how many planned edits succeeded by the selector, which chose them, and by the referee.

    Spare edits are counted only as `replaced`, where they took the place of failed ones.

    The referee also says in how many of the edited images the group is what it was before.

    Args:
        candidates: the tables of all shards.
        plan: the table of edits.
        referee_scores: the referee's scores of the rebalanced set.
        scores_before: the referee's scores of the original set.
        summary: the plan's JSON.
        settings: the config section of the edits.
        edits: JSON to write.
    """
    every, all_edits = read_tables(candidates, "candidates"), read_table(plan, "plan")
    made = made_edits(all_edits, set(every.loc[every["chosen"], "image_id"]))
    planned = needed_edits(all_edits)
    tried = every[every["image_id"].isin(planned["image_id"])]
    chosen = tried[tried["chosen"]].merge(planned[["image_id", "attribute", "wanted"]], on="image_id")
    all_before, all_scores = (
        read_table(path, "scores").set_index("image_id") for path in (scores_before, referee_scores)
    )
    before, scores = (table.loc[chosen["image_id"]] for table in (all_before, all_scores))
    confirmed, unchanged = (np.zeros(len(chosen), bool) for _ in range(2))
    for attribute in settings.edited:
        own = (chosen["attribute"] == attribute).to_numpy()
        confirmed[own] = (scores.loc[own, attribute] > 0.5).to_numpy() == chosen.loc[own, "wanted"].to_numpy()
        others = [name for name in attributes_of(settings.targets) if name != attribute]
        unchanged[own] = ((before.loc[own, others] > 0.5) == (scores.loc[own, others] > 0.5)).all(axis=1)
    held = int(confirmed.sum())
    Edits(
        planned=len(planned),
        candidates=len(tried),
        candidates_successful=int(tried["success"].sum()),
        succeeded_by_selector=len(chosen),
        replaced=len(made) - len(chosen),
        succeeded_by_referee=held,
        share_by_selector=len(chosen) / max(1, len(planned)),
        share_by_referee=held / max(1, len(planned)),
        share_in_their_group_by_referee=float(unchanged.mean()) if len(chosen) else None,
        masked_l1=float(chosen["masked_l1"].mean()) if len(chosen) else None,
        targets=read_json(summary)["targets"],
        ledger=ledger_of(every, planned, made, all_before, all_scores, settings.targets),
    ).write(edits)
