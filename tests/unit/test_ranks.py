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

from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.errors import ConfigError, DivergenceError
from pipeline_lib.stages import call_stage

ROOT = Path(__file__).parents[2]
TRAINING = {"batch": 16, "penalty_every": 2, "warmup_steps": 0, "precision": "float32", "ema_kimg": 0.01}


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
    command += ["-m", "pipeline_lib", "stage", "--threads=1", "train_generator"]
    command += [f"{name}={json.dumps(value)}" for name, value in values.items()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LATENT_REBALANCE_DEVICES": ""}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


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


def test_a_stage_that_runs_alone_takes_one_gpu():
    with pytest.raises(ConfigError, match="stage plan_edits runs on one GPU, not 2"):
        call_stage("plan_edits", {}, gpus=2)


def test_a_lone_process_averages_nothing():
    gradient = torch.ones(3)
    ranks.average([gradient, None])
    assert gradient.tolist() == [1, 1, 1]
    assert [ranks.any_of(flag) for flag in (True, False)] == [True, False]
