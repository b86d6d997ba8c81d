"""What other choices among the candidates would have given: group gap against realism, as table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.report.figures import GROUP_COLORS, INK, NORMAL, PALE, SMALL, save_figure
from pipeline_lib.report.words import share_text
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.revisions import stage

REALISM = {
    "seam": "difference along the seam",
    "masked_l1": "difference of finished edit and collage",
}
FRONTIER = "frontier, which no choice beats in both"
#: Name in the legend, colour and marker of the choices that differ from the run's own in one rule.
RULES = {
    "candidates": ("fewer candidates, with their number", GROUP_COLORS[0], "o"),
    "threshold": ("higher threshold of success", GROUP_COLORS[1], "s"),
    "choose": ("another way to choose", GROUP_COLORS[2], "^"),
    "veto": ("no veto", GROUP_COLORS[3], "D"),
    "own": ("the run's own choice", INK, "*"),
}
#: Where the value of a rule is written beside its point, in points of type, and how it is aligned.
PLACES = {"candidates": ((-5, -2), "right"), "threshold": ((5, -2), "left")}
LEAST_SCALE = 0.05  # end of the axis of gaps, so that a gap of a few images looks small
MARGIN = 1.25  # of an axis over the largest value


def choice_name(choice: Mapping[str, Any]) -> str:
    """Return what a choice differs in from the run's own."""
    value = choice["value"]
    return {
        "own": "the run's own choice",
        "candidates": f"{value} candidate{'' if value == 1 else 's'}",
        "threshold": f"threshold {value}",
        "choose": f"choose: {value}",
        "veto": "no veto",
    }[choice["rule"]]


def frontier_table(frontier: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return a row for each choice; empty if the referee scored no candidates."""
    rows = []
    for choice in frontier["choices"] if frontier else ():
        rows.append(
            {
                "choice": choice_name(choice),
                "edits made": choice["made"],
                "share made": _share(choice["made"], choice["edits"]),
                "confirmed": _share(choice["confirmed"], choice["made"]),
                "group gap": "–" if choice["gap"] is None else f"{choice['gap']:+z.3f}",
                **{REALISM[name]: choice[name] for name in REALISM},
            }
        )
    return pd.DataFrame(rows)


def _share(count: int, of: int) -> str:
    return share_text(count / of) if of else "–"


def describe_frontier(frontier: Mapping[str, Any] | None) -> str:
    """Say what the figures are and what to look for; empty if the referee scored no candidates."""
    if frontier is None:
        return ""
    reasons = dict.fromkeys(frontier["refused"].values())
    target_gap = frontier["target_gap"]
    goal = "target rate" if target_gap is None else f"target gap of {target_gap:+z.2f}"
    refused = f" The tables cannot answer every other choice ({'; '.join(reasons)})." if reasons else ""
    return (
        "Each choice differs from the run's own in one rule, and was made again from the tables of candidates. What "
        "edited images show is said by the referee, never by the selector that chose them. Unedited images count by "
        "their labels. Confirmed is the share of the edits made in which the referee sees the wanted value and the "
        f"group. Points further to the left are more realistic, and lower ones closer to the {goal}. The run's own "
        "choice is a good one if no point lies clearly to the lower left of it. If you change the config because of "
        "this figure, the referee has taken part in the choice, so certify the new dataset by "
        f"labels.{refused}"
    )


@stage(revision=1)
def plot_frontier(*, frontier: Path, figure: Path) -> None:
    """Draw the group gap of each choice against the realism of its edits.

    Args:
        frontier: JSON of `evaluate_frontier`.
        figure: PNG to write.
    """
    save_figure(frontier_figure(read_json(frontier)), figure)


def frontier_figure(frontier: Mapping[str, Any]) -> Figure:
    """Return the figure, with a panel for each measure of realism."""
    figure = Figure(figsize=(7.2, 3.4))
    left, right = figure.subplots(
        1, 2, sharey=True, gridspec_kw={"left": 0.1, "right": 0.985, "top": 0.97, "bottom": 0.26, "wspace": 0.08}
    )
    gaps = [choice["distance"] for choice in frontier["choices"] if choice["distance"] is not None]
    top = max(LEAST_SCALE, MARGIN * max(gaps, default=0))
    for axes, (measure, name) in zip((left, right), REALISM.items(), strict=True):
        shown = [choice for choice in frontier["choices"] if None not in (choice[measure], choice["distance"])]
        if not shown:
            axes.text(0.5, 0.5, "no edits", transform=axes.transAxes, ha="center", fontsize=NORMAL, color=INK)
        scale = np.array([MARGIN * max((choice[measure] for choice in shown), default=1.0) or 1.0, top])
        _draw_choices(axes, shown, measure, scale)
        axes.set_xlim(0, scale[0])  # from 0, so that small differences look small
        axes.set_ylim(0, scale[1])
        axes.set_xlabel(name, fontsize=SMALL, color=INK)
        axes.tick_params(labelsize=SMALL, length=2)
        axes.grid(color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    goal = "rate" if frontier["target_gap"] is None else "gap"
    left.set_ylabel(f"distance from the target {goal},\nby the referee", fontsize=SMALL, color=INK)
    handles = {handle.get_label(): handle for axes in (left, right) for handle in axes.get_legend_handles_labels()[0]}
    figure.legend(
        handles=list(handles.values()), loc="lower center", ncols=3, fontsize=SMALL, frameon=False, columnspacing=1.2
    )
    return figure


def _draw_choices(axes: Axes, choices: Sequence[Mapping[str, Any]], measure: str, scale: np.ndarray) -> None:
    """Draw the choices as points, those of one rule alike, and a line through those that no other one beats.

    Args:
        axes: where to draw.
        choices: what to draw.
        measure: measure of realism, a key of `REALISM`.
        scale: ends of the two axes, (2,), which start at 0.
    """
    points = np.array([(choice[measure], choice["distance"]) for choice in choices]).reshape(-1, 2)
    best = points[unbeaten(points)]
    axes.plot(*best[np.lexsort(best.T[::-1])].T, color="#777777", linewidth=0.9, drawstyle="steps-post", label=FRONTIER)
    for rule, (label, color, marker) in RULES.items():
        of_rule = [choice["rule"] == rule for choice in choices]
        size = 9 if rule == "own" else 5
        if any(of_rule):
            axes.plot(
                *points[of_rule].T, marker, color=color, markeredgecolor=INK, markeredgewidth=0.5, markersize=size,
                label=label,
            )  # fmt: skip
    for rule, (place, align) in PLACES.items():
        values: dict[tuple[float, ...], list[str]] = {}  # of points that would be written over each other
        for choice, point in zip(choices, points, strict=True):
            if choice["rule"] == rule:
                values.setdefault(tuple((point / scale).round(2) * scale), []).append(str(choice["value"]))
        for point, of_point in values.items():
            text = ", ".join(of_point)
            axes.annotate(text, point, place, textcoords="offset points", ha=align, fontsize=SMALL, color=INK)


def unbeaten(points: np.ndarray) -> np.ndarray:
    """Return which points (n, 2) no other one beats, by being less in one coordinate and not more in the other."""
    not_more = (points[:, None] <= points[None]).all(axis=-1)
    less = (points[:, None] < points[None]).any(axis=-1)
    return ~(not_more & less).any(axis=0)
