"""Scores are the detector's probabilities, however images are spread over shards and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.scoring import score_attributes
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.checkpoints import load_weights

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
NAMES = [f"image-{number:02d}" for number in range(12)]


def score(networks, folder, images, sets, batch=256):
    tables = [folder / f"{name}.parquet" for name in sets]
    score_attributes(
        images=images,
        sets=sets,
        weights=networks.detector,
        run="toy",
        scores=tables,
        device=torch.device("cpu"),
        batch=batch,
    )
    return [read_table(table, "scores") for table in tables]


def test_scores_are_the_detectors_probabilities(networks, tmp_path, write_shards):
    (scores,) = score(networks, tmp_path, write_shards(PIXELS, NAMES), ["samples"])
    detector = load_weights(networks.detector)
    expected = detector(to_float(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), "cpu"))
    assert scores["image_id"].tolist() == NAMES
    torch.testing.assert_close(torch.tensor(scores[["smiling", "long_hair"]].to_numpy()), expected)


@pytest.mark.parametrize(("shards", "batch"), [(3, 256), (2, 5), (12, 5)])
def test_resharding_changes_no_byte(networks, tmp_path, write_shards, shards, batch):
    score(networks, tmp_path / "whole", write_shards(PIXELS, NAMES), ["samples"], batch)
    score(networks, tmp_path / "other", write_shards(PIXELS, NAMES, shards=shards), ["samples"], batch)
    assert (tmp_path / "other/samples.parquet").read_bytes() == (tmp_path / "whole/samples.parquet").read_bytes()


def test_batching_changes_nothing_but_the_last_digit(networks, tmp_path, write_shards):
    images = write_shards(PIXELS, NAMES)
    ((whole,), (single,)) = (score(networks, tmp_path, images, ["samples"], batch) for batch in (256, 1))
    np.testing.assert_allclose(whole["smiling"], single["smiling"], rtol=1e-4)


def test_each_set_gets_the_scores_of_its_own_images(networks, tmp_path, write_shards):
    images = write_shards(PIXELS[:5], NAMES[:5], "dataset", 2) + write_shards(PIXELS[5:], NAMES[5:], "held_out")
    held_out, dataset = score(networks, tmp_path, images, ["held_out", "dataset"])
    assert (held_out["image_id"].tolist(), dataset["image_id"].tolist()) == (NAMES[5:], NAMES[:5])
