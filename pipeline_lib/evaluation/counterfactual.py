"""The truth of edited avatars by their closest clean renderings, and whether these are right about known edits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline_lib.audit.estimate import estimate_json, wilson_rate
from pipeline_lib.config import BoxRegion, Edit, PartRegion, Rebalance
from pipeline_lib.data.avatars.drawing import render_variants
from pipeline_lib.data.avatars.faces import face_of
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.avatars.truth import Shown, closest_rendering
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import SCHEMAS, attribute_columns, read_table, read_tables, write_table
from pipeline_lib.editing.donors import ImageSet, select_donors
from pipeline_lib.editing.finish import finish
from pipeline_lib.evaluation.results import Counterfactual
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.masks import grow
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.rebalance.plan import made_edits, needed_edits
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import digest_of
from pipeline_lib.runtime.overlap import map_ahead
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

RIM = 1  # pixels around the region in which an edit may be blended
CHECKED = 500  # edits of known truth on which the closest renderings are checked
PROBED = 32  # of these, on which their softness is found
LEAST_ACCURACY = 0.95  # of the closest renderings on them, the lower limit of its interval
#: Sigmas of the Gaussians that these edits are blurred by, in 64ths of the side, until they are as soft as the run's.
SOFTNESS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
IDENTICAL = 100.0  # dB that identical pixels, whose PSNR is infinite, count as in a median
CHUNK = 16  # edits that are prepared at a time
FACES_AHEAD = 64
CPU = torch.device("cpu")

#: From positions of contexts and of donors, both (n,), and edited images, uint8 (n, H, W, 3), to what these show.
Compare = Callable[[np.ndarray, np.ndarray, np.ndarray], list[Shown]]


@dataclass(frozen=True)
class Edited:
    """A dataset and its edits."""

    images: list[Path]  # shards of the dataset
    rebalanced: list[Path]  # shards of the rebalanced dataset
    parts: Path  # table of parts of the dataset
    labels: Path  # labels of the dataset
    plan: Path  # its table of edits
    candidates: list[Path]  # its tables of candidates, of all shards


@dataclass(frozen=True)
class Written:
    """The files to write."""

    counterfactuals: Path  # table with a row for each edited image
    truth: Path  # labels of the rebalanced dataset; an edited image has those of its closest rendering
    summary: Path  # JSON of `Counterfactual`; identical pixels count as `IDENTICAL` dB in its medians


@stage(revision=4)
def evaluate_counterfactuals(
    *,
    edited: Edited,
    data: AvatarData,
    settings: Rebalance,
    confidence: float,
    run: str,
    seed: int,
    made: Written,
    threads: int,
) -> None:
    """Find the truth of every edited image of the rebalanced dataset, and how far it is from the ideal edit.

    The closest clean rendering is the same face drawn with that drawing of the swapped part which is closest to the
    edited image, in mean squared error inside the region. The region is what the edit pasted or left unknown, and a rim
    of one pixel.

    It is checked on known edits: faces of the dataset get the part of another one, joined by Poisson blending, and show
    what that one shows by its label. They are blurred until the median of their PSNRs is at most that of the edits. The
    truth counts if the closest renderings are right about at least `LEAST_ACCURACY` of them.

    Args:
        edited: the dataset and its edits.
        data: the config section of the dataset.
        settings: the config section of the edits.
        confidence: level of the interval of the check, in (0, 1).
        run: name of the run, stored in the files.
        seed: seed of the run.
        made: what to write.
        threads: worker processes.

    Raises:
        DataError: the swapped part has no drawings to exchange.
    """
    planned, known = read_table(edited.plan, "plan"), read_table(edited.labels, "labels")
    tried = read_tables(edited.candidates, "candidates", ["image_id", "donor_id", "chosen"])
    chosen = tried[tried["chosen"]]
    wanted = made_edits(planned, set(chosen["image_id"]))[["image_id", "attribute", "wanted"]]
    edits = chosen.merge(wanted, on="image_id")
    _, after = read_shards(edited.rebalanced)
    rows, checks = [], {}
    with ProcessPoolExecutor(threads) as pool:
        for attribute, region in settings.regions_by_attribute.items():
            image_set = ImageSet(edited.images, edited.parts, parts_of(region))
            compare = partial(_compare, image_set, data, region, pool)
            own = edits[edits["attribute"] == attribute]
            contexts, donors = (
                np.array([image_set.position[name] for name in own[which]], int) for which in ("image_id", "donor_id")
            )
            found = pd.DataFrame(compare(contexts, donors, after[contexts]), own.index, Shown._fields)
            rows.append(own.join(found).assign(true_value=[shows[attribute] for shows in found["attributes"]]))
            known_edits = draw_known_edits(image_set, settings.edit.for_attribute(attribute), seed)
            true = known.set_index("image_id")[attribute].loc[[image_set.names[place] for place in known_edits.donors]]
            inside = _median(found["psnr_inside"]) if len(found) else IDENTICAL
            checks[attribute] = check_known_edits(attribute, known_edits, true, compare, inside, confidence)
    rows = pd.concat(rows, ignore_index=True)
    metadata = {"run": run, "config_digest": digest_of([data.model_dump(), settings.model_dump()])}
    write_table(made.counterfactuals, "counterfactuals", rows[SCHEMAS["counterfactuals"].names], metadata)
    if len(rows):
        attributes = attribute_columns(known, "labels")
        known = known.set_index("image_id")
        shows = pd.DataFrame(list(rows["attributes"]), index=rows["image_id"])
        known.loc[shows.index, attributes] = shows[attributes]
        known = known.reset_index()
    write_table(made.truth, "labels", known, metadata)
    succeeded, planned = int((rows["true_value"] == rows["wanted"]).sum()), len(needed_edits(planned))
    Counterfactual(
        n=len(rows),
        planned=planned,  # of which those without a row failed
        counts=all(check["ci"][0] >= LEAST_ACCURACY for check in checks.values()),
        check=checks,
        least_accuracy=LEAST_ACCURACY,
        succeeded_by_truth=succeeded,
        share_by_truth=succeeded / max(1, planned),
        share_identical_outside=float(rows["identical_outside"].mean()) if len(rows) else None,
        median_psnr_ideal=_median(rows["psnr_ideal"]),
        median_psnr_inside=_median(rows["psnr_inside"]),
    ).write(made.summary)


class KnownEdits(NamedTuple):
    """Edits of n faces that show what their donors show, since they have the part of these.

    Images are (n, 3, H, W) in [-1, 1], and the region (n, 1, H, W).
    """

    contexts: np.ndarray  # positions in the image set
    donors: np.ndarray
    original: torch.Tensor
    edited: torch.Tensor
    region: torch.Tensor

    def pixels(self, softness: float) -> np.ndarray:
        """Return the edited images, uint8 (n, H, W, 3), blurred by a Gaussian of `softness` 64ths of the side."""
        shown = gaussian_blur(self.edited, softness / 64 * self.edited.shape[-1]) if softness else self.edited
        return as_pixels(torch.where(self.region.bool(), shown, self.original)).numpy()


def draw_known_edits(image_set: ImageSet, settings: Edit, seed: int) -> KnownEdits:
    """Give some faces that have the part that of the donor that an edit would take.

    That is the one of a pool of random donors that differs least along the seam, or, where edits are chosen by the
    selector's certainty alone, the first of them.
    """
    contexts = seeding.numpy_generator(seed, "counterfactual check").permutation(image_set.with_part)[:CHECKED]
    size = (settings.pool or settings.candidates) if settings.choose == "seam" else 1
    size, one = min(size, len(image_set.with_part) - 1), settings.model_copy(update={"candidates": 1})
    donors, images = [], []
    for chunk in np.array_split(contexts, -(-len(contexts) // CHUNK)):
        pools = np.stack([image_set.donors(position, size, seed, "counterfactual check") for position in chunk])
        looked, of_pools = image_set.look(chunk), image_set.look(pools.flatten())
        best = select_donors(looked, of_pools, one, CPU).numpy()
        donors.append(np.take_along_axis(pools, best, axis=1)[:, 0])
        (context, parts), (donor, donor_parts) = looked.to(CPU), image_set.look(donors[-1]).to(CPU)
        masks = region_masks(settings.region, donor_parts, parts)
        collage = make_collage(context, donor, masks.pasted)
        images.append((context, finish(context, donor, collage, masks, "detail"), masks.region))
    return KnownEdits(contexts, np.concatenate(donors), *map(torch.cat, zip(*images, strict=True)))


def check_known_edits(
    attribute: str, known: KnownEdits, true: pd.Series, compare: Compare, inside: float, confidence: float
) -> dict[str, object]:
    """Return how often the closest rendering is right about known edits, with Wilson's interval, for JSON.

    Args:
        attribute: the attribute that they show by their donors.
        known: the edits, which are blurred until the median PSNR of the first `PROBED` is at most `inside`.
        true: what they show.
        compare: finds what images show.
        inside: median PSNR of the edits of the run to their closest renderings, in dB.
        confidence: level of the interval.
    """
    for softness in SOFTNESS:
        pixels = known.pixels(softness)
        probed = compare(known.contexts[:PROBED], known.donors[:PROBED], pixels[:PROBED])
        if _median([shown.psnr_inside for shown in probed]) <= inside:
            break
    found = compare(known.contexts, known.donors, pixels)
    right = sum(shown.attributes[attribute] == value for shown, value in zip(found, true, strict=True))
    accuracy = wilson_rate(right, len(found), confidence)
    if accuracy.low < LEAST_ACCURACY:
        logger.warning(
            "the closest clean rendering shows the right value of `%s` in %d of %d known edits, which does not show "
            "that it is right about at least %s of them; what it shows does not count as the truth",
            attribute, right, len(found), LEAST_ACCURACY,
        )  # fmt: skip
    return estimate_json(accuracy) | {"n": len(found), "right": right, "softness": softness}


def _compare(
    image_set: ImageSet,
    data: AvatarData,
    region: PartRegion | BoxRegion,
    pool: ProcessPoolExecutor,
    contexts: np.ndarray,
    donors: np.ndarray,
    images: np.ndarray,
) -> list[Shown]:
    """Compare images with the renderings of their faces, which worker processes draw; return what they show."""

    def regions() -> Iterator[np.ndarray]:
        for start in range(0, len(contexts), CHUNK):
            chunk = slice(start, start + CHUNK)
            (_, context_parts), (_, donor_parts) = (image_set.look(of[chunk]).to(CPU) for of in (contexts, donors))
            yield from grow(region_masks(region, donor_parts, context_parts).region, RIM)[:, 0].numpy() > 0

    faces = (face_of(data, image_set.names[place]) for place in contexts)
    renderings = map_ahead(pool, partial(render_variants, data, region.parts), faces, FACES_AHEAD)
    found = []
    with Progress("evaluate_counterfactuals", len(contexts)) as progress:
        for place, *edit in zip(contexts, images, regions(), renderings, strict=True):
            found.append(closest_rendering(image_set.pixels[place], *edit))
            progress.advance(1)
    return found


def _median(psnrs: pd.Series | list[float]) -> float | None:
    return float(np.median(np.minimum(psnrs, IDENTICAL))) if len(psnrs) else None
