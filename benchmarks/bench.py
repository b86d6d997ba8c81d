"""Every speed that is claimed, measured against a named peer in the same process: `make bench`.

Each row is a ratio: how many times faster than the peer, on this machine, in this minute. Both take turns,
and the median of the rounds counts, so that a slow moment hits both.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import EncoderTraining, GanTraining, Rebalance, load_config
from pipeline_lib.data.shards import iterate_shards, shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.inversion import Inverter
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.editing.swap import ImageSet, swap, swap_parts
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.devices import lease_device, tune_cpu
from pipeline_lib.training.encoder import EncoderTask
from pipeline_lib.training.gan import GanTask

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "resources/avatars-64"
ROUNDS = 3


@dataclass
class Row:
    """One figure: `rate` of what is claimed, and of the peer that it is compared with, in the same unit."""

    name: str
    unit: str
    rate: float
    peer: str
    peer_rate: float

    @property
    def ratio(self) -> float:
        return self.rate / self.peer_rate


def compare(name: str, unit: str, amount: float, run: Callable[[], object], **peers: Callable[[], object]) -> list[Row]:
    """Time `run` and each peer in turns after one round that does not count; `amount` units are done in a round."""
    calls = {"": run, **peers}
    seconds: dict[str, list[float]] = {peer: [] for peer in calls}
    for number in range(ROUNDS + 1):
        for peer, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[peer].append(time.perf_counter() - start)
    rates = {peer: amount / statistics.median(taken) for peer, taken in seconds.items()}
    return [Row(name, unit, rates[""], peer.replace("_", " "), rates[peer]) for peer in peers]


def inversion(device: torch.device, folder: Path) -> list[Row]:
    """(a) Collage to composite, in batches, against one image at a time."""
    inverter = Inverter(WEIGHTS / "encoder.safetensors", WEIGHTS / "generator.safetensors", device)
    images = torch.rand(128, 3, 64, 64, device=device) * 2 - 1
    known = torch.ones(128, 1, 64, 64, device=device)

    def one_by_one() -> None:
        for image, mask in zip(images.split(1), known.split(1), strict=True):
            inverter(image, mask)

    return compare("inversion, 64 px", "img/s", 128, lambda: inverter(images, known), loop_over_images=one_by_one)


def swaps(device: torch.device, folder: Path) -> list[Row]:
    """(b) The whole stage, disk included, against the same composites of images that are in memory already."""
    faces, candidates = 64, 16
    settings = load_config(ROOT / "config/config.yaml").rebalance.model_copy(
        update={"candidates": candidates, "shards": 1}
    )
    paths = _edited_set(folder, faces, settings)
    image_set = ImageSet([paths["images"]], paths["parts"], "mouth")
    inverter = Inverter(WEIGHTS / "encoder.safetensors", WEIGHTS / "generator.safetensors", device)
    detector = load_weights(paths["selector"], PlainClassifier, device)
    batches = [
        (positions.repeat(candidates), np.concatenate([image_set.donors(p, candidates, 0, "x") for p in positions]))
        for positions in np.split(np.arange(faces), faces // 8)
    ]

    def stage() -> None:
        swap_parts(
            **{key: paths[key] for key in ("parts", "plan", "selector")},
            images=[paths["images"]],
            encoder=WEIGHTS / "encoder.safetensors",
            generator=WEIGHTS / "generator.safetensors",
            settings=settings,
            run="bench",
            seed=0,
            name="x",
            shard=0,
            candidates=folder / "candidates.parquet",
            composites=folder / "composites.parquet",
            device=device,
        )

    @torch.no_grad()
    def device_only() -> None:
        for contexts, donors in batches:
            detector.logits(swap(image_set, contexts, donors, settings.region, inverter, device).composite)

    return compare("16 candidates a face, disk included", "faces/s", faces, stage, composites_alone=device_only)


def _edited_set(folder: Path, faces: int, settings: Rebalance) -> dict[str, Path]:
    """Write a set of samples, a mouth in each, a plan that changes them all, and a selector."""
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
    attribute = settings.targets[0].attribute
    plan = {"image_id": names, "position": range(faces), "target": 0, "attribute": attribute, "wanted": True}
    write_table(paths["plan"], "plan", pd.DataFrame(plan))
    paths["selector"] = folder / "selector.safetensors"
    save_weights(paths["selector"], PlainClassifier([attribute, *settings.targets[0].where], 24), {})
    return paths


def encoder_step(device: torch.device, folder: Path) -> list[Row]:
    """(c) A training step of the encoder in bfloat16 against float32."""
    tasks = {}
    for precision in ("bfloat16", "float32"):
        training = EncoderTraining(kimg=100, precision=precision)
        encoder = load_weights(WEIGHTS / "encoder.safetensors").requires_grad_(True)
        generator = load_weights(WEIGHTS / "generator.safetensors", Generator)
        perceptual = load_perceptual("alex")
        tasks[precision] = EncoderTask(encoder, generator, perceptual, EncoderSection(training=training), 0, device)
    steps = 8
    return compare(
        "encoder training, 64 px",
        "img/s",
        16 * steps,
        lambda: [tasks["bfloat16"].step(index) for index in range(steps)],
        float32_step=lambda: [tasks["float32"].step(index) for index in range(steps)],
    )


def gan_step(device: torch.device, folder: Path) -> list[Row]:
    """(d) Training of the GAN with the penalty at every 16th step, as the default run has it, against every step."""
    images = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8)
    tasks = {}
    for every in (16, 1):
        generator = load_weights(WEIGHTS / "generator.safetensors", Generator).requires_grad_(True)
        discriminator = load_weights(WEIGHTS / "discriminator.safetensors", Discriminator).requires_grad_(True)
        training = GanTraining(kimg=100, penalty_every=every, warmup_steps=0)
        tasks[every] = GanTask(generator, discriminator, images, training, 0, device, "bench")
    steps = 16
    return compare(
        "GAN training, 64 px",
        "img/s",
        16 * steps,
        lambda: [tasks[16].step(index) for index in range(steps)],
        penalty_at_every_step=lambda: [tasks[1].step(index) for index in range(steps)],
    )


def quality_metrics(device: torch.device, folder: Path) -> list[Row]:
    """(e) Density and coverage against the package prdc."""
    import prdc

    count = 4000
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(2, count, 64)).astype(np.float32)

    def peer() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the number of images
            prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)

    return compare(
        f"density and coverage, {count:,} images",
        "img/s",
        count,
        lambda: density_and_coverage(real, fake, 5, device),
        prdc=peer,
    )


def storage(device: torch.device, folder: Path) -> list[Row]:
    """(f) Image shards, lossless, against one PNG file an image."""
    count = 1024
    generator = load_weights(WEIGHTS / "generator.safetensors", Generator)
    decoded = torch.cat([generator.decode(generator.sample_latents(range(s, s + 64), 0)) for s in range(0, count, 64)])
    pixels = _as_pixels(decoded)
    names = [f"x-{number:06d}" for number in range(count)]
    shard, pngs = folder / "storage.parquet", folder / "pngs"
    pngs.mkdir()

    def write_shard() -> None:
        with shard_writer(shard, 64) as writer:
            writer.add(names, pixels)

    def write_pngs() -> None:
        for name, image in zip(names, pixels, strict=True):
            Image.fromarray(image).save(pngs / f"{name}.png")

    rows = compare("writing images", "img/s", count, write_shard, one_PNG_a_file=write_pngs)
    rows += compare(
        "reading images",
        "img/s",
        count,
        lambda: [images.sum() for _, images in iterate_shards([shard])],
        one_PNG_a_file=lambda: [np.asarray(Image.open(path)).sum() for path in sorted(pngs.iterdir())],
    )
    files, size = sum(path.stat().st_size for path in pngs.iterdir()), shard.stat().st_size
    return [*rows, Row("images in a GB", "img", count / size * 1e9, "one PNG a file", count / files * 1e9)]


def _as_pixels(decoded: Tensor) -> np.ndarray:
    return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def planning(device: torch.device, folder: Path) -> list[Row]:
    """(g) A dry run of 1,000 shards, against the ten seconds that are allowed."""
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {"run": "bench-of-the-dry-run"}
    values["rebalance"]["shards"] = 1000
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--quiet", "--configfile", str(folder / "config.yaml")],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [Row("dry run of 1,000 shards", "shards/s", 1000 / (time.perf_counter() - start), "10 seconds", 100)]


SETS = {
    "inversion": inversion,
    "swaps": swaps,
    "encoder": encoder_step,
    "gan": gan_step,
    "metrics": quality_metrics,
    "storage": storage,
    "planning": planning,
}


def measure(chosen: list[str]) -> Iterator[Row]:
    """Run the chosen sets one after another, on a leased GPU where there is one."""
    with lease_device() as name, tempfile.TemporaryDirectory() as scratch:
        tune_cpu(os.cpu_count() or 1)
        for number, kind in enumerate(chosen):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            yield from SETS[kind](torch.device(name), folder)


def main() -> None:
    """Print a table and write the same figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; default: all")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    unknown = set(options.sets) - set(SETS)
    if unknown:
        parser.error(f"no set {', '.join(sorted(unknown))}; there are {', '.join(SETS)}")
    table = Table("figure", "unit", "here", "peer", "peer's", "ratio")
    rows = []
    for row in measure(options.sets or list(SETS)):
        rows.append(asdict(row) | {"ratio": row.ratio})
        table.add_row(row.name, row.unit, f"{row.rate:,.1f}", row.peer, f"{row.peer_rate:,.1f}", f"{row.ratio:.2f}")
    Console(width=120).print(table)
    machine = {"processor": platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}
    options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
