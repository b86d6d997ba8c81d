"""Every training that is stopped and goes on makes the same weights as one that was never stopped."""

from __future__ import annotations

from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime import ranks
from pipeline_lib.stages import call_stage

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

SIDE, COUNT, CHANNELS = 32, 16, [8, 8, 8, 8]
PARTS = ["background", "mouth"]
GAN = {"batch": 4, "kimg": 0.016, "penalty_every": 2, "warmup_steps": 0, "ema_kimg": 0.01}
ENCODER = {"batch": 4, "kimg": 0.016}
SUPERVISED = {"batch": 4, "kimg": 0.016}
LOCAL = {"top": 0.5, "left": 0.25, "side": 0.5}


@pytest.fixture
def files(tmp_path, write_shards):
    """Return what trainings read, by name."""
    random = np.random.default_rng(0)
    names = [f"image-{number:02d}" for number in range(COUNT)]
    codes = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    codes[:, 20:28, 10:22] = 1
    made = {
        "images": write_shards(random.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8), names, shards=2),
        **{name: tmp_path / f"{name}.parquet" for name in ("labels", "masks", "parts")},
        **{name: tmp_path / f"{name}.safetensors" for name in ("progan", "generator", "discriminator", "selector")},
        "embedding": tmp_path / "embedding.pt",
    }
    truth = {"smiling": np.arange(COUNT) % 3 > 0, "hat": np.arange(COUNT) % 2 > 0}
    write_table(made["labels"], "labels", pd.DataFrame({"image_id": names, "split": "train", **truth}))
    write_table(made["masks"], "masks", pd.DataFrame({"image_id": names, "codes": [code.tobytes() for code in codes]}))
    rows = [row for name, code in zip(names, codes, strict=True) for row in part_rows(name, code, PARTS)]
    write_table(made["parts"], "parts", pd.DataFrame(rows))
    torch.manual_seed(0)
    for name, network in {
        "progan": ProGANGenerator(SIDE, CHANNELS, 8),
        "generator": StyleGAN2Generator(SIDE, CHANNELS, 8, 2, noise=False),
        "discriminator": Discriminator(SIDE, CHANNELS),
        "selector": PlainClassifier(["smiling", "hat"], 4),
    }.items():
        save_weights(made[name], network, {})
    embedding = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 5))
    torch.jit.save(torch.jit.trace(embedding, torch.zeros(2, 3, 8, 8)), made["embedding"])
    return made


def detector(files, network, judge="referee", collages=0.0):
    settings = {
        "attributes": ["smiling", "hat"],
        "training": SUPERVISED,
        "least_cell_accuracy": 0,
        "collages": collages,
    }
    images, labels = files["images"], files["labels"]
    return "train_detector", {
        "images": images,
        "labels": labels,
        "held_out": images,
        "held_out_labels": labels,
        "parts": [files["parts"]] if collages else [],
        "other": [],
        "network": network,
        "settings": settings,
        "related": ["smiling", "hat"],
        "regions": {"smiling": {"kind": "part", "name": "mouth"}} if collages else None,
        "judge": judge,
        "report": files["labels"].with_name("report.json"),
    }


def segmenter(files):
    return "train_segmenter", {
        "images": files["images"],
        "masks": files["masks"],
        "held_out": files["images"],
        "held_out_masks": files["masks"],
        "part_names": PARTS,
        "settings": {"width": 4, "training": SUPERVISED},
        "seed": 3,
        "report": files["labels"].with_name("report.json"),
    }


def gan(files, init="scratch", attributes=None, architecture="stylegan2", **training):
    section = {"architecture": architecture, "channels": CHANNELS, "z_dim": 8, "mapping_layers": 2}
    return "train_generator", {
        "images": files["images"],
        "settings": section | {"training": GAN},
        "training": GAN | training,
        "attributes": attributes,
        "selector": [files["selector"]] if attributes else [],
        "init": init,
        "source": [files["generator"], files["discriminator"]] if init == "source" else [],
        "name": "train",
        "seed": 3,
        "discriminator": [files["labels"].with_name("made_discriminator.safetensors")],
    }


