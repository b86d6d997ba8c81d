"""An exported image set has the pixels and labels of the run, and can be read again as a folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.cli import main
from pipeline_lib.config import FolderData
from pipeline_lib.data.export import export_images
from pipeline_lib.data.folder import open_folder
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.runtime.errors import DataError

NAMES = ["a/1.jpg", "a/2.v2", "b/1"]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.fixture
def run(tmp_path):
    """Write three images, in two shards, as a dataset and as its rebalanced form, the second of them edited."""
    run = tmp_path / "run"
    for name in ("dataset", "dataset_rebalanced", "samples"):
        for number, part in enumerate((slice(0, 2), slice(2, 3))):
            (run / "images" / name).mkdir(parents=True, exist_ok=True)
            with shard_writer(run / f"images/{name}/{number}.parquet", 32) as shard:
                shard.add(NAMES[part], PIXELS[part])
    (run / "labels").mkdir()
    truth = pd.DataFrame({"image_id": NAMES, "split": "train", "person": [4, 5, 4], "smiling": [True, False, True]})
    write_table(run / "labels/dataset.parquet", "labels", truth)
    edited = pd.DataFrame({"image_id": NAMES, "edited": [False, True, False], "smiling": [True, None, True]})
    write_table(run / "labels/dataset_rebalanced.parquet", "assembled", edited)
    return run


def test_files_and_labels_are_those_of_the_run(run, tmp_path):
    assert export_images(run, "dataset_rebalanced", tmp_path / "out") == 3
    for name, pixels in zip(("a/1.png", "a/2.v2.png", "b/1.png"), PIXELS, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), pixels)
    lines = (tmp_path / "out/labels.csv").read_text().splitlines()
    assert lines == ["image,edited,smiling", "a/1.png,0,1", "a/2.v2.png,1,", "b/1.png,0,1"]


def test_what_was_exported_can_be_read_as_a_folder(run, tmp_path, capsys):
    assert main(["export", str(run), "dataset", str(tmp_path / "out")]) == 0
    assert "3 images and labels.csv" in capsys.readouterr().out
    labels = tmp_path / "out/labels.csv"
    settings = FolderData(
        reader="folder", folder=tmp_path / "out", labels=labels, attributes=["smiling"], resolution=32, held_out=0
    )
    source = open_folder(settings)
    records = {item.image_id: source.read(item) for item in source.train}
    assert np.array_equal(records["b/1.png"].image, PIXELS[2])
    assert {name: record.attributes["smiling"] for name, record in records.items()} == {
        "a/1.png": True,
        "a/2.v2.png": False,
        "b/1.png": True,
    }


def test_a_set_without_labels_has_its_names_alone(run, tmp_path):
    export_images(run, "samples", tmp_path / "out")
    assert (tmp_path / "out/labels.csv").read_text().splitlines() == ["image", "a/1.png", "a/2.v2.png", "b/1.png"]


def test_nothing_is_overwritten_and_an_unknown_set_is_named(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(DataError, match=r"out: not empty; use another folder"):
        export_images(run, "dataset", tmp_path / "out")
    with pytest.raises(DataError, match=r"no image set retrained; it has dataset, dataset_rebalanced, samples"):
        export_images(run, "retrained", tmp_path / "new")
    assert not (tmp_path / "new").exists()
