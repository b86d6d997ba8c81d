"""Applications of the paper's encoder (A.2.1, A.2.4, 4.4), with inverters of which the result is known."""

from __future__ import annotations

import numpy as np
import torch

from pipeline_lib.studies.discovery import area_outside, draw_superpixel, superpixels
from pipeline_lib.studies.illumination import darker, left_half, shares
from pipeline_lib.studies.multimodal import differences

SIDE = 32
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[16:30, 4:28] = 1


def test_two_results_differ_where_they_do():
    results = torch.zeros(2, 3, 8, 8)
    results[1, :, :4] = 1
    region = torch.zeros(2, 1, 8, 8)
    region[0, :, :2], region[1, :, :4] = 1, 1
    inside, outside = differences(results, region).tolist()
    assert (inside, outside) == (1, 0)


def test_the_share_of_a_change_is_1_where_all_of_it_is_seen():
    images = torch.rand(2, 3, 8, 8)
    left = left_half(images)
    wanted = darker(images, torch.ones_like(left)) - images
    assert shares(wanted * left, wanted, left).allclose(torch.tensor([1.0, 0.0]))
    assert shares(0.5 * wanted, wanted, left).allclose(torch.tensor([0.5, 0.5]))
    assert darker(torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2)).allclose(torch.tensor(2 * 0.6 - 1))
    assert darker(-torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2)).allclose(torch.tensor(-1.0))  # black stays black


def test_superpixels_keep_to_the_edges_of_colours():
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[CODES == 1] = 250
    labels = superpixels(image, 36)
    assert 20 < len(np.unique(labels)) <= 36
    of_part = [len(np.unique(CODES[labels == number])) for number in np.unique(labels)]
    assert np.mean(np.array(of_part) == 1) > 0.9


def test_a_superpixel_is_drawn_in_a_part_that_is_larger():
    random = np.random.default_rng(0)
    labels = np.arange(SIDE)[:, None] // 8 * 4 + np.arange(SIDE)[None] // 8
    masks = {"background": CODES == 0, "mouth": CODES == 1}
    for _ in range(10):
        superpixel, part = draw_superpixel(labels, masks, random)
        assert (superpixel & part).sum() >= 0.8 * superpixel.sum()
        assert (part & ~superpixel).sum() >= 0.02 * labels.size
    assert draw_superpixel(labels, {"all": np.ones_like(CODES, bool)}, random) is None


def test_the_area_leaves_the_superpixel_out():
    part = CODES == 1
    superpixel = np.zeros_like(part)
    superpixel[18:22, 6:10] = True
    assert area_outside(part.astype(float), superpixel, part) == 1
    assert area_outside(superpixel.astype(float), superpixel, part) == 0.5
