"""Optimisation reconstructs known pixels, each image by itself, whatever the unknown ones show."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from pipeline_lib.config import OptimizationMethod
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.studies.methods.optimization import OptimizingInverter, ramp

SIDE = 32
CPU = torch.device("cpu")
METHODS = get_args(OptimizationMethod)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a function that gives the weight files of an encoder and of a generator, both untrained."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    made = {}
    for generator in (StyleGAN2Generator(SIDE, [16] * 4, 16, 2, noise=False), ProGANGenerator(SIDE, [16] * 4, 16)):
        encoder = ResNetEncoder(generator.latent_shape, width=8, small=True)
        paths = [folder / f"{generator.architecture}-{name}.safetensors" for name in ("encoder", "generator")]
        for path, network in zip(paths, (encoder, generator), strict=True):
            save_weights(path, network.eval(), {})
        made[generator.architecture] = *paths, generator
    return made


@pytest.fixture
def task(models):
    """Return images of the style generator and masks of their left two thirds."""
    generator = models["stylegan2"][2]
    with torch.no_grad():
        images = generator.decode(generator.sample_latents(range(2), 7))
    known = (torch.arange(SIDE) < 20).float().expand(2, 1, SIDE, SIDE)
    return images, known


def inverter(models, method, steps, architecture=None):
    encoder, generator, _ = models[architecture or ("progan" if method == "multi-code" else "stylegan2")]
    return OptimizingInverter(encoder, generator, method, steps, CPU)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_more_steps_bring_known_pixels_nearer(method, models, task):
    images, known = task
    few, many = (inverter(models, method, steps)(images, known) for steps in (1, 40))
    if method == "stylegan-projection":  # has the perceptual loss alone
        near, far = (perceptual_distances(load_perceptual("alex"), images, made, known) for made in (many, few))
    else:
        near, far = (masked_l1(images, made, known) for made in (many, few))
    assert near.mean() < 0.75 * far.mean()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_image_depends_neither_on_its_batch_nor_on_unknown_pixels(method, models, task):
    images, known = task
    together = inverter(models, method, 3)(images, known)
    assert together.abs().max() <= 1
    assert not together.requires_grad
    changed = torch.where(known.bool(), images, 1.0)[1:]
    alone = inverter(models, method, 3)(changed, known[1:])
    torch.testing.assert_close(alone, together[1:], rtol=0, atol=1e-5)


def test_lbfgs_starts_from_the_sample_that_fits_best(models, task):
    opened = inverter(models, "lbfgs", 1)
    latents, decoded = opened._sampled()
    assert latents.shape == (500, *opened.generator.latent_shape)
    everywhere = torch.ones(1, 1, SIDE, SIDE)
    found = masked_l1(
        decoded[17:18], opened(decoded[17:18], everywhere), everywhere
    )  # a single step leaves it nearly there
    others = masked_l1(decoded[17:18].expand_as(decoded), decoded, everywhere.expand(500, -1, -1, -1))
    assert found < 0.5 * others.sort().values[1]


@pytest.mark.parametrize("method", ["lbfgs", "encode-lbfgs", "in-domain", "deep-image-prior"])
def test_a_generator_without_w_has_the_other_methods(method, models, task):
    assert inverter(models, method, 2, "progan")(*task).shape == task[0].shape


@pytest.mark.parametrize("size", [4, 16, 32])
def test_a_progan_goes_on_from_the_features_of_any_block(size, models):
    generator = models["progan"][2]
    with torch.no_grad():
        latents = generator.sample_latents(range(2), 0)
        features = generator.features_at(latents, size)
        assert features.shape == (2, 16, size, size)
        assert generator.synthesize_from(features, size).equal(generator.synthesize(latents))


def test_the_learning_rate_of_a_projection_rises_and_falls():
    rates = [ramp(step / 100) for step in range(101)]
    assert rates[0] == 0
    assert rates[5] == rates[50] == 1
    assert rates[-1] == pytest.approx(0)
