"""What generated avatars show by the nearest drawing, without a detector: no network is trained for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pipeline_lib.audit.estimate import Estimate, estimate_json, wilson_rate
from pipeline_lib.config import AvatarData, Evaluate, Rebalance
from pipeline_lib.data.avatars import draw_face, draw_variants, render_image
from pipeline_lib.data.shards import iterate_batches
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.rates import gap, group_gap
from pipeline_lib.imaging.transfer import to_float, to_uint8
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.rebalance.groups import group_name, in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.overlap import map_ahead
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

AIM = 0.99  # share of the answers that is to be right, by which the largest ratio is chosen
LEAST_ACCURACY = 0.97  # of the answers about the other faces, in each group and for each value
FACES_AHEAD = 32
DRAWN_AT_MOST = 100  # faces drawn for each that is wanted, if a group is rare
BATCH = 64  # images that pass through the networks at a time
COMPARED_AT_ONCE = 512  # samples


class Bank(NamedTuple):
    """Faces, each with every drawing of some parts.

    Images are uint8 (faces, drawings, H, W, 3). `shows` says whether a drawing shows the attribute, bool
    (faces, drawings). `groups` has the name of the group of each face.
    """

    images: np.ndarray
    shows: np.ndarray
    groups: np.ndarray


class Answers(NamedTuple):
    """Whether the nearest drawing shows the attribute, bool (n,), and how much nearer it is than one that differs.

    The ratio, float (n,), is the distance to the nearest drawing over that to the nearest one of the other value: 0 if
    an image equals a drawing, 1 if both are equally near.
    """

    shows: np.ndarray
    ratio: np.ndarray


@stage(revision=2)
def judge_samples(
    *,
    images: list[Path],
    selector: list[Path],
    referee: list[Path],
    encoder: Path,
    generator: Path,
    precision: Path,
    data: AvatarData,
    settings: Rebalance,
    evaluate: Evaluate,
    seed: int,
    judged: Path,
    device: torch.device,
    threads: int,
) -> None:
    """Tell what samples show by the nearest drawing, check that against drawings, and compare detectors with it.

    The bank has faces that are not of the dataset, as many of each group, each with every drawing of the region's
    parts. A sample is compared with all of them inside a crop outside of which the drawings of a face do not differ.
    Where the nearest drawing that shows the attribute and the nearest one that does not are about equally near, the
    answer is "ambiguous".

    The bank itself is passed through encoder and generator, without holes, for images as soft as samples. What such a
    reconstruction shows is told by the drawings of its own face, and by the judge from those of other faces. The
    largest ratio that is no "ambiguous" is chosen on half of the faces, and checked on the others.

    Args:
        images: all shards of all image sets, each in a folder named after its set.
        selector: the selector's scores, a table for each image set, under its name.
        referee: the referee's scores, likewise; it also tells the group of a sample.
        encoder: weight file.
        generator: weight file of the source generator.
        precision: report of the encoder, with the precision of the inversion.
        data: the config section of the dataset.
        settings: the config section of the edits; the first attribute is judged.
        evaluate: the config section with the size of the bank.
        seed: seed of the run.
        judged: JSON to write.
        device: where to reconstruct.
        threads: worker processes.

    Raises:
        ConfigError: there is to be no bank.
        DataError: the parts of the region have no drawings to exchange, or these do not differ.
    """
    if evaluate.judge_bank is None:
        raise ConfigError("evaluate.judge_bank: null, so there are no drawings to compare with; set a number")
    settings = settings.first_attribute()
    bank = draw_bank(data, settings, evaluate.judge_bank, seed, threads)
    crop = crop_of_drawings(bank.images)
    inverter = open_inverter(encoder, generator, device, precision, compile=False)
    largest, check = check_judge(bank, _reconstruct(bank.images, inverter), crop)
    if not check["counts"]:
        logger.warning(
            "the nearest drawing of another face shows the wrong value of `%s` in more than %.2f of the "
            "reconstructions of a group; what it says of samples does not count",
            settings.edited[0], 1 - LEAST_ACCURACY,
        )  # fmt: skip
    drawings, shows = _features(bank.images, crop), bank.shows.ravel()
    by_selector = {path.stem: path for path in selector}
    found = {}
    for path in referee:
        names, answers = _judge_set(
            [shard for shard in images if shard.parent.name == path.stem], drawings, shows, crop
        )
        says = {"selector": _says(by_selector[path.stem], names), "referee": _says(path, names)}
        found[path.stem] = compare(answers.shows, answers.ratio > largest, says, settings, evaluate.confidence)
    rows, columns = crop
    write_json(
        judged,
        {
            "attribute": settings.edited[0],
            "bank": {"renders": len(shows), "faces": len(bank.images)},
            "crop": {"top": rows.start, "bottom": rows.stop, "left": columns.start, "right": columns.stop},
            "largest_ratio": largest,
            "check": check,
            "groups_by": "referee",
            "confidence": evaluate.confidence,
            "sets": found,
        },
    )


def draw_bank(data: AvatarData, settings: Rebalance, renders: int, seed: int, threads: int) -> Bank:
    """Draw faces of each group of the first attribute, with every drawing of the region's parts.

    Args:
        data: the config section of the dataset, with its rates; the stream of the faces is another.
        settings: the config section of the edits.
        renders: how many drawings there are to be; at least two faces of each group are drawn.
        seed: seed of the run.
        threads: worker processes.

    Raises:
        DataError: the parts have no drawings to exchange, or all show the same.
    """
    attribute, parts = settings.edited[0], settings.edit.region_of(settings.edited[0]).parts
    wheres = {group_name(target.where): target.where for target in settings.targets if target.attribute == attribute}
    stream = seeding.derive(seed, "faces of the bank")
    drawings = sum(1 for _ in draw_variants(draw_face(stream, 0, data.rates), parts))
    faces = _faces(stream, data, wheres, max(2, renders // (drawings * len(wheres))))
    images, shows = [], []
    with ProcessPoolExecutor(threads) as pool, Progress("judge_samples (bank)", len(faces)) as progress:
        render = partial(_render, data, stream, parts, attribute)
        for rendered, values in map_ahead(pool, render, [index for _, index in faces], FACES_AHEAD):
            images.append(rendered)
            shows.append(values)
            progress.advance(1)
    if len(np.unique(shows)) < 2:
        raise DataError(
            f"rebalance.edit.region: no drawing of {' and '.join(parts)} changes `{attribute}`; swap another"
        )
    return Bank(np.stack(images), np.array(shows), np.array([group for group, _ in faces]))


def crop_of_drawings(images: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns outside of which the drawings (faces, drawings, H, W, 3) of each face are alike.

    Raises:
        DataError: they do not differ.
    """
    differ = (images != images[:, :1]).any(axis=(0, 1, 4))
    if not differ.any():
        raise DataError("rebalance.edit.region: its drawings do not differ within `data.crop`; enlarge the crop")
    rows, columns = (np.flatnonzero(differ.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def normalised(crops: np.ndarray) -> np.ndarray:
    """Return crops, uint8 (n, h, w, 3), less their mean colour and with a length of 1, as float32 (n, h * w * 3).

    So neither the colour of the skin nor the contrast matters. A crop of a single colour is all zeros.
    """
    shades = crops - crops.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    flat = shades.reshape(len(crops), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of rows (n, d) from rows (m, d), float32 (n, m)."""
    squares = [np.square(rows).sum(axis=1, dtype=np.float32) for rows in (first, second)]
    return np.sqrt(np.maximum(squares[0][:, None] + squares[1] - 2 * (first @ second.T), 0))


def judge(apart: np.ndarray, shows: np.ndarray) -> Answers:
    """Answer by the nearest drawing.

    Args:
        apart: distances of images from drawings (n, m); infinite for a drawing that is not to be used.
        shows: which drawings show the attribute, bool (m,).
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


def check_judge(bank: Bank, reconstructions: np.ndarray, crop: tuple[slice, slice]) -> tuple[float, dict[str, object]]:
    """Choose the largest ratio that is not ambiguous, and check the judge with it on other faces.

    What a reconstruction shows is not certain, because encoder and generator may have lost what was drawn. It is told
    by the nearest drawing of its own face twice, by normalised crops and by crops as they are. Where these differ, it
    is uncertain. That counts as a wrong answer when the ratio is chosen, and is left out of the check.

    Args:
        bank: drawn faces, of which those with an even number in their group choose, and the others check.
        reconstructions: its images as encoder and generator show them, uint8 (faces, drawings, H, W, 3).
        crop: rows and columns that are compared.

    Returns:
        The ratio and the check for JSON. A cell is a group and a value that reconstructions show for certain: `n` of
        them, `told` by the judge, `right`, and the accuracy of what is told; then how many were `drawn` with the value,
        and how many of these kept it. The judge counts if its accuracy is enough in every cell.
    """
    faces, drawings = bank.shows.shape
    apart = distances(_features(reconstructions, crop), _features(bank.images, crop))
    by_face = apart.reshape(faces, drawings, faces, drawings)
    own = np.stack([by_face[face, :, face] for face in range(faces)])
    plain = np.stack([distances(*(_plain(images[face], crop) for images in (reconstructions, bank.images)))
                      for face in range(faces)])  # fmt: skip
    shown, by_colours = (
        np.stack([judge(of_face, shows).shows for of_face, shows in zip(found, bank.shows, strict=True)])
        for found in (own, plain)
    )
    certain = shown == by_colours
    by_face[np.arange(faces), :, np.arange(faces)] = np.inf  # of `apart` too: no face is judged by itself
    answers = Answers(*(found.reshape(faces, drawings) for found in judge(apart, bank.shows.ravel())))
    right = answers.shows == shown
    chooses = np.zeros(faces, bool)
    for group in np.unique(bank.groups):
        chooses[np.flatnonzero(bank.groups == group)[::2]] = True
    largest = choose_ratio(answers.ratio[chooses].ravel(), (right & certain)[chooses].ravel())
    told = answers.ratio <= largest
    cells = []
    for group in dict.fromkeys(bank.groups.tolist()):
        inside = (~chooses & (bank.groups == group))[:, None]
        for value in (True, False):
            shows, drawn = inside & certain & (shown == value), inside & (bank.shows == value)
            counts = {"n": shows, "told": shows & told, "right": shows & told & right, "drawn": drawn}
            counts = {name: int(which.sum()) for name, which in counts.items()}
            accuracy = counts["right"] / counts["told"] if counts["told"] else None
            kept = int((drawn & (shown == value)).sum())
            cells.append({"group": group, "value": value, **counts, "kept": kept, "accuracy": accuracy})
    return largest, {
        "cells": cells,
        "uncertain": float(1 - certain[~chooses].mean()),
        "least_accuracy": LEAST_ACCURACY,
        "counts": all(cell["accuracy"] is not None and cell["accuracy"] >= LEAST_ACCURACY for cell in cells),
    }


def compare(
    shows: np.ndarray,
    ambiguous: np.ndarray,
    says: Mapping[str, Mapping[str, np.ndarray]],
    settings: Rebalance,
    confidence: float,
) -> dict[str, object]:
    """Return rates by the judge and by detectors in each group, their confusion, and the gap by the judge.

    Args:
        shows: whether the nearest drawing of each image shows the attribute, bool (n,).
        ambiguous: of which images that does not count.
        says: for each detector what it says of each attribute, bool (n,); the referee's groups count.
        settings: the config section with attribute and groups.
        confidence: level of the intervals.

    Returns:
        For JSON: `groups` by name, and `gap`. A rate is that of the images that are not ambiguous. Its bounds hold
        whatever the ambiguous ones show: in the lower one none of them has the attribute, and in the upper one all do.
    """
    attribute = settings.edited[0]
    groups, counted = {}, []
    for target in settings.first_attribute().targets:
        inside = in_group(says["referee"], target.where)
        yes, unknown, n = (int((inside & which).sum()) for which in (shows & ~ambiguous, ambiguous, inside))
        counted.append(((yes, n - unknown), (yes, n), (yes + unknown, n)))
        rate, least, most = (wilson_rate(*counts, confidence) for counts in counted[-1])
        groups[group_name(target.where)] = {
            "n": n,
            "ambiguous": unknown,
            "share_ambiguous": unknown / n if n else None,
            "rate": estimate_json(rate),
            "bounds": [estimate_json(least)["ci"][0], estimate_json(most)["ci"][1]],
            **{
                detector: {
                    "rate": estimate_json(wilson_rate(int((inside & said[attribute]).sum()), n, confidence)),
                    "confusion": _confusion(shows[inside], ambiguous[inside], said[attribute][inside]),
                }
                for detector, said in says.items()
            },
        }

    def gap_of(one: int, other: int, level: float) -> Estimate:
        return gap(*(wilson_rate(*counted[number][0], level) for number in (one, other)))

    def bounds_of(one: int, other: int, level: float) -> Estimate:
        (first, least, most), (second, least_other, most_other) = (
            [wilson_rate(*counts, level) for counts in counted[number]] for number in (one, other)
        )
        return Estimate(gap(first, second).value, gap(least, most_other).low, gap(most, least_other).high)

    wanted = [target.rate for target in settings.first_attribute().targets]
    found, bounds = (estimate_json(group_gap(of, wanted, confidence)) for of in (gap_of, bounds_of))
    return {"groups": groups, "gap": found | {"bounds": bounds["ci"]}}


def _confusion(shows: np.ndarray, ambiguous: np.ndarray, says: np.ndarray) -> dict[str, dict[str, int]]:
    """Count images by what a detector says and by what the nearest drawing shows."""
    answers = {"shows": shows & ~ambiguous, "shows not": ~shows & ~ambiguous, "ambiguous": ambiguous}
    return {
        said: {answer: int((of_detector & which).sum()) for answer, which in answers.items()}
        for said, of_detector in (("yes", says), ("no", ~says))
    }


def _faces(
    stream: int, data: AvatarData, wheres: Mapping[str, Mapping[str, bool]], of_each: int
) -> list[tuple[str, int]]:
    """Return group and index of the first faces of a stream, `of_each` group, or fewer if a group is very rare."""
    found: dict[str, list[int]] = {name: [] for name in wheres}
    for index in range(DRAWN_AT_MOST * of_each * len(wheres)):
        attributes = draw_face(stream, index, data.rates).attributes
        for name, where in wheres.items():
            if len(found[name]) < of_each and in_group(attributes, where):
                found[name].append(index)
                break
        if all(len(indices) == of_each for indices in found.values()):
            break
    return [(name, index) for name, indices in found.items() for index in indices]


def _render(
    data: AvatarData, stream: int, parts: Sequence[str], attribute: str, index: int
) -> tuple[np.ndarray, list[bool]]:
    """Render a face with every drawing in a worker process, where nothing may use torch."""
    variants = [face for _, face in draw_variants(draw_face(stream, index, data.rates), parts)]
    images = [render_image(face, data.resolution, data.crop) for face in variants]
    return np.stack(images), [face.attributes[attribute] for face in variants]


def _reconstruct(images: np.ndarray, inverter: Inverter) -> np.ndarray:
    """Pass images (..., H, W, 3) through encoder and generator, without holes."""
    flat = torch.from_numpy(images.reshape(-1, *images.shape[-3:])).permute(0, 3, 1, 2)

    def passed() -> Iterator[np.ndarray]:
        with Progress("judge_samples (reconstructions)", len(flat)) as progress:
            for batch in flat.split(BATCH):
                yield to_uint8(inverter(to_float(batch, inverter.device))).numpy()
                progress.advance(len(batch))

    return np.concatenate(list(passed())).reshape(images.shape)


def _judge_set(
    shards: Sequence[Path], drawings: np.ndarray, shows: np.ndarray, crop: tuple[slice, slice]
) -> tuple[list[str], Answers]:
    """Judge an image set by the features of the drawings; return the ids of its images too."""
    names, found = [], []
    for batch_names, pixels in iterate_batches(shards, COMPARED_AT_ONCE):
        names += batch_names
        found.append(judge(distances(_features(pixels, crop), drawings), shows))
    return names, Answers(*map(np.concatenate, zip(*found, strict=True)))


def _features(images: np.ndarray, crop: tuple[slice, slice]) -> np.ndarray:
    """Return the normalised crops of images (..., H, W, 3), a row each."""
    return normalised(images.reshape(-1, *images.shape[-3:])[:, crop[0], crop[1]])


def _plain(images: np.ndarray, crop: tuple[slice, slice]) -> np.ndarray:
    """Return the crops of images (n, H, W, 3) as they are, a row each."""
    return images[:, crop[0], crop[1]].reshape(len(images), -1).astype(np.float32)


def _says(scores: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what a detector says of each image, in the order of `names`."""
    table = read_table(scores, "scores").set_index("image_id").loc[names]
    return {attribute: table[attribute].to_numpy() > 0.5 for attribute in table}
