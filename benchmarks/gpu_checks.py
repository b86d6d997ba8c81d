"""Whether a GPU computes what the CPU does: every network, edits in shards, trainings compiled, resumed and joined."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.bench import plain
from benchmarks.gpu_sizes import Found, Setting
from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import EncoderTraining, GanTraining, Rebalance, load_config
from pipeline_lib.data.shards import read_shards, shard_writer
from pipeline_lib.data.tables import read_tables, write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.editing.swap import swap_parts
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import PlainClassifier, ResidualClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.files import write_json
from pipeline_lib.training.encoder import EncoderTask
from pipeline_lib.training.gan import GanTask, Networks

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "resources/avatars-64"
#: Largest relative difference to the CPU, as the root of the mean square over that of the CPU's outputs.
MOST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.1}
CPU = torch.device("cpu")


def networks(setting: Setting) -> list[Found]:
    """Compare every network on the device with the CPU in float32, in float32 and in bfloat16."""
    found = []
    for name, network, method, inputs in _every_network(setting):
        run = partial(_run, network, method, inputs)
        expected = run(CPU, "float32")
        for precision, most in MOST_DIFFERENCE.items():
            off = _relative(run(setting.device, precision), expected)
            found.append(
                Found(f"{name}, {precision}", f"{off:.1e}", f"at most {most:.0e} of the CPU", off <= most, off)
            )
    return found


def _every_network(setting: Setting) -> Iterator[tuple[str, nn.Module, str, tuple[Tensor, ...]]]:
    """Yield a name, a network with random weights, its method, and what that is given."""
    side, count = setting.size(256, 32), setting.size(8, 2)
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=random) * 2 - 1
    known = (torch.rand(count, 1, side, side, generator=random) > 0.3).float()
    torch.manual_seed(0)
    widths = [512, 512, 512, 256, 128, 64, 32] if setting.full else [16, 16, 8, 8]
    progan = ProGANGenerator(side, widths, heads=[side])
    style = StyleGAN2Generator(side, widths, noise=False) if setting.full else StyleGAN2Generator(side, widths, 16, 2)
    for name, generator in (("ProGAN", progan), ("StyleGAN2", style)):
        latents = torch.randn(count, *generator.latent_shape, generator=random)
        yield name, generator, "synthesize", (latents,)
    yield "encoder, ResNet-18", ResNetEncoder(progan.latent_shape, mask_offset=0.5), "forward", (images, known)
    yield "encoder, ResNet-34", ResNetEncoder(style.latent_shape, depth=34), "forward", (images, known)
    yield "discriminator", Discriminator(side, widths), "forward", (images,)
    yield "detector, plain", PlainClassifier(["smiling"], 24), "logits", (images,)
    yield "detector, residual", ResidualClassifier(["smiling"], 24), "logits", (images,)
    yield "segmenter", UNetSegmenter(["background", "mouth"], 16), "logits", (images,)
    yield "perceptual distance", load_perceptual("alex"), "forward", (images, images.flip(0))


@torch.no_grad()
def _run(network: nn.Module, method: str, inputs: tuple[Tensor, ...], device: torch.device, precision: str) -> Tensor:
    moved = copy.deepcopy(network).to(device).eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return getattr(moved, method)(*(rows.to(device) for rows in inputs)).float().cpu()


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return the root of the mean square difference, as a share of that of the expected values."""
    return float((found - expected).detach().norm() / expected.detach().norm().clamp(min=1e-12))


def swaps(setting: Setting) -> list[Found]:
    """Compare the candidates of the same faces on the device and on the CPU: their logits, choices and verdicts."""
    edited = _edited_set(setting.folder, setting.size(200, 8))
    exact, found = (_swap(setting.folder / name, edited, device) for name, device in _devices(setting))
    wanted = exact["logit"].to_numpy().reshape(len(edited["names"]), -1)
    taken = found["chosen"].to_numpy().reshape(wanted.shape)
    verdicts = [table.groupby("image_id")["chosen"].any() for table in (exact, found)]
    success = float((verdicts[0] == verdicts[1]).mean())
    chosen = taken.any(axis=1)
    short = (wanted.max(axis=1) - (wanted * taken).sum(axis=1))[chosen]
    near = float((short <= 0.1).mean()) if len(short) else 1.0
    off = float((exact["logit"] - found["logit"]).abs().max())
    same = exact["donor_id"].equals(found["donor_id"])
    return [
        Found("same donors", str(same), "", same),
        Found("largest difference of a logit", f"{off:.3f}", number=off),
        Found("choices within 0.1 logit of the CPU's best", f"{near:.3f}", "at least 0.99", near >= 0.99, near),
        Found("faces with the same verdict", f"{success:.3f}", "at least 0.99", success >= 0.99, success),
    ]


def shards(setting: Setting) -> list[Found]:
    """Compare the bytes of edits made in 1, 2 and 5 shards."""
    edited = _edited_set(setting.folder, setting.size(200, 12))
    found = []
    whole = None
    for count in (1, 2, 5):
        folder = setting.folder / f"{count}"
        table = _swap(folder, edited, setting.device, count)
        names, pixels = read_shards(sorted(folder.glob("*.images.parquet")))
        order = np.argsort(names)
        this = table.to_csv() + str([names[place] for place in order]), pixels[order].tobytes()
        whole = whole or this
        found.append(Found(f"{count} shards", f"{len(names)} edits", "the bytes of one shard", this == whole))
    return found


