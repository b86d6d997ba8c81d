"""Peak memory and time of each stage as a function of the dataset size, by `python -m benchmarks.scale 20000 200000`.

The cost model, seconds = start + images x (microseconds per image), is fitted to the first and the last size.

The images are synthetic (32 pixels, noise around one of two colours), and the networks are tiny and untrained. The
stages are those of the workflow, each in a separate process, whose reported memory is at least that of this parent
process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.files import write_json

SIDE, SHARDS, EDITS = 32, 8, 1000
ATTRIBUTES = ["smiling", "long_hair"]


def write_dataset(folder: Path, count: int) -> None:
    """Write `count` images in the layout of a Hugging Face dataset, and a few held-out images."""
    random = np.random.default_rng(0)
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary())])), *((name, pa.bool_()) for name in ATTRIBUTES)])
    for split, size in (("train", count), ("test", 64)):
        with pq.ParquetWriter(folder / f"{split}-00000-of-00001.parquet", schema) as writer:
            for start in range(0, size, 1000):
                labels = random.random((min(1000, size - start), 2)) < 0.5
                images = [{"bytes": _encode(random, held)} for held in labels]
                columns = [images, *labels.T.tolist()]
                writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))


def _encode(random: np.random.Generator, held: np.ndarray) -> bytes:
    color = np.array([200, 60, 60]) if held[0] else np.array([60, 60, 200])
    pixels = (color + random.integers(-50, 50, (SIDE, SIDE, 3))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_networks(folder: Path) -> None:
    """Write a generator, its encoder and a selector."""
    torch.manual_seed(0)
    generator = StyleGAN2Generator(SIDE, [16] * 4, style_dim=16, mapping_layers=1, noise=False)
    networks = {
        "generator": generator,
        "encoder": ResNetEncoder(generator.latent_shape, width=16, small=True),
        "selector": PlainClassifier(ATTRIBUTES, 8),
    }
    for name, network in networks.items():
        save_weights(folder / f"{name}.safetensors", network.eval(), {})
    write_json(folder / "encoder.json", {"inversion": {"precision": "float32", "device": "cpu"}})


def stages(folder: Path, count: int) -> dict[str, dict[str, object]]:
    """Return the arguments of each stage, in the order of the stages."""

    def shards(name: str) -> list[str]:
        return [str(folder / f"{name}/{number}.parquet") for number in range(SHARDS)]

    def file(name: str) -> str:
        return str(folder / name)

    box = {"kind": "box", "shows": None}
    where = [{"long_hair": value} for value in (True, False)]
    rebalance = {
        "targets": [
            {"where": where[0], "attribute": "smiling", "rate": 0.5 + min(EDITS / count, 0.25)},
            {"where": where[1], "attribute": "smiling", "rate": 0.5},
        ],
        "edit": {"region": box},
    }
    named = {"run": "scale", "seed": 0, "name": "dataset"}
    return {
        "prepare_dataset": {
            "settings": {
                "reader": "huggingface",
                "folder": file("raw"),
                "attributes": ATTRIBUTES,
                "resolution": SIDE,
            },
            "run": "scale",
            "images": shards("dataset"),
            "labels": file("labels.parquet"),
            "masks": file("masks.parquet"),
            "held_out": shards("held_out"),
            "held_out_labels": file("held_out_labels.parquet"),
            "held_out_masks": file("held_out_masks.parquet"),
            "quarantine": file("quarantine.parquet"),
            "notes": file("notes.parquet"),
        },
        "extract_parts": {
            "images": shards("dataset"),
            "weights": [],
            "box": box,
            "run": "scale",
            "parts": file("parts.parquet"),
        },
        "score_attributes": {
            "images": shards("dataset"),
            "sets": ["dataset"],
            "weights": file("selector.safetensors"),
            "run": "scale",
            "scores": [file("scores.parquet")],
        },
        "plan_edits": {
            "table": file("labels.parquet"),
            "kind": "labels",
            "editable": file("parts.parquet"),
            "audit": [],
            "settings": rebalance,
            "learnt": True,
            **named,
            "plan": file("plan.parquet"),
            "summary": file("plan.json"),
        },
        "swap_parts": {
            "images": shards("dataset"),
            "parts": file("parts.parquet"),
            "plan": file("plan.parquet"),
            "table": file("labels.parquet"),
            "kind": "labels",
            **{name: [file(f"{name}.safetensors")] for name in ("encoder", "generator")},
            "selector": file("selector.safetensors"),
            "precision": [file("encoder.json")],
            "model": [],
            "settings": rebalance,
            "shards": 1,
            **named,
            "shard": 0,
            "candidates": file("candidates.parquet"),
            "composites": file("composites.parquet"),
        },
        "assemble_rebalanced": {
            "images": shards("dataset"),
            "composites": [file("composites.parquet")],
            "plan": file("plan.parquet"),
            "truth": [file("labels.parquet")],
            "settings": rebalance,
            "run": "scale",
            "rebalanced": shards("rebalanced"),
            "labels": file("rebalanced.parquet"),
        },
    }


def measure(count: int) -> dict[str, dict[str, float]]:
    """Return seconds and peak memory, in MB, of each stage on a set of `count` images."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("raw", "dataset", "held_out", "rebalanced"):
            (folder / name).mkdir()
        write_dataset(folder / "raw", count)
        write_networks(folder)
        for name, values in stages(folder, count).items():
            start = time.perf_counter()
            megabytes = run_stage(name, values)
            found[name] = {"seconds": time.perf_counter() - start, "megabytes": megabytes}
    return found


def run_stage(name: str, values: dict[str, object]) -> float:
    """Run a stage in a process of its own; returns its peak memory in MB."""
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    process = subprocess.Popen([sys.executable, "-m", "pipeline_lib", "tools", "stage", name, *given])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed; see above")
    return usage.ru_maxrss / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and write the same values as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[20_000, 200_000], metavar="IMAGES")
    parser.add_argument("--output", type=Path, default=Path("scale.json"))
    options = parser.parse_args(arguments)
    found = {count: measure(count) for count in options.counts}
    sizes = [f"{unit}, {count:,} images" for count in options.counts for unit in ("s", "MB")]
    table = Table("stage", *sizes, "start, s", "us per image")
    for name in next(iter(found.values())):
        cells = [found[count][name] for count in options.counts]
        measured = [text for cell in cells for text in (f"{cell['seconds']:.1f}", f"{cell['megabytes']:.0f}")]
        first, last = cells[0]["seconds"], cells[-1]["seconds"]
        slope = (last - first) / max(1, options.counts[-1] - options.counts[0])
        table.add_row(name, *measured, f"{first - slope * options.counts[0]:.1f}", f"{1e6 * slope:.0f}")
    Console(width=120).print(table)
    options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
