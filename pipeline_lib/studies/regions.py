"""Part and box regions on the same images and donors (paper A.2.1, which swaps a box)."""

from __future__ import annotations

import logging

import numpy as np
import torch

from pipeline_lib.config import BoxRegion, PartRegion
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.editors import LatentRegressionEditor
from pipeline_lib.editing.swap import swap
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import batch_for
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.distances import open_distance, perceptual_distances
from pipeline_lib.runtime import seeding
from pipeline_lib.studies.study import Findings, Study

logger = logging.getLogger(__name__)

L1, OUTSIDE, BY_SELECTOR, BY_REFEREE = METRICS = (
    "masked L1", "perceptual distance to the context outside of the region", "success by the selector",
    "success by the referee",
)  # fmt: skip


def measure(study: Study, device: torch.device) -> None:
    """Make the first planned edits of samples by part and by the paper's box, with the same donors."""
    edit = study.rebalance.edit
    names = parts_of(edit.region)
    part = edit.region if isinstance(edit.region, PartRegion) else PartRegion(name=list(names))
    box = edit.region if isinstance(edit.region, BoxRegion) else BoxRegion(shows=names[0])
    image_set = ImageSet(study.samples, study.sample_parts, names)
    attribute = study.rebalance.targets[0].attribute
    planned = read_table(study.plan, "plan")
    edits = planned[planned["attribute"] == attribute]
    edits = edits.head(study.count(len(edits)))
    inverter = study.inverter(device)
    editor = LatentRegressionEditor(inverter)
    files = {BY_SELECTOR: study.selector, BY_REFEREE: study.referee}
    detectors = {metric: load_weights(path, Detector, device) for metric, path in files.items()}
    perceptual = open_distance(study.evaluate.distance).to(device)
    wanted = torch.tensor(edits["wanted"].to_numpy(), device=device)
    contexts = image_set.look(edits["position"].to_numpy())
    having = _positions_with(attribute, image_set, detectors[BY_SELECTOR], device)
    donors = image_set.look(_draw_donors(edits["wanted"].tolist(), having, image_set.with_part, study.seed))
    found = Findings(study)
    shown = []
    for kind, region in (("part", part), ("box", box)):
        done = swap(contexts, donors, edit.model_copy(update={"region": region}), editor, device)
        outside = 1 - (done.collage != done.context).any(dim=1, keepdim=True).float()
        figures = {
            L1: masked_l1(done.collage, done.finished, done.masks.known),
            OUTSIDE: perceptual_distances(perceptual, done.context, done.finished, outside * done.masks.known),
        }
        for metric, detector in detectors.items():
            shows = detector.logits(done.finished)[:, detector.index(attribute)] > 0
            figures[metric] = (shows == wanted).float()
        found.add(kind, figures)
        shown += [done.collage * done.masks.known, done.finished]
    found.show([done.context, done.donor, *shown])
    found.write(["context", "donor", "collage of the part", "its edit", "collage of the box", "its edit"])


def _positions_with(attribute: str, image_set: ImageSet, selector: Detector, device: torch.device) -> np.ndarray:
    """Return which images with the part have the attribute by the selector, bool."""
    pool = image_set.with_part
    batches = np.array_split(pool, max(1, len(pool) // batch_for(image_set.pixels.shape[1], 256)))
    probabilities = torch.cat([selector(image_set.look(batch).to(device)[0]) for batch in batches])
    return (probabilities[:, selector.index(attribute)] > 0.5).cpu().numpy()


def _draw_donors(wanted: list[bool], has: np.ndarray, pool: np.ndarray, seed: int) -> np.ndarray:
    """Draw one donor for each edit that has the target value, or any where the selector finds none."""
    donors = {value: pool[has == value] for value in (True, False)}
    for value in set(wanted):
        if not len(donors[value]):
            logger.warning("study regions: the selector finds no donor with the value %s; any is used", value)
            donors[value] = pool
    random = seeding.numpy_generator(seed, "region donors")
    return np.array([random.choice(donors[value]) for value in wanted])
