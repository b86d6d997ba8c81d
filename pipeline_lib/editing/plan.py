"""The stages that plan edits: of the dataset by its labels, of samples by the selector's scores, and sham ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.labels import count_successes
from pipeline_lib.config import BoxRegion, PartRegion, Rebalance
from pipeline_lib.data.tables import attribute_columns, read_table, write_table
from pipeline_lib.rebalance.groups import holds_of
from pipeline_lib.rebalance.plan import choose_edits, refuse_small_groups, refuse_without_donors
from pipeline_lib.runtime.files import digest_of, write_json
from pipeline_lib.runtime.revisions import stage


@stage(revision=2)
def plan_edits(
    *,
    table: Path,
    kind: str,
    editable: Path,
    audit: list[Path],
    settings: Rebalance,
    learnt: bool,
    run: str,
    seed: int,
    name: str,
    plan: Path,
    summary: Path,
) -> None:
    """Plan the edits of one image set.

    An image of which a target's attribute or a condition is unknown is neither counted nor edited for that target.

    Args:
        table: ground truth labels of the set, or the selector's scores if ground truth is unknown.
        kind: "labels" or "scores".
        editable: table of parts; only images that have a region's part can be edited there.
        audit: CSV files with labels of earlier edits; empty if all edits are taken to succeed.
        settings: the config section.
        learnt: whether the selector is trained on the dataset.
        run: name of the run, stored in the file.
        seed: seed of the run.
        name: name of the image set, for the random stream.
        plan: table to write, one row per edit.
        summary: JSON of counts by target to write.

    Raises:
        DataError: a group of a dataset is too small, an edit has no donor, a rate cannot be reached, or the audit
            cannot be used.
    """
    rows = read_table(table, kind)
    attributes = attribute_columns(rows, kind)
    holds = holds_of(rows, attributes)
    if kind == "labels":  # of samples there can be as many as one likes
        refuse_small_groups(holds, settings.targets, name)
    may_change = {
        attribute: _has_part(rows["image_id"], region, editable)
        for attribute, region in settings.regions_by_attribute.items()
    }
    if kind == "labels":
        refuse_without_donors(holds, settings, name, may_change, learnt)
    audited = count_successes(audit, rows["image_id"], holds, settings) if audit else None
    chosen, counts = choose_edits(holds, may_change, settings.targets, seed, name, settings.spares, audited)
    if not settings.spares:
        chosen = chosen.drop(columns="spare")
    chosen.insert(0, "image_id", rows["image_id"].to_numpy()[chosen["position"]])
    write_table(plan, "plan", chosen, {"run": run, "config_digest": digest_of(settings.model_dump())})
    write_json(summary, {"images": len(rows), "edits": sum(found["edits"] for found in counts), "targets": counts})


def _has_part(names: pd.Series, region: PartRegion | BoxRegion, editable: Path) -> np.ndarray:
    """Return which images can be edited in a region, bool (n,): those that have its part, and with a box all."""
    if region.kind != "part":
        return np.ones(len(names), bool)
    parts = read_table(editable, "parts", columns=["image_id", "part"])
    return names.isin(parts.loc[parts["part"].isin(region.parts), "image_id"]).to_numpy()


@stage(revision=1)
def plan_sham(*, plan: Path, run: str, sham: Path) -> None:
    """Plan sham edits: of the same images, to the value that they have already, which cost as much and balance nothing.

    Args:
        plan: table of edits.
        run: name of the run, stored in the file.
        sham: table to write.
    """
    edits = read_table(plan, "plan")
    write_table(sham, "plan", edits.assign(wanted=~edits["wanted"].astype(bool)), {"run": run})
