"""The figures of a report: rates by group as in the paper's Fig. 12, edits before and after, and classifiers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline_lib.config import BoxRegion, PartRegion, Rebalance
from pipeline_lib.config.names import readable
from pipeline_lib.data.shards import iterate_shards
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.evaluation.results import Interval, Metrics, Utility
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.rebalance.plan import needed_edits
from pipeline_lib.report.tables import METHODS, in_table_order
from pipeline_lib.report.verdicts import denied_edits
from pipeline_lib.report.words import gap_text, share_text
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage

matplotlib.rcParams["text.parse_math"] = False  # names of attributes are no formulas, even with dollar signs
DOTS_PER_INCH = 250
WIDTH = 7.2  # of a figure, in inches
SMALL, NORMAL = 6.5, 8.0  # sizes of type in points, for a figure as wide as a page

# Okabe and Ito's colours, which colour-blind readers tell apart; in grey they differ in lightness.
GROUP_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442")
HATCHES = ("", "////", "....", "xxxx")  # of the groups for which there are no other colours
STRUCK_COLOR, INK, PALE = "#D55E00", "#222222", "#E4E4E4"
PLAIN, EDITED, BOUND = "#0072B2", "#D55E00", "#777777"  # of classifiers without edits, with them, with ideal ones
IN_A_ROW = 4  # panels
IN_A_COLUMN = 4  # edits


class Panel(NamedTuple):
    """One image set with a source of labels."""

    title: str
    name: str
    source: str = "referee"


#: The paper's Fig. 12, then what it lacks.
PANELS = (
    Panel("Original dataset,\nby the referee", "dataset"),
    Panel("Original dataset,\nground truth", "dataset", "truth"),
    Panel("Samples of the\nsource GAN", "samples"),
    Panel("Rebalanced\nsamples", "samples_rebalanced"),
    Panel("Retrained GAN", "retrained"),
    Panel("Rebalanced\ndataset", "dataset_rebalanced"),
    Panel("Control: trained on\nthe original dataset", "control"),
)


def rates_figure(metrics: Metrics, targets: Rebalance, least_agreement: float) -> Figure:
    """Return the rate of each edited attribute by group in every image set (paper A.2.1, Fig. 12).

    Bars are rates by the referee, marks those by the selector and the corrected ones. The attributes stand below one
    another, each with the panels of all image sets and a key of its groups.

    Args:
        metrics: the metrics of a run.
        targets: groups, attributes and target rates.
        least_agreement: a panel is crossed out if the detectors agree on less, or the referee confirms a lower share of
            the edits of a group.
    """
    panels = [panel for panel in PANELS if panel.name in metrics.agreement]
    rows = math.ceil((len(panels) + 1) / IN_A_ROW)
    figure = Figure(figsize=(WIDTH, 2.1 * rows * len(targets.edited)), layout="constrained")
    blocks = figure.subfigures(len(targets.edited), squeeze=False)[:, 0]
    for block, attribute in zip(blocks, targets.edited, strict=True):
        axes = block.subplots(rows, IN_A_ROW, sharey=True).flat
        wanted = {group_name(target.where): target.rate for target in targets.alone(attribute).targets}
        for panel, panel_axes in zip(panels, axes, strict=False):
            _draw_panel(panel_axes, panel, metrics, attribute, wanted, least_agreement)
        for row in range(rows):
            axes[row * IN_A_ROW].set_ylabel(f"rate of {readable(attribute)}", fontsize=NORMAL)
        for free in axes[len(panels) :]:
            free.set_axis_off()
        _draw_key(axes[len(panels)], list(wanted))
    return figure


def _draw_panel(
    axes: Axes, panel: Panel, metrics: Metrics, attribute: str, wanted: Mapping[str, float], least_agreement: float
) -> None:
    """Draw the rates of one source of labels; for the referee, also marks for the selector and the corrected rates."""
    rates = metrics.rate[attribute][panel.name]
    axes.set_title(panel.title, fontsize=NORMAL, color=INK)
    for position, (group, rate_wanted) in enumerate(wanted.items()):
        rate = rates[panel.source][group]
        if rate.value is None:
            axes.text(position, 0.02, "no image", ha="center", va="bottom", rotation=90, fontsize=SMALL, color=INK)
        else:
            axes.bar(position, rate.value, width=0.76, **_style(position))
            _mark(axes, position, rate, "", INK)
            if panel.source == "referee":
                _mark(axes, position - 0.23, rates["selector"][group], "o", "white")
                _mark(axes, position + 0.23, rates["corrected"][group], "D", INK)
        axes.hlines(rate_wanted, position - 0.5, position + 0.5, "black", "dashed", linewidth=0.9, zorder=3)
    axes.set_xlim(-0.55, len(wanted) - 0.45)
    axes.set_ylim(0, 1.36)  # the gap is written above 1
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    names = [textwrap.fill(readable(group), 9) for group in wanted]
    if len(names) > 2 or max(name.count("\n") for name in names) > 2:  # they would overlap; the legend has them too
        names = [""] * len(names)
    axes.set_xticks(range(len(wanted)), names)
    _tidy(axes)
    if attribute in metrics.gap:
        gap = gap_text(metrics.gap[attribute][panel.name][panel.source]).replace(" ", "\n", 1)
        axes.text(0.5, 0.985, f"gap {gap}", ha="center", va="top", transform=axes.transAxes, fontsize=SMALL, color=INK)
    if panel.source != "truth" and (reason := _reason_to_strike(metrics, panel.name, attribute, least_agreement)):
        _strike(axes, reason)


def _reason_to_strike(metrics: Metrics, name: str, attribute: str, least_agreement: float) -> str:
    """Return on what the detectors disagree in an image set; empty if they agree well enough."""
    if (share := metrics.agreement[name][attribute]) < least_agreement:
        return share_text(share)
    edits = metrics.edits.get(name.removesuffix("_rebalanced")) if name.endswith("_rebalanced") else None
    denied = denied_edits(edits, least_agreement) if edits else {}
    shares = [share for (of_attribute, _), share in denied.items() if of_attribute == attribute]
    return f"{share_text(min(shares))} of\na group's edits" if shares else ""


def _style(number: int) -> dict[str, Any]:
    """Return colour, hatching and edge of a group's bar, by its number."""
    hatch = HATCHES[number // len(GROUP_COLORS) % len(HATCHES)]
    return {"facecolor": GROUP_COLORS[number % len(GROUP_COLORS)], "hatch": hatch, "edgecolor": INK, "linewidth": 0.5}


def _tidy(axes: Axes) -> None:
    """Leave away what every figure of the report does without."""
    axes.tick_params(labelsize=SMALL, length=2, pad=2)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: Axes, position: float, rate: Interval, marker: str, fill: str) -> None:
    """Draw a rate as a mark with its interval."""
    if rate.value is not None:
        width = 0.5 if marker else 1.0
        axes.plot([position, position], rate.ci, "-_", color=INK, linewidth=width, markersize=3 * width, zorder=4)
        axes.plot(position, rate.value, marker, color=fill, markeredgecolor=INK, markersize=3.2, mew=0.6, zorder=5)


