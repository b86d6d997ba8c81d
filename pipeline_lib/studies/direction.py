"""An attribute by composition, blends, a learned direction and one example (paper A.2.1, A.2.2, Fig. 15)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Evaluate, Rebalance, Studies
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels, at_once
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.distances import open_distance, perceptual_distances
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.interpolation import COMPOSITION, LATENT, PIXEL, blend
from pipeline_lib.studies.rows import mean_row, over, write_arrays, write_rows

STUDY = "direction"
UNCHANGED, LEARNED, EXAMPLE = "reconstruction", "learned direction", "difference of one example"
METHODS = (UNCHANGED, COMPOSITION, LATENT, PIXEL, LEARNED, EXAMPLE)
ATTRIBUTE, GROUP = "attribute by the referee", "group kept, by the referee"
L1, PERCEPTUAL = "L1 outside of the region", "perceptual distance outside of the region"
WEIGHT = 0.3  # of the donor in a blend, as in A.2.2, since that by the area of a mouth changes nearly nothing
SHOWN = 6  # images in the figure


@torch.no_grad()
@stage(revision=1)
def study_direction(
    *,
    images: list[Path],
    parts: Path,
    scores: Path,
    referee: Path,
    encoder: Path,
    generator: Path,
    precision: Path,
    rebalance: Rebalance,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Give images the attribute of the first target, and measure whether they have it and what else has changed.

    Each image gets the region of a donor with the attribute, by composition and by the two blends of 4.3. The learned
    direction is the difference of the mean latents of images with and without the attribute, by the selector. The
    difference of one example is that between the latents of the first image with and without its donor's region. Both
    are added to the latent of each image (A.2.1).

    Args:
        images: shards of real images.
        parts: their table of parts.
        scores: the selector's scores of them.
        referee: weight file of the referee, which judges the results.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        rebalance: the config section with targets and region.
        settings: the config section.
        evaluate: the config section with the perceptual distance and the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with rows for each method, and how much worse others are than composition.
        pictures: NPZ to write, with the first images for the figure.
        device: where to compute.

    Raises:
        DataError: too few images with and without the attribute have the part, or are there to learn from.
    """
    how, target = settings.direction, rebalance.targets[0]
    image_set = ImageSet(images, parts, parts_of(rebalance.edit.region))
    found = read_table(scores, "scores").set_index("image_id")[target.attribute]
    has = found.reindex(image_set.names).to_numpy() > 0.5
    contexts, donors = _draw(image_set.with_part, has, how.images, target.attribute, seed)
    inverter = open_inverter(encoder, generator, device, rebalance.edit.precision, precision, compile=False)
    judge = load_weights(referee, Detector, device)
    perceptual = open_distance(evaluate.distance).to(device)
    direction = _learn(inverter, image_set, has, how.fit, seed, device)
    example: Tensor | None = None
    measured: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    shown: list[np.ndarray] = []
    with Progress(f"study_{STUDY}", len(contexts)) as progress:
        together = at_once(image_set.pixels.shape[1])
        for start in range(0, len(contexts), together):
            rows = slice(start, start + together)
            context, context_parts = image_set.look(contexts[rows]).to(device)
            donor, donor_parts = image_set.look(donors[rows]).to(device)
            masks = region_masks(rebalance.edit.region, donor_parts, context_parts)
            known, taken = torch.ones_like(masks.pasted), masks.pasted.bool()
            latents = inverter.encode(context, known)
            if example is None:
                example = inverter.encode(make_collage(context[:1], donor[:1], taken[:1]), known[:1]) - latents[:1]
            made = {UNCHANGED: inverter.decode(latents)} | blend(inverter, context, donor, taken, WEIGHT)
            made |= {LEARNED: inverter.decode(latents + direction), EXAMPLE: inverter.decode(latents + example)}
            before = judge.logits(context) > 0
            for name, outputs in made.items():
                after = judge.logits(outputs) > 0
                same = [after[:, judge.index(other)] == before[:, judge.index(other)] for other in target.where]
                outside = 1 - masks.region
                figures = (
                    after[:, judge.index(target.attribute)].float(),
                    torch.stack(same).all(dim=0).float(),
                    masked_l1(context, outputs, outside),
                    perceptual_distances(perceptual, context, outputs, outside),
                )
                measured[name].append(torch.stack(figures, dim=1).cpu())
            if not shown:
                columns = (context, donor, *made.values())
                shown = [as_pixels(column[:SHOWN]).cpu().numpy() for column in columns]
            progress.advance(len(context))
    values = {name: torch.cat(batches).numpy() for name, batches in measured.items()}
    rows = _rows(values, evaluate.confidence)
    write_rows(table, rows, how, run, [encoder, generator, referee], inverter.precision)
    write_arrays(pictures, columns=np.array(["image", "donor", *METHODS]), pixels=np.stack(shown, axis=1))


def _draw(
    with_part: np.ndarray, has: np.ndarray, count: int, attribute: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` images without the attribute, and a donor with it for each, as positions of images with the part."""
    random = seeding.numpy_generator(seed, STUDY)
    without, having = with_part[~has[with_part]], with_part[has[with_part]]
    if len(without) < count or not len(having):
        raise DataError(
            f"`studies.direction.images`: {count}, but of the images with the part {len(without)} lack `{attribute}` "
            f"and {len(having)} have it, by the selector; use fewer images"
        )
    return random.choice(without, count, replace=False), random.choice(having, count)


def _learn(
    inverter: Inverter, image_set: ImageSet, has: np.ndarray, count: int, seed: int, device: torch.device
) -> Tensor:
    """Return the difference of the mean latents of images with and without the attribute, (1, *latent_shape)."""
    drawn = np.sort(seeding.numpy_generator(seed, STUDY, "fit").permutation(len(has))[:count])
    if has[drawn].all() or not has[drawn].any():
        raise DataError(
            f"`studies.direction.fit`: of {len(drawn)} images {int(has[drawn].sum())} have the attribute by the "
            "selector, and some with and some without are needed; use more"
        )
    latents = []
    for chunk in np.array_split(drawn, max(1, len(drawn) // at_once(image_set.pixels.shape[1]))):
        batch, _ = image_set.look(chunk).to(device)
        latents.append(inverter.encode(batch, torch.ones_like(batch[:, :1])))
    encoded, marked = torch.cat(latents), torch.from_numpy(has[drawn]).to(device)
    return (encoded[marked].mean(dim=0) - encoded[~marked].mean(dim=0))[None]


def _rows(values: dict[str, np.ndarray], confidence: float) -> list[dict[str, object]]:
    metrics = (ATTRIBUTE, GROUP, L1, PERCEPTUAL)
    rows = [
        mean_row(STUDY, name, metric, found[:, column], confidence)
        for name, found in values.items()
        for column, metric in enumerate(metrics)
    ]
    ours = values[COMPOSITION]
    return rows + [
        mean_row(STUDY, over(other, COMPOSITION), metric, (values[other] - ours)[:, column], confidence)
        for other in (LATENT, PIXEL, LEARNED)
        for column, metric in enumerate(metrics)
    ]
