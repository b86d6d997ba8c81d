"""Every training that is stopped and goes on makes the same weights as one that was never stopped."""

from __future__ import annotations

from importlib import import_module
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.models import mobilenet_v3_small

from pipeline_lib.config import OnnxParts
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.stages import STAGES, call_stage, find_stage

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

SIDE, COUNT, CHANNELS = 32, 16, [8, 8, 8, 8]
NAMES = [f"image-{number:02d}" for number in range(COUNT)]
PARTS = ["background", "mouth"]
GAN = {"batch": 4, "kimg": 0.016, "penalty_every": 2, "ema_kimg": 0.01}
ENCODER = {"batch": 4, "kimg": 0.016}
SUPERVISED = {"batch": 4, "kimg": 0.016}
LOCAL = {"top": 0.5, "left": 0.25, "side": 0.5}


@pytest.fixture
def files(tmp_path, write_shards):
    """Return what trainings read, by name."""
    random = np.random.default_rng(0)
    codes = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    codes[:, 20:28, 10:22] = 1
    made = {
        "images": write_shards(random.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8), NAMES, shards=2),
        **{name: tmp_path / f"{name}.parquet" for name in ("labels", "masks", "parts")},
        **{name: tmp_path / f"{name}.safetensors" for name in ("progan", "generator", "discriminator", "selector")},
    }
    truth = {"smiling": np.arange(COUNT) % 3 > 0, "hat": np.arange(COUNT) % 2 > 0}
    write_table(made["labels"], "labels", pd.DataFrame({"image_id": NAMES, "split": "train", **truth}))
    write_table(made["masks"], "masks", pd.DataFrame({"image_id": NAMES, "codes": [code.tobytes() for code in codes]}))
    rows = [row for name, code in zip(NAMES, codes, strict=True) for row in part_rows(name, code, PARTS)]
    write_table(made["parts"], "parts", pd.DataFrame(rows))
    torch.manual_seed(0)
    for name, network in {
        "progan": ProGANGenerator(SIDE, CHANNELS, 8),
        "generator": StyleGAN2Generator(SIDE, CHANNELS, 8, 2, noise=False),
        "discriminator": Discriminator(SIDE, CHANNELS),
        "selector": PlainClassifier(["smiling", "hat"], 4),
    }.items():
        save_weights(made[name], network, {})
    return made


def detector(files, network, role="referee", collages=0.0, seed=3):
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
        "role": role,
        "seed": seed,
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


def encoder(files, generator="generator", **training):
    return "train_encoder", {
        "generator": files[generator],
        "settings": {"width": 4, "training": ENCODER | training},
        "source": [],
        "seed": 3,
        "report": files["labels"].with_name("report.json"),
    }


def study_encoder(files, variant):
    return "train_study_encoder", {
        "variant": variant,
        "images": files["images"],
        "generator": files["generator"],
        "settings": {"width": 4, "training": ENCODER},
        "width": 8,
        "seed": 3,
    }


def translator(files, method):
    return "train_translator", {
        "images": files["images"],
        "parts": None if method == "inpainting-network" else files["parts"],
        "names": PARTS,
        "method": method,
        "kimg": 0.016,
        "width": 8,
        "masks": {},
        "seed": 3,
    }


TRAININGS = {
    "plain detector": lambda files: detector(files, {"width": 4}, "selector"),
    "residual detector": lambda files: detector(files, {"width": 4}),
    "detector with collages": lambda files: detector(files, {"width": 4}, collages=0.5),
    "backbone with dropout": lambda files: detector(
        files, {"backend": "backbone", "library": "torchvision", "name": "mobilenet_v3_small"}
    ),
    "segmenter": segmenter,
    "stylegan2": lambda files: gan(files, growth=[{"resolution": 16, "kimg": 0.004}]),
    "progan": lambda files: gan(files, architecture="progan"),
    "further training, local and on attributes": lambda files: gan(
        files, init="source", attributes={"weight": 1.0}, local=LOCAL | {"channels": [8, 8, 8]}
    ),
    "encoder of W+": lambda files: encoder(files, local={"top": 0.01, "left": 0.01, "side": 0.98}, collages=0.5),
    "pyramid": lambda files: study_encoder(files, "pyramid"),
    "encoder of z, latents first": lambda files: encoder(files, "progan", latents_kimg=0.096),
    "in-domain encoder": lambda files: study_encoder(files, "in_domain"),
    **{method: lambda files, m=method: translator(files, m) for method in ("cyclegan", "spade", "inpainting-network")},
}
WEIGHTS = {"train_generator": "generator", "train_encoder": "encoder", "train_study_encoder": "encoder"}