def _strike(axes: Axes, share: str) -> None:
    """Cross out a panel on which the detectors disagree, and say so."""
    for bar in axes.patches:
        bar.set_facecolor(PALE)
    for line in ([0, 1], [1, 0]):
        axes.plot([0, 1], line, color=STRUCK_COLOR, linewidth=1.6, transform=axes.transAxes, zorder=6)
    box = {"facecolor": "white", "edgecolor": STRUCK_COLOR, "boxstyle": "round,pad=0.3"}
    text = f"detectors agree\non {share}:\nno gap counts"
    centre = {"ha": "center", "va": "center", "transform": axes.transAxes, "zorder": 7}
    axes.text(0.5, 0.42, text, fontsize=SMALL, fontweight="bold", color=STRUCK_COLOR, bbox=box, **centre)


def _draw_key(axes: Axes, groups: Sequence[str]) -> None:
    """Draw the legend of an attribute."""
    bars = [Patch(**_style(number), label=readable(group)) for number, group in enumerate(groups)]
    point = {"linestyle": "", "markersize": 4}
    marks = [
        Line2D([], [], color="black", linestyle="dashed", linewidth=0.9, label="target rate"),
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=7, label="confidence interval"),
        Line2D([], [], marker="o", color="white", markeredgecolor=INK, **point, label="by the selector"),
        Line2D([], [], marker="D", color=INK, **point, label="by the referee, corrected"),
    ]
    axes.legend(handles=[*bars, *marks], loc="center left", fontsize=SMALL, frameon=False)


