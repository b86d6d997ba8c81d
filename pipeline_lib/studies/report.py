"""Figures and page of the paper's studies."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pipeline_lib.config.names import readable
from pipeline_lib.data.tables import read_table
from pipeline_lib.report.figures import NORMAL, SMALL, STRUCK_COLOR, save_figure
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.comparison import RATIO
from pipeline_lib.studies.rows import OVER

COLOURS = "viridis"
LETTERS = 17  # of a title in an inch
UPRIGHT = 20  # letters in a line of titles that are written upwards
#: Title of each study, with the paper's section.
TITLES = {
    "ablation": "An encoder without one of its losses (A.2.3, Table 2)",
    "comparison": "One pass against other methods (4.2, Tables 4 and 5)",
    "adaptation": "An encoder fine-tuned on the image (A.2.4, Fig. 23)",
    "completion": "Holes in real images (A.2.1, Fig. 9)",
    "composition": "Collages and what is made of them (4.1, Table 3)",
    "direction": "An attribute by composition and by a learned direction (A.2.2, Fig. 15)",
    "discovery": "Parts found by superpixels (4.4, Fig. 8 and 27)",
    "illumination": "Less light on one half (A.2.4, Fig. 22)",
    "multimodal": "Several examples of a part (A.2.1, Fig. 10)",
    "independence": "Independence of parts (4.4, Table 1)",
    "interpolation": "Composition against blends (4.3, Fig. 7)",
}
#: Images or collages of a study in the paper.
SIZES = {"comparison": 200, "composition": 50_000, "independence": 100, "interpolation": 500}
FASTER = 100  # times that one pass is faster than optimisation, by the orders of magnitude in Table 4
NOT_IN_PAPER = ("direction", "discovery")  # studies with comparisons that the paper does not make
MORE_IS_BETTER = (
    "density", "coverage", "attribute by the referee", "group kept, by the referee",
    "area under the curve for the part of the superpixel",
)  # fmt: skip


@stage(revision=1)
def write_studies(*, table: Path, page: Path) -> None:
    """Write a page with a table for each study, and which of the paper's orderings hold here.

    Args:
        table: table of `collect_studies`.
        page: Markdown to write.
    """
    text = studies_page(read_table(table, "studies"))
    with atomic_path(page) as beside:
        beside.write_text(text, encoding="utf-8")


def studies_page(rows: pd.DataFrame) -> str:
    """Return the page for the rows of a table of studies."""
    blocks = ["# The paper's studies"]
    for study, found in rows.groupby("study", sort=True):
        differences = found["row"].str.contains(OVER)
        blocks.append(f"## {TITLES[study]}")
        if found["n"].max() < SIZES.get(str(study), 0):
            blocks.append(f"At demo size, with at most {found['n'].max():,} where the paper has {SIZES[str(study)]:,}.")
        blocks.append(_markdown(found[~differences]))
        said = [say_ordering(row) for row in found[differences].itertuples()]
        said += [say_speed(row) for row in found[found["metric"] == RATIO].itertuples()]
        if said:
            blocks.append("\n".join(f"- {sentence}" for sentence in said))
    return "\n\n".join(blocks) + "\n"


def say_ordering(row: Any) -> str:
    """Say whether one method is better than another, given a row of how much larger the other's figure is."""
    other, ours = row.row.split(OVER)
    found, unlike = f"As in the paper, {ours}", f"Unlike in the paper, {ours}"
    if row.study in NOT_IN_PAPER:
        found = unlike = f"{ours[0].upper()}{ours[1:]}"
    better, worse = ("larger", "smaller") if row.metric in MORE_IS_BETTER else ("smaller", "larger")
    low, high = sorted((-row.ci_low, -row.ci_high)) if row.metric in MORE_IS_BETTER else (row.ci_low, row.ci_high)
    least, most = sorted((abs(low), abs(high))) if low * high > 0 else (low + 0.0, high + 0.0)  # no -0
    by = f"{abs(round(row.value, 12)):.3g} (interval {least:.3g} to {most:.3g}, n = {row.n})"
    if low > 0:
        return f"{found} has a {better} {row.metric} than {other}, by {by}."
    if high < 0:
        return f"{unlike} has a {worse} {row.metric} than {other}, by {by}."
    return f"Whether {ours} or {other} has a {better} {row.metric} cannot be told. They differ by {by}."


def say_speed(row: Any) -> str:
    """Say whether one pass through the encoder is at least 100 times as fast as an optimisation, as the paper finds."""
    by = f"{row.value:.3g} times (interval {row.ci_low:.3g} to {row.ci_high:.3g}, n = {row.n})"
    if row.ci_low >= FASTER:
        return f"As in the paper, one pass is at least {FASTER} times as fast as {row.row}, {by}."
    if row.ci_high < FASTER:
        return f"Unlike in the paper, one pass is less than {FASTER} times as fast as {row.row}, {by}."
    return f"Whether one pass is {FASTER} times as fast as {row.row} cannot be told. It is {by}."


