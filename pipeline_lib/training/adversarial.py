"""The adversarial objective, a relativistic pairing loss with R1 and R2 gradient penalties (Huang et al. 2024, R3GAN).

Scores are (n, scores), with one score for the whole image and, if there is a local discriminator, one for its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return softplus(D(fake) - D(real)), averaged over pairs for each score, (scores,)."""
    return F.softplus(-(real - fake)).mean(dim=0)


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return softplus(D(real) - D(fake)), averaged over pairs for each score, (scores,)."""
    return F.softplus(-(fake - real)).mean(dim=0)


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the mean squared norm of each score's gradient, which is R1 at real images and R2 at generated ones.

    Args:
        discriminate: maps images to scores (n, scores), augmentation included.
        images: (n, 3, H, W), detached.
        weights: weight of each score; that of a local score is proportional to its number of pixels.

    Returns:
        The weighted sum over the scores, a scalar to multiply by gamma / 2.
    """
    images = images.detach().requires_grad_()
    penalty = torch.zeros((), device=images.device)
    for scores, weight in zip(discriminate(images).T, weights, strict=True):
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        penalty = penalty + weight * gradient.square().sum(dim=(1, 2, 3)).mean()
    return penalty
