from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.runtime.errors import DataError


def draw(n, dimensions, seed, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, dimensions)) + shift).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("neighbours", "shift"), [(1, 0.0), (5, 0.0), (5, 0.4), (5, 30.0)])
def test_density_and_coverage_are_those_of_the_authors_package(neighbours, shift):
    prdc = pytest.importorskip("prdc")
    reference, features = draw(120, 6, 1), draw(90, 6, 2, shift)
    expected = prdc.compute_prdc(reference, features, neighbours)
    found = density_and_coverage(reference, features, neighbours)
    assert found == pytest.approx((expected["density"], expected["coverage"]), abs=1e-12)


def test_density_and_coverage_of_points_on_a_line_are_those_counted_by_hand():
    reference = np.array([[0.0], [1.0], [2.0], [14.0]])  # with k = 1 the radii are 1, 1, 1, 12
    features = np.array([[0.5], [3.0], [100.0], [2.0]])
    # 0.5 lies in the balls round 0 and 1; 3.0 in that round 14 and on the border of that round 2; 100.0 in none;
    # 2.0 in that round 2 and on the borders of those round 1 and 14.
    found = density_and_coverage(reference, features, neighbours=1)
    assert found == ((2 + 1 + 0 + 1) / 4, 4 / 4)


def test_a_set_measured_against_itself_has_density_and_coverage_of_one():
    # Each ball holds its centre and the k - 1 nearest; the k-th lies on the border, an exact tie.
    points = draw(70, 40, 3)
    assert density_and_coverage(points, points, neighbours=5) == (1.0, 1.0)


def test_a_far_off_set_of_features_keeps_its_ties():
    # Rounding grows with the distance from the origin; ties must not turn with it.
    points = (draw(70, 40, 3) + 1000).astype(np.float32)
    assert density_and_coverage(points, points, neighbours=5) == (1.0, 1.0)


def counted_in_float64(reference, features, neighbours):
    """Count by the differences themselves, which loses nothing to cancellation."""
    reference, features = reference.astype(np.float64), features.astype(np.float64)
    among = np.square(reference[:, None] - reference).sum(-1)
    radii = np.sort(among, axis=1)[:, neighbours]  # the nearest is the point itself
    inside = np.square(reference[:, None] - features).sum(-1) < radii[:, None]
    return inside.sum() / (neighbours * len(features)), inside.any(axis=1).mean()


@pytest.mark.parametrize("outlier", [0.0, 1e2, 1e4])
def test_an_outlier_turns_no_comparison(outlier):
    # An outlier makes squared distances inexact by far more than those between the other points.
    reference, features = draw(150, 30, 7), draw(130, 30, 8)
    reference[0] += outlier
    features[-1] += outlier / 2
    expected = counted_in_float64(reference, features, 5)
    assert density_and_coverage(reference, features, 5) == pytest.approx(expected, abs=1e-12)
    assert density_and_coverage(reference, features, 5, tile=40 * 150) == pytest.approx(expected, abs=1e-12)


def test_points_that_lie_closer_than_float32_can_tell_are_ordered_in_float64():
    reference, features = (1 + 1e-4 * draw(80, 12, seed) for seed in (9, 10))
    reference[0] += 50.0
    expected = counted_in_float64(reference, features, 3)
    assert density_and_coverage(reference, features, 3) == pytest.approx(expected, abs=1e-12)


def test_equal_distributions_have_density_one_and_the_expected_coverage():
    # With n = m large, the k nearest of a real image's neighbours in both sets are all real with probability 2**-k.
    density, coverage = density_and_coverage(draw(1500, 4, 4), draw(1500, 4, 5), neighbours=5)
    assert density == pytest.approx(1, abs=0.06)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_a_collapsed_set_is_dense_but_covers_little():
    density, coverage = density_and_coverage(draw(300, 4, 6), np.zeros((300, 4)), neighbours=5)
    assert density > 1.5
    assert coverage < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("tile", [1, 90 * 7, 2**23])
def test_the_size_of_tiles_changes_nothing(tile):
    reference, features = draw(120, 6, 1), draw(90, 6, 2)
    assert density_and_coverage(reference, features, 5, tile=tile) == density_and_coverage(reference, features, 5)


def test_too_few_reference_images_are_an_error_that_says_how_many():
    with pytest.raises(DataError, match="at least 6"):
        density_and_coverage(draw(5, 3, 0), draw(9, 3, 1), neighbours=5)
    assert density_and_coverage(draw(6, 3, 0), draw(9, 3, 1), neighbours=5).coverage >= 0


def test_features_of_two_extractors_are_not_compared():
    with pytest.raises(DataError, match="the same extractor"):
        density_and_coverage(draw(9, 3, 0), draw(9, 4, 1))
