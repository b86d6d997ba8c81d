"""Seeds are summed up by their worst, whichever side the bound is on."""

from __future__ import annotations

from experiments.runs import Check
from experiments.seeds import spread


def checks(values, bound, at_most):
    return [Check("a criterion", value, bound, at_most) for value in values]


def test_the_worst_of_a_least_is_the_smallest_and_of_a_most_the_largest():
    least = spread(checks([0.9, 0.7, 0.8], 0.75, at_most=False))
    assert (least["worst"], least["median"], least["best"], least["missed"]) == (0.7, 0.8, 0.9, 1)
    most = spread(checks([0.9, 0.7, 0.8], 0.95, at_most=True))
    assert (most["worst"], most["median"], most["best"], most["missed"]) == (0.9, 0.8, 0.7, 0)
    assert most["values"] == [0.9, 0.7, 0.8]
