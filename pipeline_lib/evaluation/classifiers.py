"""Small classifiers of an attribute, trained in the ways in which people deal with a biased dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config import Utility
from pipeline_lib.evaluation.probe import Probe
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.backbone import BackboneClassifier
from pipeline_lib.runtime import seeding

WORST_CASE_STEP = 0.05  # of the weights of cells in group DRO


@dataclass(frozen=True)
class TrainingSet:
    """What a classifier learns from, and how.

    Attributes:
        pixels: uint8 (n, H, W, 3).
        cell: number of each image's cell, int64 (n,), odd with the attribute; -1 leaves the image out.
        weights: of the images in the loss, float (n,); None for equal ones.
        by_cell: whether batches are drawn evenly from the cells.
        worst_case: whether the loss is that of the worst cells (group DRO, Sagawa et al. 2020, whose code draws batches
            evenly from the cells as well).
    """

    pixels: np.ndarray
    cell: np.ndarray
    weights: np.ndarray | None = None
    by_cell: bool = False
    worst_case: bool = False


def reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return images (n, H, W, 3) reduced to `side` pixels by averages over areas; smaller ones as they are; uint8."""
    if pixels.shape[1] <= side:
        return pixels
    chunks = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(batch_for(pixels.shape[1], 256))
    small = [F.interpolate(chunk.float(), size=(side, side), mode="area").round().to(torch.uint8) for chunk in chunks]
    return torch.cat(small).permute(0, 2, 3, 1).contiguous().numpy()


def train_and_predict(
    training: TrainingSet, tested: np.ndarray, settings: Utility, seed: int, device: torch.device
) -> np.ndarray:
    """Train a classifier and return whether it finds the attribute in each of `tested`, uint8 (m, H, W, 3): bool (m,).

    Training and tested images get the same amount of noise. Weights, noise and, for equal sets, batches depend on the
    seed alone, so that methods are compared pair by pair.
    """
    torch.manual_seed(seeding.derive(seed, "weights"))
    network = _new_network(settings, training.pixels.shape[1]).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.steps)
    cells = torch.from_numpy(training.cell)
    share = torch.ones(int(cells.max()) + 1, device=device) / (int(cells.max()) + 1)
    noise = seeding.torch_generator(seed, "noise", device=device)
    for batch in _batches(training, settings, seed):
        logits = network(_shown(training.pixels, batch.numpy(), settings.noise, noise, device))
        cell = cells[batch].to(device)
        losses = F.binary_cross_entropy_with_logits(logits, (cell % 2).to(logits), reduction="none")
        if training.worst_case:
            loss, share = _worst_case(losses, cell, share)
        elif training.weights is not None:
            loss = (losses * torch.from_numpy(training.weights)[batch].to(losses)).mean()
        else:
            loss = losses.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return _predict(network.eval(), tested, settings, seed, device)


def _new_network(settings: Utility, side: int) -> nn.Module:
    """Return a network from images (n, 3, H, W) in [-1, 1] to a logit (n,) of each."""
    if settings.network is None:
        return Probe.of_side(side)
    classifier = BackboneClassifier(["attribute"], settings.network.library, settings.network.name)
    if settings.network.weights is not None:
        classifier.load_pretrained(settings.network.weights)
    return nn.Sequential(classifier.preprocess, classifier.network, nn.Flatten(0))


def _batches(training: TrainingSet, settings: Utility, seed: int) -> Tensor:
    """Draw the batches, positions int64 (steps, batch), with replacement from all images or evenly from the cells."""
    weights = (training.cell >= 0).astype(np.float64)
    if training.by_cell:
        numbers = np.bincount(training.cell[training.cell >= 0])
        weights[training.cell >= 0] /= numbers[training.cell[training.cell >= 0]]
    random = seeding.torch_generator(seed, "batches")
    count = settings.steps * settings.batch
    drawn = torch.multinomial(torch.from_numpy(weights), count, replacement=True, generator=random)
    return drawn.view(settings.steps, settings.batch)


def _worst_case(losses: Tensor, cell: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of group DRO and the shares of the cells, which grow with their losses (its Algorithm 1)."""
    inside = F.one_hot(cell, len(share)).to(losses)
    of_cells = (inside * losses[:, None]).sum(dim=0) / inside.sum(dim=0).clamp(min=1)
    share = share * (WORST_CASE_STEP * of_cells.detach()).exp()
    share = share / share.sum()
    return (share * of_cells).sum(), share


@torch.inference_mode()
def _predict(network: nn.Module, tested: np.ndarray, settings: Utility, seed: int, device: torch.device) -> np.ndarray:
    noise = seeding.torch_generator(seed, "noise of the test", device=device)
    chunks = np.array_split(np.arange(len(tested)), max(1, len(tested) // 256))
    logits = [network(_shown(tested, chunk, settings.noise, noise, device)) for chunk in chunks]
    return (torch.cat(logits) > 0).cpu().numpy()


def _shown(
    pixels: np.ndarray, positions: np.ndarray, noise: float, random: torch.Generator, device: torch.device
) -> Tensor:
    """Return images (n, 3, H, W) in [-1, 1] with Gaussian noise."""
    images = to_float(torch.from_numpy(pixels[positions]).permute(0, 3, 1, 2), device)
    if not noise:
        return images
    return images + noise * torch.randn(images.shape, generator=random, device=device)
