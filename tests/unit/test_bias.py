from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from pipeline_lib.audit.estimate import wilson_rate
from pipeline_lib.config import Evaluate
from pipeline_lib.evaluation.bias import corrected_gap
from pipeline_lib.evaluation.detector_error import DetectorError, Observed
from pipeline_lib.evaluation.rates import gap, gap_of_counts
from pipeline_lib.rebalance.groups import group_name


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ({}, "all"),
        ({"long_hair": True}, "long_hair"),
        ({"long_hair": False}, "not long_hair"),
        ({"long_hair": True, "hat": False}, "long_hair and not hat"),
    ],
)
def test_a_group_is_named_by_its_conditions(where, name):
    assert group_name(where) == name


@pytest.mark.parametrize(("positives", "n"), [(0, 7), (3, 7), (7, 7), (480, 2000)])
def test_wilson_limits_are_where_the_score_test_just_rejects(positives, n):
    # The defining equation, not the closed form: |p - limit| = z sqrt(limit (1 - limit) / n).
    rate, low, high = wilson_rate(positives, n, 0.9)
    z = norm.ppf(0.95)
    for limit in (low, high):
        assert abs(rate - limit) == pytest.approx(z * np.sqrt(max(0, limit * (1 - limit)) / n), abs=1e-7)
    assert low <= rate <= high
    assert low < high


# Newcombe (1998), Statistics in Medicine 17:873-890, Table II, method 10, at 95%.
NEWCOMBE = [
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((6, 7), (2, 7), (0.0582, 0.8062)),
    ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ((0, 10), (0, 20), (-0.1611, 0.2775)),
    ((0, 10), (0, 10), (-0.2775, 0.2775)),
    ((10, 10), (0, 20), (0.6791, 1.0000)),
    ((10, 10), (0, 10), (0.6075, 1.0000)),
]


@pytest.mark.parametrize(("first", "second", "limits"), NEWCOMBE)
def test_gap_limits_are_those_of_newcombes_table(first, second, limits):
    value, low, high = gap(wilson_rate(*first, 0.95), wilson_rate(*second, 0.95))
    assert value == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert (low, high) == pytest.approx(limits, abs=6e-5)


def test_gap_changes_sign_with_the_order_of_groups():
    first, second = wilson_rate(30, 40, 0.95), wilson_rate(11, 60, 0.95)
    forth, back = gap(first, second), gap(second, first)
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low))


def test_the_gap_of_two_groups_is_the_first_minus_the_second():
    rates = wilson_rate(10, 40, 0.95), wilson_rate(30, 60, 0.95)
    assert gap_of_counts([(10, 40), (30, 60)], [0.9, 0.1], 0.95) == gap(*rates)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_gap_of_several_groups_is_the_largest_minus_the_smallest_rate_whatever_their_order(order):
    counts = [(300, 400), (120, 400), (200, 400)]
    found = gap_of_counts([counts[number] for number in order], [0.5] * 3, 0.95)
    level = 1 - 0.05 / 3  # three pairs
    largest = gap(wilson_rate(300, 400, level), wilson_rate(120, 400, level))
    assert found == pytest.approx(largest)


def test_several_groups_that_are_at_different_targets_have_no_gap_and_exchanged_ones_have():
    counts, targets = [(80, 100), (50, 100), (20, 100)], [0.8, 0.5, 0.2]
    assert gap_of_counts(counts, targets, 0.95).value == pytest.approx(0)
    assert gap_of_counts(counts, targets[::-1], 0.95).value == pytest.approx(1.2)


def test_a_single_group_and_one_without_images_have_no_gap():
    assert np.isnan(gap_of_counts([(3, 4)], [0.5], 0.95)).all()
    assert np.isnan(gap_of_counts([(3, 4), (1, 4), (0, 0)], [0.5] * 3, 0.95)).all()


@pytest.mark.long
def test_the_interval_of_the_largest_gap_holds_the_true_one_as_often_as_it_says():
    """The interval of the two groups that differ most in a sample would exclude a gap of 0 in most samples."""
    random, groups, size, held, naive = np.random.default_rng(0), 7, 200, 0, 0
    for _ in range(200):
        counts = [(int(positives), size) for positives in random.binomial(size, 0.5, groups)]
        held += gap_of_counts(counts, [0.5] * groups, 0.95).low <= 0
        naive += gap(*(wilson_rate(*pick(counts), 0.95) for pick in (max, min))).low <= 0
    assert held >= 190
    assert naive < 120


def test_the_limits_of_the_largest_corrected_gap_of_many_groups_are_not_those_of_two_or_three_draws():
    error = DetectorError(180, 200, 20, 200)
    observed, settings = [Observed(100 + 4 * number, 250, error) for number in range(7)], Evaluate()
    limits = [corrected_gap(observed, [0.5] * 7, settings, seed, ("retrained",)).ci for seed in range(12)]
    assert np.std(limits, axis=0).max() < 0.012
    assert corrected_gap(observed, [0.5] * 7, settings, 0, ("retrained", "beard")).ci != limits[0]


def test_a_gap_with_an_empty_group_is_not_a_number():
    assert np.isnan(gap(wilson_rate(1, 2, 0.95), wilson_rate(0, 0, 0.95))).all()
