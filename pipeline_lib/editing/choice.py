"""The selector's opinion of finished edits, and the choice among those of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline_lib.config import Edit
from pipeline_lib.imaging.transfer import as_pixels, to_float
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.rebalance.groups import in_group

SURE = 3.0  # logit, from which on a success is as good as any other: a probability of 0.95


class ScoredEdits(NamedTuple):
    """Finished edits as they would be stored, and the selector's opinion of them."""

    pixels: Tensor  # uint8 (n, H, W, 3)
    logit: Tensor  # of the attribute, (n,)
    in_group: Tensor  # bool (n,)
    strength: Tensor  # logit towards the target value, (n,); minus infinity outside of the group


def score_edits(
    detector: Detector,
    attribute: str,
    groups: Sequence[Mapping[str, bool]],
    finished: Tensor,
    wanted: Tensor,
    held: Tensor,
    rounded: bool = False,
) -> ScoredEdits:
    """Score finished edits (n, 3, H, W), given their target values and the numbers of their groups, both (n,).

    The conditions of the groups are what an edit must not change. With `rounded` the detector computes in bfloat16,
    which is enough to choose among candidates.
    """
    pixels = as_pixels(finished)
    images = to_float(pixels.permute(0, 3, 1, 2), finished.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=rounded):
        scores = detector.logits(images).float()
    logit = scores[:, detector.index(attribute)]
    in_group = _in_their_groups(scores, held, groups, detector)
    strength = torch.where(wanted, logit, -logit).masked_fill(~in_group, -torch.inf)
    return ScoredEdits(pixels, logit, in_group, strength)


def choose_best(strength: Tensor, differs: Tensor, settings: Edit) -> Tensor:
    """Return which candidate of each face to take, (faces, 1), given strength and seam (faces, candidates)."""
    strongest = strength.amax(dim=1, keepdim=True)
    if settings.choose == "strongest":
        return strength.argmax(dim=1, keepdim=True)
    sure = strength >= strongest.clamp(max=SURE)
    return closest(differs.masked_fill(~sure, torch.inf), settings.seam_tolerance)[:, :1]


def closest(differs: Tensor, tolerance: float) -> Tensor:
    """Return the columns of seams (..., candidates) from the least to the greatest.

    Seams up to the tolerance count as equal, and what is equal keeps its order, which is that of the random draw.
    """
    return differs.clamp(min=tolerance).sort(dim=-1, stable=True).indices


def _in_their_groups(scores: Tensor, held: Tensor, groups: Sequence[Mapping[str, bool]], detector: Detector) -> Tensor:
    """Return which images are in their group, bool (n,), by the selector's logits (n, attributes)."""
    holds = dict(zip(detector.attributes, (scores > 0).unbind(dim=-1), strict=True))
    inside = torch.stack([in_group(holds, where) for where in groups])
    return inside[held, torch.arange(len(held), device=held.device)]
