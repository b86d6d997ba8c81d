"""What many tests need: one thread, and tiny networks and image shards in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from pipeline_lib.config import Detectors
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.files import read_json
from pipeline_lib.stages import call_stage

SIDE = 16
WriteShards = Callable[..., list[Path]]


def pytest_configure() -> None:
    """Use one thread here and in child processes: more only slow tiny networks down."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


hypothesis.settings.register_profile("at-length", max_examples=2000, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("short", hypothesis.settings.get_profile("at-length"), max_examples=100)
hypothesis.settings.load_profile("short")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the workflow first: another process has the short ones to do while they wait for a job."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@dataclass(frozen=True)
class Networks:
    """Weight files of tiny networks that fit each other, at 16 pixels, with random weights."""

    generator: Path
    discriminator: Path
    encoder: Path
    detector: Path


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    generator = StyleGAN2Generator(SIDE, [8, 8, 8], style_dim=8, mapping_layers=2, noise=False)
    made = {
        "generator": generator,
        "discriminator": Discriminator(SIDE, [8, 8, 8]),
        "encoder": ResNetEncoder(generator.latent_shape, width=4, small=True),
        "detector": PlainClassifier(["smiling", "long_hair"], width=4),
    }
    images = torch.rand(64, 3, SIDE, SIDE) * 2 - 1
    for name in ("encoder", "detector"):
        _settle(made[name], images)
    for name, network in made.items():
        save_weights(folder / f"{name}.safetensors", network, {})
    return Networks(**{name: folder / f"{name}.safetensors" for name in made})


def _settle(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Let batch normalisation take its statistics from `images`, without which random networks hardly see a thing."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(images)
    network.eval()


@pytest.fixture
def train_small_detector(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that trains a small selector and returns its report, with changes of the stage's values."""

    def train(images: list[Path], labels: Path, settings: Detectors, **changes: Any) -> Any:
        role = changes.get("role", "selector")
        values = {
            "images": images,
            "labels": labels,
            "parts": None,
            "held_out": images,
            "held_out_labels": labels,
            "other": None,
            "role": role,
            "network": getattr(settings, role).model_copy(update={"width": 4}),
            "settings": settings,
            "related": settings.attributes,
            "regions": None,
            "seed": 0,
            "checkpoints": tmp_path / "checkpoints",
            "weights": tmp_path / "weights.safetensors",
            "report": tmp_path / "report.json",
        }
        call_stage("train_detector", values | changes)
        return read_json(tmp_path / "report.json")

    return train


@pytest.fixture
def write_shards(tmp_path: Path) -> WriteShards:
    """Return a function that spreads uint8 images (n, side, side, 3) evenly over shards of the set `name`."""

    def write(pixels: np.ndarray, names: Sequence[str], name: str = "samples", shards: int = 1) -> list[Path]:
        paths = [tmp_path / "images" / name / f"{shard}.parquet" for shard in range(shards)]
        parts = zip(paths, np.array_split(np.asarray(names), shards), np.array_split(pixels, shards), strict=True)
        for path, part_names, part in parts:
            with shard_writer(path, pixels.shape[1]) as writer:
                writer.add(part_names.tolist(), part)
        return paths

    return write
