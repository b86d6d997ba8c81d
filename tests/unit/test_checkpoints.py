"""Weights come back as they were written, and a file that cannot be used is refused in one clear line."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from pipeline_lib.networks.backbone import BackboneClassifier
from pipeline_lib.networks.checkpoints import ARCHITECTURES, import_weights, load_weights, read_header, save_weights
from pipeline_lib.networks.classifier import Detector, PlainClassifier, ResidualClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.onnx_model import OnnxClassifier, OnnxSegmenter
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.networks.transformers_model import TransformersClassifier, TransformersSegmenter
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.studies.methods.pyramid import PyramidEncoder
from pipeline_lib.studies.methods.translation import LayoutGenerator, ResNetTranslator

PREPROCESS = {"side": None, "mean": [0.5] * 3, "std": [0.5] * 3}
VIT = {
    "model_type": "vit",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "id2label": {"0": "man", "1": "woman"},
}
SEGFORMER = {
    "model_type": "segformer",
    "hidden_sizes": [8] * 4,
    "depths": [1] * 4,
    "num_attention_heads": [1] * 4,
    "decoder_hidden_size": 8,
    "id2label": {"0": "wall", "1": "hair"},
}

EVERY_KIND = {
    "stylegan2": lambda: StyleGAN2Generator(8, [8, 6], style_dim=8, mapping_layers=1),
    "progan": lambda: ProGANGenerator(8, [8, 6], z_dim=8, heads=[8]),
    "residual-discriminator": lambda: Discriminator(8, [8, 6]),
    "resnet-encoder": lambda: ResNetEncoder((4, 8), width=2, mask_offset=0.5, small=True),
    "pyramid-encoder": lambda: PyramidEncoder((8, 8), width=2, small=True),
    "plain-classifier": lambda: PlainClassifier(["smiling", "hat"], width=2),
    "residual-classifier": lambda: ResidualClassifier(["smiling", "hat"], width=4),
    "onnx-classifier": lambda: OnnxClassifier(["smiling", "hat"], [3, 1], model_bytes=7),
    "backbone-classifier": lambda: BackboneClassifier(["smiling"], "timm", "resnet10t"),
    "transformers-classifier": lambda: TransformersClassifier(["Male"], ["man"], VIT, PREPROCESS),
    "onnx-segmenter": lambda: OnnxSegmenter({"hair": [3]}, model_bytes=7),
    "transformers-segmenter": lambda: TransformersSegmenter({"hair": ["hair"]}, SEGFORMER, PREPROCESS),
    "resnet-translator": lambda: ResNetTranslator(4, width=2, blocks=1),
    "layout-generator": lambda: LayoutGenerator(["background", "mouth"], 8, width=2),
    "unet-segmenter": lambda: UNetSegmenter(["background", "mouth"], width=2),
}


def make(kind):
    torch.manual_seed(0)
    return EVERY_KIND[kind]()


def test_every_architecture_is_tried_here():
    assert set(EVERY_KIND) == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_network_comes_back_frozen_with_the_very_same_weights(tmp_path, kind):
    network = make(kind)
    save_weights(tmp_path / "a.safetensors", network, {})
    found = load_weights(tmp_path / "a.safetensors")
    assert type(found) is type(network)
    assert found.arguments == network.arguments
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    for (name, value), other in zip(network.state_dict().items(), found.state_dict().values(), strict=True):
        assert value.equal(other), name


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_half_precision_rounds_weights_and_leaves_counters_alone(tmp_path, kind):
    network = make(kind)
    save_weights(tmp_path / "half.safetensors", network, {}, half=True)
    for name, value in load_weights(tmp_path / "half.safetensors").state_dict().items():
        written = network.state_dict()[name]
        expected = written.half().float() if written.is_floating_point() else written
        assert value.dtype == written.dtype
        assert value.equal(expected), name


def test_half_precision_halves_the_file(tmp_path):
    for half in (False, True):
        save_weights(tmp_path / f"{half}.safetensors", Discriminator(16, [64, 32, 32]), {}, half)
    sizes = [(tmp_path / f"{half}.safetensors").stat().st_size for half in (True, False)]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.02)


def test_the_header_says_what_the_network_is_and_what_made_it(tmp_path):
    save_weights(tmp_path / "a.safetensors", make("progan"), {"kimg": 4.0, "key": "0f"})
    assert read_header(tmp_path / "a.safetensors") == {
        "architecture": "progan",
        "arguments": {"resolution": 8, "channels": [8, 6], "z_dim": 8, "heads": [8]},
        "kimg": 4.0,
        "key": "0f",
    }


def test_the_same_weights_make_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_weights(tmp_path / name, make("stylegan2"), {"key": "0f", "kimg": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def refusal(path, kind=torch.nn.Module):
    with pytest.raises(WeightsError) as caught:
        load_weights(path, kind)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_missing_file_is_named(tmp_path):
    assert "no such weight file" in refusal(tmp_path / "a.safetensors")
    assert "no such weight file" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "a.safetensors"
    save_weights(path, make("stylegan2"), {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "may be truncated" in refusal(path)


def with_header(header: object) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content


def saying(text: object) -> bytes:
    """The bytes of a safetensors file of which this project's header says `text`."""
    return with_header({"__metadata__": {"latent_rebalance": text if isinstance(text, str) else json.dumps(text)}})


