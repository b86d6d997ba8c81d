"""The networks compute what those behind the published weights compute, under the very keys of the published files.

Each archive in this folder holds outputs of such a network on CPU in float32, and for each of its weights the shape
and the distribution from which the weight is drawn anew here.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator

FOLDER = Path(__file__).parent
LARGEST_ERROR = 1e-4  # relative to the largest value of the array


def read_archive(name):
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    recipe, seed = json.loads(str(arrays.pop("weights"))), int(arrays.pop("seed"))
    weights = {key: draw(key, seed, *entry) for key, entry in recipe.items() if entry[1] != "fixed"}
    fixed = {key for key, entry in recipe.items() if entry[1] == "fixed"}
    return weights, fixed, {key: torch.from_numpy(array) for key, array in arrays.items()}


def draw(key, seed, shape, kind, p, q):
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    if kind == "zeros":
        return torch.zeros(shape, dtype=torch.int64)
    values = p + q * random.standard_normal(shape) if kind == "normal" else random.uniform(p, q, shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def assert_equal_to(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() / expected.abs().max() < LARGEST_ERROR


@torch.no_grad()
def test_progan_makes_the_images_of_the_published_network():
    weights, fixed, arrays = read_archive("progan_32")
    generator = ProGANGenerator(32, [64, 48, 32, 16], 64, heads=[32])
    generator.load_state_dict(weights, strict=True)
    assert not fixed
    assert_equal_to(generator.decode(generator.map_latents(arrays["z"])), arrays["image"])


@torch.no_grad()
def test_stylegan2_makes_the_images_of_the_published_network():
    weights, fixed, arrays = read_archive("stylegan2_32")
    generator = StyleGAN2Generator(32, [512] * 4, 64, 4)
    missing, unexpected = generator.load_state_dict(weights, strict=False)
    assert set(missing) == fixed | {"latent_avg"}  # published files keep that one beside the weights
    assert not unexpected
    latents = generator.map_latents(arrays["z"])
    assert_equal_to(latents, arrays["w"][:, None].expand_as(latents))
    assert_equal_to(generator.synthesize(latents), arrays["image"])
    assert_equal_to(generator.synthesize(arrays["w_plus"]), arrays["image_w_plus"])


@pytest.mark.parametrize(
    ("name", "small"),
    [("progan_encoder_resnet18_rgbm", False), ("progan_encoder_resnet18_rgbm_halfsize", True)],
)
@torch.no_grad()
def test_the_encoder_regresses_the_latents_of_the_published_network(name, small):
    weights, _, arrays = read_archive(name)
    encoder = ResNetEncoder((64,), width=64, mask_offset=0.5, small=small).eval()
    encoder.load_state_dict(weights, strict=True)
    assert_equal_to(encoder(arrays["image"], arrays["mask"]), arrays["z"].flatten(1))
