"""The referee's opinion of candidates, which nobody reads before the edits are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule
from pipeline_lib.data.tables import SCHEMAS, read_tables
from pipeline_lib.rebalance.groups import in_group
from pipeline_lib.runtime.errors import DataError

KEYS = SCHEMAS["judged"].names


def read_judged(paths: Sequence[Path], candidates: pd.DataFrame) -> pd.DataFrame:
    """Read the referee's scores of candidates.

    Args:
        paths: tables of all shards.
        candidates: table of candidates of the same shards.

    Returns:
        A row for each candidate, in the order of the table of candidates.

    Raises:
        DataError: the tables are missing, or are of other candidates.
    """
    if not paths:
        raise DataError(
            "no scores of the candidates by the referee (`swaps/*/*.judged.parquet`); run the workflow with "
            "`evaluate.judge_candidates: true`, or set it to false to do without them"
        )
    judged = read_tables(paths, "judged")
    if not judged[KEYS].equals(candidates[KEYS]):
        raise DataError(
            f"{paths[0].parent}: the referee scored other candidates than the tables of candidates hold; delete this "
            "folder and run the workflow again"
        )
    return judged


def seen_by_referee(edits: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Return whether each edit shows each attribute, by the referee.

    Args:
        edits: rows with `image_id` and `candidate`, such as those of chosen candidates.
        judged: the referee's scores of all candidates.

    Returns:
        A bool column for each attribute, in the order of the edits and with `image_id` as the index.
    """
    places = pd.MultiIndex.from_frame(edits[["image_id", "candidate"]])
    seen = judged.set_index(["image_id", "candidate"]).drop(columns="donor_id").loc[places] > 0.5
    return seen.droplevel("candidate")


def confirmed(edits: pd.DataFrame, seen: pd.DataFrame, targets: Sequence[RateRule]) -> np.ndarray:
    """Return which edits show the value that was wanted and are still in their group, bool (n,).

    Args:
        edits: rows of the plan.
        seen: whether each of them shows each attribute.
        targets: the target rates, by their numbers in the plan.
    """
    holds = {name: seen[name].to_numpy(bool) for name in seen}
    found = np.zeros(len(edits), bool)
    for number, target in enumerate(targets):
        right = in_group(holds, target.where) & (holds[target.attribute] == edits["wanted"].to_numpy(bool))
        found |= right & (edits["target"] == number).to_numpy()
    return found
