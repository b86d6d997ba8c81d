"""Training of the detectors on attributes and of the segmenter on part masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from pipeline_lib.config import (
    BackboneNetwork,
    Detectors,
    GivenNetwork,
    GivenParts,
    OnnxNetwork,
    OnnxParts,
    Parts,
    PartsBackend,
    SaliencyParts,
    SupervisedTraining,
    TrainedHere,
)
from pipeline_lib.data.shards import read_shards, resolution_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.networks.backbone import BackboneClassifier
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.classifier import Detector, PlainClassifier, ResidualClassifier
from pipeline_lib.networks.onnx_model import OnnxClassifier, OnnxSegmenter
from pipeline_lib.networks.segmenter import Segmenter, UNetSegmenter
from pipeline_lib.networks.transformers_model import TransformersClassifier, TransformersSegmenter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files, write_json
from pipeline_lib.training.batches import batch_positions, to_float
from pipeline_lib.training.gan import gaussian_blur
from pipeline_lib.training.loop import run


class SupervisedTask:
    """Trains a network on images and targets by a given loss, with AdamW and a cosine learning rate.

    Args:
        network: trained in place.
        images: uint8 (n, 3, H, W), on the CPU.
        targets: (n, ...), on the CPU.
        loss: of (network, images in [-1, 1], targets).
        distort: applied to the images of a step, with that step's random generator.
        settings: the config section.
        seed: every draw of step i depends on (seed, name, i) alone.
        device: where to train.
        name: of the stage.
        positions: of the images that it learns from; None for all.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        images: Tensor,
        targets: Tensor,
        loss: Any,
        distort: Any,
        settings: SupervisedTraining,
        seed: int,
        device: torch.device,
        name: str,
        positions: Tensor | None = None,
    ):
        self.name, self.seed, self.device = name, seed, device
        self.positions = torch.arange(len(images)) if positions is None else positions
        self.network = network.to(device).train()
        self.images, self.targets = images, targets
        self.settings = settings
        self.images_per_step = settings.batch
        self.total_steps = max(1, round(settings.kimg * 1000 / settings.batch))
        self._loss, self._distort = loss, distort
        self._optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=1e-3, fused=True)

    def step(self, index: int) -> dict[str, Tensor]:
        for group in self._optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * index / self.total_steps))
        places = batch_positions(index, self.settings.batch, len(self.positions), self.seed, self.name)
        chosen = self.positions[places]
        random = seeding.torch_generator(self.seed, self.name, index)
        images = self._distort(to_float(self.images[chosen], self.device), random)
        loss = self._loss(self.network, images, self.targets[chosen].to(self.device))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return {"loss": loss}

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        return None

    def snapshot(self, path: Path) -> None:
        """Write nothing: a classifier has no picture to show."""

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])


def distort(images: Tensor, random: torch.Generator, *, blur: float, noise: float, color: float) -> Tensor:
    """Vary images (n, 3, H, W) as generated ones vary: blurred, resampled, noisy, off in colour.

    Half of the batches are blurred by up to `blur` pixels and a quarter are shrunk and enlarged again; each image
    gets noise of up to `noise` standard deviation and a shift of up to `color` in each channel.
    """
    count = len(images)
    level = torch.rand(count, 1, 1, 1, generator=random).to(images) * noise
    shift = (torch.rand(count, 3, 1, 1, generator=random).to(images) * 2 - 1) * color
    choice, amount = torch.rand(2, generator=random).tolist()
    if choice < 0.5:
        images = gaussian_blur(images, max(0.2, amount * blur))
    elif choice < 0.75:
        side = round(images.shape[-1] * (0.6 + 0.4 * amount))
        small = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        images = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return images + shift + level * torch.randn(images.shape, generator=random).to(images)