def _devices(setting: Setting) -> list[tuple[str, torch.device]]:
    return [("cpu", CPU), ("device", setting.device)]


def _edited_set(folder: Path, faces: int) -> dict[str, Any]:
    """Write samples with a mouth in each, a plan that edits them all, and a selector that half of them please."""
    generator = load_weights(WEIGHTS / "generator.safetensors", Generator)
    pixels = ((generator.decode(generator.sample_latents(range(faces), 0)) + 1) * 127.5).to(torch.uint8)
    names = [f"x-{number:04d}" for number in range(faces)]
    paths = {name: folder / f"{name}.parquet" for name in ("images", "parts", "plan")}
    with shard_writer(paths["images"], 64) as shard:
        shard.add(names, pixels.permute(0, 2, 3, 1).numpy())
    codes = np.zeros((64, 64), np.uint8)
    codes[44:54, 24:40] = 1
    parts = [row for name in names for row in part_rows(name, codes, ["background", "mouth"])]
    write_table(paths["parts"], "parts", pd.DataFrame(parts))
    plan = {"image_id": names, "position": range(faces), "target": 0, "attribute": "smiling", "wanted": True}
    write_table(paths["plan"], "plan", pd.DataFrame(plan))
    torch.manual_seed(0)
    selector = PlainClassifier(["smiling", "long_hair"], 24).eval()
    with torch.no_grad():
        selector.head.bias[1] = 1e3  # everybody stays in the group
        logits = selector.logits(pixels / 127.5 - 1)[:, 0]
        selector.head.bias[0] -= logits.median()
    save_weights(folder / "selector.safetensors", selector, {})
    write_json(folder / "encoder.json", {"inversion": {"precision": "float32", "device": "cpu"}})
    return {"folder": folder, "names": names, **paths}


def _swap(folder: Path, edited: dict[str, Any], device: torch.device, count: int = 1) -> pd.DataFrame:
    """Edit every face in `count` shards; returns the table of candidates."""
    folder.mkdir()
    rules = load_config(ROOT / "config/config.yaml").rebalance.targets
    candidates = min(16, len(edited["names"]) - 1)
    settings = Rebalance(targets=rules, edit={"candidates": candidates, "choose": "strongest"})
    for shard in range(count):
        swap_parts(
            images=[edited["images"]],
            parts=edited["parts"],
            plan=edited["plan"],
            table=edited["plan"],  # read only for donors with the attribute
            kind="plan",
            encoder=[WEIGHTS / "encoder.safetensors"],
            generator=[WEIGHTS / "generator.safetensors"],
            precision=[edited["folder"] / "encoder.json"],
            model=[],
            selector=edited["folder"] / "selector.safetensors",
            settings=settings,
            shards=count,
            run="gpu",
            seed=0,
            name="x",
            shard=shard,
            candidates=folder / f"{shard}.candidates.parquet",
            composites=folder / f"{shard}.images.parquet",
            device=device,
            faces=4 if device.type == "cpu" else 64,
        )
    tables = sorted(folder.glob("*.candidates.parquet"))
    return read_tables(tables, "candidates").sort_values(["image_id", "candidate"], ignore_index=True)


