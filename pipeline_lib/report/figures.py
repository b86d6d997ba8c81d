"""The figures of a report: rates by group as in the paper's Fig. 12, edits before and after, and classifiers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from pipeline_lib.report.words import gap_text, groups_text, share_text
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
TARGET_COLOR, STRUCK_COLOR, INK, PALE = "#000000", "#D55E00", "#222222", "#E4E4E4"
PLAIN, EDITED, BOUND = "#0072B2", "#D55E00", "#777777"  # of classifiers without edits, with them, with ideal ones
KEY = "key"  # the place of the legend
IN_A_COLUMN = 4  # edits


class Panel(NamedTuple):
    """One image set with a source of labels."""

    title: str
    name: str
    source: str


#: Panels of the upper row, which is the paper's Fig. 12, and of the lower one, the control below the retrained GAN.
UPPER = (
    Panel("Original dataset,\nby the referee", "dataset", "referee"),
    Panel("Original dataset,\nground truth", "dataset", "truth"),
    Panel("Samples of the\nsource GAN", "samples", "referee"),
    Panel("Rebalanced\nsamples", "samples_rebalanced", "referee"),
    Panel("Retrained GAN", "retrained", "referee"),
)
LOWER = (
    Panel("Rebalanced\ndataset", "dataset_rebalanced", "referee"),
    Panel("Control: trained on\nthe original dataset", "control", "referee"),
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
    upper, lower = ([panel for panel in row if panel.name in metrics.agreement] for row in (UPPER, LOWER))
    if "retrained" not in metrics.agreement or "samples" not in metrics.agreement:
        upper, lower = [*upper, *lower], []
    width = max(len(upper), 3)
    places = [[*upper, *[KEY] * (width - len(upper))], [*[KEY] * (width - len(lower)), *lower]]
    most = max(len(targets.alone(attribute).targets) for attribute in targets.edited)
    height = (4.1 if lower else 3.1) + 0.07 * most
    figure = Figure(figsize=(WIDTH, height * len(targets.edited)), layout="constrained")
    blocks = figure.subfigures(len(targets.edited), squeeze=False)[:, 0]
    for block, attribute in zip(blocks, targets.edited, strict=True):
        ratios = [1, 1] if lower else [2, 1]
        names = [[place if place == KEY else " ".join(place[1:]) for place in row] for row in places]
        if len(upper) < width:
            names[0] = [place if place != KEY else "." for place in names[0]]
        axes = block.subplot_mosaic(names, height_ratios=ratios)
        _draw_attribute(axes, [*upper, *lower], metrics, targets.alone(attribute), least_agreement)
    return figure


def _draw_attribute(
    axes: Mapping[str, Axes], panels: Sequence[Panel], metrics: Metrics, targets: Rebalance, least_agreement: float
) -> None:
    """Draw the panels of a section with one attribute, and their key."""
    (attribute,) = targets.edited
    wanted = {group_name(target.where): target.rate for target in targets.targets}
    for number, panel in enumerate(panels):
        panel_axes = axes[" ".join(panel[1:])]
        panel_axes.set_title(panel.title, fontsize=NORMAL, linespacing=1.1, color=INK)
        _draw_rates(panel_axes, metrics.rate[attribute][panel.name], panel.source, wanted)
        struck = panel.source != "truth" and _reason_to_strike(metrics, panel.name, attribute, least_agreement)
        if struck:
            _strike(panel_axes, struck)
        if attribute in metrics.gap:
            gap = gap_text(metrics.gap[attribute][panel.name][panel.source]).replace(" ", "\n", 1)
            color = "#999999" if struck else INK
            at_top = {"ha": "center", "va": "top", "transform": panel_axes.transAxes}
            panel_axes.text(0.5, 0.985, f"gap {gap}", fontsize=SMALL, color=color, **at_top)
        if number == 0 or (panel is LOWER[0] and len(panels) > len(UPPER)):
            panel_axes.set_ylabel(f"rate of {readable(attribute)}", fontsize=NORMAL)
        else:
            panel_axes.set_yticklabels([])
    _draw_key(axes[KEY], list(wanted), groups_text(targets))


def _reason_to_strike(metrics: Metrics, name: str, attribute: str, least_agreement: float) -> str:
    """Return on what the detectors disagree in an image set; empty if they agree well enough."""
    if (share := metrics.agreement[name][attribute]) < least_agreement:
        return share_text(share)
    edits = metrics.edits.get(name.removesuffix("_rebalanced")) if name.endswith("_rebalanced") else None
    denied = denied_edits(edits, least_agreement) if edits else {}
    shares = [share for (of_attribute, _), share in denied.items() if of_attribute == attribute]
    return f"{share_text(min(shares))} of\na group's edits" if shares else ""


def _draw_rates(
    axes: Axes, rates: Mapping[str, Mapping[str, Interval]], source: str, wanted: Mapping[str, float]
) -> None:
    """Draw the bars of one source of labels; for the referee, also marks for the selector and the corrected rates."""
    for position, (group, rate_wanted) in enumerate(wanted.items()):
        rate = rates[source][group]
        if rate.value is None:
            axes.text(position, 0.02, "no image", ha="center", va="bottom", rotation=90, fontsize=SMALL, color=INK)
        else:
            axes.bar(position, rate.value, width=0.76, **_style(position))
            _whisker(axes, position, rate)
            if source == "referee":
                _mark(axes, position - 0.23, rates["selector"][group], "o", "white")
                _mark(axes, position + 0.23, rates["corrected"][group], "D", INK)
        axes.hlines(rate_wanted, position - 0.5, position + 0.5, TARGET_COLOR, "dashed", linewidth=0.9, zorder=3)
    axes.set_xlim(-0.55, len(wanted) - 0.45)
    axes.set_ylim(0, 1.36)  # the gap is written above 1
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    names = [textwrap.fill(readable(group), 9) for group in wanted]
    if len(names) > 2 or max(name.count("\n") for name in names) > 2:  # they would overlap; the legend has them too
        names = [""] * len(names)
    axes.set_xticks(range(len(wanted)), names)
    axes.tick_params(labelsize=SMALL, length=2, pad=2)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _style(number: int) -> dict[str, Any]:
    """Return colour, hatching and edge of a group's bar, by its number."""
    hatch = HATCHES[number // len(GROUP_COLORS) % len(HATCHES)]
    return {"facecolor": GROUP_COLORS[number % len(GROUP_COLORS)], "hatch": hatch, "edgecolor": INK, "linewidth": 0.5}


def _mark(axes: Axes, position: float, rate: Interval, marker: str, fill: str) -> None:
    if rate.value is not None:
        _whisker(axes, position, rate, width=0.5)
        axes.plot(position, rate.value, marker, color=fill, markeredgecolor=INK, markersize=3.2, mew=0.6, zorder=5)


def _whisker(axes: Axes, position: float, rate: Interval, width: float = 1.0) -> None:
    axes.plot([position, position], rate.ci, "-_", color=INK, linewidth=width, markersize=3 * width, zorder=4)


def _strike(axes: Axes, share: str) -> None:
    """Cross out a panel on which the detectors disagree, and say so."""
    for bar in axes.patches:
        bar.set_facecolor(PALE)
    for line in ([0, 1], [1, 0]):
        axes.plot([0, 1], line, color=STRUCK_COLOR, linewidth=1.6, transform=axes.transAxes, zorder=6)
    axes.text(
        0.5,
        0.42,
        f"detectors agree\non {share}:\nno gap counts",
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=SMALL,
        fontweight="bold",
        color=STRUCK_COLOR,
        bbox={"facecolor": "white", "edgecolor": STRUCK_COLOR, "boxstyle": "round,pad=0.3"},
        zorder=7,
    )


def _draw_key(axes: Axes, groups: Sequence[str], between: str) -> None:
    """Draw the legend of an attribute."""
    bars = [Patch(**_style(number), label=readable(group)) for number, group in enumerate(groups)]
    point = {"linestyle": "", "markersize": 4}
    marks = [
        Line2D([], [], color=TARGET_COLOR, linestyle="dashed", linewidth=0.9, label="target rate"),
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=7, label="confidence interval"),
        Line2D([], [], marker="o", color="white", markeredgecolor=INK, **point, label="rate by the selector"),
        Line2D([], [], marker="D", color=INK, **point, label="rate by the referee, corrected"),
    ]
    axes.set_axis_off()
    axes.legend(
        handles=[*bars, *marks],
        title="Bars: rate by the referee, or by ground truth" + (f"\nGroup gap: {between}" if groups[1:] else ""),
        alignment="left",
        loc="center left",
        ncols=2,
        fontsize=SMALL,
        title_fontsize=SMALL,
        frameon=False,
        columnspacing=1.2,
    )


