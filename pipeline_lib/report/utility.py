"""The second section of a report: whether a classifier trained on the rebalanced dataset is fairer than baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.config.names import readable
from pipeline_lib.evaluation.gain import Verdict
from pipeline_lib.report.figures import INK, NORMAL, PALE, SMALL, save_figure
from pipeline_lib.report.tables import as_estimate, gap_text, rounded, share_text
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.revisions import stage

#: Methods in the order of the table: without edits, then with them.
METHODS = {
    "original": "original dataset",
    "reweighted": "original, weights (Kamiran and Calders)",
    "resampled": "original, cells drawn evenly",
    "group_dro": "original, group DRO",
    "rebalanced": "rebalanced dataset",
    "rebalanced_confirmed": "rebalanced, edits that the referee confirms",
    "rebalanced_reweighted": "rebalanced, weights",
    "ideal": "ideal edits",
}
PLAIN, EDITED, BOUND = "#0072B2", "#D55E00", "#777777"  # dots without edits, with them, and of the upper bound


def known_methods(utility: Mapping[str, Any]) -> list[str]:
    """Return the methods of a run in the order of the table."""
    return [method for method in METHODS if method in utility["methods"]]


def utility_table(utility: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return a row for each method with its figures on held-out images; empty if no classifiers were trained."""
    if utility is None:
        return pd.DataFrame()
    rows = []
    for method in known_methods(utility):
        found = utility["methods"][method]
        worst = as_estimate(found["worst_group"])
        rows.append(
            {
                "classifier trained on": METHODS[method],
                "worst group": "unknown" if math.isnan(worst.value) else share_text(worst.value),
                "interval": "" if math.isnan(worst.value) else f"[{share_text(worst.low)}, {share_text(worst.high)}]",
                "balanced accuracy": rounded(found["balanced_accuracy"]["value"], 3),
                "parity gap": rounded(found["parity_gap"]["value"], 3),
                "equalised odds difference": rounded(found["equalized_odds"]["value"], 3),
                "false labels": rounded(found["label_error"], 2),
            }
        )
    return pd.DataFrame(rows)


def say_utility(utility: Mapping[str, Any] | None) -> str:
    """Say in one sentence what a practitioner should do; empty if no classifiers were trained."""
    if utility is None:
        return ""
    gain = utility["gain"]
    if gain["verdict"] == Verdict.UNKNOWN:
        return f"Whether edits help could not be determined. {_say_empty(utility)}"
    with_edits, without = METHODS[gain["with_edits"]], METHODS[gain["without"]]
    after, before = (
        share_text(utility["methods"][gain[kind]]["worst_group"]["value"]) for kind in ("with_edits", "without")
    )
    opening = {
        Verdict.BETTER: "Edits help",
        Verdict.WORSE: "At this bias a baseline without edits is better",
        Verdict.EQUIVALENT: f"At this bias edits and baselines without them are equivalent within {gain['margin']:g}",
        Verdict.UNDECIDED: "Whether edits help could not be determined",
    }[gain["verdict"]]
    return (
        f"{opening}: the worst-group accuracy of a classifier of {readable(utility['attribute'])} is {after} if it is "
        f"trained on the {with_edits}, and {before} with the best baseline without edits ({without}), a difference of "
        f"{gap_text(as_estimate(gain))}.{_say_needed(utility)}"
    )


def _say_needed(utility: Mapping[str, Any]) -> str:
    """Say how many held-out images are likely to give a verdict; nothing if there is one."""
    needed, there = utility["gain"]["held_out_needed"], sum(utility["held_out"].values())
    return f" About {needed:,} held-out images are likely to be enough; there are {there:,}." if needed else ""


def _say_empty(utility: Mapping[str, Any]) -> str:
    """Name the cells without images, of which nothing can be learnt or tested."""
    return " ".join(
        f"{what}: {', '.join(map(readable, utility[key]))}."
        for what, key in (("Too few held-out images to test", "left_out"), ("No training images", "untrained"))
        if utility[key]
    )


def describe_utility(utility: Mapping[str, Any] | None) -> str:
    """Say how the classifiers were trained and tested."""
    if utility is None:
        return ""
    cells = ", ".join(f"{count:,} {readable(name)}" for name, count in utility["held_out"].items())
    return (
        f"Each classifier was trained {utility['seeds']} times and tested on held-out images ({cells}). Every cell of "
        "group and value counts alike. An edited image has the value that the edit was to give it. The intervals "
        "account for seeds and held-out images. False labels are known where the truth of edits is. "
        f"{_say_empty(utility)}".rstrip()
    )


@stage(revision=1)
def plot_utility(*, utility: Path, figure: Path) -> None:
    """Draw the worst-group accuracy of each method with its interval, and the accuracy in every cell.

    Args:
        utility: JSON of `evaluate_utility`.
        figure: PNG to write.
    """
    save_figure(utility_figure(read_json(utility)), figure)


def utility_figure(utility: Mapping[str, Any]) -> Figure:
    """Return the figure, a row for each method."""
    methods = known_methods(utility)
    figure = Figure(figsize=(7.2, 0.62 + 0.26 * len(methods)))
    axes = figure.add_axes(
        (0.36, 0.42 / (0.62 + 0.26 * len(methods)), 0.61, 0.26 * len(methods) / (0.62 + 0.26 * len(methods)))
    )
    for row, method in enumerate(methods):
        found = utility["methods"][method]
        color = BOUND if method == "ideal" else EDITED if method.startswith("rebalanced") else PLAIN
        worst = as_estimate(found["worst_group"])
        axes.plot([worst.low, worst.high], [row, row], color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axes.plot(worst.value, row, "o", color=color, markersize=5.5, zorder=3)
        axes.plot(
            [value for value in found["cells"].values() if value is not None],
            [row] * sum(value is not None for value in found["cells"].values()),
            "|", color=INK, markersize=6, markeredgewidth=0.7, zorder=1,
        )  # fmt: skip
    axes.set_yticks(range(len(methods)), [METHODS[method] for method in methods], fontsize=SMALL)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    lows = (as_estimate(utility["methods"][method]["worst_group"]).low for method in methods)
    axes.set_xlim(min([0.5, *(low for low in lows if not math.isnan(low))]) - 0.02, 1.0)
    axes.tick_params(axis="x", labelsize=SMALL, length=2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        f"accuracy for {readable(utility['attribute'])}: worst group with interval (dot), every cell (stroke)",
        fontsize=SMALL, color=INK,
    )  # fmt: skip
    figure.text(0.005, 0.97, "Classifier trained on", fontsize=NORMAL, color=INK, va="top")
    return figure
