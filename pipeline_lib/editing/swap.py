"""Targeted swaps with several random donors per image, of which the best composite is chosen (paper A.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline_lib.config import Edit, Rebalance
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import resolution_of, shard_writer
from pipeline_lib.data.tables import read_table, table_writer
from pipeline_lib.editing.choice import choose_best, score_edits
from pipeline_lib.editing.donors import ImageBatch, ImageSet, donor_pools, seam_width, select_donors
from pipeline_lib.editing.editor import Editor, EditRequest, open_editor
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import Masks, make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1, seam
from pipeline_lib.imaging.transfer import download, upload
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.rebalance.groups import holds_of
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.runtime.overlap import ahead, one_behind
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage


@dataclass(frozen=True)
class Swaps:
    """Edits of n contexts and what they were made of; images are (n, 3, H, W) in [-1, 1]."""

    context: Tensor
    donor: Tensor
    masks: Masks
    composite: Tensor  # as the editor made it
    finished: Tensor  # what is scored and kept

    @property
    def collage(self) -> Tensor:
        """The donor's pixels laid over the context."""
        return make_collage(self.context, self.donor, self.masks.pasted)


def swap(
    contexts: ImageBatch,
    donors: ImageBatch,
    settings: Edit,
    editor: Editor,
    device: torch.device,
    request: EditRequest | None = None,
) -> Swaps:
    """Give each of n contexts the region of its donors, of which each has as many, and finish the composites."""
    context, context_parts = (
        rows.repeat_interleave(len(donors.pixels) // len(contexts.pixels), dim=0) for rows in contexts.to(device)
    )
    donor, donor_parts = donors.to(device)
    masks = region_masks(settings.region, donor_parts, context_parts)
    composite = editor(context, donor, masks, request)
    return Swaps(context, donor, masks, composite, finish(context, donor, composite, masks, settings.finish))


@torch.no_grad()
@stage(revision=5)
def swap_parts(
    *,
    images: list[Path],
    parts: Path,
    plan: Path,
    table: Path,
    kind: str,
    encoder: list[Path],
    generator: list[Path],
    precision: list[Path],
    model: list[Path],
    selector: Path,
    settings: Rebalance,
    shards: int,
    run: str,
    seed: int,
    name: str,
    shard: int,
    candidates: Path,
    composites: Path,
    device: torch.device,
    faces: int | None = None,
) -> None:
    """Apply one shard of a plan.

    Every candidate is finished, scored by the selector as it would be stored, and recorded. It succeeds if the
    attribute then has the target value and the image remains in its group, both by the selector. A smile would not help
    the balance if the face lost its long hair with it. Nor may another attribute change that has targets. Of the
    successful candidates one is chosen (`settings.edit.choose`). If there is none, the image is kept unchanged and no
    candidate is marked as chosen.

    While the device processes one batch of faces, the next batch is gathered and the results of the previous one are
    written. Only the best composite of each face is copied from the device.

    Args:
        images: all shards of the image set, from which donors are drawn.
        parts: its table of parts.
        plan: its table of edits.
        table: true labels of the set, or the selector's scores if truth is unknown; for donors with the attribute.
        kind: "labels" or "scores".
        encoder: weight file; empty for an editor that needs none.
        generator: likewise.
        precision: report of the encoder, with the precision of the inversion; likewise.
        model: files of another editor's model, whose folder the settings name; likewise.
        selector: weight file of the selector.
        settings: the config section with the targets and how edits are made.
        shards: jobs that the plan is divided among.
        run: name of the run, stored in the files.
        seed: seed of the run.
        name: name of the image set.
        shard: index of the shard of the plan, of `shards`.
        candidates: table to write.
        composites: image shard of the chosen composites to write.
        device: where to compute.
        faces: images edited at a time, each with all its candidates; None chooses by device.
    """
    editor = open_editor(settings.edit, encoder, generator, precision, device)
    detector = load_weights(selector, Detector, device)
    edits, resolution = read_table(plan, "plan"), resolution_of(images[0])
    edits["held"], groups = held_groups(edits, table, kind, settings)
    faces = faces or faces_at_a_time(device, settings.edit.candidates, resolution)
    batches = {
        attribute: _batches(edits[edits["attribute"] == attribute], faces, shard, shards)
        for attribute in settings.edited
    }
    total = sum(len(batch) for of_attribute in batches.values() for batch in of_attribute) * settings.edit.candidates
    metadata = {
        "run": run,
        "config_digest": settings.candidates_digest(),
        "models_digest": digest_of_files(*encoder, *generator, *model, selector),
        "precision": editor.precision,
    }
    with (
        shard_writer(composites, resolution, metadata) as writer,
        table_writer(candidates, "candidates", metadata) as rows,
        Progress(f"swap_parts ({name}, {shard})", total, unit="composites") as progress,
    ):
        for attribute, of_attribute in batches.items():
            own = settings.edit.for_attribute(attribute)
            image_set = ImageSet(images, parts, parts_of(own.region))
            image_set.keep_on(device)
            pools = donor_pools(image_set, attribute, table, kind, own, name)
            gathered = ahead(_gather(batch, faces, image_set, pools, own, seed, name) for batch in of_attribute)
            tried = (_try_candidates(batch, attribute, groups, own, editor, detector, device) for batch in gathered)
            for batch in one_behind(tried):
                rows.add(batch.rows())
                writer.add(*batch.chosen())
                progress.advance(batch.count * settings.edit.candidates)


def faces_at_a_time(device: torch.device, candidates: int, resolution: int) -> int:
    """Return the number of faces edited at a time; 256 composites of 256 pixels fill a GPU."""
    pixels = (4096 if device.type == "cuda" else 128) * 64 * 64
    return max(1, pixels // (candidates * resolution**2))


def scored_in_bfloat16(editor: Editor, device: torch.device) -> bool:
    """Return whether candidates are scored in bfloat16: on a GPU, where the editor computes in it too."""
    return device.type == "cuda" and editor.precision == "bfloat16"


def held_groups(
    edits: pd.DataFrame, table: Path, kind: str, settings: Rebalance
) -> tuple[np.ndarray, list[dict[str, bool]]]:
    """Return what edits must not change: for each the number of a group, int64 (n,), and the groups' conditions.

    That is the group of its target, and the present value of every other attribute that is edited, where it is known.

    Args:
        edits: rows of a plan.
        table: true labels of the images, or the selector's scores if truth is unknown.
        kind: "labels" or "scores".
        settings: the config section.
    """
    if len(settings.edited) == 1:
        return edits["target"].to_numpy(np.int64), [target.where for target in settings.targets]
    rows = read_table(table, kind, columns=["image_id", *settings.edited]).set_index("image_id")
    known = pd.DataFrame(holds_of(rows.loc[edits["image_id"]], settings.edited))
    groups: dict[tuple[tuple[str, bool], ...], int] = {}
    numbers = []
    for edit, values in zip(edits.itertuples(), known.to_numpy(), strict=True):
        others = {name: bool(value) for name, value in zip(settings.edited, values, strict=True) if value == value}
        others.pop(edit.attribute, None)
        group = tuple((settings.targets[edit.target].where | others).items())
        numbers.append(groups.setdefault(group, len(groups)))
    return np.array(numbers, np.int64), [dict(group) for group in groups]


def _batches(edits: pd.DataFrame, faces: int, shard: int, shards: int) -> list[pd.DataFrame]:
    """Return the batches of a shard, which are full ones, because rounding depends on the batch."""
    return [edits.iloc[start : start + faces] for start in range(0, len(edits), faces)][shard::shards]


class _Gathered(NamedTuple):
    """A batch of edits with their inputs for the device."""

    edits: pd.DataFrame  # without the padding of a last batch
    contexts: ImageBatch
    donors: ImageBatch  # the pools of all faces, one after the other
    donor_ids: np.ndarray  # (faces, pool)
    seeds: Tensor  # of the noise of an editor that draws, int64 (faces, pool)
    wanted: Tensor  # bool (faces,)
    held: Tensor  # number of the group that each must stay in, int64 (faces,)


def _gather(
    edits: pd.DataFrame,
    faces: int,
    image_set: ImageSet,
    pools: Mapping[bool, np.ndarray | None],
    settings: Edit,
    seed: int,
    name: str,
) -> _Gathered:
    """Draw the donors of a batch; a last batch is padded with its last edit, so that all batches have one size."""
    filled = edits.iloc[np.minimum(np.arange(faces), len(edits) - 1)]
    positions = np.array([image_set.position[image_id] for image_id in filled["image_id"]])
    donors = [
        image_set.donors(position, settings.pool or settings.candidates, seed, name, pools[wanted])
        for position, wanted in zip(edits["position"], edits["wanted"], strict=True)
    ]
    donors = np.stack(donors + donors[-1:] * (faces - len(edits)))
    donor_ids = np.array([[image_set.names[donor] for donor in pool] for pool in donors])
    seeds = [
        [seeding.derive(seed, "noise", name, image_id, donor_id) for donor_id in pool]
        for image_id, pool in zip(filled["image_id"], donor_ids, strict=True)
    ]
    return _Gathered(
        edits,
        image_set.look(positions),
        image_set.look(donors.flatten()),
        donor_ids,
        torch.tensor(seeds),
        torch.tensor(filled["wanted"].to_numpy(bool)),
        torch.tensor(filled["held"].to_numpy(np.int64)),
    )


@dataclass
class _ScoredCandidates:
    """The scored candidates of a batch of edits, and the best composite of each face."""

    edits: pd.DataFrame
    donor_ids: np.ndarray  # (faces, pool)
    tried: Tensor  # which of the pool, (faces, candidates)
    best: Tensor  # uint8 (faces, H, W, 3)
    scores: dict[str, Tensor]  # each (faces, candidates)

    @property
    def count(self) -> int:
        return len(self.edits)

    def rows(self) -> pd.DataFrame:
        """Return the rows of the table of candidates."""
        candidates = self.tried.shape[1]
        scores = {name: values[: self.count].flatten().numpy() for name, values in self.scores.items()}
        return pd.DataFrame(
            {
                "image_id": self.edits["image_id"].repeat(candidates).to_numpy(),
                "candidate": np.tile(np.arange(candidates, dtype=np.int16), self.count),
                "donor_id": np.take_along_axis(self.donor_ids, self.tried.numpy(), axis=1)[: self.count].flatten(),
                **scores,
            }
        )

    def chosen(self) -> tuple[list[str], np.ndarray]:
        """Return the names of the faces whose best candidate succeeded, and those candidates."""
        succeeded = self.scores["chosen"][: self.count].any(dim=1).numpy()
        return self.edits["image_id"].to_numpy()[succeeded].tolist(), self.best[: self.count].numpy()[succeeded]


def _try_candidates(
    batch: _Gathered,
    attribute: str,
    groups: Sequence[Mapping[str, bool]],
    settings: Edit,
    editor: Editor,
    detector: Detector,
    device: torch.device,
) -> Callable[[], _ScoredCandidates]:
    """Start to make and score the candidates of a batch; the returned function waits for them."""
    faces = len(batch.wanted)
    contexts, donors = batch.contexts.upload(device), batch.donors.upload(device)
    tried = select_donors(contexts, donors, settings, device)
    rows = tried + torch.arange(faces, device=device)[:, None] * (len(donors.pixels) // faces)
    wanted, held, seeds = (upload(rows, device) for rows in (batch.wanted, batch.held, batch.seeds))
    request = EditRequest(wanted.repeat_interleave(settings.candidates), seeds.gather(1, tried).flatten())
    swaps = swap(contexts, donors.take(rows.flatten()), settings, editor, device, request)
    score_these = partial(score_edits, detector, attribute, groups)
    rounded = scored_in_bfloat16(editor, device)
    scored = score_these(swaps.finished, request.wanted, held.repeat_interleave(settings.candidates), rounded=rounded)
    of_face = (faces, settings.candidates)
    differs = seam(swaps.context, swaps.donor, swaps.masks.region, seam_width(swaps.context)).view(of_face)
    best = choose_best(scored.strength.view(of_face), differs, settings)
    winners = (torch.arange(faces, device=device)[:, None] * settings.candidates + best).flatten()
    score_winners = partial(score_these, wanted=wanted, held=held)
    if rounded:  # whether an edit succeeds is decided in float32
        for values, exact in zip(scored, score_winners(swaps.finished[winners]), strict=True):
            values[winners] = exact
    success = (scored.strength > 0).view(of_face)
    found = {
        "tried": tried,
        "logit": scored.logit.view(of_face),
        "in_group": scored.in_group.view(of_face),
        "seam": differs,
        "success": success,
        "chosen": torch.zeros_like(success).scatter_(1, best, success.gather(1, best)),
        "masked_l1": masked_l1(swaps.finished, swaps.collage, swaps.masks.known).view(of_face),
        "best": scored.pixels[winners],
    }
    brought = download(found)

    def wait() -> _ScoredCandidates:
        scores = brought()
        others = {name: scores.pop(name) for name in ("tried", "best")}
        return _ScoredCandidates(batch.edits, batch.donor_ids, **others, scores=scores)

    return wait
