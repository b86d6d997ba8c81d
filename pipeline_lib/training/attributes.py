"""A small discriminator that sees images through a detector's logits alone, so that their joint rates are matched.

Who is made how often hardly shows in an image's pixels: where smiles are as frequent as before and only go with other
hair, the discriminator of images has to find an exclusive-or of two details, and takes the finer texture of real images
instead. On the logits of a detector it is found within a few thousand images.
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

SOFTNESS = 4.0  # logits of this size are no longer told apart well: a detector that is sure is not to be surer still


class AttributeDiscriminator:
    """Tells real from generated images by the attributes that a detector sees in them, all of them together.

    Args:
        detector: the selector; frozen, and differentiable. Never the referee, which judges the result.
        settings: the config section.
        seed: of the run, for the first weights.
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
        """Return what the detector sees, (n, attributes) in [-1, 1], of images (n, 3, H, W) in [-1, 1]."""
        return torch.tanh(self.detector.view_logits(images).float() / SOFTNESS)

    def learn(self, real: Tensor, fake: Tensor) -> Tensor:
        """Take a step of the relativistic loss with both gradient penalties; what was seen is (n, attributes)."""
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
        """Return the generator's loss, weighted, of what was seen in its images beside real ones."""
        return self.settings.weight * F.softplus(self.network(real.detach()) - self.network(fake)).mean()

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
