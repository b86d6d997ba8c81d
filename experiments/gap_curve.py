"""The group gaps of the retrained GAN and of the control GAN as a function of the length of training.

    python -m experiments.gap_curve config/config.yaml --kimg 16 --points 8

needs a finished run of that config. Choose `retrain.training.kimg` so that the retrained GAN's gap has decreased and
the control's has not.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from pipeline_lib.config import GanTraining, RateRule, load_config
from pipeline_lib.data.shards import read_shards, shards_in
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.runtime.devices import lease_device, tune_cpu
from pipeline_lib.training.gan import GanTask, Networks

SAMPLES, BATCH = 1000, 50


def main() -> None:
    """Print a row for each point, with kimg and the gap of each training by the referee."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--kimg", type=float, default=16)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    config = load_config(options.config)
    if config.retrain is None:
        parser.error(f"{options.config}: `retrain` is null, so no GAN is retrained; choose another config")
    results = Path("results") / config.run
    training = GanTraining.model_validate({**config.retrain.training.model_dump(), "kimg": options.kimg})
    with lease_device() as name:
        tune_cpu(options.threads)
        device = torch.device(name)
        referee = load_weights(results / "models" / "referee.safetensors", Detector, device)
        tasks = {
            role: _task(results, images, training, config.seed, device)
            for role, images in (("retrained", "dataset_rebalanced"), ("control", "dataset"))
        }
        targets, steps = config.rebalance.targets, next(iter(tasks.values())).total_steps
        print("kimg", *tasks, sep="\t")
        for point in range(options.points + 1):
            first, last = steps * max(0, point - 1) // options.points, steps * point // options.points
            for task in tasks.values():
                for index in range(first, last):
                    task.step(index)
            gaps = [f"{_gap(task.average, referee, targets, config.seed):+.3f}" for task in tasks.values()]
            print(f"{last * training.batch / 1000:.1f}", *gaps, sep="\t", flush=True)


def _task(results: Path, images: str, training: GanTraining, seed: int, device: torch.device) -> GanTask:
    pixels = read_shards(shards_in(results / "images" / images))[1]
    source = results / "models" / "source"
    generator = load_weights(source / "generator.safetensors", Generator).requires_grad_(True)
    discriminator = load_weights(source / "discriminator.safetensors", Discriminator).requires_grad_(True)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return GanTask(Networks(generator, discriminator), tensor, training, seed, device, "retrain_generator")


@torch.no_grad()
def _gap(generator: Generator, referee: Detector, targets: list[RateRule], seed: int) -> float:
    chunks = [range(start, start + BATCH) for start in range(0, SAMPLES, BATCH)]
    holds = torch.cat([referee(generator.decode(generator.sample_latents(chunk, seed))) > 0.5 for chunk in chunks])
    rates = []
    for target in targets[:2]:
        inside = torch.ones(SAMPLES, dtype=torch.bool, device=holds.device)
        for attribute, value in target.where.items():
            inside &= holds[:, referee.index(attribute)] == value
        rates.append(float(holds[inside, referee.index(target.attribute)].float().mean()))
    return rates[0] - rates[1]


if __name__ == "__main__":
    main()
