"""Speeds on a GPU, each beside a slower way of doing the same in the same process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from benchmarks import bench
from benchmarks.gpu_sizes import Found, Setting
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.inversion import Inverter

LEAST_INVERSIONS = {"ProGAN and ResNet-18": 12_000, "StyleGAN2 and ResNet-34": 2_500}  # images of 256 pixels a second
LEAST_OVER_LOOP = 40  # times the speed of one image at a time
LEAST_OF_DEVICE = 0.8  # of the speed of the composites alone, with disk


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
            least = LEAST_INVERSIONS[shape]
            found.append(Found(f"fastest, {name}", f"{best:,.0f} img/s", f"at least {least:,}", best >= least, best))
        if shape == "ProGAN and ResNet-18":
            over = best / rates["one at a time"]
            found.append(
                Found("over one at a time", f"{over:.1f}", f"at least {LEAST_OVER_LOOP}", over >= LEAST_OVER_LOOP)
            )
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
    rates = {}
    for name, (count, call) in ways.items():
        (row,) = bench.compare(name, "img/s", count, call, itself=call)
        rates[name] = row.rate
    return rates


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
    """16 candidates a face from shards on disk to results on disk, against the same composites alone."""
    (row,) = bench.swaps(setting.device, setting.folder, setting.size(1024, 32), setting.size(16, 4))
    passed = row.ratio >= LEAST_OF_DEVICE if setting.full else None
    least = f"{LEAST_OF_DEVICE} of {row.peer_rate:,.1f}, composites alone"
    return [Found("candidates, with disk", f"{row.rate:,.1f} faces/s", least, passed, row.rate)]


def training(setting: Setting) -> list[Found]:
    """A step of encoder and GAN, against plain float32."""
    steps = setting.size(8, 1)
    rows = [row for run in (bench.encoder_step, bench.gan_step) for row in run(setting.device, setting.folder, steps)]
    return [_told(row) for row in rows]


def metrics(setting: Setting) -> list[Found]:
    """Density and coverage against prdc, and the Fréchet distance against torch-fidelity."""
    return [_told(row) for row in bench.quality_metrics(setting.device, setting.folder, setting.size(10_000, 300))]


def _told(row: bench.Row) -> Found:
    return Found(row.name, f"{row.rate:,.1f} {row.unit}", f"{row.ratio:.2f} times {row.peer}", None, row.rate)