@stage(revision=4)
def plot_before_after(
    *,
    images: list[Path],
    parts: Path,
    plan: Path,
    candidates: list[Path],
    composites: list[Path],
    settings: Rebalance,
    gallery: Path,
    examples: int = 8,
) -> None:
    """Draw edits taken evenly over a plan, with image before (context), donor, collage and image after (composite).

    Args:
        images: shards of the image set before the edits.
        parts: its table of parts.
        plan: its table of edits.
        candidates: the tables of all shards.
        composites: image shards of the chosen composites.
        settings: the config section.
        gallery: PNG to make.
        examples: edits shown, of both directions as evenly as the plan allows.

    Raises:
        DataError: the files do not belong to one another.
    """
    shown = choose_examples(needed_edits(read_table(plan, "plan")), examples)
    tried = read_tables(candidates, "candidates", columns=["image_id", "donor_id", "chosen"])
    donor_of = tried[tried["chosen"]].set_index("image_id")["donor_id"]
    donor_of = donor_of[donor_of.index.isin(shown["image_id"])]
    contexts = _pick_images(images, [*shown["image_id"], *donor_of])
    results = _pick_images(composites, list(donor_of.index))
    collages = {}
    for attribute, rows in shown.groupby("attribute"):
        of_attribute = donor_of[donor_of.index.isin(rows["image_id"])]
        if len(of_attribute):
            collages |= _collages(contexts, of_attribute, parts, settings.edit.region_of(attribute))
    rows = []
    for row in shown.itertuples():
        name, pictures = row.image_id, [contexts[row.image_id]]
        if name in donor_of:
            pictures += [contexts[donor_of[name]], collages[name], results[name]]
        rows.append((f"target:\n{'' if row.wanted else 'not '}{readable(row.attribute)}", pictures))
    save_figure(gallery_figure(rows), gallery)


