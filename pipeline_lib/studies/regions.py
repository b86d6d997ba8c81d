"""Comparison of part and box regions on the same images and donors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline_lib.config import BoxRegion, Evaluate, PartRegion, Rebalance
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.editors import LatentRegressionEditor
from pipeline_lib.editing.swap import swap
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.transfer import batch_for
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.distances import open_distance, perceptual_distances
from pipeline_lib.networks.inversion import open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)


@torch.no_grad()
@stage(revision=3)
def compare_regions(
    *,
    images: list[Path],
    parts: Path,
    plan: Path,
    encoder: Path,
    generator: Path,
    precision: Path,
    selector: Path,
    referee: Path,
    settings: Rebalance,
    most: int,
    evaluate: Evaluate,
    seed: int,
    comparison: Path,
    gallery: Path,
    device: torch.device,
) -> None:
    """Swap the same donors into the same images by part and by the paper's box, and compare the edits.

    Args:
        images: shards of the samples.
        parts: their table of parts.
        plan: their table of edits, of which the first `most` of the first attribute are used.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        selector: weight file.
        referee: weight file.
        settings: the config section.
        most: number of edits to compare.
        evaluate: the config section with the perceptual distance.
        seed: seed of the run.
        comparison: JSON to write.
        gallery: PNG to write, with context, donor, and collage and composite of part and box.
        device: where to compute.
    """
    edit = settings.first_attribute().edit
    names = parts_of(edit.region)
    part = edit.region if isinstance(edit.region, PartRegion) else PartRegion(name=list(names))
    box = edit.region if isinstance(edit.region, BoxRegion) else BoxRegion(shows=names[0])
    image_set = ImageSet(images, parts, names)
    editor = LatentRegressionEditor(open_inverter(encoder, generator, device, edit.precision, precision, compile=False))
    judges = {
        name: load_weights(path, Detector, device) for name, path in (("selector", selector), ("referee", referee))
    }
    perceptual = open_distance(evaluate.distance).to(device)
    planned = read_table(plan, "plan")
    edits = planned[planned["attribute"] == settings.edited[0]].head(most)
    if edits.empty:
        logger.warning("compare_regions: no edit of the samples is planned, so there is nothing to compare")
        write_json(comparison, {})
        save_grid(gallery, torch.zeros(1, 3, *image_set.pixels.shape[1:3]), columns=1)
        return
    contexts = image_set.look(edits["position"].to_numpy())
    donors = image_set.look(_donors_with_attribute(edits, image_set, judges["selector"], seed, device))
    wanted = torch.tensor(edits["wanted"].to_numpy(), device=device)
    result: dict[str, dict[str, float]] = {}
    shown = []
    for kind, region in (("part", part), ("box", box)):
        done = swap(contexts, donors, edit.model_copy(update={"region": region}), editor, device)
        outside = 1 - (done.collage != done.context).any(dim=1, keepdim=True).float()
        result[kind] = {
            "n": len(edits),
            "masked_l1": float(masked_l1(done.collage, done.finished, done.masks.known).mean()),
            "perceptual_distance_to_context_outside": float(
                perceptual_distances(perceptual, done.context, done.finished, outside * done.masks.known).mean()
            ),
            **{
                f"success_by_{judge}": float(
                    ((detector.logits(done.finished)[:, detector.index(edits["attribute"].iloc[0])] > 0) == wanted)
                    .float()
                    .mean()
                )
                for judge, detector in judges.items()
            },
        }
        shown += [done.context, done.donor] if not shown else []
        shown += [torch.where(done.masks.known.bool(), done.collage, torch.zeros_like(done.collage)), done.finished]
    result["extractor"] = {"perceptual_distance": perceptual.name}
    write_json(comparison, result)
    save_grid(gallery, torch.cat([row[:12] for row in shown]), columns=min(12, len(edits)))


def _donors_with_attribute(
    edits: pd.DataFrame, image_set: ImageSet, selector: Detector, seed: int, device: torch.device
) -> np.ndarray:
    """Draw one donor for each edit that has the target value of the attribute by the selector."""
    pool = image_set.with_part
    batches = np.array_split(pool, max(1, len(pool) // batch_for(image_set.pixels.shape[1], 256)))
    probabilities = torch.cat([selector(image_set.look(batch).to(device)[0]) for batch in batches])
    attribute = edits["attribute"].iloc[0]
    has = (probabilities[:, selector.index(attribute)] > 0.5).cpu().numpy()
    donors = {wanted: pool[has == wanted] for wanted in (True, False)}
    for wanted in edits["wanted"].unique():
        if not len(donors[wanted]):
            logger.warning("compare_regions: the selector finds no donor with %s %s; any is used", attribute, wanted)
            donors[wanted] = pool
    rng = seeding.numpy_generator(seed, "region donors")
    return np.array([rng.choice(donors[wanted]) for wanted in edits["wanted"]])
