"""Training of the attribute detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import (
    BackboneNetwork,
    BoxRegion,
    Detectors,
    GivenNetwork,
    OnnxNetwork,
    PartRegion,
    TrainedHere,
)
from pipeline_lib.config.columns import column_of
from pipeline_lib.data.part_masks import PartMasks, parts_of
from pipeline_lib.data.shards import read_shards, resolution_of
from pipeline_lib.data.tables import is_for_calibration, read_table
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.backbone import BackboneClassifier
from pipeline_lib.networks.checkpoints import load_weights, origin_of, save_weights
from pipeline_lib.networks.classifier import (
    Detector,
    PlainClassifier,
    ResidualClassifier,
    one_value_of_each_column,
)
from pipeline_lib.networks.onnx_model import OnnxClassifier
from pipeline_lib.networks.transformers_model import TransformersClassifier
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.training.calibration import fit_temperatures
from pipeline_lib.training.loop import run
from pipeline_lib.training.measures import cell_accuracies, detector_report
from pipeline_lib.training.region_collages import RegionCollages, SwappedRegion
from pipeline_lib.training.supervised import SupervisedTask, distort

MOST_ALIKE = 0.999  # correlation of the logits of two detectors
MEASURED_ON = ("held_out", "held_out_labels", "other")  # parameters on which the training does not depend
NOT_LEARNT = {"least_cell_accuracy", "selector", "referee"}  # settings, likewise
BLUR, NOISE, COLOR = 1.5, 0.2, 0.2  # largest sigma in pixels, deviation of noise and shift of a channel in training
SEEDS_APART = 1000  # between a detector's seeds in two runs, so that none is that of the other detector
LEAST_IN_CELL = 20  # held-out images of a cell, with fewer of which its accuracy does not count


class Role(NamedTuple):
    """What the two detectors must not share: seed, half of the training images, and family of the network."""

    seed: int
    half: int
    kind: type[PlainClassifier] | type[ResidualClassifier]


ROLES = {"selector": Role(1, 0, PlainClassifier), "referee": Role(2, 1, ResidualClassifier)}


@stage(revision=3)
def train_detector(
    *,
    images: list[Path],
    labels: Path,
    held_out: list[Path],
    held_out_labels: Path,
    parts: list[Path],
    other: list[Path],
    network: TrainedHere | GivenNetwork,
    settings: Detectors,
    related: list[str],
    regions: dict[str, PartRegion | BoxRegion] | None,
    role: str,
    seed: int,
    checkpoints: Path,
    weights: Path,
    report: Path,
    device: torch.device,
) -> None:
    """Train, calibrate and evaluate one detector.

    Unless given, it is trained on one half of the training images (split by identity if known), weighted so that it
    does not learn the dataset's bias. It is calibrated on one half of the held-out images and evaluated on the other,
    by `is_for_calibration`. Unknown labels take part in none of this.

    Args:
        images: shards of the training set.
        labels: table of its labels.
        held_out: shards of the held-out set.
        held_out_labels: table of its labels.
        parts: table of the parts of the training set; empty without collages.
        other: weight file of the selector, which the referee must not be; empty if both are trained here.
        network: the network that is trained, or the file of one that is given.
        settings: the config section of both detectors.
        related: attributes of the targets and of their conditions, whose association is removed by the weights.
        regions: config section of the region that shows each edited attribute; None without collages.
        role: selector or referee.
        seed: random seed of the run.
        checkpoints: folder of resumable checkpoints.
        weights: weight file to write.
        report: JSON of accuracy, error counts and expected calibration error by attribute to write, and for related
            ones of the accuracy in every cell.
        device: where to train.

    Raises:
        ConfigError: collages are wanted without parts or regions.
        DataError: an attribute is missing or nowhere known, no image of this half has the part that collages need, the
            detector is right too seldom in a cell of the related attributes, or it is the other one.
    """
    if isinstance(network, GivenNetwork):
        detector, provenance = _given_detector(network, settings, resolution_of(held_out[0]))
    else:
        made_of = locals() | {"settings": settings.model_dump(exclude=NOT_LEARNT)}
        key = key_of(train_detector, made_of, without=(*MEASURED_ON, "checkpoints", "weights", "report", "device"))
        if settings.collages and not (parts and regions):
            raise ConfigError("train_detector: `detectors.collages` needs the table of parts and regions; give both")
        swapped = _Swapped(parts[0], regions) if settings.collages else None
        folder = checkpoints / f"train_{role}-{key}"
        detector = _trained_detector(images, labels, swapped, network, settings, related, role, seed, folder, device)
        provenance = {"key": key, "kimg": settings.training.kimg}
    detector = detector.to(device).requires_grad_(False).eval()

    test_names, test_pixels, test_truth, _ = _images_with_truth(held_out, held_out_labels, settings.attributes)
    calibrates = torch.from_numpy(is_for_calibration(test_names))
    for half in (test_truth[calibrates], test_truth[~calibrates]):
        _refuse_nowhere_known(half, settings.attributes, held_out_labels, "half of the held-out images")
    logits = _logits_of(detector, test_pixels, device)
    for path in other:
        refuse_same(logits, _logits_of(load_weights(path, Detector, device), test_pixels, device), settings.attributes)
    detector.temperature.copy_(fit_temperatures(logits[calibrates], test_truth[calibrates]))
    calibrated = one_value_of_each_column(logits[~calibrates] / detector.temperature.cpu(), settings.attributes)
    probabilities = calibrated.sigmoid().numpy()
    truth = test_truth[~calibrates].numpy()
    cells = cell_accuracies(probabilities, truth, settings.attributes, related)
    refuse_shortcuts(cells, settings.least_cell_accuracy, role)
    found = detector_report(probabilities, truth, settings.attributes)
    save_weights(weights, detector, {"role": role, **provenance})
    write_json(report, {name: figures | {"cells": cells.get(name, {})} for name, figures in found.items()})


def _logits_of(detector: Detector, pixels: Tensor, device: torch.device) -> Tensor:
    """Return the uncalibrated logits of images, float32 (n, attributes)."""
    batches = pixels.split(batch_for(pixels.shape[-1], 256))
    return torch.cat([detector.raw_logits(to_float(batch, device)).cpu() for batch in batches])


def refuse_same(referee: Tensor, selector: Tensor, attributes: Sequence[str]) -> None:
    """Refuse a referee that is the selector under another name or in another format.

    Two copies of one network differ by rounding alone: with weights rounded to 8 bits the correlation of their logits
    was over 0.9999, and that of the default run's two detectors is 0.96 to 0.98.

    Args:
        referee: logits of the same images, (n, attributes).
        selector: likewise.
        attributes: names of the columns.

    Raises:
        DataError: names the attribute and the correlation.
    """
    for column, attribute in enumerate(attributes):
        if min(len(logits[:, column].unique()) for logits in (referee, selector)) <= 2:
            continue  # answers without degrees, as two good networks can give alike
        alike = float(torch.corrcoef(torch.stack([referee[:, column], selector[:, column]]))[0, 1])
        if alike > MOST_ALIKE:
            raise DataError(
                f"detectors.referee: its logits of `{attribute}` have a correlation of {alike:.5f} with the "
                "selector's; it answers as that does, and would confirm what it chose, so give another network"
            )


def refuse_shortcuts(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], least: float, role: str) -> None:
    """Refuse a detector that is right in too few held-out images of a cell, as one is that tells smiles by the hair.

    Args:
        cells: {attribute: {cell: {"n", "accuracy"}}}; cells of fewer than `LEAST_IN_CELL` images do not count.
        least: accuracy required in each.
        role: name of the detector.

    Raises:
        DataError: names the attribute, the cell and the accuracy.
    """
    worst = min(
        (
            (found["accuracy"], attribute, cell, found["n"])
            for attribute, by_cell in cells.items()
            for cell, found in by_cell.items()
            if found["n"] >= LEAST_IN_CELL
        ),
        default=None,
    )
    if worst is not None and worst[0] < least:
        accuracy, attribute, cell, n = worst
        raise DataError(
            f"{role}: right about `{attribute}` in only {accuracy:.2f} of {n} held-out images with {cell}, less than "
            f"{least:g}; it seems to tell it by what goes with it in training, so no rate can be trusted; set "
            "`detectors.collages: 0.75`, add images of that kind, give a detector, or lower "
            "`detectors.least_cell_accuracy`"
        )


class _Swapped(NamedTuple):
    """What collages for training are made of."""

    parts: Path
    regions: dict[str, PartRegion | BoxRegion]


class _DetectorTask(SupervisedTask):
    """Trains a detector on images, of which a share are collages; targets are truth and weights (n, 2, attributes)."""

    collages: RegionCollages | None = None

    def examples(self, chosen: Tensor, index: int) -> tuple[Tensor, Tensor]:
        if self.collages is None:
            return super().examples(chosen, index)
        random = seeding.torch_generator(self.seed, self.name, "collages", index)
        images, truth, weights = self.collages(chosen, self.targets[chosen, 1], random)
        return images, torch.stack([truth, weights], dim=1)


def _given_detector(network: GivenNetwork, settings: Detectors, resolution: int) -> tuple[Detector, dict[str, Any]]:
    attributes, mirror = settings.attributes, settings.mirror
    if isinstance(network, OnnxNetwork):
        columns = [network.columns[name] for name in attributes]
        options = network.model_dump(include={"side", "mean", "std", "gives"})
        detector = OnnxClassifier.from_file(network.path, attributes, columns, resolution, **options, mirror=mirror)
    else:
        classes = [network.classes[name] for name in attributes]
        detector = TransformersClassifier.from_folder(network.path, attributes, classes, mirror)
    return detector, origin_of(network.path)


def _trained_detector(
    images: list[Path],
    labels: Path,
    swapped: _Swapped | None,
    network: TrainedHere,
    settings: Detectors,
    related: list[str],
    role: str,
    seed: int,
    folder: Path,
    device: torch.device,
) -> Detector:
    names, pixels, targets, numbers = _images_with_truth(images, labels, settings.attributes)
    own = torch.nonzero(numbers % 2 == ROLES[role].half).flatten()
    _refuse_nowhere_known(targets[own], settings.attributes, labels, f"the {role}'s half of the training images")
    balance = torch.zeros_like(targets)
    columns = [settings.attributes.index(name) for name in related]
    balance[own] = independence_weights(targets[own], columns, settings.attributes)
    own_seed = ROLES[role].seed + SEEDS_APART * seed
    torch.manual_seed(seeding.derive(own_seed, role, "weights"))
    detector = new_detector(network, settings, role)
    task = _DetectorTask(
        detector,
        pixels,
        torch.stack([targets, balance], dim=1),
        _weighted_loss,
        lambda batch, random: _vary(batch, random, settings),
        settings.training,
        own_seed,
        device,
        f"train_{role}",
        own,
    )
    if swapped is not None:
        regions = [
            SwappedRegion(
                region,
                _packed_masks(swapped.parts, region, names, pixels.shape[-1]),
                settings.attributes.index(attribute),
            )
            for attribute, region in swapped.regions.items()
        ]
        task.collages = RegionCollages(pixels, targets, regions, own, columns, settings.collages)
        if not task.collages.have_donors:
            raise DataError(
                f"{swapped.parts}: no labelled image has the part that is swapped; set `detectors.collages: 0`"
            )
    run(task, folder)
    return detector


def _packed_masks(parts: Path, region: PartRegion | BoxRegion, names: list[str], side: int) -> Tensor:
    """Return the masks of the region's parts, as packed bits, uint8 (n, bytes); empty where an image has none."""
    masks = PartMasks(parts, parts_of(region), side)
    return torch.from_numpy(masks.packed[masks.rows(names)])