def train_detector(
    *,
    images: list[Path],
    labels: Path,
    held_out: list[Path],
    held_out_labels: Path,
    network: TrainedHere | GivenNetwork,
    settings: Detectors,
    related: list[str],
    judge: str,
    checkpoints: Path,
    weights: Path,
    report: Path,
    device: torch.device,
) -> None:
    """Train, calibrate and measure one detector.

    It learns from one half of the training images (of the people, where they are known), weighted so that the
    dataset's bias tells it nothing, or is given; is calibrated on the held-out images at even positions and measured
    on those at odd positions.

    Args:
        images: shards of the training set.
        labels: its table of true attributes.
        held_out: shards of the held-out set.
        held_out_labels: its table of true attributes.
        network: architecture, seed and half of this detector, or its file.
        settings: the config section of both.
        related: attributes of the targets and of their conditions, whose association is weighted away.
        judge: "selector" or "referee".
        checkpoints: folder of resumable states.
        weights: weight file to make.
        report: JSON to make: accuracy, error counts and expected calibration error by attribute.
        device: where to train.
    """
    if isinstance(network, GivenNetwork):
        detector, provenance = _given_detector(network, settings, resolution_of(held_out[0]))
    else:
        detector, provenance = _trained_detector(images, labels, network, settings, related, judge, checkpoints, device)
    detector = detector.to(device).requires_grad_(False).eval()

    test_pixels, test_truth, _ = _images_with_truth(held_out, held_out_labels, settings.attributes)
    logits = torch.cat([detector.raw_logits(to_float(batch, device)).cpu() for batch in test_pixels.split(256)])
    detector.temperature.copy_(fit_temperatures(logits[::2], test_truth[::2]))
    probabilities = (logits[1::2] / detector.temperature.cpu()).sigmoid()
    save_weights(weights, detector, {"judge": judge, **provenance})
    write_json(report, detector_report(probabilities.numpy(), test_truth[1::2].numpy() > 0.5, settings.attributes))


def _given_detector(network: GivenNetwork, settings: Detectors, resolution: int) -> tuple[Detector, dict[str, Any]]:
    attributes, mirror = settings.attributes, settings.mirror
    if isinstance(network, OnnxNetwork):
        columns = [network.columns[name] for name in attributes]
        options = network.model_dump(include={"side", "mean", "std", "gives"})
        detector = OnnxClassifier.from_file(network.path, attributes, columns, resolution, **options, mirror=mirror)
    else:
        classes = [network.classes[name] for name in attributes]
        detector = TransformersClassifier.from_folder(network.path, attributes, classes, mirror)
    return detector, _origin(network.path)


def _origin(path: Path) -> dict[str, Any]:
    """Return what is kept of a model that somebody else trained: its name and digest."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return {"imported_from": path.name, "source_digest": digest_of_files(*files)}


def _trained_detector(
    images: list[Path],
    labels: Path,
    network: TrainedHere,
    settings: Detectors,
    related: list[str],
    judge: str,
    checkpoints: Path,
    device: torch.device,
) -> tuple[Detector, dict[str, Any]]:
    pixels, targets, numbers = _images_with_truth(images, labels, settings.attributes)
    own = torch.nonzero(numbers % 2 == network.half).flatten()
    balance = torch.zeros_like(targets)
    balance[own] = independence_weights(targets[own], [settings.attributes.index(name) for name in related])
    torch.manual_seed(seeding.derive(network.seed, judge, "weights"))
    detector = _new_detector(network, settings)
    task = SupervisedTask(
        detector,
        pixels,
        torch.stack([targets, balance], dim=1),
        _weighted_loss,
        lambda batch, random: _vary(batch, random, settings),
        settings.training,
        network.seed,
        device,
        f"train_{judge}",
        own,
    )
    key = digest_of([settings.model_dump(mode="json"), related, judge, digest_of_files(*images, labels)])
    run(task, checkpoints / f"{task.name}-{key}")
    return detector, {"key": key, "kimg": settings.training.kimg}


def _new_detector(network: TrainedHere, settings: Detectors) -> Detector:
    if isinstance(network, BackboneNetwork):
        detector = BackboneClassifier(settings.attributes, network.library, network.name, settings.mirror)
        if network.weights is not None:
            detector.load_pretrained(network.weights)
        return detector
    kind = PlainClassifier if network.architecture == "plain" else ResidualClassifier
    return kind(settings.attributes, network.width, settings.mirror)


def _vary(images: Tensor, random: torch.Generator, settings: Detectors) -> Tensor:
    if settings.mirror:
        mirrored = torch.rand(len(images), 1, 1, 1, generator=random).to(images.device) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    return distort(images, random, blur=settings.blur, noise=settings.noise, color=settings.color)


def _weighted_loss(detector: torch.nn.Module, images: Tensor, truth_and_weights: Tensor) -> Tensor:
    truth, weights = truth_and_weights.unbind(dim=1)
    return F.binary_cross_entropy_with_logits(detector.view_logits(images), truth, weights)


def independence_weights(truth: Tensor, related: list[int]) -> Tensor:
    """Weigh images so that an attribute says nothing of the others (reweighing of Kamiran and Calders 2012).

    Trained on smiling women and serious men, a detector that is unsure of a mouth goes by the hair. Under weights
    P(attribute) P(others) / P(attribute, others) the two are independent in the training set.

    Args:
        truth: attributes, 0 or 1, (n, attributes).
        related: columns whose association with each other and with any column is to vanish.

    Returns:
        A weight for each image and column, (n, attributes); 1 on average where every combination occurs.
    """
    weights = torch.empty_like(truth)
    for column in range(truth.shape[1]):
        attribute = truth[:, column].long()
        others = sum(
            (truth[:, other].long() << place for place, other in enumerate(related) if other != column), 0 * attribute
        )
        weights[:, column] = _share(attribute) * _share(others) / _share(2 * others + attribute)
    return weights


def _share(kind: Tensor) -> Tensor:
    """Return, for each element of the int64 (n,) `kind`, the share of elements that equal it."""
    return torch.bincount(kind)[kind] / len(kind)


def fit_temperatures(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the temperature of each column that minimises the log loss of logits / temperature (Guo et al. 2017)."""
    temperatures = []
    for column in range(logits.shape[1]):

        def loss(log_temperature: float, column: int = column) -> float:
            scaled = logits[:, column] / math.exp(log_temperature)
            return float(F.binary_cross_entropy_with_logits(scaled, truth[:, column]))

        temperatures.append(math.exp(minimize_scalar(loss, bounds=(-1.5, 3.0), method="bounded").x))
    return torch.tensor(temperatures)