@dataclass(frozen=True)
class Edit:
    """A planned edit in uint8 images (H, W, 3); only the context if no candidate succeeded."""

    label: str
    context: np.ndarray
    donor: np.ndarray | None = None
    collage: np.ndarray | None = None
    composite: np.ndarray | None = None


@stage(revision=3)
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
    edits = []
    for row in shown.itertuples():
        label = f"target:\n{'' if row.wanted else 'not '}{readable(row.attribute)}"
        name = row.image_id
        if name in donor_of:
            edits.append(Edit(label, contexts[name], contexts[donor_of[name]], collages[name], results[name]))
        else:
            edits.append(Edit(label, contexts[name]))
    save_figure(gallery_figure(edits), gallery)


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


def gallery_figure(edits: Sequence[Edit]) -> Figure:
    """Return pictures of each edit in a row, more than `IN_A_COLUMN` in two columns; pixels are enlarged alike."""
    if not edits:
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "No edits are planned. The target rates already hold.", ha="center", fontsize=NORMAL)
        return figure
    side = edits[0].context.shape[0]
    cell = side * max(1, round(1.15 * DOTS_PER_INCH / side))  # in dots
    gutter, head, margin = round(0.05 * DOTS_PER_INCH), round(0.25 * DOTS_PER_INCH), round(0.95 * DOTS_PER_INCH)
    headings = ("before", "donor", "collage", "after")
    rows = len(edits) if len(edits) <= IN_A_COLUMN else (len(edits) + 1) // 2
    block = margin + len(headings) * (cell + gutter)
    width, height = (1 + (rows < len(edits))) * block, head + rows * (cell + gutter)
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH))

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, va="center", fontsize=NORMAL, color=INK, **style)

    for number, edit in enumerate(edits):
        start, row = number // rows * block, number % rows
        top = head + row * (cell + gutter)
        write(start + 0.9 * margin, top + cell / 2, edit.label, ha="right")
        for column, picture in enumerate((edit.context, edit.donor, edit.collage, edit.composite)):
            left = start + margin + column * (cell + gutter)
            if row == 0:
                write(left + cell / 2, head / 2, headings[column], ha="center", fontweight="bold")
            if picture is not None:
                place = (left / width, 1 - (top + cell) / height, cell / width, cell / height)
                axes = figure.add_axes(place)
                axes.imshow(picture, interpolation="nearest")
                axes.set_axis_off()
        if edit.composite is None:
            beside = start + margin + cell + 2 * gutter
            write(beside, top + cell / 2, "unchanged: no candidate succeeded", style="italic")
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
    axes.set_yticks(range(len(methods)), [METHODS[method] for method in methods], fontsize=SMALL)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(min([0.5, *(low for low in lows if low is not None)]) - 0.02, 1.0)
    axes.tick_params(axis="x", labelsize=SMALL, length=2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    said = f"accuracy for {readable(utility.attribute)}: worst group with interval (dot), every cell (stroke)"
    axes.set_xlabel(said, fontsize=SMALL, color=INK)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
