from __future__ import annotations

import logging

import numpy as np
import pytest

from pipeline_lib.evaluation.detector_error import (
    DetectorError,
    Observed,
    correct_gap,
    correct_rate,
    measure_error,
    measure_errors,
)
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.seeding import numpy_generator

REPEATS, RESAMPLES = 400, 300
# An interval of 95% that is right holds the truth in 400 repeats with a standard error of
# sqrt(0.95 * 0.05 / 400) = 0.011. Four of them allow for chance; the upper end allows an interval that is a little
# too wide, as every interval of counts must be somewhere, yet far from one that always holds.
LEAST, MOST = 0.95 - 0.044, 0.995


def measured(rng, sensitivity, specificity, labelled, name="all"):
    """Measure a detector of known error on `labelled` images of each kind."""
    found, mistaken = rng.binomial(labelled, [sensitivity, 1 - specificity])
    return DetectorError(int(found), labelled, int(mistaken), labelled, name)


def seen(rng, rate, n, sensitivity, specificity):
    """Count the positives that it sees among n images of which about `rate` are positive."""
    positives = rng.binomial(n, rate)
    return int(rng.binomial(positives, sensitivity) + rng.binomial(n - positives, 1 - specificity))


def test_error_counts_are_those_of_a_table_counted_by_hand():
    truth = np.array([True, True, True, True, False, False])
    prediction = np.array([True, True, True, False, True, False])
    error = measure_error(truth, prediction)
    assert error == DetectorError(true_positives=3, positives=4, false_positives=1, negatives=2)
    assert (error.sensitivity, error.specificity) == (0.75, 0.5)


def test_a_perfect_detector_changes_no_rate():
    estimate = correct_rate(Observed(30, 100, DetectorError(500, 500, 0, 500)), 0.95, 100, numpy_generator(0))
    assert estimate.value == pytest.approx(0.3)
    assert estimate.low < 0.3 < estimate.high


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_expected_counts_give_the_true_rate_back(rate):
    error = DetectorError(true_positives=900, positives=1000, false_positives=200, negatives=1000)
    positives = round(1000 * (rate * 0.9 + (1 - rate) * 0.2))
    estimate = correct_rate(Observed(positives, 1000, error), 0.95, 100, numpy_generator(0))
    assert estimate.value == pytest.approx(rate)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_rate_below_the_detectors_mistakes_is_clipped_and_its_interval_is_not_empty():
    estimate = correct_rate(Observed(180, 1000, DetectorError(90, 100, 20, 100)), 0.95, 1000, numpy_generator(0))
    assert (estimate.value, estimate.low) == (0, 0)
    assert 0.02 < estimate.high < 0.2


def test_counts_that_the_measured_error_cannot_explain_are_logged(caplog):
    correct_rate(Observed(180, 1000, DetectorError(90, 100, 20, 100)), 0.95, 1000, numpy_generator(0))
    assert not caplog.records
    correct_rate(Observed(10, 1000, DetectorError(90, 100, 20, 100)), 0.95, 1000, numpy_generator(0))
    assert "10 of 1000 positive images are inconsistent with the error measured on `all`" in caplog.text


@pytest.mark.parametrize(
    ("rate", "sensitivity", "specificity", "labelled", "n"),
    [
        (0.6, 0.9, 0.8, 300, 500),
        (0.2, 0.8, 0.95, 100, 1000),
        (0.5, 0.995, 0.995, 50, 2000),  # mostly measured as perfect: the error's own uncertainty rules
        (0.9, 0.97, 0.9, 150, 200),
    ],
)
def test_the_corrected_rate_is_unbiased_and_its_interval_holds_the_truth(rate, sensitivity, specificity, labelled, n):
    rng = numpy_generator(1, "simulation", str((rate, labelled)))
    estimates = np.array(
        [
            correct_rate(
                Observed(
                    seen(rng, rate, n, sensitivity, specificity), n, measured(rng, sensitivity, specificity, labelled)
                ),
                0.95,
                RESAMPLES,
                rng,
            )
            for _ in range(REPEATS)
        ]
    )
    error_of_mean = estimates[:, 0].std(ddof=1) / np.sqrt(REPEATS)
    # The ratio of two estimates has a bias of second order, far below a hundredth here.
    assert abs(estimates[:, 0].mean() - rate) < 4 * error_of_mean + 0.002
    held = ((estimates[:, 1] <= rate) & (rate <= estimates[:, 2])).mean()
    assert LEAST <= held <= MOST