def choose_examples(plan: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` rows of a plan, equally many of each attribute and direction if possible."""
    attributes = list(plan.groupby("attribute", sort=False))
    shown = []
    for number, (_, rows) in enumerate(attributes):
        share = (number + 1) * count // len(attributes) - number * count // len(attributes)
        rising, falling = rows[rows["wanted"]], rows[~rows["wanted"]]
        half = min(len(rising), max(share - share // 2, share - len(falling)))
        shown += [_evenly(rising, half), _evenly(falling, min(len(falling), share - half))]
    return pd.concat(shown) if shown else plan


def gallery_figure(edits: Sequence[tuple[str, list[np.ndarray]]]) -> Figure:
    """Return a row for each edit, more than `IN_A_COLUMN` in two columns.

    Args:
        edits: what each is to show, with the image before (context), donor, collage and image after (composite), uint8
            (H, W, 3); only the context if no candidate succeeded.
    """
    if not edits:
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "No edits are planned. The target rates already hold.", ha="center", fontsize=NORMAL)
        return figure
    headings = ("before", "donor", "collage", "after")
    rows = len(edits) if len(edits) <= IN_A_COLUMN else (len(edits) + 1) // 2
    columns = math.ceil(len(edits) / rows)
    figure = Figure(figsize=(5.4 * columns, 1.15 * rows + 0.25), layout="constrained")
    blocks = figure.subfigures(1, columns, squeeze=False)[0]
    for number, block in enumerate(blocks):
        axes = block.subplots(rows, len(headings), squeeze=False)
        for cell in axes.flat:
            cell.set(xticks=[], yticks=[], frame_on=False, box_aspect=1)
        for cell, heading in zip(axes[0], headings, strict=True):
            cell.set_title(heading, fontsize=NORMAL, fontweight="bold", color=INK)
        for row, (label, pictures) in zip(axes, edits[number * rows : (number + 1) * rows], strict=False):
            row[0].set_ylabel(label, fontsize=NORMAL, color=INK, rotation=0, ha="right", va="center")
            for cell, picture in zip(row, pictures, strict=False):
                cell.imshow(picture, interpolation="nearest")
            if len(pictures) == 1:
                kept = "unchanged: no candidate succeeded"
                row[1].text(0, 0.5, kept, fontsize=NORMAL, style="italic", color=INK, in_layout=False)
    return figure


def _evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _pick_images(shards: list[Path], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some images, uint8 (H, W, 3) by name, without keeping others in memory."""
    wanted = set(names)
    found = {
        name: image.copy()  # a view would keep its whole group of rows
        for batch_names, batch in iterate_shards(shards)
        for name, image in zip(batch_names, batch, strict=True)
        if name in wanted
    }
    missing = sorted(wanted - set(found))
    if missing:
        raise DataError(f"{shards[0]}: no image `{missing[0]}` in it or its sister shards; run the rules again")
    return found


def _collages(
    images: Mapping[str, np.ndarray], donor_of: pd.Series, parts: Path, region: PartRegion | BoxRegion
) -> dict[str, np.ndarray]:
    """Return the inverted collages, with unknown pixels in mid-grey."""
    import torch

    from pipeline_lib.data.part_masks import PartMasks, parts_of
    from pipeline_lib.imaging.collages import make_collage, region_masks

    side = next(iter(images.values())).shape[0]
    masks = PartMasks(parts, parts_of(region), side)
    empty = np.zeros((side, side), bool)

    def stacked(names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = torch.from_numpy(np.stack([images[name] for name in names])).permute(0, 3, 1, 2)
        part_masks = torch.from_numpy(np.stack([masks.get(name, empty) for name in names]))[:, None].float()
        return pictures, part_masks

    (donors, donor_parts), (contexts, context_parts) = stacked(list(donor_of)), stacked(list(donor_of.index))
    pasted, unknown = region_masks(region, donor_parts, context_parts)
    collages = make_collage(contexts, donors, pasted).masked_fill(unknown.bool(), 128)
    return dict(zip(donor_of.index, collages.permute(0, 2, 3, 1).numpy(), strict=True))


def utility_figure(utility: Utility) -> Figure:
    """Return the worst-group accuracy of each method with its interval, and the accuracy in every cell."""
    methods = in_table_order(utility.methods)
    figure = Figure(figsize=(WIDTH, 0.62 + 0.26 * len(methods)), layout="constrained")
    axes = figure.add_subplot()
    for row, method in enumerate(methods):
        found = utility.methods[method]
        color = BOUND if method == "ideal" else EDITED if method.startswith("rebalanced") else PLAIN
        worst, known = found.worst_group, [value for value in found.cells.values() if value is not None]
        axes.plot(known, [row] * len(known), "|", color=INK, markersize=6, markeredgewidth=0.7, zorder=1)
        if worst.value is not None:
            axes.plot(worst.ci, [row, row], color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
            axes.plot(worst.value, row, "o", color=color, markersize=5.5, zorder=3)
    lows = (utility.methods[method].worst_group.ci[0] for method in methods)
    axes.set_yticks(range(len(methods)), [METHODS[method] for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(min([0.5, *(low for low in lows if low is not None)]) - 0.02, 1.0)
    _tidy(axes)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    said = f"accuracy for {readable(utility.attribute)}: worst group with interval (dot), every cell (stroke)"
    axes.set_xlabel(said, fontsize=SMALL, color=INK)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
