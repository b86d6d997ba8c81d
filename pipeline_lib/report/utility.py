"""The second section of a report: whether the rebalanced dataset trains a fairer classifier than cheaper means do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.report.figures import INK, NORMAL, PALE, SMALL, save_figure
from pipeline_lib.report.tables import as_estimate, readable, rounded, share_text
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
    "rebalanced_touched": "rebalanced, all images touched",
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
                "worst group": share_text(worst.value),
                "interval": f"[{share_text(worst.low)}, {share_text(worst.high)}]",
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
    with_edits, without = METHODS[gain["with_edits"]], METHODS[gain["without"]]
    after, before = (
        share_text(utility["methods"][gain[kind]]["worst_group"]["value"]) for kind in ("with_edits", "without")
    )
    low, high = gain["ci"]
    attribute = readable(utility["attribute"])
    if low > 0:
        return (
            f"Edits help: a classifier of {attribute} is right in {after} of its worst group if it is trained on the "
            f"{with_edits}, and in {before} with the best cheaper method ({without})."
        )
    if high < 0:
        return (
            f"At this bias a cheaper method is better: the worst group of a classifier of {attribute} is right in "
            f"{before} ({without}), and in {after} after edits ({with_edits})."
        )
    return (
        f"At this bias cheaper methods are enough: the worst group of a classifier of {attribute} is right in {before} "
        f"({without}) and in {after} after edits ({with_edits}), which does not differ beyond the interval."
    )


def describe_utility(utility: Mapping[str, Any] | None) -> str:
    """Say how the classifiers were trained and tested."""
    if utility is None:
        return ""
    few = f" Too few held-out images to be counted: {', '.join(map(readable, utility['left_out']))}."
    cells = ", ".join(f"{count:,} {readable(name)}" for name, count in utility["held_out"].items())
    return (
        f"Each classifier was trained {utility['seeds']} times and tested on held-out images ({cells}). Every cell of "
        "group and value counts alike. An edited image has the value that the edit was to give it. The intervals "
        "account for seeds and held-out images. False labels are known where the truth of edits is."
        f"{few if utility['left_out'] else ''}"
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
    axes.set_xlim(min(0.5, *(utility["methods"][method]["worst_group"]["ci"][0] for method in methods)) - 0.02, 1.0)
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
