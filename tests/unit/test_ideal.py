"""Every planned edit is drawn as it should be, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config import AvatarData, Rebalance
from pipeline_lib.data.avatars import SMILING_MOUTHS, draw_variants, face_of, render_image
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.ideal import draw_ideal, successful_variants

DATA = AvatarData(resolution=32)
NAMES = [f"avatar-{index:08d}" for index in range(40)]
FACES = [face_of(DATA, name) for name in NAMES]
PIXELS = np.stack([render_image(face, DATA.resolution, DATA.crop) for face in FACES])
SETTINGS = Rebalance(
    targets=[{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)],
    edit={"region": {"kind": "part", "name": "mouth", "grow": 0.04, "buffer": 0.02}},
)
SERIOUS = [place for place, face in enumerate(FACES) if not face.attributes["smiling"]][:6]
GOOD, FAILED, NOT_MADE, SPARE, *_ = SERIOUS  # edits that are planned


def drawn_with(place, mouth):
    face = dict(draw_variants(FACES[place], ["mouth"]))[mouth]
    return render_image(face, DATA.resolution, DATA.crop)


@pytest.fixture
def ideal(tmp_path, write_shards):
    planned = [GOOD, FAILED, NOT_MADE, SPARE]
    plan = pd.DataFrame({"image_id": [NAMES[place] for place in planned], "position": planned, "target": np.int16(0)})
    plan = plan.assign(attribute="smiling", wanted=True, spare=np.int16([0, 0, 0, 1]))
    write_table(tmp_path / "plan.parquet", "plan", plan)
    rows = pd.DataFrame({"image_id": [NAMES[GOOD], NAMES[FAILED]], "nearest": ["TWINKLE", "SAD"]})
    rows = rows.assign(donor_id=NAMES[0], attribute="smiling", wanted=True, true_value=[True, False])
    rows = rows.assign(identical_outside=True, psnr_outside=100.0, psnr_ideal=30.0, psnr_inside=20.0)
    write_table(tmp_path / "counterfactuals.parquet", "counterfactuals", rows)
    written = [tmp_path / "ideal" / f"{shard}.parquet" for shard in range(2)]
    draw_ideal(
        images=write_shards(PIXELS, NAMES, "dataset", 2),
        plan=tmp_path / "plan.parquet",
        counterfactuals=tmp_path / "counterfactuals.parquet",
        data=DATA,
        settings=SETTINGS,
        run="toy",
        seed=0,
        ideal=written,
    )
    names, pixels = read_shards(written)
    assert names == NAMES
    return pixels


def test_an_edit_that_succeeded_is_replaced_by_its_nearest_drawing(ideal):
    np.testing.assert_array_equal(ideal[GOOD], drawn_with(GOOD, "TWINKLE"))


@pytest.mark.parametrize("place", [FAILED, NOT_MADE])
def test_an_edit_that_failed_gets_some_drawing_with_the_value_that_was_wanted(ideal, place):
    assert any(np.array_equal(ideal[place], drawn_with(place, mouth)) for mouth in SMILING_MOUTHS)


def test_images_without_a_needed_edit_are_kept(ideal):
    edited = [GOOD, FAILED, NOT_MADE]
    np.testing.assert_array_equal(np.delete(ideal, edited, axis=0), np.delete(PIXELS, edited, axis=0))


def test_no_other_attribute_of_a_target_changes_with_the_drawing():
    face = next(face for face in FACES if not face.attributes["smiling"] and not face.attributes["mouth_open"])
    by_mouth = successful_variants(face, ["mouth"], "smiling", True, ["smiling", "long_hair"])
    assert set(by_mouth) == set(SMILING_MOUTHS)
    closed = successful_variants(face, ["mouth"], "smiling", True, ["smiling", "mouth_open"])
    assert set(closed) == {"TWINKLE"}
