"""An image of which a label is unknown counts, for all that needs this label, as if it were not there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pipeline_lib.audit.certificate import DatasetCertificate, certify
from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.dataset import check_labels
from pipeline_lib.audit.forecast import forecast
from pipeline_lib.audit.pages import say_targets
from pipeline_lib.audit.population import Files
from pipeline_lib.config import Certify, Detectors, Evaluate, PartRegion, RateRule, Rebalance, SupervisedTraining
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.donors import donor_pools
from pipeline_lib.editing.plan import plan_edits
from pipeline_lib.editing.swap import held_groups
from pipeline_lib.evaluation.bias import measure_bias
from pipeline_lib.evaluation.utility import _cells
from pipeline_lib.rebalance.groups import holds_of, in_group, members
from pipeline_lib.rebalance.plan import refuse_small_groups
from pipeline_lib.rebalance.resample import draw_at_rates
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json, write_json
from pipeline_lib.training.calibration import fit_temperatures
from pipeline_lib.training.detector import DetectorTask, independence_weights
from pipeline_lib.training.measures import cell_accuracies, detector_report
from pipeline_lib.training.region_collages import RegionCollages, SwappedRegion

CPU, NAN = torch.device("cpu"), float("nan")
TARGETS = [RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
SETTINGS = Rebalance(targets=TARGETS)
#: One target of another attribute, so that an image can count for some targets alone.
SEVERAL = [*TARGETS, RateRule(attribute="hat", rate=0.4)]


def draw(count=600, seed=0):
    """Draw a label table in which a quarter of the labels of each attribute is unknown."""
    random = np.random.default_rng(seed)
    long_hair = random.random(count) < 0.5
    rows = pd.DataFrame({"image_id": [f"image-{number:03d}" for number in range(count)], "split": "train"})
    rows["smiling"] = random.random(count) < np.where(long_hair, 0.8, 0.2)
    rows["long_hair"], rows["hat"] = long_hair, random.random(count) < 0.2
    for name in ("smiling", "long_hair", "hat"):
        rows[name] = rows[name].astype("boolean").mask(random.random(count) < 0.25)
    return rows


LABELS = draw()
KNOWN = LABELS.dropna(subset=["smiling", "long_hair"])


def make_plan(folder, labels, targets=TARGETS):
    write_table(folder / "labels.parquet", "labels", labels)
    plan_edits(
        table=folder / "labels.parquet",
        kind="labels",
        editable=folder / "none.parquet",
        audit=[],
        settings=Rebalance(targets=targets, edit={"region": {"kind": "box", "shows": None}}),
        learnt=True,
        run="toy",
        seed=0,
        name="dataset",
        plan=folder / "plan.parquet",
        summary=folder / "plan.json",
    )
    return read_table(folder / "plan.parquet", "plan"), read_json(folder / "plan.json")


@pytest.mark.parametrize("kind", [object, "boolean"])
def test_unknown_is_neither_value_and_in_no_group(kind):
    rows = pd.DataFrame({"hat": pd.Series([True, None, False], dtype=kind), "old": [True, True, True]})
    holds = holds_of(rows, ["hat", "old"])
    for value in (True, False):
        assert in_group(holds, {"hat": value}).tolist() == [value, False, not value]
    assert in_group(holds, {}).all()
    for misused in (lambda: holds["hat"] & holds["old"], lambda: ~holds["hat"]):  # no logic takes it for false
        with pytest.raises(TypeError):
            misused()


def test_a_plan_is_that_of_the_known_images_and_says_how_many_are_not(tmp_path):
    plan, said = make_plan(tmp_path, LABELS)
    expected, counts = make_plan(tmp_path, KNOWN)
    assert len(plan) > 50
    assert plan["image_id"].tolist() == expected["image_id"].tolist()
    assert plan["wanted"].tolist() == expected["wanted"].tolist()
    assert LABELS["image_id"][plan["position"]].tolist() == plan["image_id"].tolist()
    for target, known, rule in zip(said["targets"], counts["targets"], TARGETS, strict=True):
        hair = LABELS["long_hair"]
        may_be = (hair == rule.where["long_hair"]).fillna(True) & (hair.isna() | LABELS["smiling"].isna())
        assert target == known | {"unknown": int(may_be.sum())}
        assert "unknown" not in known


def test_with_several_attributes_each_target_has_its_rate_among_those_of_which_its_own_labels_are_known(tmp_path):
    plan, _ = make_plan(tmp_path, LABELS, SEVERAL)
    after = LABELS.set_index("image_id").copy()
    for edit in plan.itertuples():
        assert after.loc[edit.image_id, edit.attribute] == (not edit.wanted)  # known, and of the other value
        after.loc[edit.image_id, edit.attribute] = edit.wanted
    for rule in SEVERAL:
        inside = after.dropna(subset=[rule.attribute, *rule.where])
        for name, value in rule.where.items():
            inside = inside[inside[name] == value]
        assert abs(inside[rule.attribute].sum() - rule.rate * len(inside)) <= 0.5 + 1e-6


def test_a_group_that_is_small_because_labels_are_unknown_is_refused():
    rows = pd.DataFrame({"smiling": [True, None] * 20, "long_hair": True}).astype("boolean")
    with pytest.raises(DataError, match=r"20 images of `dataset` are long_hair, beside 20 of which a label is unknown"):
        refuse_small_groups(holds_of(rows, list(rows)), TARGETS[:1], "dataset")


def test_a_forecast_is_that_of_the_known_images():
    options = {"tolerances": [0.03] * 2, "failing": [0.02] * 2, "labels": 50, "confidence": 0.95, "seed": 0}
    found, expected = (
        forecast(holds_of(rows, ["smiling", "long_hair"]), TARGETS, **options) for rows in (LABELS, KNOWN)
    )
    for target, known in zip(found, expected, strict=True):
        assert target.count["unknown"] > 0
        assert {name: value for name, value in target.count.items() if name != "unknown"} == known.count
        assert target.after == pytest.approx(known.after, abs=0.01)


def test_a_resampled_dataset_keeps_the_unknown_and_has_the_rates_among_the_known():
    holds = holds_of(LABELS, ["smiling", "long_hair"])
    drawn = draw_at_rates(holds, TARGETS, 0)
    assert len(drawn) == len(LABELS)
    unknown = LABELS.index.difference(KNOWN.index)
    assert np.isin(drawn, unknown).sum() == len(unknown) == len(set(drawn) & set(unknown))
    inside, positive = members({name: values[drawn] for name, values in holds.items()}, TARGETS)
    assert positive.sum(axis=1) / inside.sum(axis=1) == pytest.approx([0.5, 0.5], abs=0.01)


def test_an_image_of_which_the_attribute_is_unknown_is_no_donor_with_it(tmp_path):
    write_table(tmp_path / "labels.parquet", "labels", LABELS)
    image_set = SimpleNamespace(names=LABELS["image_id"].tolist(), with_part=np.arange(0, len(LABELS), 2))
    settings = SETTINGS.model_copy(update={"donors": "with-attribute"})
    pools = donor_pools(image_set, "smiling", tmp_path / "labels.parquet", "labels", settings, "dataset")
    for value in (True, False):
        has = np.flatnonzero(LABELS["smiling"].eq(value).fillna(False))
        assert pools[value].tolist() == np.intersect1d(has, image_set.with_part).tolist()


def test_an_edit_holds_what_is_known_of_the_other_edited_attributes(tmp_path):
    rows = pd.DataFrame({"image_id": ["a", "b", "c"], "split": "train", "smiling": True, "long_hair": True})
    write_table(tmp_path / "labels.parquet", "labels", rows.assign(hat=pd.array([True, False, None], "boolean")))
    edits = pd.DataFrame({"image_id": ["a", "b", "c"], "target": 0, "attribute": "smiling", "wanted": False})
    numbers, groups = held_groups(
        edits, tmp_path / "labels.parquet", "labels", SETTINGS.model_copy(update={"targets": SEVERAL})
    )
    held = [groups[number] for number in numbers]
    assert held == [{"long_hair": True, "hat": True}, {"long_hair": True, "hat": False}, {"long_hair": True}]


def test_a_class_of_partly_unknown_images_counts_for_the_targets_that_name_what_is_known():
    classes, names = Classes(SEVERAL, unknown=True), ["smiling", "long_hair", "hat"]
    counts = classes.count(holds_of(LABELS, names))
    for rule, images, rate in zip(SEVERAL, counts @ classes.inside.T, classes.rates(counts), strict=True):
        known = LABELS.dropna(subset=[rule.attribute, *rule.where])
        for name, value in rule.where.items():
            known = known[known[name] == value]
        assert (images, rate) == (len(known), pytest.approx(known[rule.attribute].mean()))
    with pytest.raises(ValueError, match="unknown"):
        Classes(SEVERAL).count(holds_of(LABELS, names))


@pytest.fixture
def certify_edits(tmp_path):
    """Return a function that certifies the plan of a label table, all of whose edits succeeded."""

    def run(labels, targets=TARGETS):
        plan, _ = make_plan(tmp_path, labels, targets)
        names = ["smiling", "long_hair", "hat"]
        true = labels.set_index("image_id")
        assembled = true[names].copy()
        for edit in plan.itertuples():
            true.loc[edit.image_id, edit.attribute] = edit.wanted
            assembled.loc[edit.image_id, edit.attribute] = pd.NA
        assembled.insert(0, "edited", assembled.index.isin(plan["image_id"]))
        write_table(tmp_path / "assembled.parquet", "assembled", assembled.reset_index())
        write_table(tmp_path / "true.parquet", "labels", true.reset_index())
        write_json(tmp_path / "checked.json", {"counts": True})
        tables = {name: tmp_path / f"{name}.parquet" for name in ("labels", "assembled", "plan")}
        certify(
            files=Files([], **tables, truth=tmp_path / "true.parquet", checked=tmp_path / "checked.json"),
            audit=[],
            targets=Rebalance(targets=targets),
            settings=Certify(),
            confidence=0.95,
            seed=0,
            certificate=tmp_path / "certificate.json",
        )
        return DatasetCertificate.model_validate(read_json(tmp_path / "certificate.json"))

    return run


def test_a_certificate_is_that_of_the_known_images_and_says_how_many_do_not_count(certify_edits):
    found, expected = certify_edits(LABELS), certify_edits(KNOWN.assign(hat=True))
    for target, known, said in zip(found.targets, expected.targets, say_targets(found), strict=True):
        assert target.not_counted and target.model_copy(update={"not_counted": 0}) == known
        assert target.verdict == "met" and target.edited > 20
        assert f"{target.not_counted:,} more images may be of this group, but do not count" in said


def test_an_audit_is_compared_with_known_labels_alone():
    kept = pd.DataFrame({"smiling": pd.array([True, None, False], "boolean")}, index=["a", "b", "c"])
    audited = pd.DataFrame({"smiling": pd.array([True] * 3, "boolean")}, index=["a", "b", "c"])
    assert check_labels(kept, audited, ["smiling"]) == {"audited": 2, "agree": 1, "unclear": 0}


def bias_of(labels):
    """Return rates and gaps by labels and by a referee who is right about every known label."""
    shown = labels.set_index("image_id")[["long_hair", "smiling"]].astype("boolean")
    said = shown.fillna(True)
    answers = {("dataset", "truth"): shown, ("dataset", "selector"): said, ("dataset", "referee"): said}
    found = measure_bias(answers, (shown, said), SETTINGS, 0.95, Evaluate(), seed=0)
    return found["rate"]["smiling"]["dataset"], found["gap"]["smiling"]["dataset"]


def test_rates_and_gaps_by_labels_are_those_of_the_known_images():
    for found, expected in zip(bias_of(LABELS), bias_of(KNOWN), strict=True):
        assert found["truth"] == expected["truth"]


def test_a_referee_who_is_right_about_every_known_label_needs_no_correction():
    rates, _ = bias_of(LABELS)
    for group, corrected in rates["corrected"].items():
        assert corrected.value == pytest.approx(rates["referee"][group].value, abs=1e-6)


def test_a_classifier_learns_and_is_tested_on_known_images_alone(tmp_path):
    write_table(tmp_path / "labels.parquet", "labels", LABELS)
    cells = _cells(tmp_path / "labels.parquet", LABELS["image_id"], SETTINGS)
    assert np.flatnonzero(cells.number >= 0).tolist() == KNOWN.index.tolist()
    expected = 2 * (~KNOWN["long_hair"].astype(bool)) + KNOWN["smiling"].astype(bool)
    assert cells.number[KNOWN.index].tolist() == expected.tolist()
    write_table(tmp_path / "labels.parquet", "labels", LABELS.assign(smiling=pd.array([None] * 600, "boolean")))
    with pytest.raises(DataError, match="no label `smiling` of any image"):
        _cells(tmp_path / "labels.parquet", LABELS["image_id"], SETTINGS)


def test_weights_make_known_attributes_independent_and_leave_unknown_cells_out():
    holds = holds_of(draw(2000), ["smiling", "long_hair", "hat"])
    truth = torch.tensor(np.stack([*holds.values()], axis=1))
    weights = independence_weights(truth, [0, 1], ["smiling", "long_hair", "hat"])
    known = ~truth.isnan()
    assert ((weights > 0) == (known & known[:, [1, 0, 0]] & known[:, [1, 0, 1]])).all()
    both = known[:, 0] & known[:, 1]
    smiling, hair, weight = truth[both, 0], truth[both, 1] == 1, weights[both, 0]
    rates = [float((smiling * weight)[cell].sum() / weight[cell].sum()) for cell in (hair, ~hair)]
    assert rates == pytest.approx([float(smiling.mean())] * 2, abs=1e-5)


def test_an_unknown_cell_never_influences_the_loss():
    logits = torch.randn(6, 3, requires_grad=True)
    truth = torch.tensor([[1, 0, 1], [0, 1, NAN], [NAN, 1, 0], [1, NAN, NAN], [0, 0, 1], [NAN, NAN, NAN]])
    weights = torch.rand(6, 3)
    task = SimpleNamespace(network=SimpleNamespace(view_logits=lambda images: logits))
    loss = DetectorTask.loss(task, None, torch.stack([truth, weights], dim=1))
    loss.backward()
    assert ((logits.grad == 0) == truth.isnan()).all()
    known = ~truth.isnan()
    each = nn.functional.binary_cross_entropy_with_logits(logits[known], truth[known], weights[known], reduction="sum")
    assert loss.item() == pytest.approx(each.item() / truth.numel())


def test_temperatures_reports_and_cells_are_those_of_the_known_labels():
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, (400, 2)).astype(np.float32)
    logits = (2 * random.standard_normal((400, 2)) + truth).astype(np.float32)
    truth[:100, 0] = truth[50:200, 1] = np.nan
    probabilities = 1 / (1 + np.exp(-logits))
    for column, known in enumerate((slice(100, None), np.r_[0:50, 200:400])):
        alone = fit_temperatures(torch.tensor(logits[known]), torch.tensor(truth[known]))[column]
        assert fit_temperatures(torch.tensor(logits), torch.tensor(truth))[column] == alone
        name = ["smiling", "hat"][column]
        found = detector_report(probabilities, truth, ["smiling", "hat"])[name]
        assert found == detector_report(probabilities[known], truth[known], ["smiling", "hat"])[name]
    cells = cell_accuracies(probabilities, truth, ["smiling", "hat"], ["smiling", "hat"])
    assert cells == cell_accuracies(probabilities[200:], truth[200:], ["smiling", "hat"], ["smiling", "hat"])


def test_no_region_for_a_collage_comes_from_an_image_of_which_its_attribute_is_unknown():
    images = torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    truth = torch.tensor([[1.0, 0.0]] * 20)
    truth[::2, 0] = NAN
    truth[3, 1] = NAN
    packed = torch.full((20, 8), 255, dtype=torch.uint8)  # the part is the whole image
    region = SwappedRegion(PartRegion(grow=0.0, buffer=0.0), packed, 0)
    collages = RegionCollages(images, truth, [region], torch.arange(20), [0, 1], 1.0)
    made, found, _ = collages(torch.arange(20), torch.ones(20, 2), torch.Generator().manual_seed(0))
    assert (made[:, 0, 0, 0] % 2 == 1).all()
    assert found[:, 0].equal(torch.ones(20))
    assert found[:, 1].isnan().nonzero().flatten().tolist() == [3]  # its own
    truth[:, 0] = NAN
    assert not RegionCollages(images, truth, [region], torch.arange(20), [0, 1], 1.0).have_donors


@pytest.fixture
def train(tmp_path, write_shards, train_small_detector):
    """Return a function that trains a small selector on labels that may be unknown, and returns its report."""

    def run(smiling, hat):
        count = len(smiling)
        pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
        rows = pd.DataFrame({"image_id": [f"{number:02d}" for number in range(count)], "split": "train"})
        rows = rows.assign(smiling=pd.array(smiling, "boolean"), hat=pd.array(hat, "boolean"))
        write_table(tmp_path / "labels.parquet", "labels", rows)
        images = write_shards(pixels, rows["image_id"].tolist(), "images", 1)
        settings = Detectors(
            attributes=["smiling", "hat"], training=SupervisedTraining(kimg=0.032, batch=8), least_cell_accuracy=0
        )
        return train_small_detector(images, tmp_path / "labels.parquet", settings)

    return run


@pytest.mark.slow
def test_a_detector_is_trained_and_measured_on_known_labels(train):
    smiling, hat = [True, False, None, True] * 10, [True, False] * 20
    report = train(smiling, hat)
    assert report["hat"]["n"] == 20
    assert report["smiling"]["n"] == 20  # the unknown ones are at even places
    hat[1::4] = [None] * 10
    report = train(smiling, hat)
    assert report["hat"]["n"] == 10
    assert sum(cell["n"] for cell in report["smiling"]["cells"].values()) == 10


def test_an_attribute_that_is_nowhere_known_is_named(train):
    with pytest.raises(DataError, match=r"labels\.parquet: `smiling` is unknown in all of half of the held-out images"):
        train([True, None] * 20, [True, False, False, True] * 10)