def test_the_naive_rate_is_biased_where_the_corrected_one_is_not():
    rng = numpy_generator(2, "simulation")
    counts = [seen(rng, 0.2, 500, 0.9, 0.8) for _ in range(REPEATS)]
    errors = [measured(rng, 0.9, 0.8, 300) for _ in counts]
    corrected = [correct_rate(Observed(k, 500, e), 0.95, 10, rng).value for k, e in zip(counts, errors, strict=True)]
    naive = np.array(counts) / 500
    assert abs(naive.mean() - 0.2) > 20 * naive.std() / np.sqrt(REPEATS)
    assert abs(np.mean(corrected) - 0.2) < 4 * np.std(corrected) / np.sqrt(REPEATS)


@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_of_a_gap_holds_the_truth(shared):
    # The detector errs differently in the groups unless they share one measurement.
    rng = numpy_generator(3, "simulation", int(shared))
    of_first = (0.9, 0.85)
    of_second = of_first if shared else (0.75, 0.95)
    held, gaps = [], []
    for _ in range(REPEATS):
        error = measured(rng, *of_first, 80, "first")
        other = error if shared else measured(rng, *of_second, 80, "second")
        first = Observed(seen(rng, 0.7, 600, *of_first), 600, error)
        second = Observed(seen(rng, 0.4, 600, *of_second), 600, other)
        value, low, high = correct_gap(first, second, 0.95, RESAMPLES, rng)
        gaps.append(value)
        held.append(low <= 0.3 <= high)
    assert abs(np.mean(gaps) - 0.3) < 4 * np.std(gaps) / np.sqrt(REPEATS) + 0.005
    assert LEAST <= np.mean(held) <= MOST


def test_a_shared_error_cancels_in_the_gap_of_equal_groups():
    # Two large groups seen alike, corrected by few labelled images: the gap is known far better than the rates are.
    error = DetectorError(18, 20, 4, 20)
    group = Observed(50_000, 100_000, error)
    rate = correct_rate(group, 0.95, 1000, numpy_generator(0))
    gap = correct_gap(group, group, 0.95, 1000, numpy_generator(0))
    assert gap.high - gap.low < 0.1 * (rate.high - rate.low)


def test_ten_times_the_labelled_images_narrow_the_interval_by_the_root_of_ten():
    # A million images are seen, so the detector's measured error alone makes the interval.
    widths = []
    for labelled in (200, 2000, 20_000):
        error = DetectorError(labelled * 9 // 10, labelled, labelled // 5, labelled)
        estimate = correct_rate(Observed(500_000, 1_000_000, error), 0.95, 4000, numpy_generator(0))
        widths.append(estimate.high - estimate.low)
    assert widths[0] / widths[1] == pytest.approx(10**0.5, rel=0.15)
    assert widths[1] / widths[2] == pytest.approx(10**0.5, rel=0.15)


@pytest.mark.parametrize("error", [DetectorError(50, 100, 50, 100), DetectorError(20, 100, 90, 100)])
def test_a_detector_no_better_than_chance_is_an_error(error):
    with pytest.raises(DataError, match=r"`all`: sensitivity 0\.\d+ and specificity 0\.\d+ are no better than chance"):
        correct_rate(Observed(50, 100, error), 0.95, 100, numpy_generator(0))


def test_a_detector_measured_without_negatives_is_an_error():
    with pytest.raises(DataError, match="0 negatives"):
        correct_rate(Observed(50, 100, DetectorError(90, 100, 0, 0)), 0.95, 100, numpy_generator(0))


def test_an_interval_stays_within_bounds_with_hardly_any_labels():
    estimate = correct_rate(Observed(5, 10, DetectorError(2, 3, 1, 3)), 0.95, 500, numpy_generator(0))
    assert (estimate.low, estimate.high) == pytest.approx((0, 1), abs=0.05)


def test_an_empty_group_has_no_corrected_rate_or_gap():
    error = DetectorError(90, 100, 10, 100)
    assert np.isnan(correct_rate(Observed(0, 0, error), 0.95, 100, numpy_generator(0))).all()
    gap = correct_gap(Observed(0, 0, error), Observed(5, 10, error), 0.95, 100, numpy_generator(0))
    assert np.isnan(gap).all()


def test_errors_are_measured_in_each_group():
    truth = np.tile([True, False], 40)
    first = np.arange(80) < 40
    prediction = np.where(first, truth, True)  # perfect in the first group, blind in the second
    errors = measure_errors(truth, prediction, {"first": first, "second": ~first})
    assert errors["first"] == DetectorError(20, 20, 0, 20, "first")
    assert errors["second"] == DetectorError(20, 20, 20, 20, "second")


def test_a_group_with_few_labels_is_corrected_by_the_error_of_all(caplog):
    truth = np.tile([True, False], 40)
    with caplog.at_level(logging.WARNING):
        errors = measure_errors(truth, truth, {"large": np.arange(80) < 76, "small": np.arange(80) >= 76})
    assert "`small` has 2 labelled positives and 2 negatives" in caplog.text
    assert "`large`" not in caplog.text
    assert errors["small"] == measure_error(truth, truth, "all")
    assert errors["large"].measured_on == "large"
