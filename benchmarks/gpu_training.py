"""The recipe of the shipped weights from scratch, in slices of the time that is left; each slice resumes the last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_sizes import Found, Setting
from pipeline_lib.config import Config, load_config

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "config/examples/avatars-from-scratch.yaml"
MARGIN = 20  # seconds before the end of the time, in which a training saves its state


def training(setting: Setting) -> list[Found]:
    """Go on with the recipe's stages until they are done or the time is over.

    Weights, checkpoints and sample grids stay in the setting's folder for what is kept.
    """
    config = load_config(RECIPE)
    if not setting.full:
        config = _tiny(config)
    end = time.monotonic() + setting.seconds - (MARGIN if setting.full else 0)
    found = []
    for stage, made, values in _stages(config, setting.kept):
        if not made.exists():
            _work(stage, values, end)
        found.append(Found(stage, _state(made, setting.kept), "finished; call again to go on", made.exists()))
        if not made.exists():
            break
    return found


def _stages(config: Config, folder: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    """Return name, result and values of each stage, as the rules of the workflow give them."""
    settings = config.model_dump(mode="json")
    images = {name: [str(folder / f"{name}-{shard}.parquet") for shard in range(2)] for name in ("dataset", "held_out")}
    generator = folder / "generator.safetensors"
    tables = ("labels", "masks", "held_out_labels", "held_out_masks", "quarantine", "notes")
    prepare = {"settings": settings["data"], "run": config.run, "images": images["dataset"]}
    prepare |= {"held_out": images["held_out"], **{name: str(folder / f"{name}.parquet") for name in tables}}
    shared = {"seed": config.seed, "checkpoints": str(folder / "checkpoints")}
    train = {
        "images": images["dataset"],
        "settings": settings["generator"],
        "name": "train_generator",
        "init": "scratch",
    }
    train |= {"training": settings["generator"]["training"], "attributes": None, "selector": [], "source": []}
    train |= {"generator": str(generator), "discriminator": [str(folder / "discriminator.safetensors")]}
    encode = {"generator": str(generator), "settings": settings["encoder"], "source": []}
    encode |= {"encoder": str(folder / "encoder.safetensors"), "report": str(folder / "encoder.json")}
    return [
        ("prepare_dataset", folder / "notes.parquet", prepare),
        ("train_generator", generator, train | shared),
        ("train_encoder", folder / "encoder.json", encode | shared),
    ]


def _work(stage: str, values: dict[str, Any], end: float) -> None:
    """Run a stage until it is done, or let it save its state when the time is over."""
    command = [sys.executable, "-m", "pipeline_lib", "tools", "stage", f"--threads={os.cpu_count()}", stage]
    command += [f"{name}={json.dumps(value)}" for name, value in values.items()]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        status = process.wait(timeout=max(1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
        return
    if status:
        raise RuntimeError(f"{stage} ended with status {status}; its messages are above")


def _state(made: Path, folder: Path) -> str:
    if made.exists():
        return "finished"
    logs = sorted(folder.rglob("log.jsonl"), key=lambda path: path.stat().st_mtime)
    rows = logs[-1].read_text().splitlines() if logs else []
    return f"step {json.loads(rows[-1])['step']}" if rows else "begun"


def _tiny(config: Config) -> Config:
    """Return the recipe with as many images and steps as a test can wait for."""
    values = config.model_dump(mode="json")
    values["data"] |= {"images": 64, "held_out": 64}
    values["generator"]["channels"] = [8, 8, 8, 8, 8]
    values["generator"]["training"] |= {"kimg": 0.016, "batch": 4, "growth": []}
    values["encoder"]["training"] |= {"kimg": 0.008, "batch": 4}
    return Config.model_validate(values)
