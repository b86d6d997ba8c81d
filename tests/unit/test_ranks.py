"""Several processes under torchrun train what one process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.config import GanTraining
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.errors import ConfigError, DivergenceError
from pipeline_lib.stages import call_stage
from pipeline_lib.training.gan import GanTask, Networks

ROOT = Path(__file__).parents[2]
TRAINING = {"batch": 16, "penalty_every": 2, "ema_kimg": 0.01}


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    monkeypatch.setenv("LATENT_REBALANCE_PRECISION", "float32")


@pytest.fixture
def values(tmp_path, write_shards):
    """Return the values of a training of six steps."""
    torch.manual_seed(0)
    channels = [8, 8, 8]
    networks = StyleGAN2Generator(16, channels, 8, 1, noise=False), Discriminator(16, channels)
    for name, network in zip(("generator", "discriminator"), networks, strict=True):
        save_weights(tmp_path / f"source_{name}.safetensors", network, {})
    save_weights(tmp_path / "selector.safetensors", PlainClassifier(["smiling"], 4), {})
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    section = {"architecture": "stylegan2", "channels": channels, "z_dim": 8, "mapping_layers": 1}
    source = [str(tmp_path / f"source_{name}.safetensors") for name in ("generator", "discriminator")]
    return {
        "images": [str(path) for path in write_shards(pixels, [f"x-{number}" for number in range(40)], shards=2)],
        "settings": section | {"weights": source[0], "discriminator": source[1]},
        "training": TRAINING | {"kimg": 0.096},
        "attributes": {"weight": 1.0},
        "selector": [str(tmp_path / "selector.safetensors")],
        "init": "source",
        "source": source,
        "name": "train",
        "seed": 0,
    }


def made_in(folder):
    return {
        "checkpoints": str(folder / "checkpoints"),
        "generator": str(folder / "generator.safetensors"),
        "discriminator": [str(folder / "discriminator.safetensors")],
    }


def torchrun(values, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "pipeline_lib", "tools", "stage", "--threads=1", "train_generator"]
    command += [f"{name}={json.dumps(value)}" for name, value in values.items()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LATENT_REBALANCE_DEVICES": ""}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_make_the_weights_of_one(values, tmp_path):
    with torchrun(values | made_in(tmp_path / "two")) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    call_stage("train_generator", values | made_in(tmp_path / "one"))
    one, two, source = (
        load_weights(tmp_path / name, Generator).state_dict()
        for name in ("one/generator.safetensors", "two/generator.safetensors", "source_generator.safetensors")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    assert any((value - source[name]).abs().max() > 1e-2 for name, value in one.items())
    rows = [json.loads(line) for line in next((tmp_path / "two").rglob("log.jsonl")).read_text().splitlines()]
    alone = [json.loads(line) for line in next((tmp_path / "one").rglob("log.jsonl")).read_text().splitlines()]
    assert [row["step"] for row in rows] == [6]
    assert rows[0] == pytest.approx(alone[0], rel=1e-3)


@pytest.mark.long
def test_stopped_together_they_go_on_together(values, tmp_path):
    made, longer = made_in(tmp_path), values | {"training": TRAINING | {"kimg": 160}}
    with torchrun(longer | made) as process:
        while not any(path.stat().st_size for path in tmp_path.rglob("log.jsonl")):  # both are within the loop
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        said = process.communicate()[1]
    assert process.returncode != 0
    assert time.monotonic() - started < 30
    assert "stopped by a signal" in said
    checkpoint = next(tmp_path.rglob("checkpoint.pt"))
    state = torch.load(checkpoint, weights_only=True)
    assert 0 < state["step"] < 10_000
    # the same folder with all but three steps behind it
    torch.save(state | {"step": 9_997}, checkpoint)
    with torchrun(longer | made) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    assert "resumed from step 9997" in said
    assert torch.load(checkpoint, weights_only=True)["step"] == 10_000


@pytest.mark.long
def test_what_one_process_refuses_is_said_by_the_one_that_started_them(values, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", "0,1")  # which torch does not see: they compute on the CPU
    monkeypatch.setenv("LATENT_REBALANCE_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr("pipeline_lib.runtime.devices._own", [])
    broken = values | {"training": TRAINING | {"kimg": 0.096, "learning_rate": 1e20}}
    with pytest.raises(DivergenceError, match=r"train: .* is not finite"):
        call_stage("train_generator", broken | made_in(tmp_path), threads=2, gpus=2)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.own_rows(torch.arange(6)).tolist() == [1, 4]
    with pytest.raises(ConfigError, match="a batch of 16 cannot be split evenly over 3 processes"):
        ranks.own_rows(torch.arange(16))


def test_a_share_without_whole_groups_of_the_minibatch_deviation_is_refused(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    networks = Networks(StyleGAN2Generator(16, [8, 8, 8], 8, 1), Discriminator(16, [8, 8, 8]))
    with pytest.raises(ConfigError, match=r"a batch of 24 over 4 processes .* set `batch` to a multiple of 16"):
        GanTask(networks, torch.zeros(8, 3, 16, 16), GanTraining(kimg=1, batch=24), 0, torch.device("cpu"), "train")


TOGETHER = """
import json, os, sys
import numpy as np
import torch
from pipeline_lib.config import Encoder, EncoderTraining, LocalLoss
from pipeline_lib.data.shards import read_shards
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime import ranks
from pipeline_lib.training.attributes import AttributeDiscriminator
from pipeline_lib.training.encoder import EncoderTask


