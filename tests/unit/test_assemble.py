"""Composites take the place of the images they were made from; nothing else changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.data.shards import ROWS_PER_GROUP, read_shards
from pipeline_lib.data.tables import attribute_columns, read_table, write_table
from pipeline_lib.editing.assemble import assemble_rebalanced, resample_dataset
from pipeline_lib.runtime.errors import DataError

COUNT = 2 * ROWS_PER_GROUP + 10
NAMES = [f"avatar-{number:08d}" for number in range(COUNT)]
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
EDITED = [3, 600, 601, COUNT - 1]
COMPOSITES = 255 - PIXELS[EDITED]
TRUTH = pd.DataFrame({"image_id": NAMES, "split": "train", "smiling": np.arange(COUNT) % 2 == 0, "hat": True})
TRUTH = TRUTH.assign(mouth_open=np.arange(COUNT) % 3 == 0)


SETTINGS = Rebalance(targets=[RateRule(where={"hat": value}, attribute="smiling", rate=0.5) for value in (True, False)])


def assemble(folder, write_shards, *, with_truth, names=None, shards=2, plan=None, settings=SETTINGS):
    if plan is None:
        plan = pd.DataFrame({"image_id": [NAMES[i] for i in EDITED], "position": EDITED, "target": np.int16(0)})
        plan = plan.assign(attribute="smiling", wanted=True)
    write_table(folder / "plan.parquet", "plan", plan)
    truth = [folder / "truth.parquet"] if with_truth else []
    if with_truth:
        write_table(truth[0], "labels", TRUTH)
    rebalanced = [folder / "rebalanced" / f"{shard}.parquet" for shard in range(shards)]
    assemble_rebalanced(
        images=write_shards(PIXELS, NAMES, "dataset", shards),
        composites=write_shards(COMPOSITES, names or [NAMES[position] for position in EDITED], "composites", 3),
        plan=folder / "plan.parquet",
        truth=truth,
        settings=settings,
        run="toy",
        rebalanced=rebalanced,
        labels=folder / "labels.parquet",
    )
    return rebalanced, read_table(folder / "labels.parquet", "assembled")


def test_edited_images_are_replaced_and_the_others_are_theirs_to_the_byte(tmp_path, write_shards):
    rebalanced, _ = assemble(tmp_path, write_shards, with_truth=True)
    names, pixels = read_shards(rebalanced)
    assert names == NAMES
    np.testing.assert_array_equal(pixels[EDITED], COMPOSITES)
    np.testing.assert_array_equal(np.delete(pixels, EDITED, axis=0), np.delete(PIXELS, EDITED, axis=0))
    assert [len(read_shards([path])[0]) for path in rebalanced] == [COUNT // 2] * 2


@pytest.mark.parametrize(
    ("how", "lost"),
    [
        ({}, ["smiling", "mouth_open"]),  # only what the targets name is known to stay
        ({"alters": {"smiling": []}}, ["smiling"]),
        ({"alters": {"smiling": ["mouth_open"]}}, ["smiling", "mouth_open"]),
        ({"finish": "none"}, ["smiling", "hat", "mouth_open"]),  # every pixel is new
    ],
)
def test_an_edit_makes_unknown_what_its_region_can_show_and_nothing_else(tmp_path, write_shards, how, lost):
    settings = SETTINGS.model_copy(update={"edit": SETTINGS.edit.model_copy(update=how)})
    _, labels = assemble(tmp_path, write_shards, with_truth=True, settings=settings)
    assert labels["image_id"].tolist() == NAMES
    assert np.flatnonzero(labels["edited"]).tolist() == EDITED
    for attribute in ("smiling", "hat", "mouth_open"):
        unknown = labels["edited"] if attribute in lost else labels["edited"] & False
        assert labels[attribute].isna().tolist() == unknown.tolist()
        assert labels.loc[~unknown, attribute].astype(bool).tolist() == TRUTH.loc[~unknown, attribute].tolist()


def test_of_two_edited_attributes_each_edit_makes_its_own_unknown(tmp_path, write_shards):
    targets = [*SETTINGS.targets, RateRule(attribute="mouth_open", rate=0.5)]
    plan = pd.DataFrame({"image_id": [NAMES[i] for i in EDITED], "position": EDITED, "target": np.int16([0, 0, 2, 2])})
    plan = plan.assign(attribute=["smiling", "smiling", "mouth_open", "mouth_open"], wanted=True)
    _, labels = assemble(
        tmp_path, write_shards, with_truth=True, plan=plan, settings=SETTINGS.model_copy(update={"targets": targets})
    )
    assert np.flatnonzero(labels["smiling"].isna()).tolist() == EDITED[:2]
    assert np.flatnonzero(labels["mouth_open"].isna()).tolist() == EDITED[2:]
    assert labels["hat"].notna().all()


def test_where_nothing_is_known_nothing_is_claimed(tmp_path, write_shards):
    _, labels = assemble(tmp_path, write_shards, with_truth=False)
    assert attribute_columns(labels, "assembled") == []
    assert labels["edited"].sum() == len(EDITED)


def test_a_composite_of_a_stranger_is_refused(tmp_path, write_shards):
    with pytest.raises(DataError, match=r"composites of images that are not in .*plan\.parquet, such as stranger"):
        assemble(tmp_path, write_shards, with_truth=False, names=["stranger", *(NAMES[i] for i in EDITED[1:])])


def test_a_spare_composite_is_used_only_where_an_edit_failed(tmp_path, write_shards):
    planned = [3, 7, 600, 601, COUNT - 1]  # the second failed, and the last two are spares
    plan = pd.DataFrame({"image_id": [NAMES[i] for i in planned], "position": planned, "target": np.int16(0)})
    plan = plan.assign(attribute="smiling", wanted=True, spare=np.int16([0, 0, 0, 2, 1]))
    rebalanced, labels = assemble(tmp_path, write_shards, with_truth=True, plan=plan)
    assert np.flatnonzero(labels["edited"]).tolist() == [3, 600, COUNT - 1]
    pixels = read_shards(rebalanced)[1]
    np.testing.assert_array_equal(pixels[601], PIXELS[601])
    np.testing.assert_array_equal(pixels[COUNT - 1], COMPOSITES[3])
    assert labels.loc[601, "smiling"] == TRUTH.loc[601, "smiling"]


def test_a_resampled_dataset_has_the_target_rates_and_no_new_image(tmp_path, write_shards):
    targets = [RateRule(where={"hat": True}, attribute="smiling", rate=0.75)]
    write_table(tmp_path / "labels.parquet", "labels", TRUTH)
    written = [tmp_path / "resampled" / f"{shard}.parquet" for shard in range(3)]
    resample_dataset(
        images=write_shards(PIXELS, NAMES, "dataset", 2),
        table=tmp_path / "labels.parquet",
        targets=targets,
        run="toy",
        seed=0,
        resampled=written,
    )
    names, pixels = read_shards(written)
    assert len(names) == len(set(names)) == COUNT
    originals = [NAMES.index(name[: len(NAMES[0])]) for name in names]
    np.testing.assert_array_equal(pixels, PIXELS[originals])
    assert TRUTH["smiling"].to_numpy()[originals].sum() == pytest.approx(0.75 * COUNT, abs=0.5)
    assert sorted({name[len(NAMES[0]) :] for name in names}) == ["", "-2"]
