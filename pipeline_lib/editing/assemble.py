"""Assembly of the rebalanced set from unchanged images and composites."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.data.shards import count_images, iterate_shards, read_shards, shard_writer
from pipeline_lib.data.tables import attribute_columns, read_table, write_table
from pipeline_lib.rebalance.groups import holds_of
from pipeline_lib.rebalance.plan import made_edits
from pipeline_lib.rebalance.resample import draw_at_rates
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.revisions import stage

AT_A_TIME = 4096  # images that are held in memory


@stage(revision=3)
def assemble_rebalanced(
    *,
    images: list[Path],
    composites: list[Path],
    plan: Path,
    truth: list[Path],
    settings: Rebalance,
    run: str,
    rebalanced: list[Path],
    labels: Path,
) -> None:
    """Replace edited images by their composites.

    Args:
        images: shards of the original image set.
        composites: shards of the chosen composites.
        plan: its table of edits, by which spare composites are used only in the place of failed ones.
        truth: label table of the set; empty if ground truth is unknown.
        settings: the config section, with what the regions can show.
        run: name of the run, stored in the files.
        rebalanced: shards to write, one for each of `images`.
        labels: table to write, with flags for edited images and the labels. Of an edited image those that
            its region can show are null, because the target of an edit is not ground truth, and the others are as
            before.
    """
    succeeded, edits = _by_name(composites), read_table(plan, "plan")
    if unplanned := succeeded.keys() - set(edits["image_id"]):
        raise DataError(f"{composites[0]}: composites of images that are not in {plan}, such as {min(unplanned)}")
    edited = {name: succeeded[name] for name in made_edits(edits, succeeded)["image_id"]}
    known = read_table(truth[0], "labels") if truth else None
    attributes = attribute_columns(known, "labels") if known is not None else []
    names = replace_images(images, rebalanced, edited, run)
    table = pd.DataFrame({"image_id": names, "edited": [name in edited for name in names]})
    strangers = edited.keys() - set(names)
    if strangers:
        raise DataError(f"{composites[0]}: composites of images that are not in the set, such as {min(strangers)}")
    if known is not None:
        table = table.merge(known[["image_id", *attributes]], on="image_id", validate="one_to_one")
        table[attributes] = table[attributes].astype("boolean")
        for attribute, own in edits[edits["image_id"].isin(list(edited))].groupby("attribute")["image_id"]:
            lost = [name for name in attributes if not settings.carries(attribute, name)]
            table.loc[table["image_id"].isin(own), lost] = pd.NA
    write_table(labels, "assembled", table, {"run": run})


def replace_images(
    images: list[Path], replaced: list[Path], replacements: Mapping[str, np.ndarray], run: str
) -> list[str]:
    """Copy the shards of an image set with some images replaced.

    Args:
        images: shards of the set.
        replaced: shards to write, one for each of `images`.
        replacements: the new pixels of some images by their names, uint8 (H, W, 3).
        run: name of the run, stored in the files.

    Returns:
        The names of all images, in order.
    """
    found = []
    for source, target in zip(images, replaced, strict=True):
        with ExitStack() as stack:
            writer = None
            for names, pixels in iterate_shards([source]):
                if writer is None:
                    writer = stack.enter_context(shard_writer(target, pixels.shape[1], {"run": run}))
                new = pixels.copy()
                for place, name in enumerate(names):
                    if name in replacements:
                        new[place] = replacements[name]
                writer.add(names, new)
                found += names
    return found


@stage(revision=3)
def resample_dataset(
    *, images: list[Path], table: Path, targets: list[RateRule], run: str, seed: int, resampled: list[Path]
) -> None:
    """Write the original images, drawn anew so that they have the target rates without any edit.

    Args:
        images: shards of the dataset.
        table: its label table.
        targets: target rates.
        run: name of the run, stored in the files.
        seed: seed of the run.
        resampled: shards to write. The second copy of an image has its name with `-2`, and so on.
    """
    rows = read_table(table, "labels")
    holds = holds_of(rows, attribute_columns(rows, "labels"))
    drawn = rows["image_id"].to_numpy()[draw_at_rates(holds, targets, seed)]
    names, pixels = read_shards(images)
    position = {name: number for number, name in enumerate(names)}
    copies = pd.Series(drawn).groupby(drawn).cumcount().to_numpy()
    for path, places in zip(resampled, np.array_split(np.arange(len(drawn)), len(resampled)), strict=True):
        with shard_writer(path, pixels.shape[1], {"run": run}) as writer:
            for some in np.array_split(places, max(1, len(places) // AT_A_TIME)):
                named = [f"{drawn[place]}-{copies[place] + 1}" if copies[place] else drawn[place] for place in some]
                writer.add(named, pixels[[position[name] for name in drawn[some]]])


def _by_name(shards: list[Path]) -> dict[str, np.ndarray]:
    """Return the images of shards by their names."""
    return dict(zip(*read_shards(shards), strict=True)) if count_images(shards) else {}
