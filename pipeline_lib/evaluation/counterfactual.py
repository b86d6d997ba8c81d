"""The truth of edited avatars: each is compared with the same face drawn with every drawing of the swapped part.

What the nearest drawing shows is called true only if it is right about edits of which the truth is known otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import inf, log10
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline_lib.audit.estimate import estimate_json, wilson_rate
from pipeline_lib.config import AvatarData, BoxRegion, Edit, PartRegion, Rebalance
from pipeline_lib.data.avatars import Face, draw_variants, face_of, render_image
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import SCHEMAS, attribute_columns, read_table, read_tables, write_table
from pipeline_lib.editing.donors import ImageSet, select_donors
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.masks import grow
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.rebalance.plan import made_edits, needed_edits
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import digest_of, write_json
from pipeline_lib.runtime.overlap import map_ahead
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

RIM = 1  # pixels around the region in which an edit may be blended
CHECKED = 500  # edits of known truth on which the judgement itself is checked
PROBED = 32  # of these, on which their softness is found
LEAST_ACCURACY = 0.95  # of the judgement on them, the lower limit of its interval
#: Sigmas of the Gaussians that these edits are blurred by, in 64ths of the side, until they are as soft as the run's.
SOFTNESS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
IDENTICAL = 100.0  # dB that identical pixels, whose PSNR is infinite, count as in a median
CHUNK = 16  # faces that a worker process is given at a time
CHUNKS_AHEAD = 32


class Judged(NamedTuple):
    """What an image shows by its nearest drawing, and how far it is from that and from the original.

    PSNRs are in dB, and infinite for identical pixels.
    """

    nearest: str
    attributes: dict[str, bool]
    identical_outside: bool
    psnr_outside: float
    psnr_ideal: float
    psnr_inside: float


MEASURED = tuple(name for name in Judged._fields if name != "attributes")


class _Question(NamedTuple):
    """A face, the image that is to be judged, uint8 (H, W, 3), and the region, bool (H, W), in which it may differ."""

    image_id: str
    original: np.ndarray
    image: np.ndarray
    region: np.ndarray


@stage(revision=2)
def evaluate_counterfactuals(
    *,
    images: list[Path],
    rebalanced: list[Path],
    parts: Path,
    labels: Path,
    plan: Path,
    candidates: list[Path],
    data: AvatarData,
    settings: Rebalance,
    confidence: float,
    run: str,
    seed: int,
    counterfactuals: Path,
    truth: Path,
    summary: Path,
    threads: int,
) -> None:
    """Find the truth of every edited image of the rebalanced dataset, and how far it is from the ideal edit.

    The ideal edit is the same face drawn with that drawing of the swapped part which is nearest to the edited image, in
    mean squared error inside the region. The region is what the edit pasted or left unknown, and a rim of one pixel.

    The judgement is checked on known edits: faces of the dataset get the part of another one, joined by Poisson
    blending, and show what that one shows by its label. They are blurred until the median of their PSNRs is at
    most that of the edits. The truth counts if the judgement is right about at least `LEAST_ACCURACY` of them.

    Args:
        images: shards of the dataset.
        rebalanced: shards of the rebalanced dataset.
        parts: table of parts of the dataset.
        labels: labels of the dataset.
        plan: its table of edits.
        candidates: its tables of candidates, of all shards.
        data: the config section of the dataset.
        settings: the config section of the edits.
        confidence: level of the interval of the check, in (0, 1).
        run: name of the run, stored in the files.
        seed: seed of the run.
        counterfactuals: table to write, with a row for each edited image.
        truth: table of labels of the rebalanced dataset to write; an edited image has those of its nearest drawing.
        summary: JSON to write, with the check of each attribute (`check`) and whether the truth counts (`counts`).
            Identical pixels count as `IDENTICAL` dB in its medians.
        threads: worker processes.

    Raises:
        DataError: the swapped part has no drawings to exchange.
    """
    planned, known = read_table(plan, "plan"), read_table(labels, "labels")
    tried = read_tables(candidates, "candidates", ["image_id", "donor_id", "chosen"])
    chosen = tried[tried["chosen"]]
    made = made_edits(planned, set(chosen["image_id"]))
    edits = chosen.merge(made[["image_id", "attribute", "wanted"]], on="image_id")
    _, edited = read_shards(rebalanced)
    rows, shown, checks = [], [], {}
    with ProcessPoolExecutor(threads) as pool:
        for attribute, region in settings.regions_by_attribute.items():
            image_set = ImageSet(images, parts, parts_of(region))
            judge = partial(_judge, image_set, data, region, pool)
            own = edits[edits["attribute"] == attribute]
            found = judge(own["image_id"], own["donor_id"], edited)
            shown += found
            rows.append(
                own.assign(
                    true_value=[judged.attributes[attribute] for judged in found],
                    **{name: [getattr(judged, name) for judged in found] for name in MEASURED},
                )
            )
            shows = known.set_index("image_id")[attribute]
            known_edits = draw_known_edits(image_set, settings.edit.for_attribute(attribute), seed)
            inside = np.median([min(judged.psnr_inside, IDENTICAL) for judged in found] or [IDENTICAL])
            checks[attribute] = check_judgement(attribute, known_edits, shows, judge, float(inside), confidence)
    rows = pd.concat(rows, ignore_index=True)
    metadata = {"run": run, "config_digest": digest_of([data.model_dump(), settings.model_dump()])}
    write_table(counterfactuals, "counterfactuals", rows[SCHEMAS["counterfactuals"].names], metadata)
    write_table(truth, "labels", _relabelled(known, rows["image_id"], shown), metadata)
    checked = {
        "check": checks,
        "least_accuracy": LEAST_ACCURACY,
        "counts": all(check["ci"][0] >= LEAST_ACCURACY for check in checks.values()),
    }
    write_json(summary, summarise(rows, len(needed_edits(planned))) | checked)


def judge_image(
    original: np.ndarray, image: np.ndarray, region: np.ndarray, drawings: Sequence[tuple[str, Face, np.ndarray]]
) -> Judged:
    """Compare an image with every drawing of its face; of equally near ones the first is the nearest.

    Args:
        original: the image before the edit, uint8 (H, W, 3).
        image: the image after it.
        region: bool (H, W), where the edit may differ from the original.
        drawings: names, faces and images of the drawings.
    """
    errors = [_squared_error(image, drawing, region) for _, _, drawing in drawings]
    name, face, ideal = drawings[int(np.argmin(errors))]
    outside = _squared_error(image, original, ~region)
    return Judged(
        name,
        face.attributes,
        outside == 0,
        _psnr(outside),
        _psnr(_squared_error(image, ideal, np.ones_like(region))),
        _psnr(min(errors)),
    )


def summarise(rows: pd.DataFrame, planned: int) -> dict[str, object]:
    """Return the figures of a table of counterfactuals for JSON, medians null without edits.

    Args:
        rows: the table.
        planned: planned edits, of which those without a row failed.
    """
    succeeded = int((rows["true_value"] == rows["wanted"]).sum())
    medians = {
        f"median_{name}": float(rows[name].clip(upper=IDENTICAL).median()) if len(rows) else None
        for name in ("psnr_outside", "psnr_ideal", "psnr_inside")
    }
    return {
        "planned": planned,
        "n": len(rows),
        "succeeded_by_truth": succeeded,
        "share_by_truth": succeeded / max(1, planned),
        "share_identical_outside": float(rows["identical_outside"].mean()) if len(rows) else None,
        "identical_counts_as": IDENTICAL,
        **medians,
    }


class KnownEdits(NamedTuple):
    """Edits of n faces that show what their donors show, since they have the part of these.

    Images are (n, 3, H, W) in [-1, 1], and the region (n, 1, H, W).
    """

    contexts: np.ndarray  # positions in the image set
    donors: np.ndarray
    original: torch.Tensor
    edited: torch.Tensor
    region: torch.Tensor
    image_set: ImageSet

    def pixels(self, softness: float) -> np.ndarray:
        """Return the image set with these edits, uint8, blurred by a Gaussian of `softness` 64ths of the side."""
        shown = gaussian_blur(self.edited, softness / 64 * self.edited.shape[-1]) if softness else self.edited
        pixels = np.array(self.image_set.pixels)
        pixels[self.contexts] = as_pixels(torch.where(self.region.bool(), shown, self.original)).numpy()
        return pixels


def draw_known_edits(image_set: ImageSet, settings: Edit, seed: int) -> KnownEdits:
    """Give some faces that have the part that of the donor that an edit would take.

    That is the one of a pool of random donors that differs least along the seam, or, where edits are chosen by the
    selector's certainty alone, the first of them.
    """
    contexts = seeding.numpy_generator(seed, "counterfactual check").permutation(image_set.with_part)[:CHECKED]
    size = (settings.pool or settings.candidates) if settings.choose == "seam" else 1
    size, one = min(size, len(image_set.with_part) - 1), settings.model_copy(update={"candidates": 1})
    donors, images, device = [], [], torch.device("cpu")
    for chunk in np.array_split(contexts, -(-len(contexts) // CHUNK)):
        pools = np.stack([image_set.donors(position, size, seed, "counterfactual check") for position in chunk])
        looked, of_pools = image_set.look(chunk), image_set.look(pools.flatten())
        best = select_donors(looked, of_pools, one, device).numpy()
        donors.append(np.take_along_axis(pools, best, axis=1)[:, 0])
        (context, parts), (donor, donor_parts) = looked.to(device), image_set.look(donors[-1]).to(device)
        masks = region_masks(settings.region, donor_parts, parts)
        collage = make_collage(context, donor, masks.pasted)
        images.append((context, finish(context, donor, collage, masks, "detail"), masks.region))
    return KnownEdits(contexts, np.concatenate(donors), *map(torch.cat, zip(*images, strict=True)), image_set)


def check_judgement(
    attribute: str,
    known: KnownEdits,
    shows: pd.Series,
    judge: Callable[[Sequence[str], Sequence[str], np.ndarray], list[Judged]],
    inside: float,
    confidence: float,
) -> dict[str, object]:
    """Return how often the nearest drawing is right about known edits, with Wilson's interval, for JSON.

    Args:
        attribute: the attribute that they show by their donors.
        known: the edits, which are blurred until the median PSNR of the first `PROBED` is at most `inside`.
        shows: labels of the attribute, by image.
        judge: judges images by names of contexts and donors and the pixels of the image set.
        inside: median PSNR to the nearest drawing of the edits of the run, in dB.
        confidence: level of the interval.
    """
    contexts, donors = ([known.image_set.names[place] for place in places] for places in (known.contexts, known.donors))
    for softness in SOFTNESS:
        probed = judge(contexts[:PROBED], donors[:PROBED], known.pixels(softness))
        if np.median([min(judged.psnr_inside, IDENTICAL) for judged in probed]) <= inside:
            break
    found = judge(contexts, donors, known.pixels(softness))
    right = sum(judged.attributes[attribute] == value for judged, value in zip(found, shows.loc[donors], strict=True))
    accuracy = wilson_rate(right, len(found), confidence)
    if accuracy.low < LEAST_ACCURACY:
        logger.warning(
            "the nearest drawing shows the right value of `%s` in %d of %d known edits, which does not show that it is "
            "right about at least %s of them; what it shows does not count as the truth",
            attribute, right, len(found), LEAST_ACCURACY,
        )  # fmt: skip
    return estimate_json(accuracy) | {"n": len(found), "right": right, "softness": softness}


def _judge(
    image_set: ImageSet,
    data: AvatarData,
    region: PartRegion | BoxRegion,
    pool: ProcessPoolExecutor,
    image_ids: Sequence[str],
    donor_ids: Sequence[str],
    pixels: np.ndarray,
) -> list[Judged]:
    """Judge images in worker processes, in order; `pixels` (n, H, W, 3) has the order of the image set."""
    work = partial(_judge_chunk, data, region.parts)
    found: list[Judged] = []
    with Progress("evaluate_counterfactuals", len(image_ids)) as progress:
        for chunk in map_ahead(pool, work, _questions(image_set, region, image_ids, donor_ids, pixels), CHUNKS_AHEAD):
            found += chunk
            progress.advance(len(chunk))
    return found


def _questions(
    image_set: ImageSet,
    region: PartRegion | BoxRegion,
    image_ids: Sequence[str],
    donor_ids: Sequence[str],
    pixels: np.ndarray,
) -> Iterator[list[_Question]]:
    """Yield images to judge, each with the region of its edit."""
    contexts, donors = (np.array([image_set.position[name] for name in names], int) for names in (image_ids, donor_ids))
    for start in range(0, len(contexts), CHUNK):
        chunk = slice(start, start + CHUNK)
        (_, context_parts), (_, donor_parts) = (
            image_set.look(positions[chunk]).to(torch.device("cpu")) for positions in (contexts, donors)
        )
        regions = grow(region_masks(region, donor_parts, context_parts).region, RIM)[:, 0].numpy() > 0
        yield [
            _Question(image_set.names[position], image_set.pixels[position], pixels[position], mask)
            for position, mask in zip(contexts[chunk], regions, strict=True)
        ]


def _judge_chunk(data: AvatarData, exchanged: Sequence[str], questions: Sequence[_Question]) -> list[Judged]:
    """Draw and judge in a worker process, where nothing may use torch: its threads do not survive a fork."""
    found = []
    for question in questions:
        drawings = [
            (name, variant, render_image(variant, data.resolution, data.crop))
            for name, variant in draw_variants(face_of(data, question.image_id), exchanged)
        ]
        found.append(judge_image(question.original, question.image, question.region, drawings))
    return found


def _relabelled(known: pd.DataFrame, edited: pd.Series, found: Sequence[Judged]) -> pd.DataFrame:
    """Return labels with those of the edited images replaced by what their nearest drawings show."""
    if not len(edited):
        return known
    table = known.set_index("image_id")
    attributes = attribute_columns(known, "labels")
    shown = pd.DataFrame([judged.attributes for judged in found], index=edited.to_numpy())
    table.loc[shown.index, attributes] = shown[attributes]
    return table.reset_index()


def _squared_error(image: np.ndarray, reference: np.ndarray, where: np.ndarray) -> float:
    """Return the mean squared error of uint8 images (H, W, 3) over the pixels of a mask (H, W); 0 if it is empty."""
    difference = image[where].astype(np.int64) - reference[where]
    return float(np.square(difference).mean()) if difference.size else 0.0


def _psnr(squared_error: float) -> float:
    return 10 * log10(255**2 / squared_error) if squared_error else inf
