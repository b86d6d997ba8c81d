"""Success rates of the planned edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.runtime.files import read_json, write_json


def evaluate_edits(
    *,
    candidates: list[Path],
    plan: Path,
    referee_scores: Path,
    summary: Path,
    edits: Path,
) -> None:
    """Count how many planned edits succeeded by the selector, which chose them, and by the referee.

    Args:
        candidates: the tables of all shards.
        plan: the table of edits.
        referee_scores: the referee's scores of the rebalanced set.
        summary: the plan's JSON.
        edits: JSON to write.
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
