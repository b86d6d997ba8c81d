"""Masks of known pixels: random ones for training, and what an edit pastes and leaves unknown."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.config import BoxRegion, MaskSampling, PartRegion
from pipeline_lib.imaging.collages import region_masks
from pipeline_lib.imaging.masks import box_mask, grow, random_masks
from pipeline_lib.runtime.errors import DataError

SIDE = 32


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def square(top, left, size, side=SIDE):
    mask = torch.zeros(1, 1, side, side)
    mask[..., top : top + size, left : left + size] = 1
    return mask


@pytest.mark.parametrize("least", [0.0, 0.3, 0.9])
def test_the_share_of_known_pixels_is_its_expectation(least):
    # On the noise's own grid a pixel is uniform, so it is below t ~ U(least, 1) with probability (1 + least) / 2.
    masks = random_masks(MaskSampling(least=least), 4000, 6, stream())
    expected = (1 + least) / 2
    spread = ((1 - least) ** 2 / 12 + 0.25 / 36) ** 0.5 / 4000**0.5  # of the thresholds, and of 36 pixels at most
    assert abs(masks.mean() - expected) < 4 * spread
    assert masks.unique().tolist() == [0, 1]


def test_unknown_pixels_lie_together(monkeypatch):
    mask = random_masks(MaskSampling(least=0.5), 200, 60, stream())
    changes = (mask[..., 1:] != mask[..., :-1]).float().mean()
    monkeypatch.setattr("pipeline_lib.imaging.masks.CELLS", 60)
    scattered = random_masks(MaskSampling(least=0.5), 200, 60, stream())
    assert changes < (scattered[..., 1:] != scattered[..., :-1]).float().mean() / 4


def test_masks_follow_their_stream():
    settings = MaskSampling()
    assert random_masks(settings, 4, SIDE, stream()).equal(random_masks(settings, 4, SIDE, stream()))
    assert not random_masks(settings, 4, SIDE, stream()).equal(random_masks(settings, 4, SIDE, stream(1)))


def test_growing_widens_a_square_on_every_side_and_stops_at_the_edge():
    assert grow(square(10, 12, 4), 3).equal(square(7, 9, 10))
    assert grow(square(0, 0, 2), 3).equal(square(0, 0, 5))
    assert grow(square(10, 12, 4), 0).equal(square(10, 12, 4))


def test_a_part_is_pasted_grown_with_a_ring_of_unknown_pixels_round_it():
    region = PartRegion(grow=2 / SIDE, buffer=3 / SIDE)
    pasted, unknown = region_masks(region, square(12, 12, 4), torch.zeros(1, 1, SIDE, SIDE))
    assert pasted.equal(square(10, 10, 8))
    assert unknown.equal(square(7, 7, 14) - square(10, 10, 8))


def test_what_would_be_left_of_the_old_part_is_unknown():
    region = PartRegion(grow=1 / SIDE, buffer=0)
    pasted, unknown = region_masks(region, square(12, 12, 4), square(12, 20, 4))
    assert pasted.equal(square(11, 11, 6))
    assert unknown.equal(square(11, 19, 6))


@pytest.mark.parametrize(
    "region", [PartRegion(), PartRegion(grow=0, buffer=0), BoxRegion(), BoxRegion(buffer=0.1), PartRegion(grow=0.2)]
)
def test_pasted_and_unknown_pixels_are_disjoint_and_binary(region):
    donors, contexts = (random_masks(MaskSampling(), 16, SIDE, stream(seed)) for seed in (1, 2))
    pasted, unknown = region_masks(region, donors, contexts)
    assert pasted.shape == unknown.shape == (16, 1, SIDE, SIDE)
    assert not (pasted * unknown).any()
    assert set((pasted + unknown).unique().tolist()) <= {0, 1}


def test_a_box_is_the_rectangle_of_its_shares_and_its_ring_stays_inside():
    region = BoxRegion(top=0.5, bottom=1.0, left=0.25, right=0.75, buffer=2 / SIDE)
    parts = torch.zeros(3, 1, SIDE, SIDE)
    pasted, unknown = region_masks(region, parts, parts)
    assert pasted[0, 0, 16:, 8:24].all()
    assert pasted.sum(dim=(1, 2, 3)).tolist() == [16 * 16] * 3
    assert unknown[0, 0, 14:, 6:26].sum() == unknown[0].sum() == 18 * 20 - 16 * 16


def test_the_default_box_lies_inside_the_crop_at_every_resolution():
    for side in (16, 32, 64, 256):
        mask = box_mask(BoxRegion(), side)[0, 0]
        assert mask.any()
        border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()


def test_a_box_without_a_pixel_is_refused():
    with pytest.raises(DataError, match=r"rebalance\.edit\.region: the box contains no pixel at a resolution of 16"):
        box_mask(BoxRegion(top=0.5, bottom=0.51), 16)
