from __future__ import annotations

import math

import pytest
import torch

from pipeline_lib.config import GanTraining
from pipeline_lib.runtime import ranks
from pipeline_lib.training.adversarial import discriminator_loss, generator_loss, gradient_penalty
from pipeline_lib.training.view import View

IMAGES = torch.zeros(6, 3, 8, 8)
SLOPE, LOCAL_SLOPE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_each_loss_is_the_softplus_of_how_far_the_other_side_is_ahead_averaged_over_pairs():
    real, fake = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [3.0]])
    expected = (math.log1p(math.exp(0.5)) + math.log1p(math.exp(2.0))) / 2
    assert discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert generator_loss(fake, real).item() == pytest.approx(expected)


def test_every_score_has_a_loss_of_its_own():
    real, fake = torch.zeros(4, 2), torch.tensor([[0.0, 50.0]]).expand(4, 2)
    torch.testing.assert_close(discriminator_loss(real, fake), torch.tensor([math.log(2), 50.0]))


def test_the_penalty_is_the_mean_square_of_the_gradient_at_the_images():
    penalty = gradient_penalty(lambda images: (images * SLOPE).sum(dim=(1, 2, 3))[:, None], IMAGES, [1.0])
    torch.testing.assert_close(penalty, SLOPE.square().sum())


def test_a_local_score_is_penalised_by_itself_with_its_own_weight():
    def discriminate(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([(images * slope).sum(dim=(1, 2, 3)) for slope in (SLOPE, LOCAL_SLOPE)], dim=1)

    penalty = gradient_penalty(discriminate, IMAGES, [1.0, 0.25])
    torch.testing.assert_close(penalty, SLOPE.square().sum() + 0.25 * LOCAL_SLOPE.square().sum())


def test_the_penalty_trains_the_discriminator_and_not_what_made_the_images():
    scale = torch.tensor(2.0, requires_grad=True)
    source = torch.ones_like(IMAGES).requires_grad_()
    gradient_penalty(lambda images: (scale * images).sum(dim=(1, 2, 3))[:, None], source * 1, [1.0]).backward()
    assert scale.grad == pytest.approx(2 * 2.0 * SLOPE.numel())
    assert source.grad is None


@pytest.mark.parametrize("batch", [4, 8, 16, 24])
def test_several_processes_shift_an_image_as_one_does(monkeypatch, batch):
    images = torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    settings = GanTraining(kimg=1, batch=batch)

    def viewed(rank, count):
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "count", lambda: count)
        random, offsets = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        return View(settings, 0.0, 16, random, offsets)(ranks.own_rows(images))

    whole = viewed(0, 1)
    assert not torch.allclose(whole, images)
    for rank in range(4):
        torch.testing.assert_close(viewed(rank, 4), whole[rank::4])
