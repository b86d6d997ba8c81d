"""How long the trainings of a config would take on this machine, by three steps of each on random images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.config import Config, GanTraining, Parts, TrainedHere
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.training.detector import DetectorTask, new_detector
from pipeline_lib.training.encoder import EncoderTask, new_encoder
from pipeline_lib.training.gan import GanTask
from pipeline_lib.training.generator import new_networks
from pipeline_lib.training.loop import Task
from pipeline_lib.training.segmenter import SegmenterTask

IMAGES = 64
MOST_AT_ONCE = 8  # images of a step on a CPU, where the time for an image hardly depends on the batch


def minutes_of_trainings(config: Config, device: torch.device) -> dict[str, float]:
    """Return the minutes that each training of a config takes if nothing else runs on this machine."""
    side = config.data.resolution
    images = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8)
    trainings = (*_supervised(config, images, device), *_adversarial(config, images, device))
    return {name: kimg * 1000 / 60 * _seconds(task, every) for name, kimg, task, every in trainings}


def _supervised(config: Config, images: Tensor, device: torch.device) -> Iterator[tuple[str, float, Task, int]]:
    """Yield name, thousands of images and task of each training of detectors and segmenter, whose steps are alike."""

    settings = config.detectors
    for name in ("selector", "referee"):
        if isinstance(network := getattr(settings, name), TrainedHere):
            targets = torch.ones(IMAGES, 2, len(settings.attributes))
            given = new_detector(network, settings, name), images, targets
            task = DetectorTask(*given, _small(settings.training, device), 0, device, "check")
            yield f"the {name}", settings.training.kimg, task, 1
    if isinstance(config.parts, Parts) and config.rebalance.parts:
        codes = torch.zeros(IMAGES, *images.shape[2:], dtype=torch.uint8)
        training = config.parts.training
        given = UNetSegmenter(config.part_names, config.parts.width), images, codes
        task = SegmenterTask(*given, _small(training, device), 0, device, "check")
        yield "the segmenter", training.kimg, task, 1


def _adversarial(config: Config, images: Tensor, device: torch.device) -> Iterator[tuple[str, float, Task, int]]:
    """Yield the trainings of GANs and encoder likewise, and the steps of which one has a gradient penalty."""
    if config.generator is None:
        return

    def gan(training: GanTraining) -> Task:
        networks = new_networks(config.generator, images.shape[-1], 0)
        return GanTask(networks, images, _small(training, device), 0, device, "check")

    if (training := config.generator.training) is not None:
        yield "the source GAN", training.kimg, gan(training), training.penalty_every
    if config.encoder is not None and (training := config.encoder.training).kimg:
        generator = new_networks(config.generator, images.shape[-1], 0).generator
        settings = config.encoder.model_copy(update={"training": _small(training, device)})
        distance = open_distance(training.distance)
        encoder = new_encoder(generator, settings, 0)
        yield "the encoder", training.kimg, EncoderTask(encoder, generator, distance, settings, 0, device), 1
    if config.retrain is not None:
        training, count = config.retrain.training, len(config.gans)
        yield f"{count} GANs retrained", count * training.kimg, gan(training), training.penalty_every


def _small(training: Any, device: torch.device) -> Any:
    """Return a training with small batches on a CPU."""
    batch = training.batch if device.type == "cuda" else min(training.batch, MOST_AT_ONCE)
    return training.model_copy(update={"batch": batch})


def _seconds(task: Task, every: int) -> float:
    """Return the mean seconds for an image late in a training, of whose steps one in `every` has a gradient penalty."""
    with_penalty = (task.total_steps - 1) // every * every
    without = max(0, with_penalty - 1) if every > 1 else with_penalty
    seconds = {}
    for index in (without, with_penalty, without):  # the first warms up
        start = time.perf_counter()
        sum(float(value.detach()) for value in task.step(index).values())  # waits for the device
        seconds[index] = time.perf_counter() - start
    return (seconds[with_penalty] + (every - 1) * seconds[without]) / every / task.images_per_step
