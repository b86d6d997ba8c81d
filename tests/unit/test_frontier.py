"""What other choices among planted candidates give is what was planted, by the referee and not by the selector."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.evaluation.frontier import evaluate_frontier
from pipeline_lib.rebalance.groups import in_group
from pipeline_lib.report.frontier import describe_frontier, frontier_figure, frontier_table, unbeaten
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json

TARGETS = [RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
SETTINGS = Rebalance(targets=TARGETS, edit={"candidates": 4, "pool": 8})
LONG, SHORT = [f"long-{n:02d}" for n in range(20)], [f"short-{n:02d}" for n in range(20)]
EDITED = [*LONG[:4], *SHORT[:4]]  # of 14 and of 6 that smile in 20, so that 10 would smile in each group


@pytest.fixture
def tables(tmp_path):
    """Return the tables of a run whose eight edits have four candidates each.

    The seam of candidate n is (n + 1) / 10. The selector is sure of the last two, except for the last edit of each
    group. It says that candidate 2 of the first edit has left its group. The referee says that candidate 0 never has
    the wanted value, and that candidate 3 has long hair.
    """
    smiling = [number < 14 for number in range(20)] + [number >= 14 for number in range(20)]
    labels = pd.DataFrame({"image_id": LONG + SHORT, "split": "train", "person": None, "smiling": smiling})
    labels["long_hair"] = [name in LONG for name in labels["image_id"]]
    plan = pd.DataFrame({"image_id": EDITED, "position": range(8), "target": [0] * 4 + [1] * 4, "attribute": "smiling"})
    rows, seen = [], []
    for number, candidate in itertools.product(range(8), range(4)):
        name, wanted = EDITED[number], number >= 4
        weak = number in (3, 7)
        strength = (0.5, 1.0, 2.0, 2.5)[candidate] if weak else (0.5, 2.0, 4.0, 6.0)[candidate]
        in_group = (number, candidate) != (0, 2)
        rows.append(
            {
                "image_id": name,
                "candidate": candidate,
                "donor_id": f"donor-{candidate}",
                "logit": strength if wanted else -strength,
                "in_group": in_group,
                "seam": (candidate + 1) / 10,
                "success": in_group,
                "chosen": candidate == (3 if weak or number == 0 else 2),
                "masked_l1": candidate / 100,
            }
        )
        shows = wanted if candidate else not wanted
        long_hair = not wanted or candidate == 3
        seen.append({"smiling": 0.9 if shows else 0.2, "long_hair": 0.7 if long_hair else 0.1})
    candidates = pd.DataFrame(rows)
    judged = pd.concat([candidates[["image_id", "candidate", "donor_id"]], pd.DataFrame(seen)], axis=1)
    paths = {name: tmp_path / f"{name}.parquet" for name in ("candidates", "judged", "plan", "labels")}
    write_table(paths["candidates"], "candidates", candidates)
    write_table(paths["judged"], "judged", judged)
    write_table(paths["plan"], "plan", plan.assign(wanted=[False] * 4 + [True] * 4))
    write_table(paths["labels"], "labels", labels)
    return paths


def evaluate(tables, settings=SETTINGS):
    frontier = tables["plan"].with_name("frontier.json")
    evaluate_frontier(
        candidates=[tables["candidates"]],
        judged=[tables["judged"]],
        plan=tables["plan"],
        labels=tables["labels"],
        settings=settings,
        frontier=frontier,
    )
    return read_json(frontier)


def test_every_choice_has_the_figures_that_were_planted(tables):
    found = evaluate(tables)
    assert (found["target_gap"], found["refused"]) == (0, {})
    by_choice = {(choice["rule"], choice["value"]): choice for choice in found["choices"]}
    # made, confirmed, gap, sum of the seams in tenths, sum of masked L1 in hundredths
    own = (8, 7, 11 / 21 - 9 / 19, 27, 19)  # a face with short hair got long hair with its smile
    expected = {
        ("own", None): own,
        ("candidates", 1): (8, 0, 0.4, 8, 0),  # the selector accepts them, and the referee sees no change
        ("candidates", 2): (8, 8, 0.0, 16, 8),
        ("threshold", 0.8): own,
        ("threshold", 0.95): (6, 6, 0.1, 19, 13),
        ("choose", "strongest"): (8, 4, 14 / 24 - 6 / 16, 32, 24),
        ("veto", False): (8, 7, 11 / 21 - 9 / 19, 26, 18),
    }
    assert list(by_choice) == list(expected)
    for choice, (made, confirmed, gap, seams, errors) in expected.items():
        assert by_choice[choice] == {
            "rule": choice[0],
            "value": choice[1],
            "edits": 8,
            "made": made,
            "confirmed": confirmed,
            "gap": pytest.approx(gap, abs=1e-9),
            "distance": pytest.approx(abs(gap), abs=1e-9),
            "seam": pytest.approx(seams / 10 / made, abs=1e-6),
            "masked_l1": pytest.approx(errors / 100 / made, abs=1e-6),
        }


def test_the_gap_is_measured_from_the_target_gap(tables):
    targets = [TARGETS[0].model_copy(update={"rate": 0.9}), TARGETS[1]]
    found = evaluate(tables, SETTINGS.model_copy(update={"targets": targets}))
    assert found["target_gap"] == pytest.approx(0.4)
    distance = {choice["value"]: choice["distance"] for choice in found["choices"] if choice["rule"] == "candidates"}
    assert distance == {1: pytest.approx(0.0, abs=1e-9), 2: pytest.approx(0.4)}


def test_the_rate_of_a_single_target_is_measured_from_it_and_has_no_gap(tables):
    targets = [TARGETS[0].model_copy(update={"rate": 0.4})]
    found = evaluate(tables, SETTINGS.model_copy(update={"targets": targets}))
    assert found["target_gap"] is None
    assert {choice["gap"] for choice in found["choices"]} == {None}
    distance = {choice["value"]: choice["distance"] for choice in found["choices"] if choice["rule"] == "candidates"}
    assert distance[1] == pytest.approx(14 / 20 - 0.4)  # no edit shows, by the referee
    assert distance[2] == pytest.approx(10 / 20 - 0.4)
    assert "closer to the target rate" in describe_frontier(found)
    assert "target rate" in frontier_figure(found).axes[0].get_ylabel()
    assert set(frontier_table(found)["group gap"]) == {"–"}


def test_the_gap_of_three_groups_is_that_of_the_farthest(tables):
    labels = read_table(tables["labels"], "labels")
    labels["hat"] = labels["long_hair"] & (labels.index % 2 == 0)
    write_table(tables["labels"], "labels", labels)
    judged = read_table(tables["judged"], "judged")
    write_table(tables["judged"], "judged", judged.assign(hat=0.0))
    for name, kind in (("candidates", "candidates"), ("judged", "judged"), ("plan", "plan")):
        write_table(tables[name], kind, read_table(tables[name], kind).head(0))
    wheres = [{"long_hair": True, "hat": True}, {"long_hair": True, "hat": False}, {"long_hair": False}]
    targets = [RateRule(where=where, attribute="smiling", rate=0.5) for where in wheres]
    (own,) = evaluate(tables, SETTINGS.model_copy(update={"targets": targets}))["choices"]
    holds = {name: labels[name].to_numpy() for name in ("smiling", "long_hair", "hat")}
    rates = [labels.loc[in_group(holds, where), "smiling"].mean() for where in wheres]
    assert own["gap"] == own["distance"] == pytest.approx(max(rates) - min(rates))


def test_what_the_selector_says_of_chosen_candidates_counts_for_nothing(tables):
    before = evaluate(tables)
    table = read_table(tables["candidates"], "candidates")
    write_table(tables["candidates"], "candidates", table.assign(logit=table["logit"] * 1.01))
    assert evaluate(tables) == before


@pytest.mark.parametrize(
    ("change", "left", "reason"),
    [
        ({"pool": None}, 5, "without `rebalance.edit.pool` that many draw other donors"),
        ({"refine": 5}, 1, "scores of refined edits replaced those that they were chosen by"),
        ({"choose": "strongest"}, 1, "does not give the run's own choice for"),
    ],
)
def test_choices_that_the_tables_cannot_answer_are_left_out_with_the_reason(tables, change, left, reason):
    found = evaluate(tables, SETTINGS.model_copy(update={"edit": SETTINGS.edit.model_copy(update=change)}))
    assert len(found["choices"]) == len(frontier_table(found)) == left
    assert found["choices"][0] == evaluate(tables)["choices"][0]
    assert all(reason in said for said in found["refused"].values())
    assert describe_frontier(found).count(reason) == 1


def test_scores_of_other_candidates_are_refused(tables):
    judged = read_table(tables["judged"], "judged")
    write_table(tables["judged"], "judged", judged.assign(donor_id="someone"))
    with pytest.raises(DataError, match="the referee scored other candidates than the tables of candidates hold"):
        evaluate(tables)
    tables["judged"].unlink()
    with pytest.raises(DataError, match=r"judged\.parquet: no such table; run the rule that makes it"):
        evaluate(tables)


def test_a_run_without_edits_has_the_gap_of_its_labels(tables):
    for name, kind in (("candidates", "candidates"), ("judged", "judged"), ("plan", "plan")):
        write_table(tables[name], kind, read_table(tables[name], kind).head(0))
    found = evaluate(tables)
    (own,) = found["choices"]
    assert own["gap"] == pytest.approx(0.4)
    assert (own["made"], own["seam"], found["refused"]) == (0, None, {})
    assert [text.get_text() for axes in frontier_figure(found).axes for text in axes.texts] == ["no edits"] * 2
    assert frontier_table(found)["confirmed"].tolist() == ["–"]


def test_the_frontier_holds_what_no_other_choice_beats():
    points = np.array([[1, 5], [2, 3], [2, 4], [3, 3], [4, 1], [4, 1], [5, 5]], float)
    assert unbeaten(points).tolist() == [True, True, False, False, True, True, False]


def test_the_numbers_of_points_in_one_place_are_written_once_and_small_gaps_look_small(tables):
    own, one, two, *_ = evaluate(tables)["choices"]
    figures = {"gap": 0.002, "distance": 0.002, "seam": 0.04, "masked_l1": 0.08}
    found = {"choices": [own | figures, one | figures, two | figures], "target_gap": 0.0, "refused": {}}
    for axes in frontier_figure(found).axes:
        assert [text.get_text() for text in axes.texts] == ["1, 2"]
        assert axes.get_xlim()[0] == 0
        assert axes.get_ylim() == (0, 0.05)


def test_points_and_table_show_the_figures(tables):
    found = evaluate(tables)
    for axes, measure in zip(frontier_figure(found).axes, ("seam", "masked_l1"), strict=True):
        drawn = {(x, y) for line in axes.lines if line.get_marker() != "None" for x, y in line.get_xydata()}
        assert drawn == {(choice[measure], choice["distance"]) for choice in found["choices"]}
        (frontier,) = (line for line in axes.lines if line.get_marker() == "None")
        ends = {("candidates", 1), ("candidates", 2)}  # the least seam, and no gap
        expected = {
            (choice[measure], choice["distance"])
            for choice in found["choices"]
            if (choice["rule"], choice["value"]) in ends
        }
        assert {tuple(point) for point in frontier.get_xydata()} == expected
        assert {text.get_text() for text in axes.texts} == {"1", "2", "0.8", "0.95"}
    table = frontier_table(found).set_index("choice")
    assert table.loc["1 candidate", ["edits made", "share made", "confirmed", "group gap"]].tolist() == [
        8, "1.00", "0.00", "+0.400"
    ]  # fmt: skip
    assert table.loc["threshold 0.95", "share made"] == "0.75"
    said = describe_frontier(found)
    assert "by the referee, never by the selector" in said
    assert "cannot answer" not in said
