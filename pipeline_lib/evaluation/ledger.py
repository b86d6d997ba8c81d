"""What the edits of each target cost and changed besides what they were made for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule
from pipeline_lib.evaluation.results import Change, EditsOfTarget
from pipeline_lib.rebalance.groups import group_name


def ledger_of(
    candidates: pd.DataFrame,
    plan: pd.DataFrame,
    made: pd.DataFrame,
    before: pd.DataFrame,
    after: pd.DataFrame,
    targets: Sequence[RateRule],
) -> list[EditsOfTarget]:
    """Return an entry for each target.

    - `planned` counts the edits that are needed, and `made` those that were made, spares included.
    - `share_without_success` is that of the needed ones for which no candidate succeeded.
    - `share_confirmed` is that of the edits that were made in which the referee too sees the value that was wanted.
    - `share_vetoed` is that of the candidates that left their group by the selector, whatever their mouth showed.
    - `donors` counts the donors of the edits that were made; `effective_donors` is the number of equally used donors
      with the same concentration, 1 / sum p^2 (Hill 1973), and `most_uses` how often the most used one was taken.
    - `changed` is, for each other attribute, the share of the edits that were made in which the referee sees another
      value than before, with `towards`, the change of the attribute's rate.

    Args:
        candidates: table of candidates.
        plan: table of the edits that are needed.
        made: rows of the whole plan that were made, by `made_edits`.
        before: the referee's scores of the images, by image.
        after: the referee's scores of the rebalanced images, by image.
        targets: the target rates, by their numbers in the plan.
    """
    entries = []
    for number, target in enumerate(targets):
        planned = plan.loc[plan["target"] == number, "image_id"]
        tried = candidates[candidates["image_id"].isin(planned)]
        done = made[made["target"] == number].set_index("image_id")
        chosen = candidates[candidates["chosen"] & candidates["image_id"].isin(done.index)]
        uses = chosen["donor_id"].value_counts().to_numpy(float)
        others = [name for name in before.columns if name != target.attribute]
        held, holds = (scores.loc[chosen["image_id"], others] > 0.5 for scores in (before, after))
        wanted = done.loc[chosen["image_id"], "wanted"].to_numpy(bool)
        confirmed = (after.loc[chosen["image_id"], target.attribute].to_numpy() > 0.5) == wanted
        entries.append(
            EditsOfTarget(
                group=group_name(target.where),
                attribute=target.attribute,
                planned=len(planned),
                made=len(chosen),
                share_confirmed=_share(confirmed),
                share_without_success=_share(~tried.groupby("image_id")["success"].any()),
                share_successful=_share(tried["success"]),
                share_vetoed=_share(~tried["in_group"]),
                donors=len(uses),
                effective_donors=float(uses.sum() ** 2 / np.square(uses).sum()) if len(uses) else 0.0,
                most_uses=int(uses.max(initial=0)),
                changed={
                    name: Change(
                        share=float((held[name] != holds[name]).mean()),
                        towards=float(holds[name].mean() - held[name].mean()),
                    )
                    for name in (others if len(chosen) else ())
                },
            )
        )
    return entries


def _share(values: pd.Series | np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
