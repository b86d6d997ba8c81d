"""The pyramid encoder predicts each style from its own level, and sees where in the image something is."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.config import Encoder
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.studies.methods.pyramid import PyramidEncoder
from pipeline_lib.studies.methods.training import train_study_encoder

SIDE, LAYERS, STYLE = 32, 8, 16
CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make():
    torch.manual_seed(0)
    return PyramidEncoder((LAYERS, STYLE), width=4, small=True).requires_grad_(False).eval()


def test_unknown_pixels_have_no_say():
    encoder, images, known = make(), draw(2, 3, SIDE, SIDE), (draw(2, 1, SIDE, SIDE, seed=1) > 0).float()
    hidden = torch.where(known.bool(), images, 1.0)
    assert encoder(images, known).shape == (2, LAYERS, STYLE)
    assert encoder(images, known).equal(encoder(hidden, known))


@pytest.mark.parametrize(("level", "layers"), [(0, range(3)), (1, range(3, 7)), (2, range(7, LAYERS))])
def test_a_level_is_seen_by_its_own_styles_and_by_finer_ones(level, layers):
    encoder, images = make(), draw(1, 3, SIDE, SIDE)
    before = encoder(images)
    encoder.lateral[level].weight.mul_(2)
    changed = (encoder(images) != before).any(dim=2)[0]
    assert changed.tolist() == [layer >= layers[0] for layer in range(LAYERS)]


def test_places_matter_as_they_do_not_to_an_average():
    encoder, images = make(), torch.zeros(2, 3, 64, 64)
    images[0, :, 16:32, 16:32] = images[1, :, 16:32, 32:48] = 1
    first, second = encoder(images)
    averaged = ResNetEncoder((LAYERS, STYLE), width=4, small=True).eval()
    with torch.no_grad():
        one, other = averaged(images)
    assert (first - second).norm() / first.norm() > (one - other).norm() / one.norm()


def test_it_starts_near_a_latent_and_comes_back_from_its_file(tmp_path):
    encoder, latent = make(), draw(STYLE)
    images = draw(2, 3, SIDE, SIDE)
    before = (encoder(images) - latent).abs().mean()
    encoder.start_from(latent)
    assert (encoder(images) - latent).abs().mean() < 0.2 * before
    save_weights(tmp_path / "encoder", encoder, {})
    assert load_weights(tmp_path / "encoder", ResNetEncoder)(images).equal(encoder(images))


def train(generator, folder):
    save_weights(folder / "generator", generator.eval(), {})
    train_study_encoder(
        images=[],
        generator=folder / "generator",
        variant="pyramid",
        settings=Encoder(width=4, training={"kimg": 0.008, "batch": 4}),
        width=4,
        seed=0,
        checkpoints=folder / "checkpoints",
        encoder=folder / "encoder.safetensors",
        device=CPU,
    )
    return load_weights(folder / "encoder.safetensors")


def test_it_is_trained_as_the_others(tmp_path):
    trained = train(StyleGAN2Generator(SIDE, [16] * 4, STYLE, 2, noise=False), tmp_path)
    assert isinstance(trained, PyramidEncoder)


def test_a_generator_without_w_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs W\+, not a latent of shape \(16,\)"):
        PyramidEncoder((16,))
