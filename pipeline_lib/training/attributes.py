"""A small discriminator on a detector's logits, which matches the joint rates of attributes.

Joint rates of attributes are a weak signal in pixels. If the rates of smiles and of long hair stay the same and only
their combination changes, the image discriminator would have to learn an exclusive-or of two small details, and relies
on differences in texture instead. On a detector's logits this difference is learnt within a few thousand images.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.training.loop import descend

WIDTH = 64  # of its two hidden layers
LEARNING_RATE, GAMMA = 2e-3, 0.1  # of Adam; weight of both its gradient penalties
MEMORY = 16  # generated images that it learns from at a step, the last ones; with more the attribute becomes ambiguous
REAL_SHARE = 4  # real outputs that are remembered for each generated one
SOFTNESS = 4.0  # scale beyond which logits saturate, so that confident detections are not pushed further


class AttributeDiscriminator:
    """Distinguishes real from generated images by the joint attributes that a detector predicts for them.

    Args:
        detector: the selector or another, differentiable and frozen. Never the referee, which evaluates the result.
        weight: of its loss in the generator's total loss.
        seed: seed of the run, for the initial weights.
        device: where to compute.
    """

    def __init__(self, detector: Detector, weight: float, seed: int, device: torch.device):
        self.weight = weight
        self.detector = detector.to(device).requires_grad_(False).eval()
        torch.manual_seed(seeding.derive(seed, "attribute discriminator"))
        sizes = [len(detector.attributes), WIDTH, WIDTH]
        hidden = [layer for widths in pairwise(sizes) for layer in (nn.Linear(*widths), nn.LeakyReLU(0.2))]
        self.network = nn.Sequential(*hidden, nn.Linear(WIDTH, 1)).to(device)
        rates = {"lr": LEARNING_RATE, "betas": (0.0, 0.99), "eps": 1e-8, "fused": True}
        self._optimiser = torch.optim.Adam(self.network.parameters(), **rates)
        self._seen = {kind: torch.empty(0, sizes[0], device=device) for kind in ("real", "fake")}

    def look(self, images: Tensor) -> Tensor:
        """Return the detector's scaled outputs, (n, attributes) in [-1, 1], for images (n, 3, H, W) in [-1, 1]."""
        return torch.tanh(self.detector.view_logits(images).float() / SOFTNESS)

    def learn(self, real: Tensor, fake: Tensor) -> Tensor:
        """Take a step with the relativistic loss and both gradient penalties, on these outputs and the last ones.

        A small difference between joint rates shows only in more images than a batch holds. Of real images more are
        remembered, because their rates do not change. If several processes train, all of them remember the whole batch,
        so that one checkpoint holds the memory of each.

        Args:
            real: outputs for real images, (n, attributes).
            fake: outputs for generated images, (n, attributes).

        Returns:
            The loss.
        """
        remembered = {"real": REAL_SHARE * MEMORY, "fake": MEMORY}
        for kind, own in (("real", real), ("fake", fake)):
            latest = ranks.all_rows(own.detach())
            self._seen[kind] = torch.cat([self._seen[kind], latest])[-max(len(latest), remembered[kind]) :]
        real, fake = (self._seen[kind].clone().requires_grad_() for kind in ("real", "fake"))
        scores = self.network(real), self.network(fake)
        rivals = scores[1].repeat(ceil(len(real) / len(fake)), 1)[: len(real)]
        loss = F.softplus(rivals - scores[0]).mean()
        penalty = torch.zeros_like(loss)
        for score, seen in zip(scores, (real, fake), strict=True):
            (gradient,) = torch.autograd.grad(score.sum(), seen, create_graph=True)
            penalty = penalty + gradient.square().sum(dim=1).mean()
        descend(self._optimiser, loss + GAMMA / 2 * penalty)
        return loss.detach()

    def against(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's weighted loss on the outputs for real and generated images."""
        return self.weight * F.softplus(self.network(real.detach()) - self.network(fake)).mean()

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict(), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._seen = {kind: seen.to(self._seen[kind]) for kind, seen in state["seen"].items()}
