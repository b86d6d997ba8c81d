"""The judge by the nearest drawing tells drawings, does not tell images in between, and counts as one does by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from pipeline_lib.audit.estimate import Estimate, wilson_rate
from pipeline_lib.config import AvatarData, BoxRegion, Evaluate, PartRegion, RateRule, Rebalance
from pipeline_lib.data.avatars import draw_variants, face_of, render_image
from pipeline_lib.data.tables import write_table
from pipeline_lib.evaluation import nearest
from pipeline_lib.evaluation.nearest import (
    check_judge,
    choose_ratio,
    compare,
    crop_of_drawings,
    distances,
    draw_bank,
    judge,
    judge_samples,
    normalised,
)
from pipeline_lib.evaluation.rates import gap
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.report.nearest import confusion_table, describe_judged, gaps_by_drawing, judged_table, say_judged
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import read_json

DATA = AvatarData(resolution=32)
SETTINGS = Rebalance(
    targets=[RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
)
MOUTHS = 10
NEVER = np.inf


@cache
def bank_of(seed, renders=160):
    return draw_bank(DATA, SETTINGS, renders, seed, threads=1)


def ask(images, bank):
    """Judge images (n, H, W, 3) by a bank."""
    crop = crop_of_drawings(bank.images)
    apart = distances(*(nearest._features(pixels, crop) for pixels in (images, bank.images)))
    return judge(apart, bank.shows.ravel())


def flat(bank):
    return bank.images.reshape(-1, 32, 32, 3), bank.shows.ravel()


def blurred(images):
    tensor = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
    return gaussian_blur(tensor, 0.5).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def test_a_bank_has_every_drawing_of_as_many_faces_of_each_group_and_none_of_the_dataset():
    bank = bank_of(0)
    assert bank.images.shape == (16, MOUTHS, 32, 32, 3)
    assert pd.Series(bank.groups).value_counts().to_dict() == {"long_hair": 8, "not long_hair": 8}
    assert (bank.shows.sum(axis=1) == 4).all()  # of the ten mouths
    assert len({image.tobytes() for image in flat(bank)[0]}) == 160
    faces = [face_of(DATA, f"avatar-{index:08d}") for index in range(40)]
    own = {render_image(face, 32, DATA.crop).tobytes() for face in faces}
    assert not own & {image.tobytes() for image in flat(bank)[0]}


def test_a_rare_group_has_fewer_faces_instead_of_waiting_for_ever():
    data = DATA.model_copy(update={"rates": [RateRule(where={}, attribute="hat", rate=0.0)]})
    targets = [RateRule(where={"hat": value}, attribute="smiling", rate=0.5) for value in (True, False)]
    bank = draw_bank(data, Rebalance(targets=targets), 40, 0, threads=1)
    assert set(bank.groups) == {"not hat"}


def test_the_crop_is_where_the_mouths_of_a_face_differ():
    face = face_of(DATA, "avatar-00000003")
    drawn = np.stack([render_image(variant, 32, DATA.crop) for _, variant in draw_variants(face, ["mouth"])])
    rows, columns = crop_of_drawings(drawn[None])
    outside = np.ones((32, 32), bool)
    outside[rows, columns] = False
    assert (drawn[:, outside] == drawn[:1, outside]).all()
    inside = drawn[:, rows, columns]
    for edge in (inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]):
        assert (edge != edge[:1]).any()
    with pytest.raises(DataError, match="its drawings do not differ"):
        crop_of_drawings(np.repeat(drawn[None, :1], MOUTHS, axis=1))


@pytest.mark.parametrize("soften", [lambda images: images, blurred])
def test_drawings_of_other_faces_and_blurred_ones_are_told(soften):
    images, shows = flat(bank_of(1, 80))
    answers = ask(soften(images), bank_of(0))
    sure = answers.ratio <= np.quantile(answers.ratio, 0.9)
    assert (answers.shows == shows)[sure].mean() > 0.98
    assert (answers.shows == shows).mean() > 0.9


def test_a_drawing_of_the_bank_is_at_no_distance_from_it_and_one_half_of_each_value_is_ambiguous():
    bank = bank_of(0)
    crop = crop_of_drawings(bank.images)
    itself = ask(flat(bank)[0], bank)
    assert (itself.shows == flat(bank)[1]).all()
    assert itself.ratio.max() < 0.05
    smiling, serious = (nearest._features(bank.images[:, place], crop) for place in (0, MOUTHS - 1))
    between = bank.images[:, 0].copy()
    inside = between[:, crop[0], crop[1]]
    inside[:] = np.round(128 + 200 * (smiling + serious)).clip(0, 255).reshape(inside.shape)
    halves = ask(between, bank)
    assert np.median(halves.ratio) > 0.95
    assert halves.ratio.min() > 0.8


def test_the_answer_is_the_nearest_drawing_and_the_ratio_that_of_two_distances():
    apart = np.array([[1.0, 4.0, 2.0], [6.0, 3.0, 4.0], [5.0, 5.0, 5.0], [NEVER, 1.0, NEVER], [0.0, 0.0, 2.0]])
    answers = judge(apart, np.array([True, False, True]))
    assert answers.shows.tolist() == [True, False, False, False, False]
    assert answers.ratio.tolist() == [1 / 4, 3 / 4, 1.0, 0.0, 1.0]


def test_neither_colour_nor_contrast_of_a_crop_matters():
    rng = np.random.default_rng(0)
    crops = rng.integers(40, 80, (5, 6, 7, 3), dtype=np.uint8)
    found = normalised(crops)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.reshape(5, 42, 3).mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(normalised(2 * crops + np.array([0, 20, 90], np.uint8)), found, atol=1e-5)
    assert (normalised(np.full((1, 6, 7, 3), 200, np.uint8)) == 0).all()


def test_distances_are_those_of_scipy():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(count, 30)).astype(np.float32) for count in (4, 6))
    np.testing.assert_allclose(distances(first, second), cdist(first, second), rtol=1e-4)
    assert distances(first, first).diagonal().max() < 2e-3


def test_the_ratio_is_the_largest_up_to_which_enough_answers_are_right():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ratio = rng.random(300)
        right = rng.random(300) > np.maximum(0, ratio - 0.5) / 5
        enough = [limit for limit in ratio if right[ratio <= limit].mean() >= nearest.AIM]
        assert choose_ratio(ratio, right) == max(enough, default=0.0)
    assert choose_ratio(np.array([0.1, 0.2]), np.array([False, False])) == 0


def test_the_check_counts_what_reconstructions_show_and_not_what_was_drawn():
    bank = bank_of(0)
    crop = crop_of_drawings(bank.images)
    _, check = check_judge(bank, bank.images, crop)
    assert check["counts"] is True
    assert check["uncertain"] == 0
    assert [(cell["group"], cell["value"], cell["drawn"]) for cell in check["cells"]] == [
        ("long_hair", True, 16), ("long_hair", False, 24), ("not long_hair", True, 16), ("not long_hair", False, 24),
    ]  # fmt: skip
    assert all(cell["kept"] == cell["n"] == cell["drawn"] for cell in check["cells"])
    lost = bank.images.copy()  # a generator that gives each long-haired face that does not smile a smile
    lost[bank.groups == "long_hair", 4:] = bank.images[bank.groups == "long_hair", :1]
    _, check = check_judge(bank, lost, crop)
    by_cell = {(cell["group"], cell["value"]): cell for cell in check["cells"]}
    assert (by_cell["long_hair", False]["kept"], by_cell["long_hair", False]["n"]) == (0, 0)
    assert by_cell["long_hair", True]["n"] == 40
    assert by_cell["long_hair", True]["accuracy"] == 1
    assert by_cell["long_hair", False]["accuracy"] is None
    assert check["counts"] is False  # nothing is known of that cell


def test_the_judge_does_not_count_where_reconstructions_show_nothing():
    bank = bank_of(0)
    noise = np.random.default_rng(0).integers(0, 256, bank.images.shape, np.uint8)
    _, check = check_judge(bank, noise, crop_of_drawings(bank.images))
    told, n = (sum(cell[name] for cell in check["cells"]) for name in ("told", "n"))
    assert check["counts"] is False
    assert told < 0.2 * n
    assert "This judge does not count here." in say_judged({"check": check, "sets": {}, "attribute": "smiling"})[0]


COUNTS = {  # group: yes, no and ambiguous by the drawing, where the selector says yes, and where it says no
    True: ((30, 5, 3), (2, 40, 10)),
    False: ((10, 0, 4), (6, 70, 20)),
}


def counted():
    """Return answers and opinions with these counts; the referee says of the attribute what the drawing shows."""
    rows = [
        (group, said, answer)
        for group, by_said in COUNTS.items()
        for said, by_answer in zip((True, False), by_said, strict=True)
        for answer, count in zip(("yes", "no", "ambiguous"), by_answer, strict=True)
        for _ in range(count)
    ]
    group, said, answer = (np.array(column) for column in zip(*rows, strict=True))
    shows = answer == "yes"
    says = {
        "selector": {"long_hair": ~group, "smiling": said},  # its opinion of the group does not count
        "referee": {"long_hair": group, "smiling": shows},
    }
    return shows, answer == "ambiguous", says


def test_rates_bounds_and_confusion_are_those_counted_by_hand():
    found = compare(*counted(), SETTINGS, 0.9)
    long_hair = found["groups"]["long_hair"]
    assert (long_hair["n"], long_hair["ambiguous"]) == (90, 13)
    expected = {
        "yes": {"shows": 30, "shows not": 5, "ambiguous": 3},
        "no": {"shows": 2, "shows not": 40, "ambiguous": 10},
    }
    assert long_hair["selector"]["confusion"] == expected
    assert long_hair["selector"]["rate"]["value"] == pytest.approx(38 / 90, abs=1e-6)
    rate, least, most = wilson_rate(32, 77, 0.9), wilson_rate(32, 90, 0.9), wilson_rate(45, 90, 0.9)
    assert long_hair["rate"]["value"] == pytest.approx(rate.value, abs=1e-6)
    assert long_hair["rate"]["ci"] == pytest.approx([rate.low, rate.high], abs=1e-6)
    assert long_hair["bounds"] == pytest.approx([least.low, most.high], abs=1e-6)
    other = wilson_rate(16, 86, 0.9), wilson_rate(16, 110, 0.9), wilson_rate(40, 110, 0.9)
    assert found["gap"]["ci"] == pytest.approx(list(gap(rate, other[0]))[1:], abs=1e-6)
    assert found["gap"]["bounds"] == pytest.approx([gap(least, other[2]).low, gap(most, other[1]).high], abs=1e-6)


def test_a_single_target_has_no_gap_by_the_nearest_drawing():
    found = compare(*counted(), SETTINGS.model_copy(update={"targets": SETTINGS.targets[:1]}), 0.9)
    assert found["gap"] == {"value": None, "ci": [None, None], "bounds": [None, None]}
    judged = {"check": {"counts": True}, "sets": {"retrained": found, "control": found}, "attribute": "smiling"}
    assert say_judged(judged)[0].endswith("of those without it do not.")
    assert gaps_by_drawing(judged, "smiling") is None


def test_a_group_without_samples_has_no_rate():
    shows, ambiguous, says = counted()
    says["referee"]["long_hair"][:] = False
    found = compare(shows, ambiguous, says, SETTINGS, 0.9)
    assert found["groups"]["long_hair"]["rate"]["value"] is None
    assert found["gap"]["value"] is None
    judged = {"check": {"counts": True}, "sets": {"retrained": found}, "attribute": "smiling"}
    assert "Of one group it can tell none." in say_judged(judged)[0]
    says["selector"]["smiling"][:] = True
    none = judged | {"sets": {"samples": compare(shows, ambiguous, says, SETTINGS, 0.9)}}
    assert say_judged(none) == [
        "Of samples of the source GAN the judge can tell none with, or none without “smiling” by the selector."
    ]
    assert judged_table(judged)["nearest drawing"].tolist()[0] == "unknown"


class Unchanged:
    """Stands for an encoder and a generator that lose nothing."""

    device = torch.device("cpu")

    def __call__(self, images):
        return images


@pytest.fixture
def run(tmp_path, write_shards, monkeypatch):
    """Return a function that judges drawings as samples; the selector takes some for what they are not."""
    monkeypatch.setattr(nearest, "open_inverter", lambda *_, **__: Unchanged())
    images, shows = flat(bank_of(1, 80))
    names = [f"retrained-{number:08d}" for number in range(len(images))]
    shards = write_shards(images, names, "retrained", 2)
    wrong = np.arange(len(images)) % 8 == 0
    for judge_name, smiling in (("selector", shows ^ wrong), ("referee", shows)):
        scores = pd.DataFrame({"image_id": names, "smiling": smiling.astype(float)})
        scores["long_hair"] = np.repeat(bank_of(1, 80).groups == "long_hair", MOUTHS).astype(float)
        write_table(tmp_path / judge_name / "retrained.parquet", "scores", scores, {})

    def judged(settings=SETTINGS, threads=1, data=DATA, bank=160):
        out = tmp_path / f"judged-{threads}.json"
        judge_samples(
            images=shards,
            selector=[tmp_path / "selector/retrained.parquet"],
            referee=[tmp_path / "referee/retrained.parquet"],
            encoder=tmp_path / "encoder",
            generator=tmp_path / "generator",
            precision=tmp_path / "precision",
            data=data,
            settings=settings,
            evaluate=Evaluate(judge_bank=bank),
            seed=0,
            judged=out,
            device=torch.device("cpu"),
            threads=threads,
        )
        return out

    return judged, wrong


def test_a_selector_that_is_wrong_is_found_out(run):
    judged, wrong = run
    found = read_json(judged())
    assert found["check"]["counts"] is True
    assert found["bank"] == {"renders": 160, "faces": 16}
    apart = confusion_table(found).groupby("detector")[["detector alone", "drawing alone"]].sum().sum(axis=1)
    told = 80 - sum(group["ambiguous"] for group in found["sets"]["retrained"]["groups"].values())
    assert told > 60
    assert apart["referee"] <= 3
    assert abs(apart["selector"] - wrong.mean() * told) <= 5
    text = say_judged(found)[0]
    assert text.startswith("Among samples of the retrained GAN that the judge can tell, ")
    assert "of those with “smiling” by the selector show it by the nearest drawing" in text
    assert "A sample is compared with 160 drawings, of 16 faces that the dataset lacks" in describe_judged(found)
    assert judged_table(found)["samples"].tolist() == [40, 40]


@pytest.mark.slow
def test_worker_processes_change_no_byte(run):
    judged, _ = run
    assert judged(threads=1).read_bytes() == judged(threads=2).read_bytes()


def test_a_config_without_a_bank_is_refused(run):
    judged, _ = run
    with pytest.raises(ConfigError, match=r"evaluate\.judge_bank: null"):
        judged(bank=None)


@pytest.mark.parametrize(
    ("region", "attribute", "message"),
    [
        (PartRegion(name="hair"), "smiling", "no drawings to exchange of hair"),
        (BoxRegion(shows=None), "smiling", "no drawings to exchange of no part"),
        (PartRegion(name="mouth"), "sunglasses", "no drawing of mouth changes `sunglasses`"),
    ],
)
def test_parts_that_cannot_be_exchanged_are_refused(run, region, attribute, message):
    judged, _ = run
    rates = [RateRule(where={}, attribute="eyeglasses", rate=0.0)]
    targets = [target.model_copy(update={"attribute": attribute}) for target in SETTINGS.targets]
    with pytest.raises(DataError, match=message):
        judged(Rebalance(targets=targets, edit={"region": region}), data=DATA.model_copy(update={"rates": rates}))


def test_a_gap_is_written_with_both_of_its_intervals():
    found = {
        "check": {"counts": True},
        "attribute": "smiling",
        "sets": {"samples": compare(*counted(), SETTINGS, 0.95)},
    }
    gap_found = Estimate(*(found["sets"]["samples"]["gap"][key] for key in ("value",)), 0, 0)
    (text,) = say_judged(found)
    assert text.startswith("Among samples of the source GAN that the judge can tell, 88.9 % of those with “smiling”")
    assert f"the group gap is {gap_found.value:+.2f} [" in text
    assert "93.2 % of those without it do not" in text
    table = judged_table(found)
    assert table["ambiguous"].tolist() == ["14.4 %", "21.8 %"]
    assert table["by the selector"].tolist()[0].startswith("0.42 [")