def found(shards):
    names, pixels = read_shards(shards, most_bytes=0)
    with open("/proc/self/maps") as maps:  # the inode of the deleted file that is mapped last
        scratch = [line.split()[4] for line in maps if "/tmp" in line and line.rstrip().endswith("(deleted)")][-1]
    torch.manual_seed(0)
    attributes = AttributeDiscriminator(
        PlainClassifier(["smiling"], 4), 3.0, 0, torch.device("cpu")
    )
    for step in range(3):
        outputs = torch.rand(2, 8, 1, generator=torch.Generator().manual_seed(step)) * 2 - 1
        attributes.learn(*map(ranks.own_rows, outputs))
    torch.manual_seed(1)
    generator = StyleGAN2Generator(32, [8] * 4, style_dim=8, mapping_layers=1, noise=False).requires_grad_(False)
    square = LocalLoss(top=0.25, left=0.0, side=0.75)
    training = EncoderTraining(batch=4, collages=0.75, local=square, kimg=0.012)
    settings = Encoder(width=4, training=training)
    encoder = ResNetEncoder((8, 8), width=4, small=True).eval()  # without statistics of a batch
    task = EncoderTask(encoder, generator, load_perceptual("alex"), settings, 0, torch.device("cpu"))
    task.encoder.eval()
    latents, images, mask = task.draw(4, "step", 0, shared=True)
    count = len(range(ranks.rank(), 3, ranks.count()))
    seam = task._make_collages(images, mask, 3, count, 0)[2]
    with torch.no_grad():
        loss = task._share_of_latent_loss(task.encoder(images, mask)[count:], latents[count:], 3).view(1)
    ranks.average([loss])
    return {
        "names": names,
        "pixels": int(pixels.astype(np.int64).sum()),
        "scratch": scratch,
        "memory": attributes.state_dict()["seen"]["fake"].flatten().tolist(),
        "weights": torch.cat([value.flatten() for value in attributes.network.state_dict().values()]).tolist(),
        "loss": float(loss),
        "seams": [seam[row].flatten().tolist() for row in range(count)],
    }


if __name__ == "__main__":
    folder, *shards = sys.argv[1:]
    if ranks.launched():
        with ranks.joined():
            said = found(shards)
    else:
        said = found(shards)
    with open(f"{folder}/{ranks.count()}-{ranks.rank()}.json", "w") as file:
        json.dump(said, file)
"""


@pytest.mark.long
def test_processes_share_what_one_process_has(tmp_path, write_shards):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    shards = write_shards(pixels, [f"x-{number}" for number in range(40)], shards=2)
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    given = [str(script), str(tmp_path), *map(str, shards)]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for command in ([sys.executable], several):
        subprocess.run(command + given, cwd=ROOT, env=environment, check=True)
    alone, *both = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    for one in both:
        assert one["names"] == alone["names"]
        assert one["pixels"] == alone["pixels"] == pixels.sum()
        assert one["memory"] == alone["memory"]  # of the whole batch, so that one checkpoint serves all
        assert one["weights"] == alone["weights"]
        assert one["loss"] == pytest.approx(alone["loss"], rel=1e-5)  # although one process knows no latent
    assert both[0]["scratch"] == both[1]["scratch"]
    # every collage has a box of its own, the one that it would have in a single process
    assert [both[0]["seams"][0], both[1]["seams"][0], both[0]["seams"][1]] == alone["seams"]


def test_a_stage_that_runs_alone_takes_one_gpu():
    with pytest.raises(ConfigError, match="stage plan_edits runs on one GPU, not 2"):
        call_stage("plan_edits", {}, gpus=2)


def test_a_lone_process_averages_nothing():
    gradient = torch.ones(3)
    ranks.average([gradient, None])
    assert gradient.tolist() == [1, 1, 1]
    assert [ranks.any_of(flag) for flag in (True, False)] == [True, False]
