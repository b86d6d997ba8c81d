"""The figures of a report: rates by group as in the paper's Fig. 12, and edits before and after."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline_lib.config import BoxRegion, Detectors, PartRegion, Rebalance
from pipeline_lib.config.names import readable
from pipeline_lib.data.shards import iterate_shards
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.rebalance.plan import needed_edits
from pipeline_lib.report.tables import MANY_GROUPS, as_estimate, denied_groups, gap_text, share_text
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path, read_json
from pipeline_lib.runtime.revisions import stage

matplotlib.rcParams["text.parse_math"] = False  # names of attributes are no formulas, even with dollar signs
DOTS_PER_INCH = 250
SMALL, NORMAL = 6.5, 8.0  # sizes of type in points, for a figure as wide as a page

# Okabe and Ito's colours, which colour-blind readers tell apart; in grey they differ in lightness.
GROUP_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442")
HATCHES = ("", "////", "....", "xxxx")  # of the groups for which there are no other colours
TARGET_COLOR, STRUCK_COLOR, INK, PALE = "#000000", "#D55E00", "#222222", "#E4E4E4"


class Panel(NamedTuple):
    """One image set with a source of labels, and its place in the figure."""

    title: str
    stage: str
    judge: str
    row: int
    column: int


#: The upper row is the paper's Fig. 12; the lower row has further sets, with the control GAN below the retrained GAN.
PANELS = (
    Panel("Original dataset,\nby the referee", "dataset", "referee", 0, 0),
    Panel("Original dataset,\nground truth", "dataset", "truth", 0, 1),
    Panel("Samples of the\nsource GAN", "samples", "referee", 0, 2),
    Panel("Rebalanced\nsamples", "samples_rebalanced", "referee", 0, 3),
    Panel("Retrained GAN", "retrained", "referee", 0, 4),
    Panel("Rebalanced\ndataset", "dataset_rebalanced", "referee", 1, 3),
    Panel("Control: trained on\nthe original dataset", "control", "referee", 1, 4),
)


class Layout(NamedTuple):
    """Places in the figure of rates, in inches from its lower edge."""

    height: float
    panels: float
    key: float
    rows: int  # of the key for which there is room

    def for_groups(self, groups: int) -> Layout:
        """Return a higher one if the key has more rows, for that many groups and four marks."""
        more = LINE * max(0, math.ceil((groups + 4) / 2) - self.rows)
        return Layout(self.height + more, self.panels + more, self.key + more, self.rows)


LINE = 0.1376  # of the key
ONE_ROW, TWO_ROWS = Layout(3.32, 1.55, 1.2, 4), Layout(4.3, 0.387, 1.849, 6)


def panels_of(stages: Collection[str]) -> list[Panel]:
    """Return the panels of these image sets, in a single row where no GAN was retrained."""
    shown = [panel for panel in PANELS if panel.stage in stages]
    if "retrained" in stages:
        return shown
    return [panel._replace(row=0, column=number) for number, panel in enumerate(shown)]


@stage(revision=4)
def plot_rates(
    *,
    bias: Path,
    gaps: Path,
    agreement: Path,
    edits: list[Path],
    targets: Rebalance,
    detectors: Detectors,
    figure: Path,
) -> None:
    """Draw the rate of each edited attribute by group in every image set (paper A.2.1, Fig. 12).

    Args:
        bias: table of `evaluate_bias`.
        gaps: its JSON of gaps.
        agreement: its JSON of the detectors' agreement.
        edits: JSON of `evaluate_edits` for each edited image set, named `edits-<image set>`.
        targets: the config section with groups, attributes and target rates.
        detectors: the config section with the required agreement.
        figure: PNG to write.
    """
    least = detectors.least_agreement
    denied = {f"{path.stem.removeprefix('edits-')}_rebalanced": denied_groups(read_json(path), least) for path in edits}
    drawn = rates_figure(read_table(bias, "bias"), read_json(gaps), read_json(agreement), targets, least, denied)
    save_figure(drawn, figure)


def rates_figure(
    bias: pd.DataFrame,
    gaps: Mapping[str, Any],
    agreement: Mapping[str, Mapping[str, float]],
    targets: Rebalance,
    least_agreement: float,
    denied: Mapping[str, Mapping[tuple[str, str], float]] | None = None,
) -> Figure:
    """Return the figure of rates, with bars by the referee and marks for selector and corrected rates.

    The attributes stand below one another, each with the panels of all image sets and a key of its groups.

    Args:
        bias: table of kind `bias`.
        gaps: {attribute: {stage: {judge: {"value", "ci": [low, high]}}}}, of the attributes that have a group gap.
        agreement: {stage: {attribute: share of images on which the detectors agree}}.
        targets: groups, attributes and target rates.
        least_agreement: agreement of the detectors below which a panel is crossed out.
        denied: of an edited image set the attributes and groups of which the referee confirms too few edits, with the
            share that it does; these panels are crossed out as well.
    """
    panels = panels_of(agreement)
    most = max(len(targets.alone(attribute).targets) for attribute in targets.edited)
    layout = (TWO_ROWS if any(panel.row for panel in panels) else ONE_ROW).for_groups(most)
    figure = Figure(figsize=(7.2, layout.height * len(targets.edited)))
    blocks = figure.subfigures(len(targets.edited), squeeze=False)[:, 0]
    for block, attribute in zip(blocks, targets.edited, strict=True):
        rates = bias[bias["attribute"] == attribute].set_index(["stage", "judge", "group"])
        wanted = {group_name(target.where): target.rate for target in targets.alone(attribute).targets}
        shares = {stage: found[attribute] for stage, found in agreement.items()}
        struck = {stage: share_text(share) for stage, share in shares.items() if share < least_agreement}
        of_edits = {
            stage: f"{share_text(min(found))} of\na group's edits"
            for stage, groups in (denied or {}).items()
            if (found := [share for (of_attribute, _), share in groups.items() if of_attribute == attribute])
        }
        _draw_attribute(block, attribute, panels, layout, rates, wanted, gaps.get(attribute), of_edits | struck)
    return figure


def _draw_attribute(
    figure: SubFigure,
    attribute: str,
    panels: Sequence[Panel],
    layout: Layout,
    rates: pd.DataFrame,
    wanted: Mapping[str, float],
    gaps: Mapping[str, Any] | None,
    struck: Mapping[str, str],
) -> None:
    """Draw the panels of one attribute with their key.

    Args:
        figure: where to draw.
        attribute: name of the attribute.
        panels: the image sets to show.
        layout: places of panels and key.
        rates: rows of the table of kind `bias` by stage, judge and group.
        wanted: target rate of each group.
        gaps: {stage: {judge: {"value", "ci"}}}; None if the attribute has targets in one group alone.
        struck: on what the detectors agree in each image set in which that is too little.
    """
    rows, columns = (1 + max(place) for place in zip(*((panel.row, panel.column) for panel in panels), strict=True))
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.065,
        right=0.995,
        top=1 - 0.3655 / layout.height,
        bottom=layout.panels / layout.height,
        wspace=0.14,
        hspace=0.56,
    )
    for panel in panels:
        axes = figure.add_subplot(grid[panel.row, panel.column])
        axes.set_title(panel.title, fontsize=NORMAL, linespacing=1.1, color=INK)
        _draw_rates(axes, rates.loc[panel.stage], panel.judge, wanted)
        is_struck = panel.judge != "truth" and panel.stage in struck
        if is_struck:
            _strike(axes, struck[panel.stage])
        if gaps:
            gap = gap_text(as_estimate(gaps[panel.stage][panel.judge])).replace(" ", "\n", 1)
            color = "#999999" if is_struck else INK
            axes.text(
                0.5, 0.985, f"gap {gap}", transform=axes.transAxes, ha="center", va="top", fontsize=SMALL, color=color
            )
        if (panel.row, panel.column) in ((0, 0), (1, 3)):  # the first of each row
            axes.set_ylabel(f"rate of {readable(attribute)}", fontsize=NORMAL)
        else:
            axes.set_yticklabels([])
    _add_key(figure, list(wanted), layout)


def _draw_rates(axes: Axes, rates: pd.DataFrame, judge: str, wanted: Mapping[str, float]) -> None:
    """Draw the bars of one source of labels; for the referee, also marks for the selector and the corrected rates."""
    for position, (group, rate_wanted) in enumerate(wanted.items()):
        rate, low, high = rates.loc[(judge, group), ["rate", "ci_low", "ci_high"]].astype(float)
        if np.isnan(rate):
            axes.text(position, 0.02, "no image", ha="center", va="bottom", rotation=90, fontsize=SMALL, color=INK)
        else:
            axes.bar(position, rate, width=0.76, **_style(position))
            _whisker(axes, position, low, high)
            if judge == "referee":
                _mark(axes, position - 0.23, rates.loc[("selector", group)], "o", "white")
                _mark(axes, position + 0.23, rates.loc[("corrected", group)], "D", INK)
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


def _mark(axes: Axes, position: float, row: pd.Series, marker: str, fill: str) -> None:
    _whisker(axes, position, row["ci_low"], row["ci_high"], width=0.5)
    axes.plot(position, row["rate"], marker, color=fill, markeredgecolor=INK, markersize=3.2, mew=0.6, zorder=5)


def _whisker(axes: Axes, position: float, low: float, high: float, width: float = 1.0) -> None:
    axes.plot([position, position], [low, high], "-_", color=INK, linewidth=width, markersize=3 * width, zorder=4)


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


def _add_key(figure: SubFigure, groups: Sequence[str], layout: Layout) -> None:
    """Draw the legend in the empty places of the lower row, or below the only one."""
    bars = [Patch(**_style(number), label=readable(group)) for number, group in enumerate(groups)]
    point = {"linestyle": "", "markersize": 4}
    marks = [
        Line2D([], [], color=TARGET_COLOR, linestyle="dashed", linewidth=0.9, label="target rate"),
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=7, label="confidence interval"),
        Line2D([], [], marker="o", color="white", markeredgecolor=INK, **point, label="rate by the selector"),
        Line2D([], [], marker="D", color=INK, **point, label="rate by the referee, corrected"),
    ]
    figure.legend(
        handles=[*bars, *marks],
        title="Bars: rate by the referee, in the second panel by ground truth",
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(0.05, layout.key / layout.height),
        ncols=2,
        fontsize=SMALL,
        title_fontsize=SMALL,
        frameon=False,
        columnspacing=1.2,
    )
    between = MANY_GROUPS if len(groups) > 2 else " minus ".join(map(readable, groups))
    notes = [f"Group gap: {between}, with its interval."] if groups[1:] else []
    if layout.rows == TWO_ROWS.rows:
        notes.append(
            "Upper row: the panels of the paper's Fig. 12, in its order. Lower row: the dataset that the retrained GAN "
            "was trained on, and the control GAN, trained with the same settings and seed on the original dataset."
        )
    note = textwrap.fill(" ".join(notes), 70)
    under_key = layout.key - 0.34 - LINE * math.ceil((len(bars) + len(marks)) / 2)
    figure.text(0.058, under_key / layout.height, note, fontsize=SMALL, va="top", linespacing=1.3, color=INK)


@dataclass(frozen=True)
class Edit:
    """A planned edit in uint8 images (H, W, 3); only the context if no candidate succeeded."""

    label: str
    context: np.ndarray
    donor: np.ndarray | None = None
    collage: np.ndarray | None = None
    composite: np.ndarray | None = None


@stage(revision=2)
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
    """Return a row of pictures for each edit; every pixel is enlarged by the same integer."""
    if not edits:
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "No edits are planned. The target rates already hold.", ha="center", fontsize=NORMAL)
        return figure
    side = edits[0].context.shape[0]
    cell = side * max(1, round(1.15 * DOTS_PER_INCH / side))  # in dots
    gutter, head, margin = round(0.05 * DOTS_PER_INCH), round(0.25 * DOTS_PER_INCH), round(0.95 * DOTS_PER_INCH)
    headings = ("before", "donor", "collage", "after")
    width, height = margin + len(headings) * (cell + gutter), head + len(edits) * (cell + gutter)
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH))

    def left(column: int) -> int:
        return margin + column * (cell + gutter)

    def middle(row: int) -> float:
        return 1 - (head + row * (cell + gutter) + cell / 2) / height

    for column, heading in enumerate(headings):
        x, y = (left(column) + cell / 2) / width, 1 - head / 2 / height
        figure.text(x, y, heading, ha="center", va="center", fontsize=NORMAL, fontweight="bold", color=INK)
    for row, edit in enumerate(edits):
        x = 0.9 * margin / width
        figure.text(x, middle(row), edit.label, ha="right", va="center", fontsize=NORMAL, color=INK)
        for column, picture in enumerate((edit.context, edit.donor, edit.collage, edit.composite)):
            if picture is not None:
                bottom = middle(row) - cell / 2 / height
                axes = figure.add_axes((left(column) / width, bottom, cell / width, cell / height))
                axes.imshow(picture, interpolation="nearest")
                axes.set_axis_off()
        if edit.composite is None:
            text = "unchanged: no candidate succeeded"
            figure.text((left(1) + gutter) / width, middle(row), text, va="center", fontsize=NORMAL, style="italic")
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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
