"""The closest clean rendering of a generated image, of a bank of faces with every drawing of some parts.

No network is trained for this. How far it is right is checked on renderings that encoder and generator have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from pipeline_lib.data.avatars.drawing import render_variants
from pipeline_lib.data.avatars.faces import Face, draw_face, variants_of
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.avatars.truth import squared_distances
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.overlap import map_ahead
from pipeline_lib.runtime.progress import Progress

AIM = 0.99  # share of the answers that is to be right, by which the largest ratio is chosen
LEAST_ACCURACY = 0.97  # of the answers about the other faces, in each group and for each value
FACES_AHEAD = 32
DRAWN_AT_MOST = 100  # faces drawn for each that is wanted, if a group is rare

Crop = tuple[slice, slice]  # rows and columns


class Bank(NamedTuple):
    """Faces, each with every drawing of some parts.

    Images are uint8 (faces, drawings, H, W, 3). `shows` says whether a rendering shows the attribute, bool
    (faces, drawings). `groups` has the name of the group of each face.
    """

    images: np.ndarray
    shows: np.ndarray
    groups: np.ndarray


class Answers(NamedTuple):
    """Whether the closest rendering shows the attribute, bool (n,), and how much closer it is than one that differs.

    The ratio, float (n,), is the distance to the closest rendering over that to the closest one of the other value: 0
    if an image equals a rendering, 1 if both are equally close.
    """

    shows: np.ndarray
    ratio: np.ndarray


def draw_bank(
    data: AvatarData,
    wheres: Mapping[str, Mapping[str, bool]],
    attribute: str,
    parts: Sequence[str],
    renders: int,
    seed: int,
    threads: int,
) -> Bank:
    """Draw faces of each group, with every drawing of some parts.

    Args:
        data: the config section of the dataset, with its rates; the stream of the faces is another.
        wheres: conditions of each group, by its name.
        attribute: what renderings show or not.
        parts: names of the parts.
        renders: how many renderings there are to be; at least two faces of each group are drawn.
        seed: seed of the run.
        threads: worker processes.

    Raises:
        DataError: the parts have no drawings to exchange, or all show the same.
    """
    stream = seeding.derive(seed, "faces of the bank")
    drawings = len(variants_of(draw_face(stream, 0, data.rates), parts))
    faces = _faces(stream, data, wheres, max(2, renders // (drawings * len(wheres))))
    images, shows = [], []
    with ProcessPoolExecutor(threads) as pool, Progress("compare_with_renderings (bank)", len(faces)) as progress:
        render = partial(render_variants, data, parts)
        for found in map_ahead(pool, render, [face for _, face in faces], FACES_AHEAD):
            images.append(found.images)
            shows.append([attributes[attribute] for attributes in found.attributes])
            progress.advance(1)
    if len(np.unique(shows)) < 2:
        raise DataError(
            f"rebalance.edit.region: no drawing of {' and '.join(parts)} changes `{attribute}`; swap another"
        )
    return Bank(np.stack(images), np.array(shows), np.array([group for group, _ in faces]))


def _faces(
    stream: int, data: AvatarData, wheres: Mapping[str, Mapping[str, bool]], of_each: int
) -> list[tuple[str, Face]]:
    """Return the first faces of a stream with their groups, `of_each` group, or fewer if a group is very rare."""
    found: dict[str, list[Face]] = {name: [] for name in wheres}
    for index in range(DRAWN_AT_MOST * of_each * len(wheres)):
        face = draw_face(stream, index, data.rates)
        open_groups = [name for name in wheres if len(found[name]) < of_each]
        if not open_groups:
            break
        for name in open_groups:
            if wheres[name].items() <= face.attributes.items():
                found[name].append(face)
                break
    return [(name, face) for name, faces in found.items() for face in faces]


def crop_of(images: np.ndarray) -> Crop:
    """Return the rows and columns outside of which the renderings (faces, drawings, H, W, 3) of each face are alike.

    Raises:
        DataError: they do not differ.
    """
    differ = (images != images[:, :1]).any(axis=(0, 1, 4))
    if not differ.any():
        raise DataError("rebalance.edit.region: its drawings do not differ within `data.crop`; enlarge the crop")
    rows, columns = (np.flatnonzero(differ.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def features_of(images: np.ndarray, crop: Crop) -> np.ndarray:
    """Return the crops of images, uint8 (..., H, W, 3), less their mean colour and with a length of 1, float32 (n, d).

    So neither the colour of the skin nor the contrast matters. A crop of a single colour is all zeros.
    """
    crops = images.reshape(-1, *images.shape[-3:])[:, *crop]
    flat = (crops - crops.mean(axis=(1, 2), keepdims=True, dtype=np.float32)).reshape(len(crops), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of rows (n, d) from rows (m, d), (n, m)."""
    return np.sqrt(squared_distances(first, second))


