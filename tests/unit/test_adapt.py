"""An encoder fitted to one image rebuilds it better, and knows its batch statistics as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline_lib.cli import main
from pipeline_lib.data.avatars.drawing import render_face
from pipeline_lib.data.avatars.faces import draw_face
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.checkpoints import load_weights, read_header
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.training.adapt import adapt_encoder

FOLDER = Path(__file__).parents[2] / "resources/avatars-64"


@pytest.fixture
def inverter():
    return Inverter(FOLDER / "encoder.safetensors", FOLDER / "generator.safetensors", torch.device("cpu"))


@pytest.mark.slow
def test_the_image_is_rebuilt_better_and_statistics_stay(inverter):
    pixels, _ = render_face(draw_face(0, 12_345_678, []), 64, AvatarData().crop)
    image = to_float(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], "cpu")
    state = {name: value.clone() for name, value in inverter.encoder.state_dict().items()}
    before = F.mse_loss(inverter(image), image)
    losses = adapt_encoder(inverter, image, open_distance("stlpips-alex"), steps=30)
    assert len(losses) == 30
    after = F.mse_loss(inverter(image), image)
    assert after < 0.95 * before
    changed = {name for name, value in inverter.encoder.state_dict().items() if not value.equal(state[name])}
    assert "conv1.weight" in changed
    assert not any("running" in name for name in changed)
    assert not any(parameter.requires_grad for parameter in inverter.encoder.parameters())


def test_the_command_writes_weights_and_a_picture(tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)).save(tmp_path / "me.png")
    weights = [str(FOLDER / f"{name}.safetensors") for name in ("encoder", "generator")]
    target = tmp_path / "mine.safetensors"
    assert main(["tools", "adapt", *weights, str(tmp_path / "me.png"), str(target), "--steps", "2"]) == 0
    assert read_header(target)["adapted_to"] == "me.png"
    assert not load_weights(target).conv1.weight.equal(load_weights(weights[0]).conv1.weight)
    assert Image.open(tmp_path / "mine.png").size[0] == 3 * 64
    assert main(["tools", "adapt", *weights, str(tmp_path / "nobody.png"), str(target)]) == 2
    assert "nobody.png: no file" in capsys.readouterr().err