UNREADABLE = {
    "empty": b"",
    "shorter than its length": b"\x10\x00\x00",
    "truncated in its header": with_header({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})[:-9],
    "of a garbage length": b"\xff" * 8 + b"{}",
    "not JSON": with_header(b"no JSON"),
    "not UTF-8": with_header(b"\xff\xfe"),
    "a list": with_header([]),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_damaged_header_is_named(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert "not a readable safetensors file" in refusal(path)
    with pytest.raises(
        WeightsError, match=r"^\S*a.safetensors: not a readable weight file \(.*\); it may be truncated$"
    ):
        import_weights(path, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_header({}), "without this project's header; import it first"),
        (with_header({"__metadata__": {"format": "pt"}}), "without this project's header; import it first"),
        (saying("{"), "`latent_rebalance` is not JSON"),
        (saying([]), "its header has no architecture"),
        (saying({"arguments": {}}), "its header has no architecture"),
        (saying({"architecture": "progan"}), "its header has no arguments"),
        (saying({"architecture": "progan", "arguments": []}), "its header has no arguments"),
        (saying({"architecture": "progan", "arguments": {"width": 2}}), "header do not describe a progan"),
    ],
)
def test_a_header_that_says_too_little_is_named(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert message in refusal(path)


@pytest.mark.parametrize("content", [b"(K", b"G12", b"\x80\x02"])
def test_a_damaged_published_file_is_named(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"^\S*a.pth: not a readable weight file \(.*\); it may be truncated$"):
        import_weights(path, tmp_path / "b.safetensors")


def test_a_file_of_another_kind_of_network_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, make("residual-discriminator"), {})
    assert "contains a residual-discriminator, expected a Generator" in refusal(path, Generator)
    assert "expected a Detector" in refusal(path, Detector)


def test_foreign_safetensors_are_no_weights_of_ours(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert "without this project's header" in refusal(tmp_path / "a.safetensors")


def test_weights_that_do_not_fit_their_header_are_refused(tmp_path):
    network = make("progan")
    network.arguments["channels"] = [8, 4]
    save_weights(tmp_path / "a.safetensors", network, {})
    assert "weights do not match their header" in refusal(tmp_path / "a.safetensors")


def test_an_architecture_nobody_knows_is_refused(tmp_path):
    network = make("progan")
    network.architecture = "transformer"
    save_weights(tmp_path / "a.safetensors", network, {})
    assert "contains a transformer" in refusal(tmp_path / "a.safetensors")
