"""Composition against blends of two images in latent space and in pixel space (paper 4.3, Eq. 6 to 8, Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Evaluate, PrecisionChoice, Studies
from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels, at_once, to_float
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.rows import mean_row, over, write_arrays, write_rows

STUDY = "interpolation"
COMPOSITION, LATENT, PIXEL = METHODS = ("composition", "latent blend", "pixel blend")
DISTANCES = ("context", "target", "collage")
SHOWN = 6  # pairs in the figure, with the largest parts, each another
LEAST = 0.005  # of an image's pixels, which a part must have


class Pair(NamedTuple):
    """The context, the target, and the name of the part that is to come from the target."""

    context: int
    target: int
    part: str


@torch.no_grad()
@stage(revision=1)
def study_interpolation(
    *,
    images: list[Path],
    parts: Path,
    encoder: Path,
    generator: Path,
    precision: Path,
    names: list[str],
    settings: Studies,
    evaluate: Evaluate,
    inversion: PrecisionChoice,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Give images a part of another one by composition and by blends, and compare their distances to what was wanted.

    Args:
        images: shards of the images.
        parts: their table of parts.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        names: names of the parts, the background first.
        settings: the config section.
        evaluate: the config section with the confidence level.
        inversion: precision in the config.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write. A row is a method, or how much farther a blend is than composition on the same pairs.
        pictures: NPZ to write, with the first pairs for the figure.
        device: where to compute.

    Raises:
        DataError: fewer than two images, or none has a part.
    """
    how = settings.interpolation
    image_ids, pixels = read_shards(images)
    side = pixels.shape[1]
    found = {name: PartMasks(parts, [name], side, round(LEAST * side**2)) for name in names[1:]}
    pairs = draw_pairs(image_ids, found, how.pairs, seed)
    if not pairs:
        raise DataError(f"{parts}: no image has a part that could be given to another one")
    inverter = open_inverter(encoder, generator, device, inversion, precision, compile=False)
    distances: dict[str, list[Tensor]] = {method: [] for method in METHODS}
    chosen = _choose_shown(pairs, found, image_ids)
    shown: dict[int, Tensor] = {}
    with Progress(f"study_{STUDY}", len(pairs)) as progress:
        together = at_once(side)
        for start in range(0, len(pairs), together):
            batch = pairs[start : start + together]
            context, target = (
                to_float(torch.from_numpy(pixels[[getattr(pair, role) for pair in batch]]).permute(0, 3, 1, 2), device)
                for role in ("context", "target")
            )
            masks = np.stack([found[pair.part][image_ids[pair.target]] for pair in batch])
            taken = torch.from_numpy(masks[:, None]).to(device)
            made = blend(inverter, context, target, taken)
            for method, outputs in made.items():
                distances[method].append(distances_of(outputs, context, target, taken).cpu())
            row = torch.stack([context, target, make_collage(context, target, taken), *made.values()], dim=1)
            for place in set(chosen) & set(range(start, start + len(batch))):
                shown[place] = as_pixels(row[place - start]).cpu()
            progress.advance(len(batch))
    measured = {method: torch.cat(rows).numpy() for method, rows in distances.items()}
    write_rows(table, rows_of(measured, evaluate.confidence), how, run, [encoder, generator], inverter.precision)
    write_arrays(
        pictures,
        columns=np.array([*DISTANCES, *METHODS]),
        parts=np.array([pairs[place].part for place in chosen]),
        pixels=torch.stack([shown[place] for place in chosen]).numpy(),
    )


def blend(
    inverter: Inverter, context: Tensor, target: Tensor, taken: Tensor, weight: float | None = None
) -> dict[str, Tensor]:
    """Return the image that each method makes of pairs of images.

    Args:
        inverter: encoder and generator.
        context: x_1, (n, 3, H, W) in [-1, 1].
        target: x_2, of the same shape.
        taken: m_2, bool (n, 1, H, W); all other pixels are to be the context's.
        weight: 1 - alpha, that of the target in a blend; None: the share of pixels that are taken from it.
    """
    known = torch.ones_like(context[:, :1])
    shares = taken.float().mean(dim=(1, 2, 3)) if weight is None else torch.full_like(context[:, 0, 0, 0], weight)

    def mix(first: Tensor, second: Tensor) -> Tensor:
        share = shares.view(-1, *[1] * (first.ndim - 1))
        return (1 - share) * first + share * second

    return {
        COMPOSITION: inverter(make_collage(context, target, taken), known),
        LATENT: inverter.decode(mix(inverter.encode(context, known), inverter.encode(target, known))),
        PIXEL: inverter(mix(context, target), known),
    }


def distances_of(outputs: Tensor, context: Tensor, target: Tensor, taken: Tensor) -> Tensor:
    """Return masked L1 (Eq. 5) to the context, to the target and to the collage, each where it is wanted, (n, 3)."""
    everywhere = torch.ones_like(taken)
    collage = make_collage(context, target, taken)
    wanted = ((context, ~taken), (target, taken), (collage, everywhere))
    return torch.stack([masked_l1(images, outputs, mask) for images, mask in wanted], dim=1)


def rows_of(measured: Mapping[str, np.ndarray], confidence: float) -> list[dict[str, object]]:
    """Return a row for each method and distance, and for each blend how much farther it is on the same pairs."""
    rows = [
        mean_row(STUDY, method, f"distance to the {name}", values[:, column], confidence)
        for method, values in measured.items()
        for column, name in enumerate(DISTANCES)
    ]
    farther = [
        mean_row(
            STUDY,
            over(method, COMPOSITION),
            f"distance to the {name}",
            measured[method][:, column] - measured[COMPOSITION][:, column],
            confidence,
        )
        for method in (LATENT, PIXEL)
        for column, name in enumerate(DISTANCES)
    ]
    return rows + farther


def _choose_shown(pairs: Sequence[Pair], found: Mapping[str, PartMasks], image_ids: Sequence[str]) -> list[int]:
    """Return the places of pairs for the figure, the first of each part, of which those with the largest parts."""
    first = {pair.part: place for place, pair in reversed(list(enumerate(pairs)))}
    area = {place: int(found[part][image_ids[pairs[place].target]].sum()) for part, place in first.items()}
    return sorted(area, key=area.__getitem__, reverse=True)[:SHOWN]


def draw_pairs(image_ids: Sequence[str], found: Mapping[str, PartMasks], count: int, seed: int) -> list[Pair]:
    """Draw pairs of different images and a part of the second; a function of the seed and the set.

    Every part that an image has is as likely as the others. Fewer pairs are drawn if too few images have a part.
    """
    random = seeding.numpy_generator(seed, STUDY)
    pairs = []
    for target in random.permutation(len(image_ids)).tolist():
        having = [name for name, masks in found.items() if image_ids[target] in masks]
        if len(pairs) == count or len(image_ids) < 2:
            break
        if having:
            other = int(random.integers(len(image_ids) - 1))
            pairs.append(Pair(other + (other >= target), target, having[int(random.integers(len(having)))]))
    return pairs