def new_detector(network: TrainedHere, settings: Detectors, role: str) -> Detector:
    """Return a detector before it is trained here."""
    if isinstance(network, BackboneNetwork):
        detector = BackboneClassifier(settings.attributes, network.library, network.name, settings.mirror)
        if network.weights is not None:
            detector.load_pretrained(network.weights)
        return detector
    return ROLES[role].kind(settings.attributes, network.width, settings.mirror)


def _vary(images: Tensor, random: torch.Generator, settings: Detectors) -> Tensor:
    if settings.mirror:
        mirrored = torch.rand(len(images), 1, 1, 1, generator=random).to(images.device) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    return distort(images, random, blur=BLUR, noise=NOISE, color=COLOR)


def _weighted_loss(detector: torch.nn.Module, images: Tensor, truth_and_weights: Tensor) -> Tensor:
    truth, weights = truth_and_weights.unbind(dim=1)
    weights = weights.masked_fill(truth.isnan(), 0)
    return F.binary_cross_entropy_with_logits(detector.view_logits(images), truth.nan_to_num(), weights)


def independence_weights(truth: Tensor, related: list[int], attributes: Sequence[str]) -> Tensor:
    """Weight images so that attributes are independent of each other (reweighing of Kamiran and Calders 2012).

    Trained on a biased dataset, a detector that is unsure about a mouth decides by the hair. With the weights
    P(attribute) P(others) / P(attribute, others) the two are independent in the training set.

    Args:
        truth: attributes, 0 or 1, NaN where unknown, (n, attributes).
        related: columns to make independent of each other and of all other columns.
        attributes: names of the columns; those of values of one column of the label table, such as `race=Black` and
            `race=White`, exclude each other, and are not made independent of each other.

    Returns:
        A weight for each image and column, (n, attributes); 1 on average if every combination occurs. It is 0 where the
        column is unknown, or one that it is to be independent of, since nothing could be made independent there.
    """
    weights = torch.zeros_like(truth)
    for column in range(truth.shape[1]):
        apart = [other for other in related if column_of(attributes[other]) != column_of(attributes[column])]
        columns = [column, *apart]
        known = ~truth[:, columns].isnan().any(dim=1)
        attribute, *rest = truth[known][:, columns].long().T
        others = sum((values << place for place, values in enumerate(rest)), 0 * attribute)
        weights[known, column] = _share(attribute) * _share(others) / _share(2 * others + attribute)
    return weights


