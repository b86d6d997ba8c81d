"""A small discriminator on a detector's logits, which matches the joint rates of attributes.

Joint rates of attributes are a weak signal in pixels. If the rates of smiles and of long hair stay the same and only
their combination changes, the image discriminator would have to learn an exclusive-or of two small details, and relies
on differences in texture instead. On a detector's logits this difference is learnt within a few thousand images.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config import AttributeLoss
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime import ranks, seeding

SOFTNESS = 4.0  # scale beyond which logits saturate, so that confident detections are not pushed further


class AttributeDiscriminator:
    """Distinguishes real from generated images by the joint attributes that a detector predicts for them.

    Args:
        detector: the selector, differentiable and frozen. Never the referee, which evaluates the result.
        settings: the config section.
        seed: seed of the run, for the initial weights.
        device: where to compute.
    """

    def __init__(self, detector: Detector, settings: AttributeLoss, seed: int, device: torch.device):
        self.settings = settings
        self.detector = detector.to(device).requires_grad_(False).eval()
        torch.manual_seed(seeding.derive(seed, "attribute discriminator"))
        sizes = [len(detector.attributes), settings.width, settings.width]
        hidden = [layer for widths in pairwise(sizes) for layer in (nn.Linear(*widths), nn.LeakyReLU(0.2))]
        self.network = nn.Sequential(*hidden, nn.Linear(settings.width, 1)).to(device)
        rates = {"lr": settings.learning_rate, "betas": (0.0, 0.99), "eps": 1e-8, "fused": True}
        self._optimiser = torch.optim.Adam(self.network.parameters(), **rates)

    def look(self, images: Tensor) -> Tensor:
        """Return the detector's scaled outputs, (n, attributes) in [-1, 1], for images (n, 3, H, W) in [-1, 1]."""
        return torch.tanh(self.detector.view_logits(images).float() / SOFTNESS)

    def learn(self, real: Tensor, fake: Tensor) -> Tensor:
        """Take a step on the outputs (n, attributes) with the relativistic loss and both gradient penalties."""
        real, fake = (seen.detach().requires_grad_() for seen in (real, fake))
        scores = self.network(real), self.network(fake)
        loss = F.softplus(scores[1] - scores[0]).mean()
        penalty = torch.zeros_like(loss)
        for score, seen in zip(scores, (real, fake), strict=True):
            (gradient,) = torch.autograd.grad(score.sum(), seen, create_graph=True)
            penalty = penalty + gradient.square().sum(dim=1).mean()
        self._optimiser.zero_grad(set_to_none=True)
        (loss + self.settings.gamma / 2 * penalty).backward()
        ranks.average(weight.grad for weight in self.network.parameters())
        self._optimiser.step()
        return loss.detach()

    def against(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's weighted loss on the outputs for real and generated images."""
        return self.settings.weight * F.softplus(self.network(real.detach()) - self.network(fake)).mean()

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
