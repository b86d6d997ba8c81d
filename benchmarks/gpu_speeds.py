"""Speeds on a GPU, each beside a slower way of doing the same in the same process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import bench
from benchmarks.gpu_sizes import Found, Setting
from pipeline_lib.config import GanTraining, SupervisedTraining
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.editing.donors import gather
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.imaging.transfer import upload
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.training.detector import DetectorTask
from pipeline_lib.training.gan import GanTask, Networks
from pipeline_lib.training.loop import Task
from pipeline_lib.training.segmenter import SegmenterTask

ROOT = Path(__file__).parents[1]
LEAST_INVERSIONS = {"ProGAN and ResNet-18": 12_000, "StyleGAN2 and ResNet-34": 2_500}  # images of 256 pixels a second
LEAST_OVER_LOOP = 40  # times the speed of one image at a time
LEAST_OF_DEVICE = 0.8  # of the speed of the composites alone, with disk
LEAST_ENCODER = 3  # times the speed of plain float32
LEAST_GAN = 5_200  # images of 64 pixels a second
LEAST_OVER_PRDC = 20  # times the speed of the package prdc at 10,000 images
#: Channels from 4 pixels on: tiny, of the shipped weights, and of published ones.
WIDTHS = {32: [16, 16, 8, 8], 64: [128, 128, 64, 48, 16], 256: [512, 512, 512, 512, 256, 128, 64]}


def inversion(setting: Setting) -> list[Found]:
    """Invert collages one at a time, in batches, in bfloat16, compiled, and with CUDA graphs."""
    pairs = bench._published_shapes(setting.device) if setting.full else {"64 px": _shipped(setting.device)}
    found = []
    for name, (encoder, generator, batch) in pairs.items():
        shape = name.partition("px, ")[2] or name
        rates = _inversion_rates(setting, encoder, generator, batch)
        found += _found(rates, f"inversion, {name}", "img/s", "one at a time")
        best = max(rates.values())
        if shape in LEAST_INVERSIONS:
            found.append(_required(setting, f"fastest, {name}", best, LEAST_INVERSIONS[shape]))
        if shape == "ProGAN and ResNet-18":
            found.append(_required(setting, "over one at a time", best / rates["one at a time"], LEAST_OVER_LOOP))
    return found


def _inversion_rates(setting: Setting, encoder: ResNetEncoder, generator: Generator, batch: int) -> dict[str, float]:
    side = generator.resolution
    images = torch.rand(batch, 3, side, side, device=setting.device) * 2 - 1
    known = torch.ones(batch, 1, side, side, device=setting.device)
    plain = Inverter(encoder, generator, setting.device, compile=False)
    fast = Inverter(encoder, generator, setting.device, "bfloat16", compile=False)
    few = setting.size(32, 2)
    small = setting.size(64, 4)

    def one_at_a_time() -> None:
        for image, mask in zip(images[:few].split(1), known[:few].split(1), strict=True):
            plain(image, mask)

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "one at a time": (few, one_at_a_time),
        "float32": (small, partial(plain, images[:small], known[:small])),
        "bfloat16": (batch, partial(fast, images, known)),
    }
    if setting.full:
        compiled = Inverter(encoder, generator, setting.device, "bfloat16", compile=True)
        ways["bfloat16, compiled"] = (batch, partial(compiled, images, known))
        ways["bfloat16, CUDA graph"] = (batch, _graphed(compiled, images, known))
    return bench.rates(*({name: way[place] for name, way in ways.items()} for place in (0, 1)))


def _graphed(inverter: Inverter, images: torch.Tensor, known: torch.Tensor) -> Callable[[], object]:
    """Return a replay of the inversion of these images as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            inverter(images, known)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        inverter(images, known)
    return graph.replay


def _shipped(device: torch.device) -> tuple[ResNetEncoder, Generator, int]:
    names = (bench.WEIGHTS / f"{name}.safetensors" for name in ("encoder", "generator"))
    encoder, generator = (bench.load_weights(path, device=device) for path in names)
    return encoder, generator, 4


