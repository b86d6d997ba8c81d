"""The choice among a run's candidates made again under other rules, from their tables alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline_lib.config import Edit, Rebalance
from pipeline_lib.data.shards import shards_in
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.editing.choice import choose_best, closest
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.rebalance.judged import confirmed, read_judged, seen_by_referee
from pipeline_lib.rebalance.plan import made_edits, needed_edits
from pipeline_lib.runtime.errors import DataError, UnansweredError


def replay(
    results: Path,
    name: str,
    settings: Rebalance,
    *,
    candidates: int | None = None,
    choose: Literal["seam", "strongest"] | None = None,
    threshold: float = 0.5,
    veto: bool = True,
) -> pd.DataFrame:
    """Choose again among the candidates of a run, by the selector's scores of them.

    Args:
        results: `results/<run>`.
        name: name of the image set, dataset or samples.
        settings: the config section of the run.
        candidates: number of candidates, at most that of the run; None: all of them.
        choose: rule of the choice; None: that of the run.
        threshold: probability of the target value from which on a candidate succeeds, in (0, 1).
        veto: whether a candidate that has left its group fails, as in the run.

    Returns:
        The table of candidates that are considered, with `success` and `chosen` as they would be.

    Raises:
        DataError: the tables are missing, or cannot answer this, see `choose_again`.
    """
    found = read_candidates(results, name)
    plan = read_table(results / "plan" / f"{name}.parquet", "plan")
    return choose_again(found, plan, settings, candidates=candidates, choose=choose, threshold=threshold, veto=veto)


def read_candidates(results: Path, name: str) -> pd.DataFrame:
    """Read the candidates of an image set of a run."""
    shards = shards_in(results / "swaps" / name, "candidates.parquet")
    if not shards:
        raise DataError(f"{results}/swaps/{name}: no candidates; run the workflow first, or correct the path")
    return read_tables(shards, "candidates")


def choose_again(
    found: pd.DataFrame,
    plan: pd.DataFrame,
    settings: Rebalance,
    *,
    candidates: int | None = None,
    choose: Literal["seam", "strongest"] | None = None,
    threshold: float = 0.5,
    veto: bool = True,
) -> pd.DataFrame:
    """Choose again among the candidates in a table; arguments and result are otherwise those of `replay`.

    Args:
        found: table of candidates of all shards.
        plan: table of edits.
        settings: the config section of the run.

    Raises:
        UnansweredError: the tables cannot answer this. They cannot if the run's own rules do not give the run's own
            choice: a GPU may choose by rounded scores, of which it keeps those of the others alone.
    """
    faces = found["image_id"].nunique()
    if not faces:
        return found
    tried = len(found) // faces
    count = tried if candidates is None else candidates
    if not 0 < count <= tried:
        raise UnansweredError(f"{count} candidates: the run tried {tried} for each face, and the others have no scores")
    if count < tried and settings.edit.pool is None:
        raise UnansweredError(
            f"{count} candidates: without `rebalance.edit.pool` that many draw other donors than {tried} do"
        )
    if settings.edit.refine:
        raise UnansweredError(
            "`rebalance.edit.refine`: scores of refined edits replaced those that they were chosen by"
        )
    wanted_of = plan.set_index("image_id")["wanted"]
    columns = {key: torch.tensor(found[key].to_numpy()).view(faces, tried) for key in ("logit", "in_group", "seam")}
    wanted = torch.tensor(wanted_of.loc[found["image_id"].to_numpy().reshape(faces, tried)[:, 0]].to_numpy(bool))
    strength = torch.where(wanted[:, None], columns["logit"], -columns["logit"])
    vetoed = strength.masked_fill(~columns["in_group"], -torch.inf)
    differing = int(
        (_choose(vetoed, columns["seam"], tried, 0.0, settings.edit)[1].flatten().numpy() != found["chosen"]).sum()
    )
    if differing:
        raise UnansweredError(
            f"tables of candidates: `rebalance` does not give the run's own choice for {differing} of them; the config "
            "is of another run, or a GPU chose by rounded scores, which are not stored"
        )
    rules = settings.edit if choose is None else settings.edit.model_copy(update={"choose": choose})
    least = math.log(threshold / (1 - threshold))
    success, chosen, considered = _choose(vetoed if veto else strength, columns["seam"], count, least, rules)
    again = found.assign(success=success.flatten().numpy(), chosen=chosen.flatten().numpy())
    return again[considered.flatten().numpy()].reset_index(drop=True)


def _choose(strength: Tensor, seam: Tensor, count: int, least: float, settings: Edit) -> tuple[Tensor, Tensor, Tensor]:
    """Return which candidates (faces, tried) succeed, are chosen, and are among the `count` with the least seam."""
    kept = closest(seam, settings.seam_tolerance)[:, :count].sort(dim=1).values
    best = kept.gather(1, choose_best(strength.gather(1, kept), seam.gather(1, kept), settings))
    success = strength > least
    chosen = torch.zeros_like(success).scatter_(1, best, success.gather(1, best))
    return success, chosen, torch.zeros_like(success).scatter_(1, kept, True)


def yields_of(
    results: Path, name: str, settings: Rebalance, chosen: pd.DataFrame, by_referee: bool = True
) -> pd.DataFrame:
    """Count for each target the edits that are needed, those that are made, spares included, and their donors.

    Args:
        results: `results/<run>`.
        name: name of the image set, dataset or samples.
        settings: the config section of the run.
        chosen: table of `replay`.
        by_referee: whether to add the share of the edits made that the referee confirms, in value and group.

    Raises:
        DataError: the referee's scores are missing, or are of other candidates.
    """
    plan = read_table(results / "plan" / f"{name}.parquet", "plan")
    made = made_edits(plan, set(chosen.loc[chosen["chosen"], "image_id"]))
    taken = chosen[chosen["chosen"]].merge(made[["image_id", "target", "wanted"]], on="image_id")
    if by_referee:
        shards = shards_in(results / "swaps" / name, "judged.parquet")
        judged = read_judged(shards, read_candidates(results, name))
        taken["confirmed"] = confirmed(taken, seen_by_referee(taken, judged), settings.targets)
    rows = []
    for number, target in enumerate(settings.targets):
        needed = int((needed_edits(plan)["target"] == number).sum())
        of_target = taken[taken["target"] == number]
        rows.append(
            {
                "group": group_name(target.where),
                "edits": needed,
                "made": len(of_target),
                "share": len(of_target) / needed if needed else np.nan,
                "mean seam": float(of_target["seam"].mean()),
                "donors": of_target["donor_id"].nunique(),
            }
            | ({"confirmed by referee": float(of_target["confirmed"].mean())} if by_referee else {})
        )
    return pd.DataFrame(rows)
