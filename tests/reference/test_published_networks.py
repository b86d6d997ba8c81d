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

from pipeline_lib.networks.checkpoints import import_weights, load_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.errors import WeightsError

FOLDER = Path(__file__).parent
LARGEST_ERROR = 1e-4  # relative to the largest value of the array


def read_archive(name):
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    recipe, seed = json.loads(str(arrays.pop("weights"))), int(arrays.pop("seed"))
    weights = {key: draw(key, seed, *entry) for key, entry in recipe.items()}
    return weights, {key: torch.from_numpy(array) for key, array in arrays.items()}


def draw(key, seed, shape, kind, p, q):
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    if kind == "zeros":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "fixed":  # the blur of every doubling of the resolution
        return torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0])]) / 16
    values = p + q * random.standard_normal(shape) if kind == "normal" else random.uniform(p, q, shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def assert_equal_to(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() / expected.abs().max() < LARGEST_ERROR


def bring_in(folder, content, **options):
    torch.save(content, folder / "published.pth")
    network = import_weights(folder / "published.pth", folder / "ours.safetensors", **options)
    again = load_weights(folder / "ours.safetensors")
    assert again.arguments == network.arguments
    assert again.state_dict().keys() == network.state_dict().keys()
    return again


def with_older_names(weights):
    renamed = {}
    for key, value in weights.items():
        layer, _, rest = key.partition(".")
        older = "output" if layer.startswith("output") else f"features.{int(layer.removeprefix('layer')) - 1}"
        renamed[f"{older}.{rest}"] = value
    return renamed


@pytest.mark.parametrize("naming", [lambda weights: weights, with_older_names, lambda weights: {"state_dict": weights}])
@torch.no_grad()
def test_progan_makes_the_images_of_the_published_network(tmp_path, naming):
    weights, arrays = read_archive("progan_32")
    generator = bring_in(tmp_path, naming(weights))
    assert (generator.resolution, generator.arguments["channels"]) == (32, [64, 48, 32, 16])
    assert_equal_to(generator.decode(generator.map_latents(arrays["z"])), arrays["image"])


@torch.no_grad()
def test_stylegan2_makes_the_images_of_the_published_network(tmp_path):
    weights, arrays = read_archive("stylegan2_32")
    mean = torch.arange(64.0)
    generator = bring_in(tmp_path, {"g_ema": weights, "latent_avg": mean})
    assert (generator.resolution, generator.z_dim, generator.arguments["mapping_layers"]) == (32, 64, 4)
    assert generator.latent_avg.equal(mean)
    latents = generator.map_latents(arrays["z"])
    assert_equal_to(latents, arrays["w"][:, None].expand_as(latents))
    assert_equal_to(generator.synthesize(latents), arrays["image"])
    assert_equal_to(generator.synthesize(arrays["w_plus"]), arrays["image_w_plus"])


@pytest.mark.parametrize(
    ("name", "resolution"),
    [("progan_encoder_resnet18_rgbm", 256), ("progan_encoder_resnet18_rgbm_halfsize", 128)],
)
@torch.no_grad()
def test_the_encoder_into_z_regresses_the_latents_of_the_published_network(tmp_path, name, resolution):
    weights, arrays = read_archive(name)
    encoder = bring_in(tmp_path, {"state_dict": weights}, resolution=resolution)
    assert_equal_to(encoder(arrays["image"], arrays["mask"]), arrays["z"].flatten(1))


@torch.no_grad()
def test_the_encoder_into_w_plus_regresses_the_latents_of_the_published_network(tmp_path):
    weights, arrays = read_archive("stylegan2_encoder_resnet34_rgbm_wplus")
    encoder = bring_in(tmp_path, {"state_dict": weights})
    assert_equal_to(encoder(arrays["image"], arrays["mask"]), arrays["w"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("fc.weight"), "missing keys are fc.weight, unexpected keys are none"),
        (lambda state: state.update(fd=torch.zeros(1)), "missing keys are none, unexpected keys are fd"),
        (lambda state: state.pop("fc.bias"), "without a last layer"),
        (lambda state: state.pop("layer4.1.conv1.weight"), r"\(2, 2, 2, 1\) blocks per stage"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"does not match a resnet-encoder \(.* bn1.bias"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(tmp_path, change, complaint):
    state = ResNetEncoder((4,), width=2).state_dict()
    change(state)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=complaint):
        import_weights(tmp_path / "a.pth", tmp_path / "out.safetensors", resolution=64)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"state_dict": ResNetEncoder((4,), width=2).state_dict()}, "depend on the resolution of its images; set it"),
        ({"g_ema": {}}, "no `latent_avg`"),
        ({"g_ema": {}, "latent_avg": torch.zeros(4)}, "without 'conv1.conv.weight'"),
        ({"a": torch.zeros(1)}, "neither a ProGAN or StyleGAN2 generator nor an encoder .* its first keys are a"),
        ([torch.zeros(1)], "contains a list"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, complaint):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=complaint):
        import_weights(tmp_path / "a.pth", tmp_path / "out.safetensors")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickled_payload_is_refused_and_does_not_run(tmp_path):
    trace = tmp_path / "it ran"
    torch.save({"state_dict": {"fc.bias": torch.zeros(1)}, "extra": Payload(trace)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="refused, because it contains objects other than tensors"):
        import_weights(tmp_path / "a.pth", tmp_path / "out.safetensors")
    assert not trace.exists()
    torch.load(tmp_path / "a.pth", weights_only=False)  # the payload works
    assert trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    torch.save({"state_dict": ResNetEncoder((4,), width=2).state_dict()}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="may be truncated"):
        import_weights(tmp_path / "a.pth", tmp_path / "out.safetensors", resolution=64)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such weight file"):
        import_weights(tmp_path / "nowhere.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    "make",
    [
        lambda: StyleGAN2Generator(1024, [512, 512, 512, 512, 512, 256, 128, 64, 32]),
        lambda: ProGANGenerator(1024, [512, 512, 512, 512, 256, 128, 64, 32, 16], heads=[1024]),
    ],
)
@torch.no_grad()
def test_the_largest_published_networks_run_on_a_cpu(tmp_path, make):
    torch.manual_seed(0)
    drawn = make().eval()
    state = drawn.state_dict()
    mean = state.pop("latent_avg", None)
    generator = bring_in(tmp_path, state if mean is None else {"g_ema": state, "latent_avg": mean})
    assert type(generator) is type(drawn)
    image = generator.synthesize(generator.sample_latents([0], 0))
    assert image.shape == (1, 3, 1024, 1024)
    assert image.isfinite().all()
    assert image.std() > 0.01
