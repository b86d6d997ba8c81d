"""A membrane solves Laplace's equation inside and leaves every pixel outside as it is."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from pipeline_lib.imaging.membrane import spread_inwards

SIDE = 64


def regions():
    """Return a box, a cross, an ellipse, and a box that touches the lower border."""
    masks = torch.zeros(4, 1, SIDE, SIDE)
    masks[0, :, 42:60, 18:46] = 1
    masks[1, :, 45:55, 10:30] = masks[1, :, 38:62, 17:22] = 1
    down, right = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    masks[2, 0] = (((down - 50) / 9) ** 2 + ((right - 32) / 15) ** 2 < 1).float()
    masks[3, :, 40:, 20:50] = 1
    return masks


def solve_directly(values, inside):
    """Solve the same equations, of one channel, by elimination."""
    rows, columns = np.nonzero(inside)
    number = -np.ones(inside.shape, int)
    number[rows, columns] = np.arange(len(rows))
    matrix, right = scipy.sparse.lil_matrix((len(rows), len(rows))), np.zeros(len(rows))
    for own, (row, column) in enumerate(zip(rows, columns, strict=True)):
        for near in ((row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column)):
            if min(near) >= 0 and max(near) < SIDE:
                matrix[own, own] += 1
                if inside[near]:
                    matrix[own, number[near]] -= 1
                else:
                    right[own] += values[near]
    solved = values.copy()
    solved[rows, columns] = scipy.sparse.linalg.spsolve(matrix.tocsr(), right)
    return solved


def test_a_plane_is_continued_exactly():
    plane = (torch.arange(SIDE)[:, None] * 0.01 - torch.arange(SIDE) * 0.005).expand(3, 2, SIDE, SIDE)
    inside = regions()[:3]
    found = spread_inwards(torch.where(inside.bool(), torch.rand(3, 2, SIDE, SIDE), plane), inside)
    torch.testing.assert_close(found, plane.contiguous(), rtol=0, atol=2e-3)


def test_it_agrees_with_elimination_to_a_grey_level():
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(4, 1, 8, 8, generator=random) * 0.1  # a difference in colour as composites have it
    values = torch.nn.functional.interpolate(coarse, size=SIDE, mode="bicubic")
    inside = regions()
    found = spread_inwards(values, inside)
    for number in range(4):
        exact = solve_directly(values[number, 0].double().numpy(), inside[number, 0].numpy() > 0)
        assert np.abs(found[number, 0].numpy() - exact).max() < 2 / 255


def test_pixels_outside_stay_and_what_lies_inside_does_not_matter():
    values, inside = torch.rand(4, 3, SIDE, SIDE), regions()
    found = spread_inwards(values, inside)
    outside = ~inside.bool().expand_as(values)
    assert found[outside].equal(values[outside])
    assert found.equal(spread_inwards(torch.where(inside.bool(), 9.0, values), inside))


@pytest.mark.parametrize("side", [5, 16, 33])
def test_any_size_and_an_empty_or_whole_region_are_handled(side):
    values, inside = torch.rand(2, 3, side, side), torch.zeros(2, 1, side, side)
    assert spread_inwards(values, inside).equal(values)
    inside[1] = 1
    found = spread_inwards(values, inside)
    assert found[0].equal(values[0])
    assert found[1].abs().max() == 0
