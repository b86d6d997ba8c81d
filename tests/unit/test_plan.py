"""A plan reaches every rate with the fewest edits, and edits nothing else."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.audit.labels import count_successes
from pipeline_lib.config import BoxRegion, PartRegion, RateRule, Rebalance
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.editing.plan import plan_edits, plan_sham
from pipeline_lib.rebalance.groups import in_group
from pipeline_lib.rebalance.plan import (
    Audited,
    choose_edits,
    made_edits,
    needed_edits,
    refuse_small_groups,
    refuse_without_donors,
)
from pipeline_lib.rebalance.resample import draw_at_rates
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json

LONG, SHORT = {"long_hair": True}, {"long_hair": False}


def draw(count=500, seed=0):
    random = np.random.default_rng(seed)
    long_hair, hat = random.random(count) < 0.4, random.random(count) < 0.1
    return {"long_hair": long_hair, "hat": hat, "smiling": random.random(count) < np.where(long_hair, 0.8, 0.2)}


def targets(first, second, *, hatless=False):
    more = {"hat": False} if hatless else {}
    return [
        RateRule(where={**LONG, **more}, attribute="smiling", rate=first),
        RateRule(where={**SHORT, **more}, attribute="smiling", rate=second),
    ]


def apply(plan, holds):
    edited = holds["smiling"].copy()
    edited[plan["position"]] = plan["wanted"]
    return {**holds, "smiling": edited}


def everywhere(holds):
    return {"smiling": np.ones(len(holds["smiling"]), bool)}


@pytest.mark.parametrize("hatless", [False, True])
@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.3, 0.7), (1.0, 0.0), (0.123, 0.456)])
def test_after_the_plan_every_group_has_its_rate_with_the_fewest_edits(rates, hatless):
    holds, wanted = draw(), targets(*rates, hatless=hatless)
    plan, counts = choose_edits(holds, everywhere(holds), wanted, 0, "dataset")
    after = apply(plan, holds)
    for number, (target, count) in enumerate(zip(wanted, counts, strict=True)):
        group = in_group(holds, target.where)
        size, before = group.sum(), holds["smiling"][group].sum()
        assert after["smiling"][group].mean() == round(target.rate * size) / size
        assert (plan["target"] == number).sum() == count["edits"] == abs(round(target.rate * size) - before)
        assert (count["size"], count["rate_before"]) == (size, before / size)


def test_every_edit_changes_something_once_and_nothing_outside_the_groups():
    holds, wanted = draw(), targets(0.5, 0.5, hatless=True)
    plan, _ = choose_edits(holds, everywhere(holds), wanted, 0, "dataset")
    positions = plan["position"].to_numpy()
    assert (np.diff(positions) > 0).all()  # sorted, and none twice
    assert (holds["smiling"][positions] != plan["wanted"]).all()
    assert not holds["hat"][positions].any()


def test_a_set_that_is_balanced_already_is_left_alone():
    holds = {"long_hair": np.arange(8) < 4, "smiling": np.arange(8) % 2 == 0}
    plan, counts = choose_edits(holds, everywhere(holds), targets(0.5, 0.5), 0, "dataset")
    assert plan.empty
    assert [count["edits"] for count in counts] == [0, 0]


def test_only_images_that_may_change_are_edited():
    holds = draw()
    may_change = np.random.default_rng(1).random(500) < 0.8
    plan, _ = choose_edits(holds, {"smiling": may_change}, targets(0.5, 0.5), 0, "dataset")
    assert may_change[plan["position"]].all()


def test_who_is_edited_is_a_function_of_seed_and_set_and_every_image_has_its_chance():
    holds = draw(100)

    def positions(seed, name="dataset"):
        return tuple(choose_edits(holds, everywhere(holds), targets(0.5, 0.5), seed, name)[0]["position"])

    assert positions(3) == positions(3)
    assert len({positions(3), positions(4), positions(3, "samples")}) == 3
    edited = set().union(*(positions(seed) for seed in range(60)))
    group = in_group(holds, LONG)
    assert edited == set(np.flatnonzero((group & holds["smiling"]) | (~group & ~holds["smiling"])))


def test_a_rate_out_of_reach_is_refused_with_the_numbers():
    holds = {"long_hair": np.arange(10) < 6, "smiling": np.arange(10) < 6}
    may_change = {"smiling": np.arange(10) >= 4}  # of the six long-haired smiles only two can be changed
    message = r"targets\.0: rate 0\.5 needs 3 edits of `dataset`, but only 2 images that are long_hair can be edited; "
    message += r"the nearest rate is 0\.666666667"
    with pytest.raises(DataError, match=message):
        choose_edits(holds, may_change, targets(0.5, 0.0), 0, "dataset")
    assert len(choose_edits(holds, may_change, targets(0.666666667, 0.0), 0, "dataset")[0]) == 2


def settings_of(*rules, **edit):
    return Rebalance(targets=list(rules), edit=edit)


def test_a_target_whose_value_no_image_has_is_refused():
    holds = draw() | {"smiling": np.zeros(500, bool)}
    with pytest.raises(DataError, match=r"targets\.0: \d+ images of `dataset` that are long_hair .* smiling"):
        refuse_without_donors(holds, settings_of(*targets(0.5, 0.5)), "dataset")
    refuse_without_donors(holds, settings_of(*targets(0.0, 0.0)), "dataset")  # nothing is to be edited


def test_donors_of_another_group_are_enough_but_must_have_the_part():
    holds = draw()
    holds["smiling"][holds["long_hair"]] = False
    wanted = settings_of(targets(0.5, 0.5)[0])
    refuse_without_donors(holds, wanted, "dataset")
    with pytest.raises(DataError, match="and 0 images of any group can be their donors"):
        refuse_without_donors(holds, wanted, "dataset", {"smiling": ~holds["smiling"]})
    few = settings_of(targets(0.5, 0.5)[0], donors="with-attribute", candidates=400)
    with pytest.raises(DataError, match=f"and {holds['smiling'].sum()} images of any group .* fewer than 400"):
        refuse_without_donors(holds, few, "dataset")


@pytest.mark.parametrize("opposite", [False, True])
def test_an_attribute_that_is_the_same_as_its_group_is_refused(opposite):
    holds = draw()
    holds["smiling"] = holds["long_hair"] ^ opposite
    for hatless in (False, True):
        wanted = settings_of(*targets(0.5, 0.5, hatless=hatless))
        with pytest.raises(DataError, match=r"targets\.0: in `dataset` smiling is the same as long_hair"):
            refuse_without_donors(holds, wanted, "dataset")
    holds["smiling"][np.flatnonzero(holds["long_hair"])[:9]] ^= True
    with pytest.raises(DataError, match=r"all but 9 of the images that are long_hair and 0 of the others"):
        refuse_without_donors(holds, settings_of(*targets(0.5, 0.5)), "dataset")
    holds["smiling"][np.flatnonzero(holds["long_hair"])[9:10]] ^= True
    refuse_without_donors(holds, settings_of(*targets(0.5, 0.5)), "dataset")


def test_a_group_of_two_conditions_is_told_apart_by_images_that_are_known():
    random = np.random.default_rng(0)
    holds = {name: random.integers(0, 2, 400).astype(np.float32) for name in ("long_hair", "hat")}
    holds["smiling"] = holds["long_hair"] * holds["hat"]
    rule = RateRule(where={"long_hair": True, "hat": True}, attribute="smiling", rate=0.5)
    holds["long_hair"][random.random(400) < 0.3] = np.nan
    with pytest.raises(DataError, match="smiling is the same as long_hair and hat"):
        refuse_without_donors(holds, settings_of(rule), "dataset")
    refuse_without_donors(holds, settings_of(rule), "dataset", learnt=False)  # a detector that was given may tell


def test_a_group_without_an_image_is_refused():
    holds = {"long_hair": np.ones(4, bool), "smiling": np.ones(4, bool)}
    with pytest.raises(DataError, match=r"targets\.1: no image of `samples` is not long_hair"):
        choose_edits(holds, everywhere(holds), targets(0.5, 0.5), 0, "samples")


def test_a_group_of_a_few_images_is_refused_by_its_size():
    holds = draw(1000) | {"hat": np.arange(1000) < 29}
    rules = [RateRule(where={"hat": value}, attribute="smiling", rate=0.5) for value in (False, True)]
    with pytest.raises(DataError, match=r"targets\.1: 29 images of `dataset` are hat, and a rate of fewer than 30"):
        refuse_small_groups(holds, rules, "dataset")
    refuse_small_groups(holds | {"hat": np.arange(1000) < 30}, rules, "dataset")
    with pytest.raises(DataError, match=r"are race=unknown, .* name that value in `data\.unknown`"):
        rule = RateRule(where={"race=unknown": True}, attribute="smiling", rate=0.5)
        refuse_small_groups(holds | {"race=unknown": holds["hat"]}, [rule], "dataset")
    # how many hatted smiles there are is decided by the plan, if hats are edited too
    joint = [*targets(0.5, 0.5), RateRule(where={"long_hair": True, "hat": True}, attribute="smiling", rate=0.5)]
    joint = [RateRule(where=LONG, attribute="hat", rate=0.5), *joint[2:]]
    refuse_small_groups(holds, joint, "dataset")


@pytest.mark.parametrize("region", [PartRegion(), BoxRegion()])
@pytest.mark.parametrize("kind", ["labels", "scores"])
def test_the_stage_plans_from_truth_or_scores_and_edits_only_images_with_the_part(tmp_path, kind, region):
    holds = draw(200)
    names = [f"image-{number}" for number in range(200)]
    table = pd.DataFrame({"image_id": names, **holds})
    if kind == "labels":
        table.insert(1, "split", "train")
    else:
        table[list(holds)] = table[list(holds)].astype(np.float32) * 0.4 + 0.3
    write_table(tmp_path / "table.parquet", kind, table)
    mouth = np.array([[0, 1], [0, 1]])
    parts = [row for name in names[50:] for row in part_rows(name, mouth, ["background", "mouth"])]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(parts))
    plan_edits(
        table=tmp_path / "table.parquet",
        kind=kind,
        editable=tmp_path / "parts.parquet",
        audit=[],
        settings=Rebalance(targets=targets(0.5, 0.5), edit={"region": region}),
        learnt=True,
        run="toy",
        seed=0,
        name="dataset",
        plan=tmp_path / "plan.parquet",
        summary=tmp_path / "plan.json",
    )
    plan, summary = read_table(tmp_path / "plan.parquet", "plan"), read_json(tmp_path / "plan.json")
    may_change = {"smiling": np.arange(200) >= 50} if region.kind == "part" else everywhere(holds)
    expected, counts = choose_edits(holds, may_change, targets(0.5, 0.5), 0, "dataset")
    assert plan["position"].tolist() == expected["position"].tolist()
    assert plan["image_id"].tolist() == [names[position] for position in expected["position"]]
    assert plan["wanted"].tolist() == expected["wanted"].tolist()
    assert summary == {"images": 200, "edits": len(expected), "targets": counts}


def test_spares_are_the_next_images_of_the_same_draw():
    holds = draw(400)
    plain, counts = choose_edits(holds, everywhere(holds), targets(0.5, 0.5), 0, "dataset")
    plan, with_spares = choose_edits(holds, everywhere(holds), targets(0.5, 0.5), 0, "dataset", spares=0.1)
    assert counts == with_spares  # what is needed stays what it is
    assert needed_edits(plan)["position"].tolist() == plain["position"].tolist()
    assert len(needed_edits(plain)) == len(plain)
    for number, found in enumerate(counts):
        of_target = plan[plan["target"] == number]
        assert sorted(of_target.loc[of_target["spare"] > 0, "spare"]) == list(
            range(1, math.ceil(0.1 * found["edits"]) + 1)
        )


def test_a_spare_takes_the_place_of_a_failed_edit_of_its_target_in_order():
    plan = pd.DataFrame(
        {
            "image_id": list("abcdefgh"),
            "target": [0, 0, 0, 0, 0, 1, 1, 1],
            "spare": [0, 0, 2, 1, 3, 0, 0, 1],
        }
    )
    assert made_edits(plan, set("abcdefgh"))["image_id"].tolist() == list("abfg")  # nothing failed
    assert made_edits(plan, set("bcdefgh"))["image_id"].tolist() == list("bdfg")  # a did
    assert made_edits(plan, set("bcefg"))["image_id"].tolist() == list("bcfg")  # and so did the first spare
    assert made_edits(plan, set("bh"))["image_id"].tolist() == list("bh")
    assert made_edits(plan.drop(columns="spare"), set("ab"))["image_id"].tolist() == list("ab")


def test_sham_edits_are_of_the_same_images_and_change_no_value(tmp_path):
    plan, _ = choose_edits((holds := draw(100)), everywhere(holds), targets(0.5, 0.5), 0, "dataset", spares=0.1)
    plan.insert(0, "image_id", plan["position"].astype(str))
    write_table(tmp_path / "plan.parquet", "plan", plan)
    plan_sham(plan=tmp_path / "plan.parquet", run="toy", sham=tmp_path / "sham.parquet")
    sham = read_table(tmp_path / "sham.parquet", "plan")
    assert (sham["wanted"] == holds["smiling"][sham["position"]]).all()
    assert sham.drop(columns="wanted").equals(read_table(tmp_path / "plan.parquet", "plan").drop(columns="wanted"))


def test_as_many_more_edits_are_planned_as_make_up_for_those_that_failed():
    holds = draw(2000)
    plain, counts = choose_edits(holds, everywhere(holds), targets(0.5, 0.5), 0, "dataset")
    audited = [Audited(50, 40), Audited(80, 80)]
    plan, again = choose_edits(holds, everywhere(holds), targets(0.5, 0.5), 0, "dataset", audited=audited)
    assert [count["edits"] for count in again] == [round(counts[0]["edits"] / 0.8), counts[1]["edits"]]
    assert [count["audited"] for count in again] == [audit._asdict() for audit in audited]
    assert set(plain["position"]) < set(plan["position"])  # what was edited before stays edited
    first = plan[plan["target"] == 0]
    succeeded = np.random.default_rng(0).random(len(first)) < 0.8
    after = apply(pd.concat([first[succeeded], plan[plan["target"] == 1]]), holds)
    assert abs(after["smiling"][holds["long_hair"]].mean() - 0.5) < 0.02  # without the additional ones it is 0.56


def test_what_no_edit_can_mend_is_refused():
    holds = draw(2000)

    def plan(*audited, rates=(0.5, 0.5)):
        return choose_edits(holds, everywhere(holds), targets(*rates), 0, "dataset", audited=audited)

    with pytest.raises(DataError, match=r"targets\.0` none of 9 audited edits succeeded; change the editor"):
        plan(Audited(9, 0), Audited(9, 9))
    with pytest.raises(DataError, match=r"targets\.1` no edit was audited; label a larger sheet"):
        plan(Audited(9, 9), Audited(0, 0))
    present = holds["smiling"][~holds["long_hair"]].mean()
    assert len(plan(Audited(9, 9), Audited(0, 0), rates=(0.5, float(present)))[0])  # that target needs no edit
    smiles = int((holds["smiling"] & holds["long_hair"]).sum())
    nearest = (smiles - smiles * 0.3) / holds["long_hair"].sum()
    with pytest.raises(DataError, match=rf"but only {smiles} images .* the nearest rate is {nearest:.9f}"):
        plan(Audited(10, 3), Audited(9, 9), rates=(0.5, 0.5))


@pytest.fixture
def audit(tmp_path):
    """Return a function that counts the edits in an audit: those of a and b take a smile, those of c and d give one."""
    holds = {"long_hair": np.array([1, 1, 1, 0, 0, 0]) > 0, "smiling": np.array([1, 1, 1, 0, 0, 0]) > 0}
    settings = Rebalance(targets=targets(0.3, 0.7))
    digest = settings.edits_digest("smiling")

    def count(*rows, name="audit.csv", edit=digest, more=()):
        lines = [
            f"{image},dataset_rebalanced,x,{edit if edited else ''},{hair},{smile}"
            for image, edited, hair, smile in rows
        ]
        (tmp_path / name).write_text("\n".join(["image_id,image_set,digest,edit,long_hair,smiling", *lines]))
        return count_successes([tmp_path / name, *more], list("abzcdy"), holds, settings)

    return count


def test_audited_edits_are_counted_by_target(audit):
    found = audit(("a", 1, 1, 0), ("b", 1, 1, 1), ("z", 0, 1, 1), ("c", 1, 0, 1), ("d", 1, 1, 1), ("y", 0, 0, 0))
    assert found == [Audited(2, 1), Audited(2, 1)]  # b still smiles, and d has left its group


def test_an_edit_of_which_it_cannot_be_told_whether_it_succeeded_is_not_counted(audit):
    assert audit(("a", 1, 1, "?"), ("b", 1, 1, 0), ("c", 1, 0, 1)) == [Audited(1, 1), Audited(1, 1)]
    assert audit(("a", 1, "?", 1), ("c", 1, "?", 1)) == [Audited(1, 0), Audited(0, 0)]  # a still smiles, whoever it is


def test_audits_of_two_rounds_are_taken_together(audit, tmp_path):
    audit(("a", 1, 1, 0), ("c", 1, 0, 1), name="first.csv")
    more = [tmp_path / "first.csv"]
    assert audit(("b", 1, 1, 0), ("c", 1, 0, 1), more=more) == [Audited(2, 2), Audited(1, 1)]
    assert audit(("b", 1, 1, 0), ("c", 1, 0, 0), more=more) == [Audited(2, 2), Audited(0, 0)]  # they differ on c


def test_an_audit_of_other_edits_is_refused(audit):
    with pytest.raises(DataError, match=r"audit.csv: labels of edits made with other settings, since `rebalance` has"):
        audit(("a", 1, 1, 0), edit="another")
    with pytest.raises(DataError, match="q is no image of this run's"):
        audit(("q", 1, 1, 0))


def test_the_digest_of_edits_is_of_what_they_look_like_and_not_of_how_many_there_are():
    digest = Rebalance(targets=targets(0.5, 0.5)).edits_digest("smiling")
    assert Rebalance(targets=targets(0.4, 0.4), spares=0.1, labels=["a.csv"]).edits_digest("smiling") == digest
    assert Rebalance(targets=targets(0.5, 0.5), edit={"finish": "region"}).edits_digest("smiling") != digest


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.123, 0.95), (1.0, 0.0)])
def test_resampled_images_have_every_rate_and_repeat_what_is_rare_evenly(rates):
    holds, wanted = draw(3000), targets(*rates, hatless=True)
    drawn = draw_at_rates(holds, wanted, 0)
    after = {name: values[drawn] for name, values in holds.items()}
    repeats = np.bincount(drawn, minlength=3000)
    for target in wanted:
        before = in_group(holds, target.where)
        group = in_group(after, target.where)
        assert group.sum() == before.sum()
        assert abs(after["smiling"][group].sum() - target.rate * before.sum()) <= 0.5
        for value in (True, False):
            of_cell = repeats[before & (holds["smiling"] == value)]
            assert np.ptp(of_cell) <= 1
    assert (repeats[holds["hat"]] == 1).all()  # in no group
    assert (np.diff(drawn) >= 0).all()
    assert not np.array_equal(drawn, draw_at_rates(holds, wanted, 1))


JOINT = [
    RateRule(where={"smiling": value, "long_hair": hair}, attribute="hat", rate=0.3)
    for value in (1, 0)
    for hair in (1, 0)
] + targets(0.5, 0.6)
CROSSED = [
    RateRule(where={"smiling": True}, attribute="hat", rate=0.3),
    RateRule(where={"hat": True}, attribute="smiling", rate=0.7),
]


@pytest.mark.parametrize("wanted", [JOINT, CROSSED])
def test_images_are_resampled_for_targets_of_several_attributes(wanted):
    holds = draw(3000)
    drawn = draw_at_rates(holds, wanted, 0)
    after = {name: values[drawn] for name, values in holds.items()}
    if wanted is JOINT:
        assert after["long_hair"].sum() == holds["long_hair"].sum()  # not edited, so that it stays as it was
    for target in wanted:
        group = in_group(after, target.where)
        assert after[target.attribute][group].mean() == pytest.approx(target.rate, abs=2 / group.sum())


def test_rates_that_exclude_each_other_cannot_be_drawn():
    clash = [
        RateRule(where={"hat": True}, attribute="smiling", rate=1.0),
        RateRule(where={"smiling": True, "long_hair": True}, attribute="hat", rate=0.5),
        RateRule(where={"long_hair": True, "smiling": False}, attribute="hat", rate=0.5),
    ]
    with pytest.raises(DataError, match="no choice among the original images"):
        draw_at_rates(draw(3000), clash, 0)


def test_what_is_not_there_cannot_be_drawn():
    holds = {"long_hair": np.arange(8) < 4, "smiling": np.arange(8) < 4}
    with pytest.raises(DataError, match=r"targets\.0: no image that is long_hair is not smiling, so none can be drawn"):
        draw_at_rates(holds, targets(0.5, 0.5), 0)
    assert draw_at_rates(holds, targets(1.0, 0.0), 0).tolist() == list(range(8))
