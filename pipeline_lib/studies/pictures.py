"""The figure of a study: rows of images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion

from pipeline_lib.config.names import readable
from pipeline_lib.report.figures import SMALL

MANY = 10  # columns, from which on titles are written upwards
OUTLINE = (213, 94, 0)


def heat_map(values: np.ndarray, outlined: np.ndarray) -> np.ndarray:
    """Return colours of values in [0, 1], (H, W), with the outline of a mask, bool (H, W), as uint8 (H, W, 3)."""
    return outline((255 * matplotlib.colormaps["viridis"](values)[..., :3]).round().astype(np.uint8), outlined)


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), with the outermost pixels of a mask, bool (H, W), in a colour of their own."""
    return np.where((mask & ~binary_erosion(mask))[..., None], np.array(OUTLINE, np.uint8), image)


def picture_grid(columns: Sequence[str], rows: Sequence[str], pixels: np.ndarray) -> Figure:
    """Return a figure of images with a title for each column and a label for each row.

    Args:
        columns: titles of c columns.
        rows: labels of n rows.
        pixels: uint8 (n, c, H, W, 3).
    """
    upright, side = len(columns) > MANY, min(1.05, 6.4 / len(columns))
    letters = 20 if upright else round(17 * side)
    titles = [textwrap.fill(readable(title), letters, break_long_words=False) for title in columns]
    head = 1.2 if upright else 0.15 * (1 + max(title.count("\n") for title in titles))
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
        axes.set_title(title, fontsize=SMALL, rotation=90 if upright else 0)
    return drawn