def compiled_training(setting: Setting) -> list[Found]:
    """Compare the losses of compiled trainings with those of eager ones, step by step."""
    steps = setting.size(200, 2)
    found = []
    for name, make in (("GAN", _gan), ("encoder", _encoder)):
        with plain():
            eager = _losses(make(setting), steps)
        with mock.patch.dict(os.environ, LATENT_REBALANCE_PRECISION="float32"):
            losses = _losses(make(setting), steps)
        first = _relative(losses[:2], eager[:2])
        tail = slice(-max(1, steps // 4), None)
        last = _relative(losses[tail].mean(0), eager[tail].mean(0))
        found += [
            Found(f"{name}, first losses compiled", f"{first:.1e}", "at most 1e-02 of eager", first <= 1e-2, first),
            Found(f"{name}, last losses compiled", f"{last:.1e}", "at most 1e-01 of eager", last <= 0.1, last),
        ]
    return found


def _losses(task: GanTask | EncoderTask, steps: int) -> Tensor:
    """Train and return every loss of every step, (steps, losses)."""
    torch.manual_seed(0)
    return torch.stack([torch.stack(list(task.step(index).values())) for index in range(steps)]).cpu()


def _gan(setting: Setting) -> GanTask:
    images = torch.randint(0, 256, (256, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    generator = load_weights(WEIGHTS / "generator.safetensors", Generator).requires_grad_(True)
    discriminator = load_weights(WEIGHTS / "discriminator.safetensors", Discriminator).requires_grad_(True)
    training = GanTraining(kimg=100, batch=setting.size(64, 4), penalty_every=4)
    return GanTask(Networks(generator, discriminator), images, training, 0, setting.device, "gpu")


def _encoder(setting: Setting) -> EncoderTask:
    training = EncoderTraining(kimg=100, batch=setting.size(64, 2))
    encoder = load_weights(WEIGHTS / "encoder.safetensors").requires_grad_(True)
    generator = load_weights(WEIGHTS / "generator.safetensors", Generator)
    section = EncoderSection(training=training)
    return EncoderTask(encoder, generator, load_perceptual("alex"), section, 0, setting.device)


def resumed_training(setting: Setting) -> list[Found]:
    """Compare a GAN training that got a SIGTERM and was started again with one that ran through."""
    values = _training_values(setting, kimg=setting.size(6400, 40) / 1000)
    command = [sys.executable, "-m", "pipeline_lib", "tools", "stage", "train_generator"]
    whole, stopped = _made_in(setting.folder / "whole"), _made_in(setting.folder / "stopped")
    _finish(_start(command, values | whole))
    process = _start(command, values | stopped)
    while process.poll() is None and not list((setting.folder / "stopped").rglob("log.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    interrupted = process.returncode != 0
    if interrupted:
        _finish(_start(command, values | stopped))
    off = _apart(whole, stopped)
    return [
        Found("stopped by the signal", str(interrupted), said.strip().splitlines()[-1][:80] if said else ""),
        Found("difference of the weights", f"{off:.1e}", "at most 1e-02 of the change", off <= 1e-2, off),
    ]


def several_processes(setting: Setting) -> list[Found]:
    """Compare trainings under torchrun with one that runs by itself on the same device, whose random numbers differ."""
    values = _training_values(setting, kimg=setting.size(256, 32) / 1000)
    no_gpu = {"CUDA_VISIBLE_DEVICES": "", "LATENT_REBALANCE_DEVICES": ""}
    found = []
    for name, processes, cuda in (("nccl, one process", 1, True), ("gloo, two processes", 2, False)):
        if cuda and not setting.full:
            continue
        where = {} if cuda else no_gpu
        alone, made = (_made_in(setting.folder / f"{name.split(',')[0]}-{way}") for way in ("alone", "joined"))
        _finish(
            _start([sys.executable, "-m", "pipeline_lib", "tools", "stage", "train_generator"], values | alone, where)
        )
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        launch += ["-m", "pipeline_lib", "tools", "stage", "--threads=1", "train_generator"]
        _finish(_start(launch, values | made, where))
        off = _apart(alone, made)
        # Adam's first steps are the signs of gradients, which sums in another order turn where there is next to none
        most = 0.05 if processes == 1 else 0.15
        found.append(Found(name, f"{off:.1e}", f"at most {most:g} of the change of the weights", off <= most, off))
    return found


def _training_values(setting: Setting, kimg: float) -> dict[str, Any]:
    """Write a small training set; returns the values of the stage without its outputs."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), np.uint8)
    with shard_writer(setting.folder / "training.parquet", 64) as shard:
        shard.add([f"x-{number}" for number in range(64)], pixels)
    source = [str(WEIGHTS / f"{name}.safetensors") for name in ("generator", "discriminator")]
    training = {
        "kimg": kimg,
        "batch": setting.size(16, 8),  # two processes have a group of the minibatch deviation, which is four, each
        "penalty_every": 4,
    }
    return {
        "images": [str(setting.folder / "training.parquet")],
        "settings": {"weights": source[0], "discriminator": source[1]},
        "training": training | {"ema_kimg": 0.01},
        "attributes": None,
        "selector": [],
        "init": "source",
        "source": source,
        "name": "train",
        "seed": 0,
    }


def _made_in(folder: Path) -> dict[str, Any]:
    return {
        "checkpoints": str(folder / "checkpoints"),
        "generator": str(folder / "generator.safetensors"),
        "discriminator": [str(folder / "discriminator.safetensors")],
    }


def _start(command: list[str], values: dict[str, Any], changes: dict[str, str] | None = None) -> subprocess.Popen[str]:
    given = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (changes or {})
    return subprocess.Popen(
        command + given, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(said[-2000:])


def _apart(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return how far two trained generators are from each other, as a share of how far training has brought one."""
    paths = (Path(first["generator"]), Path(second["generator"]), WEIGHTS / "generator.safetensors")
    one, two, source = (
        torch.cat([value.flatten().float() for value in load_weights(path, Generator).state_dict().values()])
        for path in paths
    )
    return float((one - two).norm() / (one - source).norm())


def leases(setting: Setting) -> list[Found]:
    """Let two jobs at once lease a device each, and see that no two hold the same one at a time."""
    program = (
        "import time; from pipeline_lib.runtime.devices import lease_device\n"
        "with lease_device() as name:\n"
        "    start = time.time(); time.sleep(1.5); print(name, start, time.time())"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    held = [job.communicate()[0].split() for job in jobs]
    together = float(held[0][1]) < float(held[1][2]) and float(held[1][1]) < float(held[0][2])
    shared = setting.full and held[0][0] == held[1][0] and together
    return [Found("devices held", f"{held[0][0]}, {held[1][0]}", "never one by two jobs at a time", not shared)]
