"""Targeted swaps: many random donors an image, each collage inverted once, the strongest taken (paper A.2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline_lib.config import BoxRegion, PartRegion, RateRule, Rebalance
from pipeline_lib.data.shards import read_shards, shard_writer
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.inversion import Inverter, make_collage
from pipeline_lib.editing.masks import region_masks
from pipeline_lib.editing.parts import BOX, PartMasks
from pipeline_lib.evaluation.distances import masked_l1
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.rebalance.plan import in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.training.batches import to_float, to_uint8


class ImageSet:
    """An image set in memory with the masks of one part.

    Args:
        images: its shards.
        parts: its table of parts.
        part: name of the part that is swapped.
    """

    def __init__(self, images: list[Path], parts: Path, part: str):
        self.names, self.pixels = read_shards(images)
        self.position = {name: number for number, name in enumerate(self.names)}
        self._masks = PartMasks(parts, part, self.pixels.shape[1])
        self.with_part = np.array([number for number, name in enumerate(self.names) if name in self._masks])
        if len(self.with_part) < 2:
            raise DataError(f"{parts}: the part `{part}` was found in {len(self.with_part)} images; nothing to swap")

    def images(self, positions: np.ndarray, device: torch.device) -> Tensor:
        """Return images (n, 3, H, W) in [-1, 1]."""
        return to_float(torch.from_numpy(self.pixels[positions]).permute(0, 3, 1, 2), device)

    def masks(self, positions: np.ndarray, device: torch.device) -> Tensor:
        """Return masks (n, 1, H, W) of the part; empty where it was not found."""
        empty = np.zeros(self.pixels.shape[1:3], bool)
        stacked = np.stack([self._masks.get(self.names[position], empty) for position in positions])
        return torch.from_numpy(stacked[:, None]).to(device, torch.float32)

    def donors(self, position: int, count: int, seed: int, name: str) -> np.ndarray:
        """Draw `count` distinct donors for the image at `position`: a function of (seed, set, position)."""
        pool = self.with_part[self.with_part != position]
        if count > len(pool):
            raise DataError(
                f"rebalance.candidates: {count} donors wanted, but {name} has only {len(pool)}; ask for fewer"
            )
        return seeding.numpy_generator(seed, "donors", name, position).choice(pool, count, replace=False)


@dataclass(frozen=True)
class Swaps:
    """Composites of n collages and what they came from; images are (n, 3, H, W) in [-1, 1]."""

    context: Tensor
    donor: Tensor
    collage: Tensor
    known: Tensor
    composite: Tensor


def swap(
    images: ImageSet,
    contexts: np.ndarray,
    donors: np.ndarray,
    region: PartRegion | BoxRegion,
    inverter: Inverter,
    device: torch.device,
) -> Swaps:
    """Give each context the region of its donor and invert the collage once."""
    context, donor = images.images(contexts, device), images.images(donors, device)
    pasted, unknown = region_masks(region, images.masks(donors, device), images.masks(contexts, device))
    collage = make_collage(context, donor, pasted)
    known = 1 - unknown
    return Swaps(context, donor, collage, known, inverter(collage, known))


def part_of(region: PartRegion | BoxRegion) -> str:
    """Return the part whose masks a region needs: of a box, what donors must show, or else the box itself."""
    return region.name if isinstance(region, PartRegion) else region.shows or BOX


@torch.no_grad()
def swap_parts(
    *,
    images: list[Path],
    parts: Path,
    plan: Path,
    encoder: Path,
    generator: Path,
    selector: Path,
    settings: Rebalance,
    run: str,
    seed: int,
    name: str,
    shard: int,
    candidates: Path,
    composites: Path,
    device: torch.device,
    faces: int = 8,
) -> None:
    """Carry out this shard's share of a plan.

    Every candidate is scored by the selector and stored. It succeeds if the selector sees the wanted value and still
    finds the image in the group of its target: a smile given to a face that thereby loses its long hair would balance
    nothing. The success with the strongest logit is chosen; if there is none the image stays as it is, and no
    candidate is marked as chosen.

    Args:
        images: all shards of the image set: donors come from any of them.
        parts: its table of parts.
        plan: its table of edits.
        encoder: weight file.
        generator: weight file.
        selector: weight file of the detector that chooses.
        settings: the config section.
        run: name of the run, kept in the files.
        seed: of the run.
        name: of the image set.
        shard: which of `settings.shards` shares of the plan.
        candidates: table to make.
        composites: image shard to make, of the chosen composites.
        device: where to compute.
        faces: images edited at a time, each with all its candidates.
    """
    image_set = ImageSet(images, parts, part_of(settings.region))
    inverter = Inverter(encoder, generator, device)
    detector = load_weights(selector, Detector, device)
    edits = read_table(plan, "plan")
    # whole batches are dealt out: how a composite is rounded depends on those beside it
    batches = [edits.iloc[start : start + faces] for start in range(0, len(edits), faces)][shard :: settings.shards]
    total = sum(map(len, batches)) * settings.candidates
    metadata = {
        "run": run,
        "config_digest": digest_of(settings.model_dump()),
        "models_digest": digest_of_files(encoder, generator, selector),
    }
    tables = []
    with (
        shard_writer(composites, inverter.generator.resolution, metadata) as writer,
        Progress(f"swap_parts ({name}, {shard})", total, unit="composites") as progress,
    ):
        for batch in batches:
            table, chosen, pictures = _swap_batch(batch, image_set, settings, inverter, detector, seed, name, device)
            tables.append(table)
            if chosen:
                writer.add(chosen, pictures)
            progress.advance(len(table))
    columns = ["image_id", "candidate", "donor_id", "logit", "in_group", "success", "chosen", "masked_l1"]
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    write_table(candidates, "candidates", rows, metadata)


def _swap_batch(
    edits: pd.DataFrame,
    image_set: ImageSet,
    settings: Rebalance,
    inverter: Inverter,
    detector: Detector,
    seed: int,
    name: str,
    device: torch.device,
) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    count = settings.candidates
    positions = np.array([image_set.position[image_id] for image_id in edits["image_id"]])
    donors = np.concatenate([image_set.donors(position, count, seed, name) for position in edits["position"]])
    swaps = swap(image_set, positions.repeat(count), donors, settings.region, inverter, device)
    scores = detector.logits(swaps.composite).view(len(edits), count, -1)
    logits = scores[..., detector.index(edits["attribute"].iloc[0])]
    wanted = torch.tensor(edits["wanted"].to_numpy(), device=device)
    kept = _in_their_groups(scores, edits["target"], settings.targets, detector)
    strength = torch.where(wanted[:, None], logits, -logits).masked_fill(~kept, -torch.inf)
    best = strength.argmax(dim=1)
    succeeded = strength.gather(1, best[:, None]).squeeze(1) > 0
    is_chosen = torch.zeros_like(strength, dtype=torch.bool)
    is_chosen[torch.arange(len(edits)), best] = succeeded
    table = pd.DataFrame(
        {
            "image_id": edits["image_id"].repeat(count).to_numpy(),
            "candidate": np.tile(np.arange(count, dtype=np.int16), len(edits)),
            "donor_id": [image_set.names[donor] for donor in donors],
            "logit": logits.flatten().cpu().numpy(),
            "in_group": kept.flatten().cpu().numpy(),
            "success": (strength > 0).flatten().cpu().numpy(),
            "chosen": is_chosen.flatten().cpu().numpy(),
            "masked_l1": masked_l1(swaps.composite, swaps.collage, swaps.known).cpu().numpy(),
        }
    )
    pictures = to_uint8(swaps.composite[is_chosen.flatten()]).numpy()
    chosen = edits["image_id"].to_numpy()[succeeded.cpu().numpy()].tolist()
    return table, chosen, pictures


def _in_their_groups(scores: Tensor, targets: pd.Series, rules: list[RateRule], detector: Detector) -> Tensor:
    """Return which candidates, given logits (n, candidates, attributes), the selector finds in their target's group."""
    holds = (scores > 0).cpu().numpy()
    kept = [
        in_group(dict(zip(detector.attributes, seen.T, strict=True)), rules[target].where)
        for seen, target in zip(holds, targets, strict=True)
    ]
    return torch.from_numpy(np.stack(kept)).to(scores.device)
