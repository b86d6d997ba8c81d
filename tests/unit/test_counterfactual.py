"""The truth of an edit is what its closest clean rendering shows; distances are those that one counts by hand."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import inf, log10

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config import PartRegion, RateRule, Rebalance
from pipeline_lib.config.names import AVATAR_ATTRIBUTES, AVATAR_PARTS
from pipeline_lib.data.avatars.drawing import Renderings, render_face, render_image
from pipeline_lib.data.avatars.faces import face_of
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.avatars.truth import Shown, closest_rendering, ideal_edit
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.evaluation import counterfactual
from pipeline_lib.evaluation.counterfactual import (
    IDENTICAL,
    Edited,
    Written,
    check_known_edits,
    draw_known_edits,
    evaluate_counterfactuals,
)
from pipeline_lib.evaluation.rates import truth_counts
from pipeline_lib.runtime.files import read_json

DATA = AvatarData(resolution=32)
SETTINGS = Rebalance(
    targets=[RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)],
    edit={"region": PartRegion(grow=0.06, buffer=0.04)},
)
COUNT = 12
NAMES = [f"avatar-{index:08d}" for index in range(COUNT)]
FACES = [face_of(DATA, name) for name in NAMES]
EDITED = [1, 4, 6, 9]
FAILED = 10  # an edit that was planned, and of which no candidate succeeded


def another_mouth(face, smiling):
    return ideal_edit(face, ["mouth"], face.avatar.mouth.name, "smiling", smiling)


@pytest.fixture
def evaluate(tmp_path, write_shards):
    """Return a function that evaluates edits whose results are given, by position; the rest is as it was drawn."""
    drawn = [render_face(face, 32, DATA.crop) for face in FACES]
    pixels = np.stack([image for image, _ in drawn])
    parts = [row for name, (_, codes) in zip(NAMES, drawn, strict=True) for row in part_rows(name, codes, AVATAR_PARTS)]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(parts))
    labels = pd.DataFrame([face.attributes for face in FACES]).assign(image_id=NAMES, split="train")
    write_table(tmp_path / "labels.parquet", "labels", labels)
    places = [*EDITED, FAILED]
    plan = pd.DataFrame({"image_id": [NAMES[place] for place in places], "position": places, "target": 0})
    plan["attribute"], plan["wanted"] = "smiling", [not FACES[place].attributes["smiling"] for place in places]
    write_table(tmp_path / "plan.parquet", "plan", plan)
    tried = plan[["image_id"]].assign(
        candidate=0, donor_id=NAMES[0], logit=0.0, in_group=True, success=True, masked_l1=0.0, seam=0.0
    )
    tried["chosen"] = [True] * len(EDITED) + [False]
    write_table(tmp_path / "candidates.parquet", "candidates", tried)

    def run(results, threads=1, folder="out", settings=SETTINGS):
        after = pixels.copy()
        for place, image in results.items():
            after[place] = image
        out = tmp_path / folder
        evaluate_counterfactuals(
            edited=Edited(
                write_shards(pixels, NAMES, "dataset"),
                write_shards(after, NAMES, "dataset_rebalanced", shards=2),
                *(tmp_path / f"{name}.parquet" for name in ("parts", "labels", "plan")),
                [tmp_path / "candidates.parquet"],
            ),
            data=DATA,
            settings=settings,
            confidence=0.95,
            run="toy",
            seed=0,
            made=Written(out / "counterfactuals.parquet", out / "truth.parquet", out / "summary.json"),
            threads=threads,
        )
        return out

    return run


def ideal_edits():
    return {place: another_mouth(FACES[place], not FACES[place].attributes["smiling"]) for place in EDITED}


@pytest.mark.slow
def test_ideal_edits_are_recognised_and_relabelled(evaluate):
    ideal = ideal_edits()
    out = evaluate({place: render_image(face, 32, DATA.crop) for place, face in ideal.items()})
    rows = read_table(out / "counterfactuals.parquet", "counterfactuals")
    assert rows["image_id"].tolist() == [NAMES[place] for place in EDITED]
    assert rows["closest"].tolist() == [face.avatar.mouth.name for face in ideal.values()]
    assert (rows["true_value"] == rows["wanted"]).all()
    assert (rows["psnr_ideal"] == inf).all()
    truth = read_table(out / "truth.parquet", "labels")
    assert truth["image_id"].tolist() == NAMES
    for place, face in enumerate(FACES):
        assert truth.loc[place, list(AVATAR_ATTRIBUTES)].to_dict() == ideal.get(place, face).attributes
    summary = read_json(out / "summary.json")
    assert (summary["planned"], summary["n"], summary["succeeded_by_truth"]) == (5, 4, 4)
    assert summary["share_by_truth"] == 4 / 5  # of all that were planned
    assert summary["median_psnr_inside"] == summary["median_psnr_ideal"] == IDENTICAL


@pytest.mark.slow
def test_an_edit_that_kept_the_old_mouth_or_changed_the_hair_is_found_out(evaluate):
    ideal = {place: render_image(face, 32, DATA.crop) for place, face in ideal_edits().items()}
    kept, marked = EDITED[0], EDITED[1]
    ideal[kept] = render_image(FACES[kept], 32, DATA.crop)
    ideal[marked] = ideal[marked].copy()
    ideal[marked][0, 0, 0] ^= 1
    out = evaluate(ideal)
    rows = read_table(out / "counterfactuals.parquet", "counterfactuals").set_index("image_id")
    assert rows.loc[NAMES[kept], "true_value"] != rows.loc[NAMES[kept], "wanted"]
    assert read_json(out / "summary.json")["share_by_truth"] == 3 / 5
    assert not rows.loc[NAMES[marked], "identical_outside"]
    assert rows.loc[NAMES[marked], "psnr_inside"] == inf


@pytest.fixture
def known_edits(tmp_path, write_shards):
    """Return a function that draws faces and pastes mouths of some into others, as `settings` say."""

    def draw(count, settings=SETTINGS.edit):
        data = AvatarData(resolution=64)
        names = [f"avatar-{index:08d}" for index in range(count)]
        faces = [face_of(data, name) for name in names]
        images, codes = zip(*(render_face(face, 64, data.crop) for face in faces), strict=True)
        rows = [part_rows(name, of_face, AVATAR_PARTS) for name, of_face in zip(names, codes, strict=True)]
        parts = tmp_path / "parts.parquet"
        write_table(parts, "parts", pd.DataFrame([row for of_face in rows for row in of_face]))
        image_set = ImageSet(write_shards(np.stack(images), names), parts, ["mouth"])
        labels = pd.Series([face.attributes["smiling"] for face in faces], index=names)
        return data, image_set, draw_known_edits(image_set, settings, seed=0), labels

    return draw


def test_a_known_edit_differs_in_its_region_alone_and_has_the_mouth_of_another_face(known_edits):
    _, image_set, known, _ = known_edits(20)
    assert (known.contexts != known.donors).all()
    inside = known.region[:, 0].numpy() > 0
    sharp, soft = (known.pixels(softness) for softness in (0.0, 1.0))
    for edited in (sharp, soft):
        np.testing.assert_array_equal(edited[~inside], image_set.pixels[known.contexts][~inside])
    donors = image_set.pixels[known.donors].astype(int)
    assert np.median(abs(sharp[inside] - donors[inside])) <= 2
    assert abs(soft[inside] - donors[inside]).mean() > abs(sharp[inside] - donors[inside]).mean()


@pytest.mark.long
def test_the_check_finds_that_donors_that_do_not_fit_deceive_the_closest_rendering(known_edits):
    data, image_set, known, labels = known_edits(60, SETTINGS.edit.model_copy(update={"choose": "strongest"}))
    with ProcessPoolExecutor(1) as pool:
        compare = partial(counterfactual._compare, image_set, data, SETTINGS.edit.region, pool)
        found = check_known_edits("smiling", known, labels.iloc[known.donors], compare, IDENTICAL, 0.95)
    assert 45 <= found["right"] < 60  # drawings compared with themselves would all be told rightly


def test_the_check_counts_answers_about_edits_that_are_as_soft_as_those_of_the_run(known_edits):
    _, _, known, labels = known_edits(20)
    true, seen = labels.iloc[known.donors], []

    def compare(contexts, donors, pixels):
        seen.append(np.abs(np.diff(pixels.astype(float), axis=2)).mean())
        values = [*true[:-3], *~true[-3:]]
        return [Shown("x", {"smiling": value}, True, 100.0, 60.0 - 10 * len(seen)) for value in values]

    found = check_known_edits("smiling", known, true, compare, 35.0, 0.95)
    assert (found["n"], found["right"], found["value"]) == (20, 17, 0.85)
    assert found["softness"] == 0.5  # the third, with 30 dB
    assert seen == sorted(seen, reverse=True)
    assert found["ci"][0] < 0.85 < found["ci"][1]


@pytest.mark.slow
@pytest.mark.parametrize(("least", "counts"), [(0.7, True), (0.95, False)])
def test_the_truth_counts_if_the_check_shows_that_it_is_right_often_enough(
    evaluate, monkeypatch, caplog, least, counts
):
    monkeypatch.setattr(counterfactual, "LEAST_ACCURACY", least)
    out = evaluate({place: render_image(face, 32, DATA.crop) for place, face in ideal_edits().items()})
    summary = read_json(out / "summary.json")
    assert summary["check"]["smiling"]["n"] == COUNT
    assert summary["check"]["smiling"]["ci"][0] == pytest.approx(0.757506)  # Wilson's limit for 12 of 12
    assert summary["counts"] == truth_counts(out / "summary.json") == counts
    assert ("does not count as the truth" in caplog.text) != counts


@pytest.mark.slow
def test_workers_change_no_byte(evaluate):
    ideal = {place: render_image(face, 32, DATA.crop) for place, face in ideal_edits().items()}
    one, two = (evaluate(ideal, threads, f"{threads}") for threads in (1, 2))
    for name in ("counterfactuals.parquet", "truth.parquet", "summary.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def renderings_of(**images):
    """Return renderings with these names and images, of which all but the first smile."""
    shows = [{"smiling": number > 0} for number in range(len(images))]
    return Renderings(list(images), shows, np.stack(list(images.values())))


def test_distances_are_those_counted_by_hand():
    original = np.zeros((4, 4, 3), np.uint8)
    region = np.zeros((4, 4), bool)
    region[:2, :2] = True
    image, near, far = original.copy(), original.copy(), original.copy()
    image[region], near[region], far[region] = 100, 90, 120
    image[3, 3] = 10  # outside: 3 of 36 values
    shown = closest_rendering(original, image, region, renderings_of(far=far, near=near, as_near=near))
    assert (shown.closest, shown.attributes) == ("near", {"smiling": True})
    assert not shown.identical_outside
    assert shown.psnr_inside == pytest.approx(20 * log10(255 / 10))
    assert shown.psnr_ideal == pytest.approx(10 * log10(255**2 / (100 * (12 + 3) / 48)))


def test_what_lies_outside_the_region_does_not_choose_the_rendering():
    original = np.zeros((4, 4, 3), np.uint8)
    region = np.eye(4, dtype=bool)
    image = original.copy()
    image[region] = 50
    one, other = image.copy(), original.copy()
    one[~region] = 255
    assert closest_rendering(original, image, region, renderings_of(other=other, one=one)).closest == "one"


def test_the_ideal_edit_is_the_closest_rendering_unless_the_edit_failed():
    face = FACES[0]
    assert ideal_edit(face, ["mouth"], "BIG_SMILE", "smiling", True).avatar.mouth.name == "BIG_SMILE"
    assert ideal_edit(face, ["mouth"], "SAD", "smiling", True).avatar.mouth.name == "SMILE"


@pytest.mark.slow
def test_without_edits_the_truth_is_the_labels_and_there_are_no_medians(evaluate, tmp_path):
    tried = read_table(tmp_path / "candidates.parquet", "candidates").assign(chosen=False)
    write_table(tmp_path / "candidates.parquet", "candidates", tried)
    out = evaluate({})
    summary = read_json(out / "summary.json")
    assert (summary["n"], summary["planned"], summary["share_by_truth"]) == (0, 5, 0)
    assert summary["median_psnr_ideal"] is summary["share_identical_outside"] is None
    labels, truth = (read_table(path, "labels") for path in (tmp_path / "labels.parquet", out / "truth.parquet"))
    pd.testing.assert_frame_equal(truth, labels, check_like=True)


@pytest.mark.slow
def test_edits_of_two_attributes_are_compared_each_with_the_drawings_of_its_region(evaluate, tmp_path):
    glasses = RateRule(where={"smiling": True}, attribute="eyeglasses", rate=0.5)
    settings = SETTINGS.model_copy(
        update={
            "targets": [*SETTINGS.targets, glasses],
            "edit": SETTINGS.edit.model_copy(update={"regions": {"eyeglasses": PartRegion(name=["eyes", "glasses"])}}),
        }
    )
    plan = read_table(tmp_path / "plan.parquet", "plan")
    ideal = ideal_edits()
    for place in EDITED[2:]:
        wanted = not FACES[place].attributes["eyeglasses"]
        ideal[place] = ideal_edit(FACES[place], ["glasses"], "ROUND", "eyeglasses", wanted)
        row = plan["position"] == place
        plan.loc[row, ["target", "attribute", "wanted"]] = [2, "eyeglasses", wanted]
    write_table(tmp_path / "plan.parquet", "plan", plan)
    out = evaluate({place: render_image(face, 32, DATA.crop) for place, face in ideal.items()}, settings=settings)
    rows = read_table(out / "counterfactuals.parquet", "counterfactuals")
    assert rows["attribute"].tolist() == ["smiling", "smiling", "eyeglasses", "eyeglasses"]
    assert (rows["true_value"] == rows["wanted"]).all()
    truth = read_table(out / "truth.parquet", "labels")
    for place in EDITED:
        assert truth.loc[place, list(AVATAR_ATTRIBUTES)].to_dict() == ideal[place].attributes
    assert set(read_json(out / "summary.json")["check"]) == {"smiling", "eyeglasses"}