def detector_report(probabilities: np.ndarray, truth: np.ndarray, attributes: list[str]) -> dict[str, Any]:
    """Measure a detector: probabilities and truth are (n, attributes); returns figures by attribute."""
    report = {}
    for column, attribute in enumerate(attributes):
        probability, true = probabilities[:, column], truth[:, column]
        said = probability > 0.5
        report[attribute] = {
            "n": len(true),
            "accuracy": float((said == true).mean()),
            "positives": int(true.sum()),
            "true_positives": int((said & true).sum()),
            "negatives": int((~true).sum()),
            "false_positives": int((said & ~true).sum()),
            "calibration_error": expected_calibration_error(probability, true),
        }
    return report


def expected_calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Return the mean distance of confidence and frequency over equal-width bins, weighted by their counts."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for bin_number in range(bins):
        inside = which == bin_number
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    return float(error)


def train_segmenter(
    *,
    images: list[Path],
    masks: Path,
    held_out: list[Path],
    held_out_masks: Path,
    part_names: list[str],
    settings: PartsBackend,
    seed: int,
    checkpoints: Path,
    weights: Path,
    report: Path,
    device: torch.device,
) -> None:
    """Train the segmenter on true part masks, or take the given one, and measure its overlap on held-out images.

    Args:
        images: shards of the training set.
        masks: its table of part codes.
        held_out: shards of the held-out set.
        held_out_masks: its table of part codes.
        part_names: names of the codes; empty where the dataset has no masks, and a given segmenter goes unmeasured.
        settings: the config section.
        seed: of the run.
        checkpoints: folder of resumable states.
        weights: weight file to make.
        report: JSON to make: intersection over union by part and their mean.
        device: where to train.
    """
    if isinstance(settings, Parts):
        segmenter, provenance = _trained_segmenter(images, masks, part_names, settings, seed, checkpoints, device)
    else:
        segmenter, provenance = _given_segmenter(settings, resolution_of(held_out[0]))
    segmenter = segmenter.to(device).requires_grad_(False).eval()
    save_weights(weights, segmenter, provenance)
    if not part_names:
        write_json(report, {"n": 0, "intersection_over_union": {}, "mean": None})
        return
    test_pixels, test_codes = _images_with_masks(held_out, held_out_masks)
    found = torch.cat([segmenter(to_float(batch, device)).cpu() for batch in test_pixels.split(128)])
    write_json(report, intersection_over_union(found.numpy(), segmenter.parts, test_codes.numpy(), part_names))


