"""A finished edit is the context outside the region, and the donor's part in the context's colours inside."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.editing.editors.poisson import Poisson
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import Masks

SIDE = 32


@pytest.fixture
def masks():
    pasted = torch.zeros(2, 1, SIDE, SIDE)
    pasted[..., 18:28, 8:24] = 1
    unknown = torch.zeros_like(pasted)
    unknown[..., 16:30, 6:26] = 1
    return Masks(pasted, unknown - pasted)


def draw(seed):
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_without_a_finish_the_composite_is_kept(masks):
    assert finish(draw(0), draw(1), draw(2), masks, "none").equal(draw(2))


@pytest.mark.parametrize("how", ["region", "detail"])
def test_outside_the_region_the_context_is_kept_to_the_last_bit(masks, how):
    context, finished = draw(0), finish(draw(0), draw(1), draw(2), masks, how)
    outside = ~masks.region.bool().expand_as(context)
    assert finished[outside].equal(context[outside])
    assert not finished.equal(context)
    assert finished.abs().max() <= 1


@pytest.mark.parametrize("how", ["region", "detail"])
def test_a_composite_that_is_too_dark_by_a_constant_leaves_no_trace(masks, how):
    context = draw(0) / 2
    torch.testing.assert_close(finish(context, context, context - 0.3, masks, how), context, rtol=0, atol=2e-3)


def test_detail_is_poisson_blending_where_the_composite_agrees_with_the_donor(masks):
    context, donor = draw(0) / 4, draw(1) / 4
    blended = Poisson()(context, donor, masks)
    finished = finish(context, donor, blended + 0.1, masks, "detail")
    torch.testing.assert_close(finished, blended, rtol=0, atol=1e-2)


def test_detail_is_the_composites_in_unknown_pixels_where_the_donor_shows_something_else(masks):
    skin = torch.full((2, 3, SIDE, SIDE), 0.2)
    donor = skin.clone()
    donor[..., 16:18, 10:20] = -0.8  # a moustache, in the ring that is unknown
    donor[..., 22:24, 12:20] = -0.5  # and a mouth
    finished = finish(skin, donor, skin, masks, "detail")
    torch.testing.assert_close(finished[..., 16:18, :], skin[..., 16:18, :], rtol=0, atol=2e-3)
    torch.testing.assert_close(finished[..., 19:, :], donor[..., 19:, :], rtol=0, atol=2e-3)


def test_poisson_takes_the_gradients_of_the_donor_and_the_colours_of_the_context(masks):
    context = draw(0) / 4
    donor = context + 0.5  # the same face in another light
    donor[..., 22:24, 12:20] -= 0.4  # with a mouth
    made = Poisson()(context, donor, masks)
    expected = context.clone()
    expected[..., 22:24, 12:20] -= 0.4
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-3)
