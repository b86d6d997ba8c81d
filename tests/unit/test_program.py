"""Plans for targets of several attributes are the best there are, and reach every joint rate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pipeline_lib.audit.classes import Classes
from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.groups import in_group
from pipeline_lib.rebalance.plan import Audited, choose_edits
from pipeline_lib.rebalance.program import Kinds, Program, fewest_edits, nearest_rates
from pipeline_lib.runtime.errors import DataError


def rate(rate, attribute="smiling", **where):
    return RateRule(where=where, attribute=attribute, rate=rate)


#: Smiles and glasses in two groups, so that all four combinations have their rates in both.
JOINT = [
    *(rate(0.5, long_hair=value) for value in (True, False)),
    *(rate(0.4, "glasses", long_hair=hair, smiling=smile) for hair, smile in product((True, False), repeat=2)),
]


def draw(count, seed=0):
    random = np.random.default_rng(seed)
    long_hair = random.random(count) < 0.4
    smiling = random.random(count) < np.where(long_hair, 0.8, 0.2)
    glasses = random.random(count) < np.where(smiling, 0.1, 0.35)
    return {"long_hair": long_hair, "smiling": smiling, "glasses": glasses, "hat": random.random(count) < 0.2}


def everywhere(holds):
    return {name: np.ones(len(holds["smiling"]), bool) for name in ("smiling", "glasses")}


def apply(plan, holds):
    after = {name: values.copy() for name, values in holds.items()}
    for edit in plan.itertuples():
        after[edit.attribute][edit.position] = edit.wanted
    return after


def distances(holds, targets):
    """Return how many images each target is away from its rate."""
    groups = [(in_group(holds, target.where), target) for target in targets]
    return [abs((inside & holds[target.attribute]).sum() - target.rate * inside.sum()) for inside, target in groups]


def test_a_joint_plan_reaches_every_rate_to_within_half_an_image_and_edits_no_image_twice():
    holds = draw(3000)
    plan, counts = choose_edits(holds, everywhere(holds), JOINT, 0, "dataset")
    assert max(distances(apply(plan, holds), JOINT)) <= 0.5 + 1e-5
    assert not plan["position"].duplicated().any()
    assert sum(count["edits"] for count in counts) == len(plan)
    for edit in plan.itertuples():
        target = JOINT[edit.target]
        assert target.attribute == edit.attribute
        assert all(holds[name][edit.position] == value for name, value in target.where.items())
        assert edit.wanted != holds[edit.attribute][edit.position]


def brute_force(program, rates):
    """Return the least number of edits that reach the rates, by trying all."""
    matrix, constant = program.excess(np.asarray(rates))
    fewest = None
    for edits in product(*(range(program.sizes[kind] + 1) for kind, _ in program.variables)):
        used = np.zeros(len(program.sizes))
        for (kind, _), number in zip(program.variables, edits, strict=True):
            used[kind] += number
        if (used <= program.sizes).all() and (abs(matrix @ np.array(edits) + constant) <= 0.5 + 1e-6).all():
            fewest = sum(edits) if fewest is None else min(fewest, sum(edits))
    return fewest


@pytest.mark.parametrize("seed", range(12))
def test_the_program_has_as_few_edits_as_the_best_of_all_plans(seed):
    random = np.random.default_rng(seed)
    holds = {name: random.random(12) < share for name, share in (("smiling", 0.7), ("glasses", 0.3), ("hair", 0.5))}
    may_change = {name: random.random(12) < 0.8 for name in ("smiling", "glasses")}
    targets = [
        rate(0.5, hair=True),
        rate(0.5, hair=False),
        rate(random.choice([0.2, 0.5, 0.9]), "glasses", smiling=True),
    ]
    program = Program.of(Kinds.among(holds, may_change), targets, [1.0] * 3)
    rates = [target.rate for target in targets]
    found, best = fewest_edits(program, rates), brute_force(program, rates)
    assert (found is None) == (best is None)
    assert found is None or found.sum() == best


def test_targets_of_one_attribute_have_the_same_edits_as_by_the_closed_form():
    holds = draw(900)
    targets = [rate(0.5, long_hair=True), rate(0.45, long_hair=False)]
    _, counts = choose_edits(holds, {"smiling": everywhere(holds)["smiling"]}, targets, 0, "dataset")
    kinds = Kinds.among({name: holds[name] for name in ("long_hair", "smiling")}, {"smiling": np.ones(900, bool)})
    program = Program.of(kinds, targets, [1.0, 1.0])
    assert fewest_edits(program, [0.5, 0.45]).sum() == sum(count["edits"] for count in counts)


def test_images_that_no_target_tells_apart_are_edited_equally_often():
    holds = draw(4000)
    targets = [rate(0.5, long_hair=True), rate(0.5, long_hair=False), rate(0.3, "glasses", hat=True)]
    plan, _ = choose_edits(holds, everywhere(holds), targets, 0, "dataset")
    smiles = plan[(plan["target"] == 0)]["position"].to_numpy()
    group = holds["long_hair"] & holds["smiling"] & ~holds["hat"]
    shares = [np.isin(np.flatnonzero(group & (holds["glasses"] == value)), smiles).mean() for value in (True, False)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert 0.2 < shares[0] < 0.6


def test_rates_that_contradict_each_other_or_need_too_many_images_are_refused_with_the_nearest():
    holds = draw(400)
    may_change = {"smiling": np.zeros(400, bool), "glasses": np.ones(400, bool)}
    with pytest.raises(DataError, match=r"rebalance\.targets: no choice of images of `dataset` reaches all rates"):
        choose_edits(holds, may_change, JOINT, 0, "dataset")
    program = Program.of(Kinds.among(holds, may_change), JOINT, [1.0] * len(JOINT))
    nearest = nearest_rates(program, [target.rate for target in JOINT])
    assert nearest[0] == pytest.approx(holds["smiling"][holds["long_hair"]].mean())  # no smile can be edited
    assert nearest[2:] == pytest.approx(0.4, abs=0.06)


def test_where_edits_fail_more_are_planned_and_the_earlier_ones_stay():
    holds = draw(3000)
    first, _ = choose_edits(holds, everywhere(holds), JOINT, 0, "dataset")
    audited = [Audited(50, 40)] * len(JOINT)
    second, counts = choose_edits(holds, everywhere(holds), JOINT, 0, "dataset", audited=audited)
    assert len(second) == pytest.approx(len(first) / 0.8, rel=0.03)
    assert len(set(first["position"]) - set(second["position"])) <= 0.02 * len(first)
    assert counts[0]["audited"] == {"edits": 50, "succeeded": 40}


def test_spares_of_every_target_are_numbered():
    holds = draw(3000)
    plain, _ = choose_edits(holds, everywhere(holds), JOINT, 0, "dataset")
    plan, _ = choose_edits(holds, everywhere(holds), JOINT, 0, "dataset", spares=0.1)
    assert set(plain["position"]) == set(plan.loc[plan["spare"] == 0, "position"])
    assert not plan["position"].duplicated().any()
    for _, rows in plan[plan["spare"] > 0].groupby("target"):
        assert sorted(rows["spare"]) == list(range(1, len(rows) + 1))


def test_classes_are_what_targets_tell_apart():
    classes = Classes(JOINT)
    assert classes.attributes == ["glasses", "long_hair", "smiling"]
    assert len(classes) == 8
    assert len(Classes([rate(0.5, long_hair=True), rate(0.5, long_hair=False)])) == 4
    assert len(Classes([rate(0.5, long_hair=True), rate(0.5, long_hair=False, hat=True)])) == 5
    holds = draw(2000)
    found = classes.rates(classes.count(holds))
    expected = [holds[target.attribute][in_group(holds, target.where)].mean() for target in JOINT]
    assert found == pytest.approx(expected)


def test_the_gradient_of_a_rate_is_what_one_more_image_changes():
    classes, holds = Classes(JOINT), draw(5000)
    counts, of = classes.count(holds).astype(float), np.array([1, -1, 0.5, 0, 0, 0])
    found = classes.gradient(counts, of)
    step = 1e-3
    numeric = [(classes.rates(counts + step * row) - classes.rates(counts)) @ of / step for row in np.eye(len(classes))]
    assert found == pytest.approx(numeric, abs=1e-7)
