"""Benchmarks of every documented speed against a named baseline in the same process, run by `make bench`.

Each row is a speedup over the baseline on this machine. Both are timed in turns, and the median over the rounds is
reported, so that load on the machine affects both.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from benchmarks.made_run import VALUES, make_run
from experiments.accept import minutes_at_work
from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import EncoderTraining, GanTraining, Rebalance, load_config
from pipeline_lib.data.shards import iterate_shards, shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.editor import open_editor
from pipeline_lib.editing.editors.latent_regression import LatentRegressionEditor
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.editing.swap import faces_at_a_time, swap, swap_parts
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import Detector, PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.inversion import LEAST_PSNR, Inverter, probe_precision
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.release.formats import FORMATS
from pipeline_lib.runtime.devices import lease_device, tune_cpu
from pipeline_lib.runtime.files import write_json
from pipeline_lib.training.encoder import EncoderTask
from pipeline_lib.training.gan import GanTask, Networks

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "resources/avatars-64"
ROUNDS = 3


@dataclass
class Row:
    """One measurement: the `rate` of this project's code and that of a baseline, in the same unit."""

    name: str
    unit: str
    rate: float
    peer: str
    peer_rate: float

    @property
    def ratio(self) -> float:
        return self.rate / self.peer_rate


def rates(amounts: Mapping[str, float], calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Time calls in turns, after one warmup round; returns the units a second of each, by its amount of units."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: amounts[name] / statistics.median(taken) for name, taken in seconds.items()}


def compare(name: str, unit: str, amount: float, run: Callable[[], object], **peers: Callable[[], object]) -> list[Row]:
    """Time `run` and each baseline in turns; a round processes `amount` units."""
    calls = {"": run, **peers}
    found = rates(dict.fromkeys(calls, amount), calls)
    return [Row(name, unit, found[""], peer.replace("_", " "), found[peer]) for peer in peers]


def inversion(device: torch.device, folder: Path) -> list[Row]:
    """(a) Inversion of collages in batches, in the faster precision, against float32 and against single images."""
    names = WEIGHTS / "encoder.safetensors", WEIGHTS / "generator.safetensors"
    pairs = {"64 px": (load_weights(names[0], device=device), load_weights(names[1], Generator, device), 128)}
    if device.type == "cuda":
        pairs |= _published_shapes(device)
    rows = []
    for name, (encoder, generator, batch) in pairs.items():
        side = generator.resolution
        images = torch.rand(batch, 3, side, side, device=device) * 2 - 1
        known = torch.ones(batch, 1, side, side, device=device)
        found = probe_precision(encoder, generator, images, known, device)
        fast = Inverter(encoder, generator, device, found["precision"])
        plain = Inverter(encoder, generator, device, compile=False)
        few = slice(0, min(batch, 64))

        def one_by_one(plain: Inverter = plain, images: Tensor = images[few], known: Tensor = known[few]) -> None:
            for image, mask in zip(images.split(1), known.split(1), strict=True):
                plain(image, mask)

        title = f"inversion, {name}, {found['precision']}"
        rows += compare(title, "img/s", batch, partial(fast, images, known), float32=partial(plain, images, known))
        (loop,) = compare(title, "img/s", few.stop, partial(fast, images[few], known[few]), one_at_a_time=one_by_one)
        rows.append(Row(title, "img/s", rows[-1].rate, loop.peer, loop.peer_rate))
        rows.append(Row(f"PSNR of bfloat16, {name}", "dB", found["psnr"], "required", LEAST_PSNR))
    return rows


def _published_shapes(device: torch.device) -> dict[str, tuple[ResNetEncoder, Generator, int]]:
    """Return networks of 256 pixels in the shapes that the paper's authors published, with random weights."""
    widths = [512, 512, 512, 256, 128, 64, 32]
    progan = ProGANGenerator(256, widths, heads=[256])
    style = StyleGAN2Generator(256, [512, 512, 512, 512, 256, 128, 64])
    pairs = {
        "256 px, ProGAN and ResNet-18": (ResNetEncoder(progan.latent_shape, mask_offset=0.5), progan, 256),
        "256 px, StyleGAN2 and ResNet-34": (ResNetEncoder(style.latent_shape, depth=34), style, 128),
    }
    frozen = {name: (*(network.to(device).eval() for network in pair[:2]), pair[2]) for name, pair in pairs.items()}
    return {name: (encoder, generator, batch) for name, (encoder, generator, batch) in frozen.items()}


def swaps(device: torch.device, folder: Path, faces: int | None = None, candidates: int = 16) -> list[Row]:
    """(b) The whole stage, including disk, against the same composites of images that are already on the device."""
    faces = faces or (64 if device.type == "cpu" else 1024)
    settings = load_config(ROOT / "config/config.yaml").rebalance
    edit = settings.edit.model_copy(update={"candidates": candidates, "pool": None, "donors": "any"})  # as in the paper
    settings = settings.model_copy(update={"edit": edit})
    paths = _edited_set(device, folder, faces, settings)
    networks = {name: WEIGHTS / f"{name}.safetensors" for name in ("encoder", "generator")}
    image_set = ImageSet([paths["images"]], paths["parts"], ["mouth"])
    given = {name: [path] for name, path in {**networks, "precision": paths["precision"]}.items()}
    editor = open_editor(edit, **given, device=device)
    detector = load_weights(paths["selector"], PlainClassifier, device)
    at_once = faces_at_a_time(device, candidates, 64)
    batches = [
        (
            image_set.look(positions),
            image_set.look(np.concatenate([image_set.donors(p, candidates, 0, "x") for p in positions])),
        )
        for positions in np.split(np.arange(faces), max(1, faces // at_once))
    ]

    def stage() -> None:
        swap_parts(
            **{key: paths[key] for key in ("parts", "plan", "selector")},
            **given,
            table=paths["plan"],  # read only for donors with the attribute
            kind="plan",
            model=[],
            images=[paths["images"]],
            settings=settings,
            shards=1,
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
            detector.logits(swap(contexts, donors, edit, editor, device).finished)

    return compare("16 candidates per face, including disk", "faces/s", faces, stage, composites_alone=device_only)


def fidelity(device: torch.device, folder: Path) -> list[Row]:
    """(a) The effect of bfloat16 on the choice among 16 candidates, on the samples of a finished default run."""
    results = ROOT / "results" / load_config(ROOT / "config/config.yaml").run
    if not (results / "models/selector.safetensors").exists():
        print(f"{results.name}: not run yet, so there is no selector for measuring choices; run `make demo`")
        return []
    settings = load_config(ROOT / "config/config.yaml").rebalance
    image_set = ImageSet(sorted((results / "images/samples").iterdir()), results / "parts/samples.parquet", ["mouth"])
    detector = load_weights(results / "models/selector.safetensors", Detector, device)
    column, count = detector.index(settings.targets[0].attribute), settings.edit.candidates
    networks = WEIGHTS / "encoder.safetensors", WEIGHTS / "generator.safetensors"
    editors = {
        precision: LatentRegressionEditor(Inverter(*networks, device, precision))
        for precision in ("float32", "bfloat16")
    }
    exact, rounded = [], []
    with torch.no_grad():
        for positions in np.split(np.arange(1000), 125):
            donors = np.concatenate([image_set.donors(position, count, 0, "samples") for position in positions])
            for precision, logits in (("float32", exact), ("bfloat16", rounded)):
                done = swap(
                    image_set.look(positions), image_set.look(donors), settings.edit, editors[precision], device
                )
                logits.append(detector.logits(done.finished)[:, column].view(-1, count).cpu())
    exact, rounded = torch.cat(exact), torch.cat(rounded)
    best = rounded.argmax(dim=1, keepdim=True)
    taken = exact.gather(1, best).squeeze(1)
    near = (exact.amax(dim=1) - taken <= 0.1).double().mean()
    same = ((rounded.amax(dim=1) > 0) == (exact.amax(dim=1) > 0)).double().mean()
    return [
        Row("bfloat16 chooses within 0.1 of the best logit", "share", float(near), "required", 0.995),
        Row("same success in bfloat16 as in float32", "share", float(same), "required", 0.999),
    ]


def _edited_set(device: torch.device, folder: Path, faces: int, settings: Rebalance) -> dict[str, Path]:
    """Write samples with a mouth in each, a plan that edits them all, a selector and the result of a probe."""
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
    networks = (load_weights(WEIGHTS / f"{name}.safetensors", device=device) for name in ("encoder", "generator"))
    sample = torch.rand(64, 3, 64, 64, device=device) * 2 - 1
    paths["precision"] = folder / "encoder.json"
    write_json(paths["precision"], {"inversion": probe_precision(*networks, sample, None, device)})
    paths["selector"] = folder / "selector.safetensors"
    save_weights(paths["selector"], PlainClassifier([attribute, *settings.targets[0].where], 24), {})
    return paths


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Compute in float32 and without compiled networks."""
    with mock.patch.dict(os.environ, LATENT_REBALANCE_PRECISION="float32"), torch.compiler.set_stance("force_eager"):
        yield


def steps_of(task: GanTask | EncoderTask, count: int, how: contextlib.AbstractContextManager[None]) -> None:
    """Take the first steps of a training."""
    with how:
        for index in range(count):
            task.step(index)


def encoder_step(device: torch.device, folder: Path, steps: int = 8) -> list[Row]:
    """(c) A training step of the encoder with the settings for this device, against plain float32."""
    tasks, training = {}, EncoderTraining(kimg=100, batch=16 if device.type == "cpu" else 128)
    for way in (contextlib.nullcontext, plain):
        encoder = load_weights(WEIGHTS / "encoder.safetensors").requires_grad_(True)
        generator = load_weights(WEIGHTS / "generator.safetensors", Generator)
        perceptual = load_perceptual("alex")
        with way():
            tasks[way] = EncoderTask(encoder, generator, perceptual, EncoderSection(training=training), 0, device)
    return compare(
        "encoder training, 64 px",
        "img/s",
        training.batch * steps,
        lambda: steps_of(tasks[contextlib.nullcontext], steps, contextlib.nullcontext()),
        plain_float32=lambda: steps_of(tasks[plain], steps, plain()),
    )


def gan_step(device: torch.device, folder: Path, steps: int = 16) -> list[Row]:
    """(d) GAN training with the settings of the default run, against plain float32 and a penalty at every step."""
    images = torch.randint(0, 256, (256, 3, 64, 64), dtype=torch.uint8)
    choices = {"": (contextlib.nullcontext, 16), "plain_float32": (plain, 16)}
    choices["plain_float32_penalty_at_every_step"] = (plain, 1)
    batch, calls = 16 if device.type == "cpu" else 128, {}
    for name, (way, every) in choices.items():
        generator = load_weights(WEIGHTS / "generator.safetensors", Generator).requires_grad_(True)
        discriminator = load_weights(WEIGHTS / "discriminator.safetensors", Discriminator).requires_grad_(True)
        with way():
            training = GanTraining(kimg=100, batch=batch, penalty_every=every)
            task = GanTask(Networks(generator, discriminator), images, training, 0, device, "bench")
        calls[name] = lambda task=task, way=way: steps_of(task, steps, way())
    return compare("GAN training, 64 px", "img/s", batch * steps, calls.pop(""), **calls)


def quality_metrics(device: torch.device, folder: Path, count: int = 10_000) -> list[Row]:
    """(e) Density and coverage against the package prdc, their memory, and Fréchet distance against torch-fidelity."""
    import prdc

    random = np.random.default_rng(0)
    real, fake = random.normal(size=(2, count, 256)).astype(np.float32)
    found = {}

    def peer() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the number of images
            found["prdc"] = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)

    def ours() -> None:
        found["here"] = density_and_coverage(real, fake, 5, device)

    rows = compare(f"density and coverage, {count:,} images", "img/s", count, ours, prdc=peer)
    off = max(abs(found["prdc"][name] - getattr(found["here"], name)) for name in ("density", "coverage"))
    rows.append(Row("agreement with prdc", "1/difference", 1 / max(off, 1e-12), "2/N allowed", count / 2))

    def theirs() -> None:
        of_real, of_fake = (fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (real, fake))
        fid_statistics_to_metric(of_real, of_fake, verbose=False)

    rows += compare("Frechet distance", "img/s", count, lambda: frechet_distance(real, fake), torch_fidelity=theirs)
    return [*rows, _memory_of_density(5 * count)]


def _memory_of_density(count: int) -> Row:
    """Measure the peak memory of density and coverage in a separate process."""
    program = (
        "import resource, numpy as np; from pipeline_lib.evaluation.prdc import density_and_coverage as measure; "
        f"a, b = np.random.default_rng(0).normal(size=(2, {count}, 64)).astype(np.float32); measure(a, b); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    gigabytes = int(done.stdout) / 2**20
    return Row(f"density and coverage, {count:,} images", "1/GB", 1 / gigabytes, "4 GB allowed", 1 / 4)


def storage(device: torch.device, folder: Path, count: int = 1024) -> list[Row]:
    """(f) Lossless image shards against one PNG file per image."""
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
    return [*rows, Row("images in a GB", "img", count / size * 1e9, "one PNG per file", count / files * 1e9)]


def exports(device: torch.device, folder: Path, count: int = 5_000, many: int = 200_000) -> list[Row]:
    """(h) Exports of avatars against 20 seconds for 5,000, and the memory that many images take beyond that."""
    generator = load_weights(WEIGHTS / "generator.safetensors", Generator)
    pixels = _as_pixels(torch.cat([generator.decode(generator.sample_latents(range(s, s + 64), 0)) for s in (0, 64)]))
    rows, peaks = [], {}
    for number in (count, many):
        run = folder / f"run-{number}"
        names = [f"avatar-{place:08d}" for place in range(number)]
        values = VALUES | {"data": VALUES["data"] | {"resolution": 64}}
        make_run(run, names, ["other-0", "other-1"], pixels, values, edited=range(0, number, 3))
        for form in FORMATS if number == count else ("webdataset",):
            seconds, peaks[number] = _export_alone(run, folder / f"{form}-{number}", form)
            if number == count:
                rows.append(Row(f"export as {form}", "img/s", count / seconds, "5,000 in 20 s", 5_000 / 20))
    more = max(1.0, peaks[many] - peaks[count])
    return [*rows, Row(f"memory of {many:,} images beyond {count:,}", "1/MB", 1 / more, "100 MB allowed", 1 / 100)]


def _export_alone(run: Path, out: Path, form: str) -> tuple[float, float]:
    """Export in a process of its own; returns the seconds, without its start, and the peak memory in MB."""
    program = (
        "import re, sys, time; from pathlib import Path; from pipeline_lib.release.export import export; "
        "start = time.perf_counter(); export(Path(sys.argv[1]), 'dataset_rebalanced', Path(sys.argv[2]), sys.argv[3]); "
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]; "  # of this program alone
        "print(time.perf_counter() - start, int(peak) / 1024)"
    )
    command = [sys.executable, "-c", program, str(run), str(out), form]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    shutil.rmtree(out)
    return seconds, megabytes


def _as_pixels(decoded: Tensor) -> np.ndarray:
    return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def planning(device: torch.device, folder: Path) -> list[Row]:
    """(g) A dry run of 1,000 shards against the limit of ten seconds, and the overhead of the workflow."""
    values = load_config(ROOT / "config/config.yaml").model_dump(mode="json") | {"run": "bench-of-the-dry-run"}
    values["jobs"] = 1000
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--quiet", "--configfile", str(folder / "config.yaml")],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    rows = [Row("dry run of 1,000 shards", "shards/s", 1000 / (time.perf_counter() - start), "10 seconds", 100)]
    return [*rows, *_overhead(ROOT / "results" / load_config(ROOT / "config/config.yaml").run)]


def _overhead(results: Path) -> list[Row]:
    """Compare the time of an uninterrupted default run with that in which at least one stage was running."""
    logs = [path.read_text().splitlines() for path in sorted((results / "logs").rglob("*.log"))]
    if not logs:
        print(f"{results.name}: not run yet, so the overhead of the workflow is not measured; run `make demo`")
        return []
    moments = [datetime.fromisoformat(line[:23].replace(",", ".")) for lines in logs for line in (lines[0], lines[-1])]
    whole = (max(moments) - min(moments)).total_seconds() / 60
    at_work = minutes_at_work(results / "logs")
    return [Row("the default run, with the workflow", "runs/h", 60 / whole, "times with a job running", 60 / at_work)]


SETS = {
    "inversion": inversion,
    "swaps": swaps,
    "fidelity": fidelity,
    "encoder": encoder_step,
    "gan": gan_step,
    "metrics": quality_metrics,
    "storage": storage,
    "exports": exports,
    "planning": planning,
}


def measure(chosen: list[str]) -> Iterator[Row]:
    """Run the chosen benchmarks one after another, on a leased GPU if there is one."""
    with lease_device() as name, tempfile.TemporaryDirectory() as scratch:
        tune_cpu(os.cpu_count() or 1)
        for number, kind in enumerate(chosen):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            yield from SETS[kind](torch.device(name), folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and write the same values as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; default: all")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args(arguments)
    unknown = set(options.sets) - set(SETS)
    if unknown:
        parser.error(f"no set {', '.join(sorted(unknown))}; there are {', '.join(SETS)}")
    table = Table("measurement", "unit", "result", "baseline", "baseline's result", "ratio")
    rows = []
    for row in measure(options.sets or list(SETS)):
        rows.append(asdict(row) | {"ratio": row.ratio})
        table.add_row(row.name, row.unit, f"{row.rate:,.1f}", row.peer, f"{row.peer_rate:,.1f}", f"{row.ratio:.2f}")
    Console(width=120).print(table)
    machine = {"processor": platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}
    options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
