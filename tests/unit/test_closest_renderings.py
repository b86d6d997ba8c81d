"""Closest renderings tell drawings, do not tell images in between, and are counted as one does by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from pipeline_lib.audit.estimate import wilson_rate
from pipeline_lib.config import BoxRegion, Evaluate, PartRegion, RateRule, Rebalance
from pipeline_lib.data.avatars.closest import (
    AIM,
    answer,
    check_bank,
    choose_ratio,
    crop_of,
    distances,
    draw_bank,
    features_of,
)
from pipeline_lib.data.avatars.drawing import render_image, render_variants
from pipeline_lib.data.avatars.faces import face_of
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.tables import write_table
from pipeline_lib.evaluation import closest_renderings
from pipeline_lib.evaluation.closest_renderings import Samples, compare, compare_with_renderings
from pipeline_lib.evaluation.rates import gap
from pipeline_lib.evaluation.results import ClosestRenderings, ShownBySamples
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.report.words import render
from pipeline_lib.runtime.errors import ConfigError, DataError
from tests.unit.made_results import metrics_of

DATA = AvatarData(resolution=32)
SETTINGS = Rebalance(
    targets=[RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
)
GROUPS = {"long_hair": {"long_hair": True}, "not long_hair": {"long_hair": False}}
MOUTHS = 10
NEVER = np.inf


@cache
def bank_of(seed, renders=160):
    return draw_bank(DATA, GROUPS, "smiling", ["mouth"], renders, seed, threads=1)


def ask(images, bank):
    """Return the answers of a bank about images (n, H, W, 3)."""
    crop = crop_of(bank.images)
    return answer(distances(features_of(images, crop), features_of(bank.images, crop)), bank.shows.ravel())


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
    groups = {"hat": {"hat": True}, "not hat": {"hat": False}}
    bank = draw_bank(data, groups, "smiling", ["mouth"], 40, 0, threads=1)
    assert set(bank.groups) == {"not hat"}


def test_the_crop_is_where_the_mouths_of_a_face_differ():
    drawn = render_variants(DATA, ["mouth"], face_of(DATA, "avatar-00000003")).images
    rows, columns = crop_of(drawn[None])
    outside = np.ones((32, 32), bool)
    outside[rows, columns] = False
    assert (drawn[:, outside] == drawn[:1, outside]).all()
    inside = drawn[:, rows, columns]
    for edge in (inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]):
        assert (edge != edge[:1]).any()
    with pytest.raises(DataError, match="its drawings do not differ"):
        crop_of(np.repeat(drawn[None, :1], MOUTHS, axis=1))


@pytest.mark.parametrize("soften", [lambda images: images, blurred])
def test_drawings_of_other_faces_and_blurred_ones_are_told(soften):
    images, shows = flat(bank_of(1, 80))
    answers = ask(soften(images), bank_of(0))
    sure = answers.ratio <= np.quantile(answers.ratio, 0.9)
    assert (answers.shows == shows)[sure].mean() > 0.98
    assert (answers.shows == shows).mean() > 0.9


def test_a_drawing_of_the_bank_is_at_no_distance_from_it_and_one_half_of_each_value_is_ambiguous():
    bank = bank_of(0)
    crop = crop_of(bank.images)
    itself = ask(flat(bank)[0], bank)
    assert (itself.shows == flat(bank)[1]).all()
    assert itself.ratio.max() < 0.05
    smiling, serious = (features_of(bank.images[:, place], crop) for place in (0, MOUTHS - 1))
    between = bank.images[:, 0].copy()
    inside = between[:, crop[0], crop[1]]
    inside[:] = np.round(128 + 200 * (smiling + serious)).clip(0, 255).reshape(inside.shape)
    halves = ask(between, bank)
    assert np.median(halves.ratio) > 0.95
    assert halves.ratio.min() > 0.8


def test_the_answer_is_the_closest_rendering_and_the_ratio_that_of_two_distances():
    apart = np.array([[1.0, 4.0, 2.0], [6.0, 3.0, 4.0], [5.0, 5.0, 5.0], [NEVER, 1.0, NEVER], [0.0, 0.0, 2.0]])
    answers = answer(apart, np.array([True, False, True]))
    assert answers.shows.tolist() == [True, False, False, False, False]
    assert answers.ratio.tolist() == [1 / 4, 3 / 4, 1.0, 0.0, 1.0]


def test_neither_colour_nor_contrast_of_a_crop_matters():
    rng = np.random.default_rng(0)
    images, everywhere = rng.integers(40, 80, (5, 6, 7, 3), dtype=np.uint8), (slice(None), slice(None))
    found = features_of(images, everywhere)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.reshape(5, 42, 3).mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(features_of(2 * images + np.array([0, 20, 90], np.uint8), everywhere), found, atol=1e-5)
    assert (features_of(np.full((1, 6, 7, 3), 200, np.uint8), everywhere) == 0).all()


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
        enough = [limit for limit in ratio if right[ratio <= limit].mean() >= AIM]
        assert choose_ratio(ratio, right) == max(enough, default=0.0)
    assert choose_ratio(np.array([0.1, 0.2]), np.array([False, False])) == 0


def test_the_check_counts_what_reconstructions_show_and_not_what_was_drawn():
    bank = bank_of(0)
    crop = crop_of(bank.images)
    _, check = check_bank(bank, bank.images, crop)
    assert check["counts"] is True
    assert check["uncertain"] == 0
    assert [(cell["group"], cell["value"], cell["n"]) for cell in check["cells"]] == [
        ("long_hair", True, 16), ("long_hair", False, 24), ("not long_hair", True, 16), ("not long_hair", False, 24),
    ]  # fmt: skip
    lost = bank.images.copy()  # a generator that gives each long-haired face that does not smile a smile
    lost[bank.groups == "long_hair", 4:] = bank.images[bank.groups == "long_hair", :1]
    _, check = check_bank(bank, lost, crop)
    by_cell = {(cell["group"], cell["value"]): cell for cell in check["cells"]}
    assert by_cell["long_hair", False]["n"] == 0
    assert by_cell["long_hair", True]["n"] == 40
    assert by_cell["long_hair", True]["accuracy"] == 1
    assert by_cell["long_hair", False]["accuracy"] is None
    assert check["counts"] is False  # nothing is known of that cell


def test_answers_do_not_count_where_reconstructions_show_nothing():
    bank = bank_of(0)
    noise = np.random.default_rng(0).integers(0, 256, bank.images.shape, np.uint8)
    _, check = check_bank(bank, noise, crop_of(bank.images))
    told, n = (sum(cell[name] for cell in check["cells"]) for name in ("told", "n"))
    assert check["counts"] is False
    assert told < 0.2 * n


COUNTS = {  # group: yes, no and ambiguous by the drawing, where the selector says yes, and where it says no
    True: ((30, 5, 3), (2, 40, 10)),
    False: ((10, 0, 4), (6, 70, 20)),
}


def counted():
    """Return answers and what the selector and the referee say, with these counts."""
    rows = [
        (group, said, answer)
        for group, by_said in COUNTS.items()
        for said, by_answer in zip((True, False), by_said, strict=True)
        for answer, count in zip(("yes", "no", "ambiguous"), by_answer, strict=True)
        for _ in range(count)
    ]
    group, said, answer = (np.array(column) for column in zip(*rows, strict=True))
    return answer == "yes", answer == "ambiguous", said, {"long_hair": group}


def test_rates_bounds_and_confusion_are_those_counted_by_hand():
    found = compare(*counted(), SETTINGS, 0.9)
    long_hair = found["groups"]["long_hair"]
    assert (long_hair["n"], long_hair["ambiguous"]) == (90, 13)
    assert long_hair["selector"] == {
        "yes": {"shows": 30, "shows not": 5, "ambiguous": 3},
        "no": {"shows": 2, "shows not": 40, "ambiguous": 10},
    }
    rate, least, most = wilson_rate(32, 77, 0.9), wilson_rate(32, 90, 0.9), wilson_rate(45, 90, 0.9)
    assert long_hair["value"] == pytest.approx(rate.value, abs=1e-6)
    assert long_hair["ci"] == pytest.approx([rate.low, rate.high], abs=1e-6)
    assert long_hair["bounds"] == pytest.approx([least.low, most.high], abs=1e-6)
    other = wilson_rate(16, 86, 0.9), wilson_rate(16, 110, 0.9), wilson_rate(40, 110, 0.9)
    assert found["gap"]["ci"] == pytest.approx(list(gap(rate, other[0]))[1:], abs=1e-6)
    assert found["gap"]["bounds"] == pytest.approx([gap(least, other[2]).low, gap(most, other[1]).high], abs=1e-6)


def test_a_single_target_has_no_gap():
    found = compare(*counted(), SETTINGS.model_copy(update={"targets": SETTINGS.targets[:1]}), 0.9)
    assert found["gap"] == {"value": None, "ci": [None, None], "bounds": [None, None]}


def test_a_group_without_samples_has_no_rate():
    shows, ambiguous, says, _ = counted()
    found = compare(shows, ambiguous, says | True, {"long_hair": np.zeros(len(says), bool)}, SETTINGS, 0.9)
    assert found["groups"]["long_hair"]["value"] is None
    assert found["gap"]["value"] is None
    assert ShownBySamples.model_validate(found).share_confirmed("no") is None
    assert "and of those that lack it an unknown share do not." in page_of(samples=found)


def page_of(counts=True, **sets):
    """Return what the report says of image sets of which this is found, in one line."""
    check = {"cells": [], "uncertain": 0.0, "least_accuracy": 0.97, "counts": counts}
    bank = {"renders": 160, "faces": 16}
    found = {"attribute": "smiling", "bank": bank, "largest_ratio": 0.9, "check": check, "sets": sets}
    return " ".join(render("renderings.html.j2", metrics=metrics_of(closest_renderings=found)).split())


def test_the_report_has_shares_and_gaps_with_their_bounds():
    found = compare(*counted(), SETTINGS, 0.95)
    text = page_of(samples=found)
    assert "source GAN that are not ambiguous and have “smiling” by the selector 88.9 % show it by the" in text
    assert "of those that lack it 93.2 % do not." in text
    assert f"the group gap is {found['gap']['value']:+.2f} [" in text
    assert "<td>14.4 %</td>" in text
    assert "does not count here" in page_of(counts=False, samples=found)


def test_gaps_count_if_the_check_does():
    found = {"retrained": compare(*counted(), SETTINGS, 0.95), "control": compare(*counted(), SETTINGS, 0.95)}
    check = {"cells": [], "uncertain": 0.0, "least_accuracy": 0.97}
    values = {"attribute": "smiling", "bank": {}, "largest_ratio": 0.9, "sets": found}
    for counts in (True, False):
        metrics = metrics_of(closest_renderings=values | {"check": check | {"counts": counts}})
        assert list(metrics.gaps_by_rendering) == ["smiling"] * counts
    assert metrics_of().gaps_by_rendering == {}


class Unchanged:
    """Stands for an encoder and a generator that lose nothing."""

    device = torch.device("cpu")

    def __call__(self, images):
        return images


@pytest.fixture
def run(tmp_path, write_shards, monkeypatch):
    """Return a function that compares renderings as samples; the selector takes some for what they are not."""
    monkeypatch.setattr(closest_renderings, "open_inverter", lambda *_, **__: Unchanged())
    images, shows = flat(bank_of(1, 80))
    names = [f"retrained-{number:08d}" for number in range(len(images))]
    shards = write_shards(images, names, "retrained", 2)
    wrong = np.arange(len(images)) % 8 == 0
    for detector, smiling in (("selector", shows ^ wrong), ("referee", shows)):
        scores = pd.DataFrame({"image_id": names, "smiling": smiling.astype(float)})
        scores["long_hair"] = np.repeat(bank_of(1, 80).groups == "long_hair", MOUTHS).astype(float)
        write_table(tmp_path / detector / "retrained.parquet", "scores", scores, {})

    scores = [[tmp_path / detector / "retrained.parquet"] for detector in ("selector", "referee")]

    def compared(settings=SETTINGS, threads=1, data=DATA, bank=160):
        out = tmp_path / f"found-{threads}.json"
        compare_with_renderings(
            samples=Samples(shards, *scores, *(tmp_path / name for name in ("encoder", "generator", "precision"))),
            data=data,
            settings=settings,
            evaluate=Evaluate(judge_bank=bank),
            seed=0,
            found=out,
            device=torch.device("cpu"),
            threads=threads,
        )
        return out

    return compared, wrong


def test_a_selector_that_is_wrong_is_found_out(run):
    compared, wrong = run
    found = ClosestRenderings.read(compared())
    assert found.check.counts
    assert found.bank == {"renders": 160, "faces": 16}
    groups = found.sets["retrained"].groups.values()
    assert [group.n for group in groups] == [40, 40]
    told = 80 - sum(group.ambiguous for group in groups)
    assert told > 60

    differ = sum(group.selector["yes"]["shows not"] + group.selector["no"]["shows"] for group in groups)
    assert abs(differ - wrong.mean() * told) <= 5


@pytest.mark.slow
def test_worker_processes_change_no_byte(run):
    compared, _ = run
    assert compared(threads=1).read_bytes() == compared(threads=2).read_bytes()


def test_a_config_without_a_bank_is_refused(run):
    compared, _ = run
    with pytest.raises(ConfigError, match=r"evaluate\.judge_bank: null"):
        compared(bank=None)


@pytest.mark.parametrize(
    ("region", "attribute", "message"),
    [
        (PartRegion(name="hair"), "smiling", "no drawings to exchange of hair"),
        (BoxRegion(shows=None), "smiling", "no drawings to exchange of no part"),
        (PartRegion(name="mouth"), "sunglasses", "no drawing of mouth changes `sunglasses`"),
    ],
)
def test_parts_that_cannot_be_exchanged_are_refused(run, region, attribute, message):
    compared, _ = run
    rates = [RateRule(where={}, attribute="eyeglasses", rate=0.0)]
    targets = [target.model_copy(update={"attribute": attribute}) for target in SETTINGS.targets]
    with pytest.raises(DataError, match=message):
        compared(Rebalance(targets=targets, edit={"region": region}), data=DATA.model_copy(update={"rates": rates}))