def _given_segmenter(settings: GivenParts, resolution: int) -> tuple[Segmenter, dict[str, Any]]:
    if isinstance(settings, OnnxParts | SaliencyParts):
        groups = settings.groups if isinstance(settings, OnnxParts) else None
        options = settings.model_dump(include={"threshold", "side", "mean", "std"})
        segmenter = OnnxSegmenter.from_file(settings.path, groups, resolution, **options)
    else:
        segmenter = TransformersSegmenter.from_folder(settings.path, settings.groups)
    return segmenter, _origin(settings.path)


def _trained_segmenter(
    images: list[Path],
    masks: Path,
    part_names: list[str],
    settings: Parts,
    seed: int,
    checkpoints: Path,
    device: torch.device,
) -> tuple[Segmenter, dict[str, Any]]:
    pixels, codes = _images_with_masks(images, masks)
    torch.manual_seed(seeding.derive(seed, "segmenter", "weights"))
    segmenter = UNetSegmenter(part_names, settings.width)
    weight = part_weights(codes, len(part_names))
    task = SupervisedTask(
        segmenter,
        pixels,
        codes,
        lambda net, batch, truth: F.cross_entropy(net.logits(batch), truth.long(), weight.to(batch.device)),
        lambda batch, random: distort(batch, random, blur=0.7, noise=0.1, color=0.2),
        settings.training,
        seed,
        device,
        "train_segmenter",
    )
    key = digest_of([settings.model_dump(mode="json"), seed, digest_of_files(*images, masks)])
    run(task, checkpoints / f"{task.name}-{key}")
    return segmenter, {"key": key, "kimg": settings.training.kimg}


def part_weights(codes: Tensor, parts: int) -> Tensor:
    """Return a loss weight for each part: the inverse square root of its share of all pixels, 1 on average.

    Brows and eyes are a hundredth of the skin; unweighted, a short training never finds them.
    """
    share = torch.bincount(codes.flatten(), minlength=parts).float() / codes.numel()
    weight = share.clamp(min=1e-4).rsqrt()
    return weight / weight.mean()


def intersection_over_union(
    found: np.ndarray, found_names: list[str], truth: np.ndarray, true_names: list[str]
) -> dict[str, Any]:
    """Measure the parts that both know, by name, in part codes (n, H, W); one that is in neither has no figure.

    The background, which is what no part is, counts only where both know the same parts.
    """
    shared = [name for name in found_names if name in true_names]
    if set(found_names) != set(true_names):
        shared.remove("background")
    by_part = {}
    for name in shared:
        here, there = found == found_names.index(name), truth == true_names.index(name)
        union = int((here | there).sum())
        if union:
            by_part[name] = float((here & there).sum() / union)
    mean = float(np.mean(list(by_part.values()))) if by_part else None
    return {"n": len(truth), "intersection_over_union": by_part, "mean": mean}


def _images_with_truth(images: list[Path], labels: Path, attributes: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels, truth, and the number of the person shown, or of the image where nobody knows who it is."""
    names, pixels = read_shards(images)
    table = read_table(labels, "labels").set_index("image_id")
    missing = [attribute for attribute in attributes if attribute not in table.columns]
    if missing:
        raise DataError(f"{labels}: no column {', '.join(missing)}; it has {', '.join(table.columns[1:])}")
    table = table.loc[names]
    truth = torch.tensor(table[attributes].to_numpy(np.float32))
    numbers = torch.tensor(table["person"].to_numpy()) if "person" in table else torch.arange(len(table))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), truth, numbers


def _images_with_masks(images: list[Path], masks: Path) -> tuple[Tensor, Tensor]:
    names, pixels = read_shards(images)
    table = read_table(masks, "masks").set_index("image_id")
    side = pixels.shape[1]
    codes = np.stack([np.frombuffer(table.at[name, "codes"], np.uint8).reshape(side, side) for name in names])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(codes)