def encoder(files, generator="generator", architecture="resnet", **training):
    return "train_encoder", {
        "generator": files[generator],
        "settings": {"width": 4, "architecture": architecture, "training": ENCODER | training},
        "source": [],
        "seed": 3,
        "report": files["labels"].with_name("report.json"),
    }


def in_domain(files):
    return "train_in_domain_encoder", {
        "images": files["images"],
        "generator": files["generator"],
        "settings": {"width": 4, "training": ENCODER},
        "width": 8,
        "seed": 3,
    }


def translator(files, method):
    return "train_translator", {
        "images": files["images"],
        "parts": [] if method == "inpainting-network" else [files["parts"]],
        "names": PARTS,
        "method": method,
        "settings": {"kimg": 0.016, "batch": 4, "width": 8},
        "masks": {},
        "seed": 3,
    }


IDENTITY = {"weight": 1.0, "side": 8}
TRAININGS = {
    "plain detector": lambda files: detector(files, {"architecture": "plain", "seed": 1, "half": 0, "width": 4}),
    "residual detector": lambda files: detector(files, {"architecture": "residual", "seed": 2, "half": 1, "width": 4}),
    "detector with collages": lambda files: detector(
        files, {"architecture": "residual", "seed": 2, "half": 1, "width": 4}, collages=0.5
    ),
    "backbone with dropout": lambda files: detector(
        files, {"backend": "backbone", "library": "torchvision", "name": "mobilenet_v3_small", "seed": 2, "half": 1}
    ),
    "segmenter": segmenter,
    "stylegan2": lambda files: gan(files, growth=[{"resolution": 16, "kimg": 0.004}], fade_kimg=0.008),
    "progan": lambda files: gan(files, architecture="progan"),
    "further training, local and on attributes": lambda files: gan(
        files, init="source", attributes={"weight": 1.0, "memory": 8}, local=LOCAL | {"channels": [8, 8, 8]}
    ),
    "encoder of W+": lambda files: encoder(files, local={"top": 0.01, "left": 0.01, "side": 0.98}, collages=0.5),
    "pyramid": lambda files: encoder(files, architecture="pyramid"),
    "encoder of z, latents first": lambda files: encoder(files, "progan", latents_first={"kimg": 0.012, "batch": 4}),
    "encoder by identity": lambda files: encoder(files, identity=IDENTITY | {"path": files["embedding"]}),
    "in-domain encoder": in_domain,
    **{method: lambda files, m=method: translator(files, m) for method in ("cyclegan", "spade", "inpainting-network")},
}
WEIGHTS = {"train_generator": "generator", "train_encoder": "encoder", "train_in_domain_encoder": "encoder"}


def train(training, folder):
    """Train with the global random numbers at any point, as in another process, and return the weights."""
    stage, values = training
    made = folder / "made.safetensors"
    torch.seed()
    call_stage(stage, values | {WEIGHTS.get(stage, "weights"): made, "checkpoints": folder / "checkpoints"})
    return load_weights(made).state_dict()


@pytest.mark.parametrize("name", TRAININGS)
def test_a_stopped_training_goes_on_to_the_same_weights(name, files, tmp_path, monkeypatch):
    training = TRAININGS[name](files)
    straight = train(training, tmp_path / "straight")
    with monkeypatch.context() as patch:
        steps = count(1)
        patch.setattr(ranks, "any_of", lambda requested: next(steps) == 2)
        with pytest.raises(SystemExit, match="stopped by a signal"):
            train(training, tmp_path / "stopped")
    resumed = train(training, tmp_path / "stopped")
    assert resumed.keys() == straight.keys()
    assert [key for key, value in resumed.items() if not value.equal(straight[key])] == []
