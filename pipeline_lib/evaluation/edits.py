"""What the edits of an image set cost, whether they succeeded, what they changed besides, and what gives them away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline_lib.config import Evaluate, RateRule, Rebalance
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.evaluation.leakage import cells_of, crop_of, measure_leakage
from pipeline_lib.evaluation.results import Change, EditedSet, Edits, EditsOfTarget
from pipeline_lib.rebalance.groups import attributes_of, group_name
from pipeline_lib.rebalance.plan import made_edits, needed_edits
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.revisions import stage


@dataclass(frozen=True)
class Files:
    """Files of an image set that was edited.

    Attributes:
        candidates: the tables of all shards.
        plan: the table of edits.
        summary: the plan's JSON.
        parts: table of parts of the original set.
        before: the referee's scores of the original set.
        images: shards of the rebalanced set.
        labels: its table of kind `assembled`, with the flag of edited images.
        selector: the selector's scores of the rebalanced set.
        referee: the referee's scores of the rebalanced set.
    """

    candidates: list[Path]
    plan: Path
    summary: Path
    parts: Path
    before: Path
    images: list[Path]
    labels: Path
    selector: Path
    referee: Path


@stage(revision=4)
def evaluate_edits(
    *, files: Files, settings: Rebalance, evaluate: Evaluate, seed: int, edits: Path, device: torch.device
) -> None:
    """Count how many planned edits of an image set succeeded, and how well a classifier finds the edited images.

    Args:
        files: what is measured.
        settings: the config section of the edits.
        evaluate: the config section of the evaluation.
        seed: seed of the run.
        edits: JSON to write.
        device: where to compute.
    """
    before, referee, selector = (
        read_table(path, "scores").set_index("image_id") for path in (files.before, files.referee, files.selector)
    )
    names, pixels = read_shards(files.images)
    edited = read_table(files.labels, "assembled").set_index("image_id").loc[names, "edited"].to_numpy(bool)
    cells = cells_of(selector.loc[names] > 0.5, referee.loc[names] > 0.5, settings)
    crop = crop_of(settings.regions_by_attribute.values(), files.parts, pixels.shape[1])
    candidates, plan = read_tables(files.candidates, "candidates"), read_table(files.plan, "plan")
    targets = read_json(files.summary)["targets"]
    EditedSet(
        edits=count_edits(candidates, plan, before, referee, targets, settings),
        leakage=measure_leakage(pixels, edited, cells, crop, evaluate, seed, device),
    ).write(edits)


def count_edits(
    candidates: pd.DataFrame,
    plan: pd.DataFrame,
    before: pd.DataFrame,
    after: pd.DataFrame,
    targets: list[dict],
    settings: Rebalance,
) -> Edits:
    """Count the edits that succeeded by the selector, which chose them, and by the referee.

    Spare edits are counted only as `replaced`, where they took the place of failed ones. The referee also says in how
    many of the edited images the group is what it was before.

    Args:
        candidates: table of candidates.
        plan: table of edits, spare ones included.
        before: the referee's scores of the images, by image.
        after: the referee's scores of the rebalanced images, by image.
        targets: what was planned for each target.
        settings: the config section of the edits.
    """
    made = made_edits(plan, set(candidates.loc[candidates["chosen"], "image_id"]))
    planned = needed_edits(plan)
    tried = candidates[candidates["image_id"].isin(planned["image_id"])]
    chosen = tried[tried["chosen"]].merge(planned[["image_id", "attribute", "wanted"]], on="image_id")
    held, holds = (scores.loc[chosen["image_id"]] > 0.5 for scores in (before, after))
    confirmed, unchanged = (np.zeros(len(chosen), bool) for _ in range(2))
    for attribute in settings.edited:
        own = (chosen["attribute"] == attribute).to_numpy()
        confirmed[own] = holds.loc[own, attribute].to_numpy() == chosen.loc[own, "wanted"].to_numpy()
        others = [name for name in attributes_of(settings.targets) if name != attribute]
        unchanged[own] = (held.loc[own, others] == holds.loc[own, others]).all(axis=1)
    succeeded = int(confirmed.sum())
    return Edits(
        planned=len(planned),
        candidates=len(tried),
        candidates_successful=int(tried["success"].sum()),
        succeeded_by_selector=len(chosen),
        replaced=len(made) - len(chosen),
        succeeded_by_referee=succeeded,
        share_by_selector=len(chosen) / max(1, len(planned)),
        share_by_referee=succeeded / max(1, len(planned)),
        share_in_their_group_by_referee=_share(unchanged),
        masked_l1=_share(chosen["masked_l1"]),
        targets=targets,
        ledger=ledger_of(candidates, planned, made, before, after, settings.targets),
    )


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
