"""The score of a part is the variation that replacing it causes elsewhere, as the paper defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline_lib.studies.independence import replace_parts, variation_maps, variation_outside
from pipeline_lib.studies.study import mean_row

NAMES = ["background", "skin", "mouth"]
SIDE = 16
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[2:14, 2:14] = 1
CODES[10:12, 5:11] = 2


class Perfect:
    """Changes what is replaced and nothing else."""

    precision = "float32"

    def __call__(self, images, known):
        assert known.shape == (len(images), 1, *images.shape[2:])
        assert known.all()
        return images


class Entangled(Perfect):
    """Paints the whole image in its mean colour, so that every part changes all pixels alike."""

    def __call__(self, images, known):
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def masks():
    return torch.stack([torch.from_numpy(code == CODES) for code in range(3)])


def draw(count, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_collage_has_the_part_of_the_donor_and_all_else_of_the_image():
    image, donors = draw(1), draw(4, seed=1)
    made = replace_parts(Perfect(), image, donors, masks())
    assert made.shape == (3, 4, 3, SIDE, SIDE)
    for part, mask in enumerate(masks()):
        assert made[part][:, :, mask].equal(donors[:, :, mask])
        assert made[part][:, :, ~mask].equal(image.expand(4, -1, -1, -1)[:, :, ~mask])


def test_without_leakage_every_score_is_0():
    variation = variation_maps(replace_parts(Perfect(), draw(1), draw(6, seed=1), masks()))
    assert variation.sum(dim=0).allclose(torch.ones(SIDE, SIDE, dtype=torch.float64))
    assert variation_outside(variation, masks()).abs().max() == 0


def test_with_all_pixels_alike_a_score_is_the_share_of_the_variance_times_the_area_outside():
    donors = draw(8, seed=1)
    variation = variation_maps(replace_parts(Entangled(), draw(1), donors, masks()))
    shares = torch.stack(
        [(donors * mask).mean(dim=(2, 3)).double().var(dim=0, correction=0).mean().sqrt() for mask in masks()]
    )
    expected = shares / shares.sum() * (~masks()).double().mean(dim=(1, 2))
    torch.testing.assert_close(variation_outside(variation, masks()), expected, rtol=1e-4, atol=0)


def test_a_pixel_that_no_part_changes_has_no_variation():
    assert variation_maps(torch.zeros(3, 5, 3, SIDE, SIDE)).abs().max() == 0


def test_an_interval_is_students_and_a_single_value_has_none():
    row = mean_row("r", "m", np.array([1.0, 2.0, 3.0]), 0.95)
    assert (row["value"], row["n"]) == (2.0, 3)
    assert row["ci_high"] - row["value"] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom
    assert np.isnan(mean_row("r", "m", np.array([1.0]), 0.95)["ci_low"])
