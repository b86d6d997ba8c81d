"""How long the trainings of a config would take on this machine, by the time of two steps of each on random images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from pipeline_lib.config import Config, GanTraining, Parts, SupervisedTraining, TrainedHere
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.training.detector import new_detector
from pipeline_lib.training.encoder import EncoderTask, new_encoder
from pipeline_lib.training.gan import GanTask
from pipeline_lib.training.generator import new_networks
from pipeline_lib.training.loop import Task
from pipeline_lib.training.supervised import SupervisedTask

MOST_AT_ONCE = 8  # images of a step on a CPU, where the time of an image hardly depends on the batch


def minutes_of_trainings(config: Config, device: torch.device) -> dict[str, float]:
    """Return the minutes that each training of a config takes if nothing else runs; trainings alike count as one entry.

    Networks have random weights, and no file of weights is read.
    """
    return {name: kimg * 1000 * seconds / 60 for name, kimg, seconds in _timed(config, device)}


def _timed(config: Config, device: torch.device) -> Iterator[tuple[str, float, float]]:
    """Yield the name of each training, its thousands of images, and the seconds for one image."""
    side = config.data.resolution
    images = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8)
    for name in ("selector", "referee"):
        network = getattr(config.detectors, name)
        if isinstance(network, TrainedHere):
            detector = new_detector(network.model_copy(update={"weights": None}), config.detectors)
            truth = torch.zeros(len(images), len(config.detectors.attributes))
            loss = F.binary_cross_entropy_with_logits
            task = SupervisedTask(
                detector,
                images,
                truth,
                lambda net, batch, wanted, loss=loss: loss(net.view_logits(batch), wanted),
                lambda batch, random: batch,
                _small(config.detectors.training, device),
                0,
                device,
                name,
            )
            yield f"the {name}", config.detectors.training.kimg, _seconds(task, [0, 1])
    if isinstance(config.parts, Parts) and config.rebalance.parts:
        segmenter = UNetSegmenter(config.part_names, config.parts.width)
        codes = torch.zeros(len(images), side, side, dtype=torch.uint8)
        task = SupervisedTask(
            segmenter,
            images,
            codes,
            lambda net, batch, wanted: F.cross_entropy(net.logits(batch), wanted.long()),
            lambda batch, random: batch,
            _small(config.parts.training, device),
            0,
            device,
            "segmenter",
        )
        yield "the segmenter", config.parts.training.kimg, _seconds(task, [0, 1])
    yield from _timed_gans(config, images, device)


def _timed_gans(config: Config, images: torch.Tensor, device: torch.device) -> Iterator[tuple[str, float, float]]:
    generator = config.generator
    if generator is not None and generator.training is not None:
        yield "the generator", generator.training.kimg, _seconds_of_gan(config, generator.training, images, device)
    if generator is not None and config.encoder is not None and config.encoder.training.kimg:
        training = _small(config.encoder.training, device)
        settings = config.encoder.model_copy(update={"training": training})
        network = new_networks(generator, images.shape[-1], 0)[0]
        distance = open_distance(training.distance, training.trunk)
        task = EncoderTask(new_encoder(network, settings, 0), network, distance, settings, 0, device)
        yield "the encoder", training.kimg, _seconds(task, [0, 1])
    if config.retrain is not None:
        number = len(config.gans)
        seconds = _seconds_of_gan(config, config.retrain.training, images, device)
        yield f"{number} GANs retrained", number * config.retrain.training.kimg, seconds


def _seconds_of_gan(config: Config, training: GanTraining, images: torch.Tensor, device: torch.device) -> float:
    """Return the seconds for an image at full resolution, with the gradient penalty in its share of the steps."""
    task = GanTask(
        *new_networks(config.generator, images.shape[-1], 0), images, _small(training, device), 0, device, ""
    )
    every = training.penalty_every
    with_penalty = (task.total_steps - 1) // every * every
    without = with_penalty - 1 if every > 1 else with_penalty
    return (_seconds(task, [without, with_penalty]) + (every - 1) * _seconds(task, [without])) / every


def _small(training: GanTraining | SupervisedTraining, device: torch.device):  # noqa: ANN202
    if device.type == "cuda":
        return training
    return training.model_copy(update={"batch": min(training.batch, MOST_AT_ONCE)})


def _seconds(task: Task, steps: Sequence[int]) -> float:
    """Return the seconds for an image of the last of some steps; those before it warm up."""
    for index in steps:
        start = time.perf_counter()
        loss = task.step(index)
        sum(float(value) for value in loss.values())  # waits for the device
    return (time.perf_counter() - start) / task.images_per_step