def train(training, folder):
    """Train with the global random numbers at any point, as in another process, and return the weights."""
    name, values = training
    made = folder / "made.safetensors"
    torch.seed()
    call_stage(name, values | {WEIGHTS.get(name, "weights"): made, "checkpoints": folder / "checkpoints"})
    return load_weights(made).state_dict()


@pytest.mark.slow
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


@pytest.fixture
def checkpoints_of(tmp_path, monkeypatch):
    """Return a function that names the folder of a training's checkpoints, without training."""

    def find(training):
        name, values = training
        seen = []
        monkeypatch.setattr(import_module(STAGES[name]), "run", lambda task, folder: seen.append(folder.name))
        made = {WEIGHTS.get(name, "weights"): tmp_path / "made.safetensors", "checkpoints": tmp_path}
        call_stage(name, values | made)
        return seen[-1]

    return find


@pytest.mark.parametrize(
    "name", ["residual detector", "segmenter", "stylegan2", "encoder of W+", "in-domain encoder", "spade"]
)
def test_a_training_starts_anew_with_a_higher_revision_another_seed_or_other_images(
    name, files, checkpoints_of, write_shards, monkeypatch
):
    trained, values = TRAININGS[name](files)
    before = checkpoints_of((trained, values))
    assert checkpoints_of((trained, values)) == before
    assert checkpoints_of((trained, values | {"seed": 9})) != before
    with monkeypatch.context() as patch:
        patch.setattr(find_stage(trained), "revision", 99)
        assert checkpoints_of((trained, values)) != before
    if "images" in values:
        write_shards(np.zeros((COUNT, SIDE, SIDE, 3), np.uint8), NAMES, shards=2)
    else:
        save_weights(files["generator"], StyleGAN2Generator(SIDE, CHANNELS, 8, 2, noise=False), {})
    assert checkpoints_of((trained, values)) != before


def test_what_a_detector_is_only_measured_by_starts_no_training_anew(files, checkpoints_of):
    trained, values = TRAININGS["residual detector"](files)
    measured = {"settings": {**values["settings"], "least_cell_accuracy": 0.01}}
    assert checkpoints_of((trained, values | measured)) == checkpoints_of((trained, values))


def test_another_seed_makes_another_detector(files, tmp_path):
    one, other = (train(detector(files, {"width": 4}, seed=seed), tmp_path) for seed in (0, 1))
    assert not one["stem.weight"].equal(other["stem.weight"])


def test_other_contents_under_the_same_path_start_a_training_anew(files, checkpoints_of, tmp_path):
    backbone = {"backend": "backbone", "library": "torchvision", "name": "mobilenet_v3_small"}
    weights = tmp_path / "backbone.pth"
    own = mobilenet_v3_small(weights=None).state_dict()
    torch.save(own, weights)
    learning = detector(files, backbone | {"weights": weights})
    before = checkpoints_of(learning)
    torch.save(own | {"features.0.0.weight": own["features.0.0.weight"] + 1}, weights)
    assert checkpoints_of(learning) != before


def test_a_key_follows_what_is_in_files_and_folders_wherever_they_lie(tmp_path):
    @stage(revision=1)
    def learn():
        pass

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    section, moved = (
        OnnxParts(backend="onnx", path=tmp_path / folder / "config.json", groups={"sky": [0]}) for folder in ("a", "b")
    )

    def key(settings, folder, **others):
        values = {"settings": settings, "model": [tmp_path / folder], "made": tmp_path / folder, **others}
        return key_of(learn, values, without=("made",))

    before = key(section, "a")
    assert key(moved, "b") == before
    assert key(section, "a", seed=1) != before
    (tmp_path / "b/config.json").rename(tmp_path / "b/other.json")
    assert key(section, "b") != before
    (tmp_path / "a/config.json").write_text("{ }")
    assert key(section, "a") != before