def _found(rates: dict[str, float], name: str, unit: str, peer: str) -> list[Found]:
    return [
        Found(f"{name}, {way}", f"{rate:,.1f} {unit}", f"{rate / rates[peer]:.1f} times {peer}", None, rate)
        for way, rate in rates.items()
    ]


def swaps(setting: Setting) -> list[Found]:
    """16 candidates a face from shards on disk to results on disk, against the same composites alone, and its parts."""
    faces, candidates = setting.size(1024, 32), setting.size(16, 4)
    (row,) = bench.swaps(setting.device, setting.folder, faces, candidates)
    passed = row.ratio >= LEAST_OF_DEVICE if setting.full else None
    least = f"{LEAST_OF_DEVICE} of {row.peer_rate:,.1f}, composites alone"
    found = [Found("candidates, with disk", f"{row.rate:,.1f} faces/s", least, passed, row.rate)]
    return [*found, *_parts_of_swaps(setting, setting.size(256, 64), setting.size(256, 8), candidates)]


@torch.no_grad()
def _parts_of_swaps(setting: Setting, side: int, faces: int, candidates: int) -> list[Found]:
    """Gathering of donors, scoring of composites and writing of results, each by itself, at 256 pixels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (setting.size(8192, 64), side, side, 3), np.uint8)
    donors = random.integers(0, len(pixels), faces * candidates)
    kept = torch.from_numpy(pixels).to(setting.device) if setting.full else None
    images = torch.rand(candidates * min(faces, 16), 3, side, side, device=setting.device) * 2 - 1
    detector = _detector(setting).to(setting.device).eval()
    names = [f"x-{number}" for number in range(faces)]

    def score(rounded: bool) -> Tensor:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=rounded):
            return detector.logits(images)

    def write() -> None:
        with shard_writer(setting.folder / "written.parquet", side) as shard:
            shard.add(names, pixels[:faces])

    calls: dict[str, Callable[[], object]] = {
        "donors gathered on the CPU": lambda: upload(torch.from_numpy(gather(pixels, donors)), setting.device),
        "candidates scored, float32": partial(score, False),
        "candidates scored, bfloat16": partial(score, True),
        "results written": write,
    }
    if kept is not None:
        places = torch.from_numpy(donors)
        calls["donors gathered on the device"] = lambda: kept[places.to(setting.device)]
    amounts = {name: len(images) / candidates if "scored" in name else faces for name in calls}
    return [
        Found(f"{name}, {side} px", f"{rate:,.1f} faces/s", f"{candidates} candidates a face", None, rate)
        for name, rate in bench.rates(amounts, calls).items()
    ]


def training(setting: Setting) -> list[Found]:
    """Steps of the encoder and of the GAN at 64 and 256 pixels, against plain float32."""
    steps = setting.size(8, 1)
    (encoder,) = bench.encoder_step(setting.device, setting.folder, steps)
    found = [_told(encoder), _required(setting, "encoder training over float32", encoder.ratio, LEAST_ENCODER)]
    for side, batch in ((64, setting.size(128, 4)), (setting.size(256, 32), setting.size(32, 4))):
        calls = {}
        for name, way in {"plain float32": bench.plain, "as trained": contextlib.nullcontext}.items():
            with way():
                task = _gan(setting, side, batch)
            calls[name] = lambda task=task, way=way: bench.steps_of(task, steps, way())
        rates = bench.rates(dict.fromkeys(calls, batch * steps), calls)
        found += _found(rates, f"GAN training, {side} px", "img/s", "plain float32")
        if side == 64:
            found.append(_required(setting, "fastest GAN training, 64 px", max(rates.values()), LEAST_GAN))
    return found


def supervised(setting: Setting) -> list[Found]:
    """Steps of detector and segmenter, against float32."""
    side, batch, steps = setting.size(256, 32), setting.size(64, 4), setting.size(8, 1)
    images = torch.randint(0, 256, (2 * batch, 3, side, side), dtype=torch.uint8)
    parts = torch.randint(0, 2, (2 * batch, side, side), dtype=torch.uint8)
    settings = SupervisedTraining(kimg=100, batch=batch)
    kinds = {
        "detector": (DetectorTask, partial(_detector, setting), torch.ones(2 * batch, 2, 1)),
        "segmenter": (SegmenterTask, lambda: UNetSegmenter(["background", "mouth"], 24), parts),
    }
    found = []
    for name, (kind, make, targets) in kinds.items():
        tasks = {
            precision: kind(make(), images, targets, settings, 0, setting.device, name)
            for precision in ("float32", "as trained")
        }
        tasks["float32"].precision = "float32"
        calls = {way: partial(_steps, task, steps) for way, task in tasks.items()}
        rates = bench.rates(dict.fromkeys(calls, batch * steps), calls)
        found += _found(rates, f"{name} training, {side} px", "img/s", "float32")
    return found


def metrics(setting: Setting) -> list[Found]:
    """Density and coverage against prdc, the Fréchet distance against torch-fidelity, and both for more images."""
    rows = bench.quality_metrics(setting.device, setting.folder, setting.size(10_000, 300))
    (over,) = (row.ratio for row in rows if row.peer == "prdc")
    found = [*map(_told, rows), _required(setting, "over prdc", over, LEAST_OVER_PRDC)]
    count = setting.size(50_000, 400)
    real, fake = np.random.default_rng(0).normal(size=(2, count, setting.size(2048, 64))).astype(np.float32)
    calls = {
        "density and coverage": partial(density_and_coverage, real, fake, 5, setting.device),
        "Fréchet distance": partial(frechet_distance, real, fake),
    }
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        taken = time.perf_counter() - start
        found.append(Found(f"{name}, {count:,} images", f"{taken:.1f} s", "", None, taken))
    return found


def compiling(setting: Setting) -> list[Found]:
    """The first inversion of a job: with an empty cache of compiled programs, and with that of an earlier job."""
    program = (
        "import sys, time, torch; from benchmarks import bench; from pipeline_lib.networks.inversion import Inverter\n"
        "device = torch.device(sys.argv[1])\n"
        "names = [bench.WEIGHTS / f'{name}.safetensors' for name in ('encoder', 'generator')]\n"
        "images, known = torch.zeros(8, 3, 64, 64, device=device), torch.ones(8, 1, 64, 64, device=device)\n"
        "inverter = Inverter(*names, device)\n"
        "start = time.perf_counter(); inverter(images, known).sum().item(); print(time.perf_counter() - start)"
    )
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(setting.folder / "compiled")}
    found = []
    for state in ("empty", "filled"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(setting.device)],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds = float(done.stdout.split()[-1])
        found.append(Found(f"first inversion of a job, {state} cache", f"{seconds:.1f} s", number=seconds))
    return found


def _detector(setting: Setting) -> PlainClassifier:
    return PlainClassifier(["smiling"], setting.size(64, 8))


def _gan(setting: Setting, side: int, batch: int) -> GanTask:
    """Return a training of random weights on random images."""
    torch.manual_seed(0)
    generator, discriminator = StyleGAN2Generator(side, WIDTHS[side]), Discriminator(side, WIDTHS[side])
    images = torch.randint(0, 256, (2 * batch, 3, side, side), dtype=torch.uint8)
    training = GanTraining(kimg=100, batch=batch, penalty_every=16)
    return GanTask(Networks(generator, discriminator), images, training, 0, setting.device, "gpu")


def _steps(task: Task, count: int) -> None:
    for index in range(count):
        task.step(index)


def _required(setting: Setting, name: str, found: float, least: float) -> Found:
    """Return a row that fails below the least value at full size."""
    return Found(name, f"{found:,.1f}", f"at least {least:,}", found >= least if setting.full else None, found)


def _told(row: bench.Row) -> Found:
    return Found(row.name, f"{row.rate:,.1f} {row.unit}", f"{row.ratio:.2f} times {row.peer}", None, row.rate)
