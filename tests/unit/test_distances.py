from __future__ import annotations

import pytest
import torch

from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.perceptual import load_perceptual


def draw(n, side, seed):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_masked_l1_is_the_mean_over_known_pixels_alone():
    images, reconstructions = draw(5, 8, 0), draw(5, 8, 1)
    mask = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.4
    expected = []
    for x, y, m in zip(images, reconstructions, mask, strict=True):
        expected.append((x - y).abs()[m.expand(3, 8, 8)].mean())
    torch.testing.assert_close(masked_l1(images, reconstructions, mask), torch.stack(expected))


@pytest.mark.parametrize("known", [1, 8, 64])
def test_masked_l1_of_a_constant_difference_is_that_difference_whatever_the_mask(known):
    mask = (torch.arange(64) < known).float().view(1, 1, 8, 8)
    images = torch.full((1, 3, 8, 8), -0.5)
    assert masked_l1(images, images + 0.25, mask).item() == 0.25
    assert masked_l1(-torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8), mask).item() == 2


def test_masked_l1_without_a_known_pixel_is_not_a_number():
    images = draw(2, 8, 0)
    mask = torch.ones(2, 1, 8, 8)
    mask[1] = 0
    assert masked_l1(images, -images, mask).isnan().tolist() == [False, True]


def test_distances_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="mask"):
        masked_l1(draw(2, 8, 0), draw(2, 8, 1), torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match="reconstructions"):
        masked_l1(draw(2, 8, 0), draw(1, 8, 1), torch.ones(2, 1, 8, 8))


def test_perceptual_distances_ignore_what_the_mask_hides_and_how_they_are_batched():
    perceptual = load_perceptual("alex")
    images, others = draw(5, 32, 0), draw(5, 32, 1)
    mask = torch.zeros(5, 1, 32, 32)
    mask[:, :, :16] = 1
    spliced = images * mask + others * (1 - mask)
    assert perceptual_distances(perceptual, images, spliced, mask).tolist() == [0] * 5
    assert perceptual_distances(perceptual, images, spliced).min() > 0
    torch.testing.assert_close(perceptual_distances(perceptual, images, others, batch=2), perceptual(images, others))