def _share(kind: Tensor) -> Tensor:
    """Return, for each element of the int64 (n,) `kind`, the share of elements that equal it."""
    return torch.bincount(kind)[kind] / len(kind)


def _refuse_nowhere_known(truth: Tensor, attributes: Sequence[str], labels: Path, where: str) -> None:
    for attribute, known in zip(attributes, (~truth.isnan()).any(dim=0), strict=True):
        if not known:
            raise DataError(
                f"{labels}: `{attribute}` is unknown in all of {where}; label some, or remove it from "
                "`detectors.attributes`"
            )


def _images_with_truth(
    images: list[Path], labels: Path, attributes: list[str]
) -> tuple[list[str], Tensor, Tensor, Tensor]:
    """Return names, pixels, ground truth and a number for each person; an image of an unknown person has its own.

    The truth is 0 or 1, and NaN where it is unknown.
    """
    names, pixels = read_shards(images)
    table = read_table(labels, "labels").set_index("image_id")
    missing = [attribute for attribute in attributes if attribute not in table.columns]
    if missing:
        raise DataError(f"{labels}: no column {', '.join(missing)}; it has {', '.join(table.columns[1:])}")
    table = table.loc[names]
    truth = torch.tensor(table[attributes].to_numpy(np.float32))
    people = table["person"].fillna(table.index.to_series()) if "person" in table else table.index
    numbers = torch.from_numpy(pd.factorize(people)[0])
    return names, torch.from_numpy(pixels).permute(0, 3, 1, 2), truth, numbers