def _markdown(rows: pd.DataFrame) -> str:
    """Return a table with a line for each row of the study and a column for each metric, and the paper's figures."""
    metrics = list(dict.fromkeys(rows["metric"]))
    quoted = set(rows.loc[rows["paper"].notna(), "metric"])
    titles = [""]
    for metric in metrics:
        titles += [metric, f"{metric}, paper"] if metric in quoted else [metric]
    titles.append("n")
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|--:" * (len(titles) - 1) + "|"]
    for name, found in rows.groupby("row", sort=False):
        of_metric = found.set_index("metric").to_dict("index")
        cells = []
        for metric in metrics:
            figures = of_metric.get(metric)
            cells.append(_figure(figures) if figures else "")
            if metric in quoted:
                cells.append(f"{figures['paper']:.3g}" if figures and not pd.isna(figures["paper"]) else "")
        counts = ", ".join(str(n) for n in found["n"].unique())
        lines.append(f"| {readable(str(name))} | " + " | ".join([*cells, counts]) + " |")
    return "\n".join(lines)


def _figure(row: dict[str, Any]) -> str:
    """Return a figure with its interval, if it has one."""
    if pd.isna(row["value"]):
        return "not done"
    interval = "" if pd.isna(row["ci_low"]) else " [{ci_low:.3g}, {ci_high:.3g}]"
    return ("{value:.3g}" + interval).format_map(row)


@stage(revision=1)
def plot_independence(*, maps: Path, figure: Path) -> None:
    """Draw which pixels vary when a part is replaced (paper Fig. 8 and 26).

    Args:
        maps: NPZ of `study_independence`.
        figure: PNG to write.
    """
    with np.load(maps) as found:
        save_figure(
            independence_figure(found["names"].tolist(), found["images"], found["maps"], found["masks"]), figure
        )


@stage(revision=1)
def plot_pictures(*, pictures: Path, figure: Path) -> None:
    """Draw the images of a study in rows, with a title for each column (paper Fig. 7, 9, 16 and 17).

    Args:
        pictures: NPZ of one of the other studies, with `columns`, `pixels`, and `parts` if rows have a label.
        figure: PNG to write.
    """
    with np.load(pictures) as found:
        pixels = found["pixels"]
        labels = found["parts"].tolist() if "parts" in found else [""] * len(pixels)
        save_figure(picture_grid(found["columns"].tolist(), labels, pixels), figure)


def independence_figure(names: list[str], images: np.ndarray, maps: np.ndarray, masks: np.ndarray) -> Figure:
    """Return a row for each image with its map for each part that one of them has.

    Args:
        names: names of the c parts.
        images: uint8 (n, H, W, 3).
        maps: shares in [0, 1], (n, c, H, W).
        masks: the parts, bool (n, c, H, W); empty for one that an image lacks.
    """
    present = masks.any(axis=(0, 2, 3))
    names, maps, masks = (
        [name for name, here in zip(names, present, strict=True) if here],
        maps[:, present],
        masks[:, present],
    )
    count, columns = len(images), len(names) + 1
    drawn = Figure(figsize=(7.2, 6.2 / columns * count + 0.55), layout="constrained")
    drawn.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    cells = drawn.subplots(count, columns, squeeze=False)
    for row, image in enumerate(images):
        cells[row, 0].imshow(image)
        for column in range(1, columns):
            mask = masks[row, column - 1]
            if mask.any():
                cells[row, column].imshow(maps[row, column - 1], vmin=0, vmax=1, cmap=COLOURS)
                cells[row, column].contour(mask, [0.5], colors=STRUCK_COLOR, linewidths=0.8)
    for axes in cells.flat:
        axes.set_axis_off()
        axes.set_box_aspect(1)
    for axes, title in zip(cells[0], ["image", *names], strict=True):
        axes.set_title(readable(title), fontsize=SMALL)
    bar = drawn.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), ax=cells, shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("share of the variation", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    drawn.suptitle("Replaced part", fontsize=NORMAL)
    return drawn


def picture_grid(columns: list[str], rows: list[str], pixels: np.ndarray) -> Figure:
    """Return a figure of images with a title for each column and a label for each row.

    Args:
        columns: titles of c columns.
        rows: labels of n rows.
        pixels: uint8 (n, c, H, W, 3).
    """
    side = min(1.05, 6.4 / len(columns))
    is_narrow = round(LETTERS * side) < max(len(word) for title in columns for word in title.split())
    titles = [
        textwrap.fill(title, UPRIGHT if is_narrow else round(LETTERS * side), break_long_words=False)
        for title in columns
    ]
    lines = [line for title in titles for line in title.split("\n")]
    most = max(title.count("\n") for title in titles) + 1
    head = max(map(len, lines)) / LETTERS if is_narrow else 0.15 * most
    drawn = Figure(figsize=(side * len(columns) + 0.8, side * len(rows) + 0.2 + head), layout="constrained")
    drawn.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    cells = drawn.subplots(len(rows), len(columns), squeeze=False)
    for row, (label, images) in enumerate(zip(rows, pixels, strict=True)):
        for axes, image in zip(cells[row], images, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        cells[row, 0].set_ylabel(readable(label), fontsize=SMALL)
    for axes, title in zip(cells[0], titles, strict=True):
        axes.set_title(title, fontsize=SMALL, rotation=90 if is_narrow else 0)
    return drawn
