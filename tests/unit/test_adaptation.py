"""Fine-tuning on an image brings its reconstruction nearer; each image starts from the encoder as it was trained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import Edit, Encoder, Evaluate, Studies
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies import adaptation
from pipeline_lib.studies.adaptation import ADAPTED, METRICS, TRAINED, study_adaptation
from pipeline_lib.studies.report import studies_page
from pipeline_lib.training.adapt import adapt_encoder

SIDE, COUNT = 32, 6
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[20:28, 8:24] = 1
TARGETS = [{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]


@pytest.fixture
def study(tmp_path, write_shards):
    """Return a function that runs the study with untrained networks on plain images."""
    torch.manual_seed(0)
    generator = StyleGAN2Generator(SIDE, [16] * 4, 16, 2, noise=False)
    encoder = ResNetEncoder(generator.latent_shape, width=8, small=True)
    for name, network in (("encoder", encoder), ("generator", generator)):
        save_weights(tmp_path / name, network.eval(), {})
    names = [f"image-{number}" for number in range(COUNT)]
    pixels = np.random.default_rng(0).integers(60, 200, (COUNT, 1, 1, 3)).repeat(SIDE, 1).repeat(SIDE, 2)
    rows = [row for name in names for row in part_rows(name, CODES, ["background", "mouth"])]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    shards = write_shards(pixels.astype(np.uint8), names)

    def run(images=3, steps=15):
        study_adaptation(
            images=shards,
            parts=tmp_path / "parts.parquet",
            encoder=tmp_path / "encoder",
            generator=tmp_path / "generator",
            like=Encoder(training={"kimg": 1}),
            edit=Edit(),
            settings=Studies(adaptation={"images": images, "steps": steps}),
            evaluate=Evaluate(),
            run="toy",
            seed=0,
            table=tmp_path / "table.parquet",
            pictures=tmp_path / "pictures.npz",
            device=torch.device("cpu"),
        )
        return read_table(tmp_path / "table.parquet", "studies")

    return run


@pytest.mark.long
def test_fine_tuning_brings_the_reconstruction_nearer(study, tmp_path):
    table = study(images=COUNT, steps=40)
    values = table.set_index(["row", "metric"])["value"]
    assert values[ADAPTED, METRICS[0]] < values[TRAINED, METRICS[0]]
    assert f"{ADAPTED} has a smaller {METRICS[0]} than {TRAINED}" in studies_page(table)
    with np.load(tmp_path / "pictures.npz") as found:
        assert found["pixels"].shape == (COUNT, 6, SIDE, SIDE, 3)


def test_every_image_starts_from_the_encoder_as_it_was_trained(study, tmp_path, monkeypatch):
    starts = []

    def adapt(inverter, *rest, **settings):
        starts.append(inverter.encoder.fc.weight.clone())
        return adapt_encoder(inverter, *rest, **settings)

    monkeypatch.setattr(adaptation, "adapt_encoder", adapt)
    study(steps=2)
    assert len(starts) == 3
    assert all(start.equal(starts[0]) for start in starts)


def test_more_images_than_have_the_part_are_refused(study):
    with pytest.raises(DataError, match=r"`studies.adaptation.images`: 7, but only 6 images have the part; use fewer"):
        study(images=7)
