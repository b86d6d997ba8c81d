"""Squares, frames and regions of faces, against what one can compute by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline_lib.faces.find import FaceFinder, sample_square
from pipeline_lib.faces.frames import LEFT_CORNER, LEFT_EYE, RIGHT_CORNER, RIGHT_EYE, ffhq_square, tight_square
from pipeline_lib.faces.regions import REGIONS, affine_between, region_mask
from pipeline_lib.faces.square import Square


def face(eyes, mouth, turn=0.0):
    """Return landmarks with these distances of the eyes, and of the mouth below them, turned about (100, 80)."""
    points = np.random.default_rng(0).normal(0, 30, (468, 2))
    points[list(RIGHT_EYE)], points[list(LEFT_EYE)] = (-eyes / 2, 0), (eyes / 2, 0)
    points[RIGHT_CORNER], points[LEFT_CORNER] = (-10, mouth), (10, mouth)
    cos, sin = math.cos(turn), math.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]]) + (100, 80)


@pytest.mark.parametrize(("eyes", "mouth", "side"), [(60, 50, 240), (40, 60, 216)])
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_the_published_crop_has_the_side_and_the_centre_of_its_formula(eyes, mouth, side, turn):
    square = ffhq_square(face(eyes, mouth, turn))
    assert square.side == pytest.approx(side)  # four times the eyes' distance, or 3.6 times that of eyes and mouth
    assert square.angle == pytest.approx(turn)
    down = 0.1 * mouth
    assert (square.x, square.y) == pytest.approx((100 - down * math.sin(turn), 80 + down * math.cos(turn)))
    assert tight_square(face(eyes, mouth, turn)).side < square.side


def test_places_in_a_square_and_in_its_picture_are_one_anothers_inverse():
    square, points = Square(40, 30, 25, 0.7), np.random.default_rng(1).uniform(0, 60, (9, 2))
    np.testing.assert_allclose(square.to_picture(square.from_picture(points)), points)
    np.testing.assert_allclose(square.to_picture(np.array([0.5, 0.5])), (40, 30))
    np.testing.assert_allclose(square.grid(3)[1, 1], (40, 30))


def test_a_square_that_is_not_turned_is_a_crop():
    pixels = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    assert np.array_equal(sample_square(pixels, Square(25, 20, 16), 16), pixels[12:28, 17:33])
    beyond = sample_square(pixels, Square(0, 0, 16), 16)
    assert (beyond[:8, :8] == pixels[0, 0]).all()


def test_a_region_is_the_hull_of_its_landmarks():
    points = np.full((468, 2), 0.5)
    corners = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    points[list(REGIONS["lips"][:4])] = corners
    mask = region_mask(points, "lips", 32)
    assert mask[8:24, 8:24].all() and mask.sum() <= 17**2
    mask[7:25, 7:25] = False
    assert not mask.any()


def test_the_map_between_two_faces_is_found_from_their_landmarks():
    source = np.random.default_rng(3).uniform(0, 1, (468, 2))
    wanted = np.array([[0.9, -0.2, 0.1], [0.1, 1.2, -0.3]])
    np.testing.assert_allclose(affine_between(source, source @ wanted[:, :2].T + wanted[:, 2]), wanted, atol=1e-6)


def test_nobody_is_found_in_a_picture_without_a_face():
    noise = np.random.default_rng(4).integers(0, 256, (90, 160, 3), np.uint8)
    assert FaceFinder(torch.device("cpu"))(noise) == []