def answer(apart: np.ndarray, shows: np.ndarray) -> Answers:
    """Answer by the closest rendering.

    Args:
        apart: distances of images from renderings (n, m); infinite for a rendering that is not to be used.
        shows: which renderings show the attribute, bool (m,).
    """
    showing, other = (np.min(apart[:, which], axis=1, initial=np.inf) for which in (shows, ~shows))
    near, far = np.minimum(showing, other), np.maximum(showing, other)
    equal = far == near  # both may be 0 or infinite
    return Answers(showing < other, np.where(equal, 1.0, near / np.where(equal, 1.0, far)))


def choose_ratio(ratio: np.ndarray, right: np.ndarray) -> float:
    """Return the largest ratio up to which a share of at least `AIM` of the answers are right; 0 if there is none."""
    order = np.argsort(ratio, kind="stable")
    enough = np.flatnonzero(np.cumsum(right[order]) >= AIM * np.arange(1, len(order) + 1))
    return float(ratio[order][enough[-1]]) if len(enough) else 0.0


def check_bank(bank: Bank, reconstructions: np.ndarray, crop: Crop) -> tuple[float, dict[str, object]]:
    """Choose the largest ratio that is not ambiguous, and check answers with it on other faces.

    What a reconstruction shows is not certain, because encoder and generator may have lost what was drawn. The closest
    rendering of its own face says so twice, by normalised crops and by crops as they are. Where these differ, it is
    uncertain. That counts as a wrong answer when the ratio is chosen, and is left out of the check.

    Args:
        bank: drawn faces, of which those with an even number in their group choose, and the others check.
        reconstructions: its images as encoder and generator show them, uint8 (faces, drawings, H, W, 3).
        crop: rows and columns that are compared.

    Returns:
        The ratio and the check for JSON. A cell is a group and a value that reconstructions show for certain: `n` of
        them, `told` by renderings of other faces, `right`, and the accuracy of what is told. The answers count if their
        accuracy is enough in every cell.
    """
    faces, drawings = bank.shows.shape
    apart = distances(features_of(reconstructions, crop), features_of(bank.images, crop))
    by_face = apart.reshape(faces, drawings, faces, drawings)
    shown, by_colours = np.empty_like(bank.shows), np.empty_like(bank.shows)
    for face, shows in enumerate(bank.shows):
        plain = (
            images[face][:, *crop].reshape(drawings, -1).astype(np.float32) for images in (reconstructions, bank.images)
        )
        shown[face] = answer(by_face[face, :, face], shows).shows
        by_colours[face] = answer(distances(*plain), shows).shows
        by_face[face, :, face] = np.inf  # of `apart` too: no answer is by a face's own renderings
    answers = Answers(*(found.reshape(faces, drawings) for found in answer(apart, bank.shows.ravel())))
    right, certain = answers.shows == shown, shown == by_colours
    chooses = np.zeros(faces, bool)
    for group in np.unique(bank.groups):
        chooses[np.flatnonzero(bank.groups == group)[::2]] = True
    largest = choose_ratio(answers.ratio[chooses].ravel(), (right & certain)[chooses].ravel())
    told = answers.ratio <= largest
    cells = []
    for group in dict.fromkeys(bank.groups.tolist()):
        inside = (~chooses & (bank.groups == group))[:, None]
        for value in (True, False):
            shows = inside & certain & (shown == value)
            n, n_told, n_right = (int(which.sum()) for which in (shows, shows & told, shows & told & right))
            cell = {"group": group, "value": value, "n": n, "told": n_told, "right": n_right}
            cells.append(cell | {"accuracy": n_right / n_told if n_told else None})
    return largest, {
        "cells": cells,
        "uncertain": float(1 - certain[~chooses].mean()),
        "least_accuracy": LEAST_ACCURACY,
        "counts": all(cell["accuracy"] is not None and cell["accuracy"] >= LEAST_ACCURACY for cell in cells),
    }
