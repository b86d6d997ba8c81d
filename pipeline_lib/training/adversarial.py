"""The adversarial objective: relativistic pairing with both zero-centred gradient penalties (Huang et al. 2024, R3GAN).

Scores are (n, scores): one of the whole image and, where there is a local discriminator, one of its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return softplus(D(fake) - D(real)), the mean over pairs for each score, (scores,)."""
    return F.softplus(-(real - fake)).mean(dim=0)


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return softplus(D(real) - D(fake)), the mean over pairs for each score, (scores,)."""
    return F.softplus(-(fake - real)).mean(dim=0)


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the mean squared norm of each score's gradient at `images`: R1 at real images, R2 at generated ones.

    Args:
        discriminate: images to scores (n, scores), augmentation included.
        images: (n, 3, H, W); gradients do not go further back.
        weights: of each score; a local one counts in proportion to the pixels it sees.

    Returns:
        The weighted sum over the scores, a scalar to multiply by gamma / 2.
    """
    images = images.detach().requires_grad_()
    penalty = torch.zeros((), device=images.device)
    for scores, weight in zip(discriminate(images).T, weights, strict=True):
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        penalty = penalty + weight * gradient.square().sum(dim=(1, 2, 3)).mean()
    return penalty
