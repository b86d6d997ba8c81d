"""The discriminator grows as the generator does, and sees how images of a batch differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline_lib.networks.discriminator import Discriminator, minibatch_standard_deviation


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return Discriminator(16, [8, 6, 4]).requires_grad_(False)


def draw(count, side, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("side", [4, 8, 16])
def test_images_of_every_resolution_get_one_score_each(discriminator, side):
    scores = discriminator(draw(8, side))
    assert scores.shape == (8, 1)
    assert scores.unique().numel() == 8


@pytest.mark.parametrize("side", [8, 16])
def test_a_new_resolution_fades_in_from_the_score_of_the_shrunk_image(discriminator, side):
    images = draw(4, side)
    shrunk = discriminator(F.avg_pool2d(images, 2))
    torch.testing.assert_close(discriminator(images, fade=0.0), shrunk)
    assert not torch.allclose(discriminator(images), shrunk)


def test_the_last_channel_is_the_mean_spread_of_each_group():
    x = draw(8, 4)
    spread = minibatch_standard_deviation(x)
    assert spread[:, :3].equal(x)
    for first in (0, 1):  # groups of four take every second image
        group = x[first::2].double().numpy()
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(spread[first::2, 3], np.full((4, 4, 4), expected), rtol=1e-5)


def test_equal_images_have_no_spread():
    spread = minibatch_standard_deviation(draw(1, 4).expand(4, -1, -1, -1))
    torch.testing.assert_close(spread[:, 3], torch.full((4, 4, 4), 1e-4))


@pytest.mark.parametrize("count", [1, 6, 7])
def test_a_batch_of_any_size_is_grouped(discriminator, count):
    assert discriminator(draw(count, 8)).isfinite().all()


def test_scores_have_a_finite_second_derivative_in_the_images(discriminator):
    images = draw(4, 8).requires_grad_()
    weights = [parameter.requires_grad_() for parameter in discriminator.parameters()]
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    found = torch.autograd.grad(gradient.square().sum(), weights, allow_unused=True)
    assert any(one is not None and one.abs().sum() > 0 for one in found)
    assert all(one is None or one.isfinite().all() for one in found)


def test_a_local_discriminator_scores_its_square_and_nothing_else(discriminator):
    before = discriminator(draw(4, 16))
    discriminator.add_local(top=0.5, left=0.25, side=0.5, channels=[6, 4])
    images, elsewhere, inside = draw(4, 16), draw(4, 16), draw(4, 16)
    elsewhere[:, :, 8:16, 4:12] = images[:, :, 8:16, 4:12]
    inside[:, :, 8:16, 4:12] = images[:, :, 8:16, 4:12] + 0.5
    scores = discriminator(images)
    assert scores.shape == (4, 2)
    assert scores[:, :1].equal(before)
    assert discriminator(elsewhere)[:, 1].equal(scores[:, 1])
    assert (discriminator(inside)[:, 1] - scores[:, 1]).abs().min() > 0


def test_the_square_shrinks_with_the_resolution_trained(discriminator):
    discriminator.add_local(top=0.5, left=0.25, side=0.5, channels=[6, 4])
    small = draw(4, 8)
    changed = small.clone()
    changed[:, :, 4:8, 2:6] += 0.5
    assert (discriminator(changed)[:, 1] - discriminator(small)[:, 1]).abs().min() > 0
    changed = small + 0.5
    changed[:, :, 4:8, 2:6] = small[:, :, 4:8, 2:6]
    assert discriminator(changed)[:, 1].equal(discriminator(small)[:, 1])
