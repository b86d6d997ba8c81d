"""What a config says of its data, before anything is run: images, labels, groups, donors, and what is left out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from pipeline_lib.config import Config
from pipeline_lib.config.names import readable
from pipeline_lib.data.prepare import open_source
from pipeline_lib.data.sources import BadImageError, Item, Source
from pipeline_lib.rebalance.groups import counts_for, holds_of, not_counted
from pipeline_lib.rebalance.plan import choose_edits, refuse_small_groups, refuse_without_donors
from pipeline_lib.report.minutes import minutes_of_trainings
from pipeline_lib.runtime.errors import DataError

READ = 64  # images that are read
MOST_VALUES = 100  # of a column that are listed
CHANCE = 1e-4  # with less chance of so bad a sample of a dataset that may be used, the dataset is refused


def print_check(config: Config, console: Console | None = None) -> None:
    """Open the data of a config, read some of its images, and print what a run would start from.

    Args:
        config: the config, already checked by itself.
        console: where to print; None: standard output.

    Raises:
        DataError: the data cannot be read, no image can, a group is too small, or a target has no donor or cannot be
            reached.
    """
    console = console or Console(markup=False)
    source = open_source(config.data)
    console.print(f"{len(source.train):,} images for training and {len(source.held_out):,} held out")
    _print_reading(source, console)
    _print_left_out(source, console)
    _print_values(config, source, console)
    _print_targets(config, source.train, console)
    _print_trainings(config, console)


def _print_reading(source: Source, console: Console) -> None:
    """Read images from all over the dataset, and say what of them cannot be used and how long all would take.

    Raises:
        DataError: of a split, more files are missing than images may be unusable, or more images of the sample cannot
            be used than chance would have it; or no image can be read.
    """
    items = [*source.train, *source.held_out]
    missing = set(source.missing)
    for split, of_split in (("training", source.train), ("held-out", source.held_out)):
        absent = [item.image_id for item in of_split if item.image_id in missing]
        if len(absent) > source.tolerated * len(of_split):
            raise DataError(
                f"data: of {len(absent):,} of {len(of_split):,} {split} images there is no file or no mask, such as "
                f"{absent[0]}; correct the folders or the names in the table"
            )
    places = np.unique(np.linspace(0, len(items) - 1, READ).round().astype(int))
    chosen = [items[place] for place in places]
    unusable: list[tuple[Item, str]] = []
    conversions: Counter[str] = Counter()
    start = time.perf_counter()
    for item in chosen:
        try:
            conversions.update(source.read(item).conversions)
        except BadImageError as reason:
            unusable.append((item, str(reason)))
    seconds = (time.perf_counter() - start) / len(chosen) * len(items) / (os.cpu_count() or 1)
    minutes = (1 + source.equal_are_copies) * seconds / 60  # what may have copies is read twice
    if len(unusable) == len(chosen):
        item, reason = unusable[0]
        raise DataError(f"data: none of {len(chosen)} images can be used; the first is {item.image_id}: {reason}")
    bad = {item.image_id: reason for item, reason in unusable}
    in_training = int((places < len(source.train)).sum())
    for split, of_split, sample in (
        ("training", source.train, chosen[:in_training]),
        ("held-out", source.held_out, chosen[in_training:]),
    ):
        found = [item.image_id for item in sample if item.image_id in bad]
        if found and (
            len(found) > source.tolerated * len(of_split)
            or binomtest(len(found), len(sample), source.tolerated, "greater").pvalue < CHANCE
        ):
            raise DataError(
                f"data: {len(found)} of {len(sample)} {split} images cannot be used, such as {found[0]} "
                f"({bad[found[0]]}); of all images {source.tolerated:.1%} may be unusable (`data.bad_images`)"
            )
    console.print(f"{len(chosen)} of them were read; all would take about {minutes:.1f} minutes on this machine")
    if unusable:
        item, reason = unusable[0]
        console.print(
            f"{len(unusable)} of these cannot be used, such as {item.image_id}: {reason}; of all images "
            f"{source.tolerated:.1%} may be unusable (`data.bad_images`)"
        )
    for conversion, count in conversions.most_common():
        console.print(f"{count} of these are converted: {conversion}")


def _print_left_out(source: Source, console: Console) -> None:
    named: dict[str, list[str]] = {}
    for left in source.left_out:
        named.setdefault(left.reason, []).append(left.name)
    if source.missing:
        named["a row without a file or a mask, which will be listed as unusable"] = list(source.missing)
    if not named:
        return
    table = Table("left out", "number", "such as", title="What is no image of the dataset")
    for reason, names in sorted(named.items(), key=lambda entry: -len(entry[1])):
        table.add_row(reason, f"{len(names):,}", ", ".join(islice(names, 3)))
    console.print(table)


def _print_values(config: Config, source: Source, console: Console) -> None:
    """Print the values of every column of which values are attributes, so that one that means unknown is seen."""
    unknown = {"", *getattr(config.data, "unknown", ())}
    for column, counts in source.values.items():
        known = {value: count for value, count in counts.items() if value not in unknown}
        frequent = sorted(known, key=known.get, reverse=True)
        listed = ", ".join(f"{value} {known[value]:,}" for value in frequent[:MOST_VALUES])
        more = f" and {len(known) - MOST_VALUES} more" if len(known) > MOST_VALUES else ""
        blank = sum(counts.values()) - sum(known.values())
        console.print(f"Values of `{column}` in all rows: {listed}{more}; unknown {blank:,}")


def _print_targets(config: Config, items: Sequence[Item], console: Console) -> None:
    """Say how the labels stand to the targets, and how many edits reach them.

    Raises:
        DataError: a group is too small, or a target has no donor or cannot be reached.
    """
    settings = config.rebalance
    rows = pd.DataFrame([item.attributes for item in items])
    holds = holds_of(rows, list(rows.columns))
    refuse_small_groups(holds, settings.targets, "dataset")
    refuse_without_donors(holds, settings, "dataset", learnt=config.learns_selector)
    everywhere = dict.fromkeys(settings.edited, np.ones(len(items), bool))
    _, counts = choose_edits(holds, everywhere, settings.targets, config.seed, "dataset")
    table = Table(title="Labels of the images for training", caption="donors: images that show the value of the edits")
    for title in ("target", "images", "with it", "unknown", "rate now", "target rate", "edits", "donors"):
        table.add_column(title, justify="left" if title == "target" else "right")
    rates: dict[str, list[float]] = {}
    for target, found in zip(settings.targets, counts, strict=True):
        inside, has = counts_for(holds, target), holds[target.attribute]
        rate = float(has[inside].mean())
        rates.setdefault(target.attribute, []).append(rate)
        donors = int((has == (target.rate > rate)).sum())
        table.add_row(
            f"{readable(str(found['group']))}: {readable(target.attribute)}",
            *(f"{int(number):,}" for number in (inside.sum(), (has[inside] == 1).sum(), not_counted(holds, target))),
            *(f"{rate:.3f}", f"{target.rate:g}", f"{found['edits']:,}", f"{donors:,}" if found["edits"] else ""),
        )
    console.print(table)
    for attribute, of_groups in rates.items():
        if len(of_groups) > 1:
            console.print(f"Largest gap of {readable(attribute)} between these groups: {np.ptp(of_groups):.3f}")
    altered = settings.model_copy(update={"edit": settings.edit.model_copy(update={"alters": config.alters})})
    for attribute in settings.edited:
        lost = [name for name in rows.columns if name != attribute and not altered.carries(attribute, name)]
        if lost:
            is_given = altered.edit.alters_key(attribute) or settings.edit.finish == "none"
            mend = (
                ""
                if is_given
                else "; name in `rebalance.edit.alters` what the region can show, and the others are kept"
            )
            console.print(f"Edits of {attribute} make unknown: {', '.join(lost)}{mend}")
    edits = sum(int(found["edits"]) for found in counts)
    console.print(f"{edits:,} of {len(items):,} images are to be edited, if all of them show the region's part")


def _print_trainings(config: Config, console: Console) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    minutes = minutes_of_trainings(config, device)
    if minutes:
        each = ", ".join(f"{name} {taken:.1f}" for name, taken in minutes.items())
        console.print(
            f"All trainings would take about {sum(minutes.values()):.0f} minutes on this machine if nothing else runs "
            f"({each}); edits and evaluation come on top"
        )
