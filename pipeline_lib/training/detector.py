"""Training of the attribute detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from pipeline_lib.training.supervised import SupervisedTask, Written, distort

MOST_ALIKE = 0.999  # correlation of the logits of two detectors
NOT_LEARNT = {"least_cell_accuracy", "selector", "referee"}  # settings on which the training does not depend
BLUR, NOISE, COLOR = 1.5, 0.2, 0.2  # largest sigma in pixels, deviation of noise and shift of a channel in training
SEEDS_APART = 1000  # between a detector's seeds in two runs, so that none is that of the other detector
LEAST_IN_CELL = 20  # held-out images of a cell, with fewer of which its accuracy does not count


class Role(NamedTuple):
    """What the two detectors must not share: seed, half of the training images, and family of the network."""

    seed: int
    half: int
    kind: type[PlainClassifier] | type[ResidualClassifier]


ROLES = {"selector": Role(1, 0, PlainClassifier), "referee": Role(2, 1, ResidualClassifier)}


@dataclass(frozen=True)
class Known:
    """What a detector is trained on."""

    images: list[Path]  # shards of the training set
    labels: Path
    parts: Path | None  # table of its parts; None without collages


@dataclass(frozen=True)
class HeldOut:
    """What a detector is calibrated and evaluated on."""

    held_out: list[Path]  # shards
    held_out_labels: Path
    other: Path | None  # weight file of the selector, which the referee must not be; None if both are trained here


@dataclass(frozen=True)
class Learning:
    """How a detector is made."""

    role: str  # selector or referee
    network: TrainedHere | GivenNetwork  # the one that is trained, or the file of one that is given
    settings: Detectors  # config section of both
    related: list[str]  # attributes of the targets and of their conditions, whose association the weights remove
    regions: dict[str, PartRegion | BoxRegion] | None  # that show each edited attribute; None without collages
    seed: int


@stage(revision=3)
def train_detector(*, known: Known, held_out: HeldOut, learning: Learning, made: Written, device: torch.device) -> None:
    """Train, calibrate and evaluate one detector.

    Unless given, it is trained on one half of the training images (split by identity if known), weighted so that it
    does not learn the dataset's bias. It is calibrated on one half of the held-out images and evaluated on the other,
    by `is_for_calibration`. Unknown labels take part in none of this.

    The report has accuracy, error counts and expected calibration error by attribute, and for related ones the accuracy
    in every cell.

    Raises:
        ConfigError: collages are wanted without parts or regions.
        DataError: an attribute is missing or nowhere known, no image of this half has the part that collages need, the
            detector is right too seldom in a cell of the related attributes, or it is the other one.
    """
    settings, role = learning.settings, learning.role
    if isinstance(learning.network, GivenNetwork):
        detector, provenance = _given_detector(learning.network, settings, resolution_of(held_out.held_out[0]))
    else:
        learnt = vars(learning) | {"settings": settings.model_dump(exclude=NOT_LEARNT)}
        key = key_of(train_detector, {"known": known, "learning": learnt})
        detector = _trained_detector(known, learning, made.checkpoints / f"train_{role}-{key}", device)
        provenance = {"key": key, "kimg": settings.training.kimg}
    detector = detector.to(device).requires_grad_(False).eval()
    report = _calibrate(detector, held_out, learning, device)
    save_weights(made.weights, detector, {"role": role, **provenance})
    write_json(made.report, report)


def _calibrate(detector: Detector, held_out: HeldOut, learning: Learning, device: torch.device) -> dict[str, Any]:
    """Fit the temperatures on one half of the held-out images; return the report on the other."""
    attributes = learning.settings.attributes
    labelled = _read_labelled(held_out.held_out, held_out.held_out_labels, attributes)
    calibrates = torch.from_numpy(is_for_calibration(labelled.names))
    for half in (calibrates, ~calibrates):
        where = "half of the held-out images"
        _refuse_nowhere_known(labelled.truth[half], attributes, held_out.held_out_labels, where)
    logits = _logits_of(detector, labelled.pixels, device)
    if held_out.other is not None:
        other = load_weights(held_out.other, Detector, device)
        refuse_same(logits, _logits_of(other, labelled.pixels, device), attributes)
    detector.temperature.copy_(fit_temperatures(logits[calibrates], labelled.truth[calibrates]))
    calibrated = one_value_of_each_column(logits[~calibrates] / detector.temperature.cpu(), attributes)
    probabilities, truth = calibrated.sigmoid().numpy(), labelled.truth[~calibrates].numpy()
    cells = cell_accuracies(probabilities, truth, attributes, learning.related)
    refuse_shortcuts(cells, learning.settings.least_cell_accuracy, learning.role)
    found = detector_report(probabilities, truth, attributes)
    return {name: figures | {"cells": cells.get(name, {})} for name, figures in found.items()}


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


class DetectorTask(SupervisedTask):
    """Trains a detector on images, of which a share are collages; targets are truth and weights (n, 2, attributes)."""

    collages: RegionCollages | None = None

    def examples(self, chosen: Tensor, index: int) -> tuple[Tensor, Tensor]:
        if self.collages is None:
            return super().examples(chosen, index)
        random = seeding.torch_generator(self.seed, self.name, "collages", index)
        images, truth, weights = self.collages(chosen, self.targets[chosen, 1], random)
        return images, torch.stack([truth, weights], dim=1)

    def vary(self, images: Tensor, random: torch.Generator) -> Tensor:
        if self.network.mirror:
            mirrored = torch.rand(len(images), 1, 1, 1, generator=random).to(images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        return distort(images, random, blur=BLUR, noise=NOISE, color=COLOR)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        truth, weights = targets.unbind(dim=1)
        weights = weights.masked_fill(truth.isnan(), 0)
        return F.binary_cross_entropy_with_logits(self.network.view_logits(images), truth.nan_to_num(), weights)


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


def _trained_detector(known: Known, learning: Learning, folder: Path, device: torch.device) -> Detector:
    settings, role = learning.settings, ROLES[learning.role]
    labelled = _read_labelled(known.images, known.labels, settings.attributes)
    own = torch.nonzero(labelled.people % 2 == role.half).flatten()
    where = f"the {learning.role}'s half of the training images"
    _refuse_nowhere_known(labelled.truth[own], settings.attributes, known.labels, where)
    related = [settings.attributes.index(name) for name in learning.related]
    balance = torch.zeros_like(labelled.truth)
    balance[own] = independence_weights(labelled.truth[own], related, settings.attributes)
    seed = role.seed + SEEDS_APART * learning.seed
    torch.manual_seed(seeding.derive(seed, learning.role, "weights"))
    detector = new_detector(learning.network, settings, learning.role)
    targets = torch.stack([labelled.truth, balance], dim=1)
    name = f"train_{learning.role}"
    task = DetectorTask(detector, labelled.pixels, targets, settings.training, seed, device, name)
    task.positions = own
    if settings.collages:
        swapped = _swapped_regions(known, learning, labelled)
        task.collages = RegionCollages(labelled.pixels, labelled.truth, swapped, own, related, settings.collages)
        if not task.collages.have_donors:
            raise DataError(
                f"{known.parts}: no labelled image has the part that is swapped; set `detectors.collages: 0`"
            )
    run(task, folder)
    return detector


def _swapped_regions(known: Known, learning: Learning, labelled: _Labelled) -> list[SwappedRegion]:
    if not (known.parts and learning.regions):
        raise ConfigError("train_detector: `detectors.collages` needs the table of parts and regions; give both")
    found = []
    for attribute, region in learning.regions.items():
        masks = PartMasks(known.parts, parts_of(region), labelled.pixels.shape[-1])
        packed = torch.from_numpy(masks.packed[masks.rows(labelled.names)])  # empty where an image has none
        found.append(SwappedRegion(region, packed, learning.settings.attributes.index(attribute)))
    return found


def new_detector(network: TrainedHere, settings: Detectors, role: str) -> Detector:
    """Return a detector before it is trained here."""
    if isinstance(network, BackboneNetwork):
        detector = BackboneClassifier(settings.attributes, network.library, network.name, settings.mirror)
        if network.weights is not None:
            detector.load_pretrained(network.weights)
        return detector
    return ROLES[role].kind(settings.attributes, network.width, settings.mirror)


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


class _Labelled(NamedTuple):
    names: list[str]
    pixels: Tensor  # uint8 (n, 3, H, W)
    truth: Tensor  # 0 or 1, NaN where unknown, (n, attributes)
    people: Tensor  # a number for each person, int64 (n,); an image of an unknown person has its own


def _read_labelled(images: list[Path], labels: Path, attributes: list[str]) -> _Labelled:
    names, pixels = read_shards(images)
    table = read_table(labels, "labels").set_index("image_id")
    missing = [attribute for attribute in attributes if attribute not in table.columns]
    if missing:
        raise DataError(f"{labels}: no column {', '.join(missing)}; it has {', '.join(table.columns[1:])}")
    table = table.loc[names]
    truth = torch.tensor(table[attributes].to_numpy(np.float32))
    people = table["person"].fillna(table.index.to_series()) if "person" in table else table.index
    numbers = torch.from_numpy(pd.factorize(people)[0])
    return _Labelled(names, torch.from_numpy(pixels).permute(0, 3, 1, 2), truth, numbers)
