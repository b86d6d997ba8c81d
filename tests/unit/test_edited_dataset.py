"""Rates certified by an audit cover the truth as often as they say, whatever fails and however unequally."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.dataset import EditedDataset, Stratum
from pipeline_lib.audit.estimate import ASSUMED_ERRORS, Estimate, Verdict, chances, decide, labels_needed
from pipeline_lib.config import RateRule
from pipeline_lib.runtime.errors import DataError

CLASSES = Classes(
    [RateRule(where={"hair": value, "hat": False}, attribute="smiling", rate=0.5) for value in (True, False)]
)
SIZE = 730  # edited images of either group
GAP, FIRST = (1, -1), (1, 0)
#: Share of the edits with the wrong value and share that leave their group, for each of the two strata. Those of group
#: 0 are to lose the attribute, and those of group 1 to get it.
PLANTED = {
    "as measured on avatars": ((0.06, 0.002), (0.005, 0.001)),
    "rare and equal": ((0.002, 0.0), (0.002, 0.0)),
    "many, and many leave": ((0.15, 0.02), (0.02, 0.01)),
}


def class_of(group, smiling):
    """Return the classes of images of these groups, of which 2 is in none."""
    group, smiling = np.broadcast_arrays(np.asarray(group), np.asarray(smiling, bool))
    return CLASSES.of({"hair": group == 0, "hat": group == 2, "smiling": smiling})


def kept(*images_and_positives):
    """Return how many images of each class there are, given images of each group and positives among them."""
    counts = np.zeros(len(CLASSES), int)
    for group, (images, positives) in enumerate(images_and_positives):
        counts[class_of(group, True)] = positives
        counts[class_of(group, False)] = images - positives
    return counts


KEPT = kept((1600, 1170), (1950, 600))


def audited(group, wanted, values, groups=None, size=SIZE, unclear=()):
    """Return a stratum with these labels, and images known in part: (hair, hat, smiling), None where it is unknown."""
    found = class_of(group if groups is None else groups, values) if len(values) else np.empty(0, int)
    possible = CLASSES.possible(pd.DataFrame([*unclear], columns=["hair", "hat", "smiling"], dtype="boolean"))
    return Stratum(int(class_of(group, not wanted)), int(class_of(group, wanted)), size, found, possible)


def estimate(there, strata, of, confidence=0.95, random=None, draws=2000):
    evidence = EditedDataset(CLASSES, there, strata, of)
    return evidence.estimate(confidence, random or np.random.default_rng(0), draws)


def needed(there, strata, of, *asked, random=None):
    return labels_needed(EditedDataset(CLASSES, there, strata, of), *asked, random or np.random.default_rng(0)).labels


def plant(planted, labels, random):
    """Return strata with failures at random, of which `labels` images each are audited, and the true rates."""
    counts, strata = KEPT.copy(), []
    for (wrong, leaves), (group, wanted) in zip(planted, ((0, False), (1, True)), strict=True):
        values = np.where(random.random(SIZE) < wrong, not wanted, wanted)
        groups = np.where(random.random(SIZE) < leaves, 1 - group, group)
        counts = counts + np.bincount(class_of(groups, values), minlength=len(CLASSES))
        drawn = random.choice(SIZE, labels, replace=False)
        strata.append(audited(group, wanted, values[drawn], groups[drawn]))
    return strata, CLASSES.rates(counts)


@pytest.mark.slow
@pytest.mark.parametrize("planted", list(PLANTED.values()), ids=list(PLANTED))
@pytest.mark.parametrize("labels", [50, 250])
def test_intervals_cover_the_truth_and_are_not_much_wider_than_they_must_be(planted, labels):
    random = np.random.default_rng(0)
    covered, widths, errors = [], [], []
    for _ in range(500):
        strata, rates = plant(planted, labels, random)
        found, true = estimate(KEPT, strata, GAP, 0.95, random, draws=400), rates @ GAP
        covered.append(found.low - 1e-12 <= true <= found.high + 1e-12)
        widths.append(found.high - found.low)
        errors.append(abs(found.value - true))
    assert np.mean(covered) >= 0.94
    # The normal interval of one who knew the shares of failures, or that of the rule of three where none may be seen.
    shares = np.array([wrong + leaves for wrong, leaves in planted])
    weights = SIZE / (SIZE + np.array([1600, 1950]))
    normal = 2 * 1.96 * np.sqrt((weights**2 * shares * (1 - shares) / labels * (1 - labels / SIZE)).sum())
    assert np.mean(widths) <= 1.5 * max(normal, np.linalg.norm(3 * weights / labels))
    if labels == 250:  # 500 labels in all
        assert np.mean(errors) <= 0.015


def test_a_limit_holds_where_an_audit_is_likely_to_see_no_failure():
    """Of 5,000 edits to a smile 1.8 % fail; in a sixth of the audits of 100 none of them is seen."""
    random = np.random.default_rng(3)
    below = 0
    for _ in range(400):
        values = random.random(5000) >= 0.018
        strata = [audited(0, True, random.choice(values, 100, replace=False), size=5000)]
        found = estimate(kept((5000, 3000), (9, 3)), strata, FIRST, 0.95, random, draws=400)
        below += (3000 + values.sum()) / 10000 < found.low
    assert below / 400 <= 0.04  # 0.025, and three standard errors of 400 trials less half


def test_a_dataset_of_which_everything_is_labelled_is_known_exactly():
    strata = [audited(0, False, [False] * 8 + [True] * 2, size=10), audited(1, True, [True] * 5, size=5)]
    there = kept((90, 60), (95, 40))
    found = estimate(there, strata, FIRST)
    assert found == Estimate(*[pytest.approx(62 / 100)] * 3)
    gap = estimate(there, strata, GAP)
    assert gap == Estimate(*[pytest.approx(62 / 100 - 45 / 100)] * 3)


def test_an_edit_that_changes_the_group_counts_in_the_other_one_and_one_that_leaves_both_in_none():
    strata = [audited(0, True, [True, True, False], [0, 1, 2], size=3)]
    there = kept((9, 3), (9, 3))
    first, second = (estimate(there, strata, of).value for of in (FIRST, (0, 1)))
    assert first == pytest.approx(4 / 10)
    assert second == pytest.approx(4 / 10)


def test_without_an_audit_nothing_is_known_of_the_edited_images():
    there, edited = kept((50, 25), (50, 25)), [audited(0, True, [], size=50)]
    found = estimate(there, edited, FIRST)
    assert found.low == pytest.approx(0.25, abs=0.01)
    assert found.high == pytest.approx(0.75, abs=0.01)


def test_a_group_without_images_has_no_rate():
    assert np.isnan(estimate(kept((0, 0), (5, 1)), [], FIRST).value)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Estimate(0.51, 0.49, 0.52), Verdict.MET),
        (Estimate(0.51, 0.46, 0.52), Verdict.UNKNOWN),
        (Estimate(0.60, 0.54, 0.66), Verdict.MISSED),
        (Estimate(0.40, 0.35, 0.46), Verdict.MISSED),
        (Estimate(0.54, 0.52, 0.56), Verdict.UNKNOWN),
        (Estimate(np.nan, np.nan, np.nan), Verdict.UNKNOWN),
    ],
)
def test_a_target_is_met_only_if_the_whole_interval_is_within_its_tolerance(found, verdict):
    assert decide(found, 0.5, 0.03) is verdict


def test_a_rate_as_far_from_the_target_as_the_tolerance_is_rarely_said_to_meet_it():
    random = np.random.default_rng(1)
    met = 0
    for _ in range(400):
        strata, rates = plant(((0.06, 0.0), (0.005, 0.0)), 200, random)
        target = rates @ GAP - 0.02  # the truth is exactly as far away as is tolerated
        met += decide(estimate(KEPT, strata, GAP, 0.9, random, draws=400), target, 0.02) is Verdict.MET
    assert met / 400 <= 0.05


# Images that could not be determined

NOTHING, HAIR, SMILE = (None, None, None), (1, 0, None), (None, 0, 1)


@pytest.mark.parametrize("unclear", [[HAIR] * 3, [NOTHING] * 3, [SMILE] * 3, [HAIR, NOTHING, SMILE, (0, 0, None)]])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("of", [FIRST, (0, 1)])
def test_an_interval_holds_every_rate_that_unclear_images_allow(unclear, wanted, of):
    strata = [audited(0, wanted, [wanted] * 4 + [not wanted], size=5 + len(unclear), unclear=unclear)]
    there = kept((6, 3), (6, 3)) + class_counts(strata[0].found)
    ways = product(*(np.flatnonzero(possible) for possible in strata[0].unclear))
    rates = [CLASSES.rates(there + class_counts(way)) @ of for way in ways]
    found = estimate(there - class_counts(strata[0].found), strata, of, 0.95, np.random.default_rng(0))
    assert (found.low, found.high) == (pytest.approx(min(rates)), pytest.approx(max(rates)))
    assert found.low <= found.value <= found.high


def class_counts(classes):
    return np.bincount(np.asarray(classes, int), minlength=len(CLASSES))


def test_half_of_the_edits_unclear_leave_a_rate_open_by_as_much():
    """Of 1,000 images 400 are edited and audited, and of 200 of these the value could not be determined."""
    strata = [audited(0, False, [False] * 200, size=400, unclear=[HAIR] * 200)]
    found = estimate(kept((600, 500), (9, 3)), strata, FIRST)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.7))
    assert decide(found, 0.5, 0.03) is Verdict.UNKNOWN


@pytest.mark.parametrize("hidden", [True, False])
def test_intervals_cover_the_truth_whichever_edits_are_unclear(hidden):
    """Only failed edits are unclear, or only those that succeeded."""
    random = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        failed = random.random(SIZE) < 0.08
        drawn = random.choice(SIZE, 200, replace=False)
        unseen = (failed[drawn] == hidden) & (random.random(200) < 0.3)
        labels = [not value for value in failed[drawn][~unseen]]
        strata = [audited(0, True, labels, unclear=[HAIR] * int(unseen.sum()))]
        found = estimate(KEPT, strata, FIRST, 0.95, random, draws=400)
        covered.append(found.low <= (1170 + (~failed).sum()) / (1600 + SIZE) <= found.high)
    assert np.mean(covered) >= 0.94


# How many labels would do


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "seen", "of", "away", "tolerance"),
    [
        ((0.06, 0.005), 150, GAP, 0.005, 0.012),
        ((0.02, 0.02), 0, FIRST, 0.0, 0.01),
        ((0.15, 0.02), 60, FIRST, 0.045, 0.03),
    ],
)
def test_the_labels_that_would_do_are_said_and_do_in_four_of_five_audits(failing, seen, of, away, tolerance):
    random = np.random.default_rng(2)
    wrong = [round(seen * share) for share in failing]
    strata = [
        audited(group, wanted, [not wanted] * count + [wanted] * (seen - count))
        for count, (group, wanted) in zip(wrong, ((0, False), (1, True)), strict=True)
    ]
    expected = np.array([(1170 + failing[0] * SIZE) / (1600 + SIZE), (600 + (1 - failing[1]) * SIZE) / (1950 + SIZE)])
    target = expected @ of - away
    assert decide(estimate(KEPT, strata, of, 0.9, random), target, tolerance) is Verdict.UNKNOWN
    enough = needed(KEPT, strata, of, target, tolerance, 0.9, random=random)

    def decided(labels):
        count = 0
        for _ in range(100):
            strata, rates = plant([(share, 0.0) for share in failing], labels, random)
            found = estimate(KEPT, strata, of, 0.9, random, draws=400)
            count += decide(found, rates @ of - away, tolerance) is not Verdict.UNKNOWN
        return count / 100

    assert decided(enough // 2) >= 0.7  # half of them in each stratum; 0.8, and 2.5 standard errors of 100 trials less
    assert decided(enough // 4) < 0.8


def test_failures_are_not_expected_in_each_of_many_strata():
    strata = [audited(0, False, [], size=20) for _ in range(40)]
    expected = EditedDataset(CLASSES, KEPT, strata, FIRST).expected(400).strata
    assert [stratum.audited for stratum in expected] == [10] * 40
    assert sum(stratum.failures for stratum in expected) == ASSUMED_ERRORS * 400


def test_unclear_images_widen_an_interval_without_scatter():
    expected, determined = Estimate(0.5, 0.45, 0.55), Estimate(0.5, 0.49, 0.51)
    met, missed = chances(expected, 0.5, 0.06, 0.95, determined)
    assert met == pytest.approx(0.95, abs=1e-6)  # if it is found within 0.01 of 0.5, where 95 % of those determined are
    assert missed == pytest.approx(0, abs=1e-6)


def test_what_no_number_of_labels_decides_has_none():
    strata = [audited(0, False, [True] + [False] * 9, size=10), audited(1, True, [True] * 10, size=10)]
    there = kept((90, 49), (90, 40))
    assert (
        labels_needed(
            EditedDataset(CLASSES, there, strata, FIRST), 0.47, 0.03 - 1e-9, 0.9, np.random.default_rng(0)
        ).labels
        == 20
    )  # it is missed
    assert (
        labels_needed(
            EditedDataset(CLASSES, kept((0, 0), (9, 3)), [], FIRST), 0.5, 0.1, 0.9, np.random.default_rng(0)
        ).labels
        is None
    )


def test_an_audit_of_more_images_than_there_are_is_refused():
    with pytest.raises(DataError, match=r"audit of edits from class \d to \d: 3 labels for 2 images"):
        audited(0, True, [True] * 3, size=2)
