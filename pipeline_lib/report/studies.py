"""Figures of the paper's studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pipeline_lib.report.figures import NORMAL, SMALL, STRUCK_COLOR, save_figure
from pipeline_lib.report.tables import readable

COLOURS = "viridis"


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


def plot_interpolation(*, pictures: Path, figure: Path) -> None:
    """Draw pairs of images with what composition and blends make of them (paper Fig. 7).

    Args:
        pictures: NPZ of `study_interpolation`.
        figure: PNG to write.
    """
    with np.load(pictures) as found:
        save_figure(interpolation_figure(found["columns"].tolist(), found["parts"].tolist(), found["pixels"]), figure)


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


def interpolation_figure(columns: list[str], parts: list[str], pixels: np.ndarray) -> Figure:
    """Return a row for each pair, with the name of the part that is to come from the target.

    Args:
        columns: names of the c images of a pair.
        parts: names of the parts of n pairs.
        pixels: uint8 (n, c, H, W, 3).
    """
    side = 6.4 / len(columns)
    drawn = Figure(figsize=(7.2, side * len(parts) + 0.35), layout="constrained")
    drawn.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    cells = drawn.subplots(len(parts), len(columns), squeeze=False)
    for row, (part, images) in enumerate(zip(parts, pixels, strict=True)):
        for axes, image in zip(cells[row], images, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        cells[row, 0].set_ylabel(readable(part), fontsize=SMALL)
    for axes, title in zip(cells[0], columns, strict=True):
        axes.set_title(title, fontsize=SMALL)
    return drawn
