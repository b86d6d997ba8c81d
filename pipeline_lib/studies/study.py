"""What all studies share: their files, the images that they take, and the rows and pictures that they write."""

from __future__ import annotations

import importlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import torch
from torch import Tensor

from pipeline_lib.config import Encoder, Evaluate, Rebalance, Size, StudyName
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.evaluation.features import extract_features, features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.imaging.transfer import as_pixels, at_once
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.report.figures import save_figure
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.catalogue import SCALES, STUDIES, Scale
from pipeline_lib.studies.collages import as_images
from pipeline_lib.studies.pictures import picture_grid

logger = logging.getLogger(__name__)

FRECHET, DENSITY, COVERAGE = "Fréchet distance", "density", "coverage"
GROUPS = 5  # disjoint groups of images, on each of which a distance between sets is measured
LEAST = 2  # images of a study
OVER = " over "  # between the names of two methods, in a row of their differences
SHOWN = 6  # rows of a figure


@dataclass(kw_only=True, frozen=True)
class Study:
    """Inputs, settings and outputs of one study; of the inputs those that it needs, see `catalogue`."""

    study: StudyName
    size: Size
    evaluate: Evaluate
    rebalance: Rebalance  # of the first attribute alone
    like: Encoder  # the run's encoder
    names: list[str]  # of the parts from back to front, the background first
    data: AvatarData | None  # if an image can be drawn with every part of a collage
    published: str | None  # family and domain of the generator, such as "progan church"; of the paper's figures
    run: str
    seed: int
    cache: Path
    table: Path
    figure: Path
    images: list[Path] = field(default_factory=list)  # shards of real images, from the dataset
    held_out: list[Path] = field(default_factory=list)
    samples: list[Path] = field(default_factory=list)
    parts: Path | None = None
    sample_parts: Path | None = None
    scores: Path | None = None  # of the images, by the selector
    made: list[Path] = field(default_factory=list)  # what the methods of the comparison made
    generator: Path | None = None
    encoder: Path | None = None
    precision: Path | None = None
    referee: Path | None = None
    rgb: Path | None = None
    all_losses: Path | None = None
    no_latent: Path | None = None
    no_perceptual: Path | None = None

    @property
    def scale(self) -> Scale:
        """What the size of the studies says besides their numbers of images."""
        return SCALES[self.size]

    def count(self, available: int) -> int:
        """Return how many images, collages or pairs the study takes: those of its size, or all `available`.

        Raises:
            DataError: there are fewer than `LEAST`.
        """
        wanted = STUDIES[self.study].count(self.size)
        if available < LEAST:
            raise DataError(f"study {self.study}: {available} of the images serve, and it needs {LEAST} at least")
        if available < wanted:
            logger.warning("study %s: takes %d images, since no more serve of %d", self.study, available, wanted)
        return min(wanted, available)

    def inverter(self, device: torch.device) -> Inverter:
        """Open the run's encoder and generator, in the run's precision."""
        return open_inverter(self.encoder, self.generator, device, self.precision, compile=False)

    def image_set(self) -> tuple[ImageSet, np.ndarray]:
        """Return the images with the parts of the region, and positions of those that are drawn for the study."""
        found = ImageSet(self.images, self.parts, parts_of(self.rebalance.edit.region))
        return found, self.random().choice(found.with_part, self.count(len(found.with_part)), replace=False)

    def random(self, *names: str | int) -> np.random.Generator:
        """Return random numbers that depend on the seed, the study and the names alone."""
        return seeding.numpy_generator(self.seed, self.study, *names)

    def progress(self, items: Sequence[Any], together: int = 1) -> Iterator[Sequence[Any]]:
        """Yield items in batches, and log how many are done."""
        with Progress(f"study {self.study}", len(items)) as progress:
            for start in range(0, len(items), together):
                batch = items[start : start + together]
                yield batch
                progress.advance(len(batch))

    def masked(self, shards: list[Path], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first images with a mask of known pixels each, drawn as in the training of encoders (paper 3.2)."""
        _, pixels = read_shards(shards)
        random = seeding.torch_generator(self.seed, "masks of studies")
        masks = random_masks(self.like.mask, self.count(len(pixels)), pixels.shape[1], random)
        for rows in self.progress(range(len(masks)), at_once(pixels.shape[1])):
            yield as_images(pixels[rows], device), masks[rows].to(device)


class Findings:
    """What a study measures on each image, and the pictures of its figure."""

    def __init__(self, study: Study, shown: int = SHOWN):
        self._study, self._shown = study, shown
        self.values: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)  # by method and metric
        self._rows: list[np.ndarray] = []
        self._labels: list[str] = []

    def add(self, method: str, figures: Mapping[str, Tensor]) -> None:
        """Add figures of a batch, (n,) by metric; images with one that is NaN are left out."""
        rows = torch.stack(list(figures.values()), dim=1).float().cpu().numpy()
        rows = rows[~np.isnan(rows).any(axis=1)]
        for metric, column in zip(figures, rows.T, strict=True):
            self.values[method, metric].append(column)

    def show(self, columns: Sequence[Tensor], label: str = "") -> None:
        """Add images (n, 3, H, W) of each column to the figure, as long as there is room."""
        room = self._shown - len(self._rows)
        for row in zip(*(as_pixels(column[: max(0, room)]).cpu().numpy() for column in columns), strict=True):
            self.show_pixels(row, label)

    def show_pixels(self, row: Sequence[np.ndarray], label: str = "") -> None:
        """Add a row of images to the figure, uint8 (H, W, 3) each, as long as there is room."""
        if len(self._rows) < self._shown:
            self._rows.append(np.stack(row))
            self._labels.append(label)

    def write(
        self,
        columns: Sequence[str],
        differences: Iterable[tuple[str, str, str]] = (),
        paper: Mapping[tuple[str, str], float | None] | None = None,
        lacking: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Write the table and the figure.

        Args:
            columns: titles of the figure's columns.
            differences: (other, ours, metric), of which a row says how much larger the figure is for the other method.
            paper: what the paper reports, by method and metric, where its domain is the same.
            lacking: methods and metrics that the paper has and this study lacks.
        """
        study, quoted = self._study, paper or {}
        metrics = {key: np.concatenate(batches) for key, batches in self.values.items()}
        over = {
            (f"{other}{OVER}{ours}", metric): metrics[other, metric] - metrics[ours, metric]
            for other, ours, metric in differences
        }
        every = metrics | dict.fromkeys(lacking, np.empty(0)) | over
        rows = [mean_row(*key, values, study.evaluate.confidence, quoted.get(key)) for key, values in every.items()]
        given = [getattr(study, each.name) for each in fields(study)]
        models = [path for path in given if isinstance(path, Path) and path.suffix == ".safetensors"]
        metadata = {"run": study.run, "size": study.size, "models_digest": digest_of_files(*models, *study.made)}
        write_table(study.table, "studies", pd.DataFrame(rows).assign(study=study.study), metadata)
        save_figure(picture_grid(columns, self._labels, np.stack(self._rows)), study.figure)


class Realism:
    """How near sets of images are to held-out real ones, by the features that the run's image quality uses."""

    def __init__(self, study: Study, device: torch.device):
        self.extractor, self._device = load_perceptual("alex").to(device), device
        self.reference = extract_features(
            study.held_out, self.extractor, device, limit=study.evaluate.images, cache=study.cache
        )
        self._features: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, name: str, pixels: np.ndarray) -> None:
        """Add images, uint8 (n, H, W, 3), to the set of that name."""
        self._features[name].append(features_of(pixels, self.extractor, self._device))

    def by_group(self, *metrics: str) -> dict[tuple[str, str], list[np.ndarray]]:
        """Return Fréchet distance, density or coverage of the groups of each set, (GROUPS,), by name and metric."""
        found = {}
        for name, batches in self._features.items():
            groups, dense = groups_of(np.concatenate(batches)), []
            if set(metrics) - {FRECHET}:
                dense = [density_and_coverage(self.reference, group, device=self._device) for group in groups]
            for metric in metrics:
                distances = (frechet_distance(self.reference, group) for group in groups)
                values = distances if metric == FRECHET else (getattr(each, metric) for each in dense)
                found[name, metric] = [np.array(list(values))]
        return found

    def of_all(self, name: str) -> np.ndarray:
        """Return the Fréchet distance of a whole set, (1,)."""
        return np.array([frechet_distance(self.reference, np.concatenate(self._features[name]))])


@stage(revision=1)
def run_study(*, study: Study, device: torch.device) -> None:
    """Run one study, and write its table and figure.

    Args:
        study: its name, inputs, settings and outputs.
        device: where to compute.
    """
    with torch.no_grad():
        importlib.import_module(f"pipeline_lib.studies.{study.study}").measure(study, device)


def mean_row(
    row: str, metric: str, values: np.ndarray, confidence: float, paper: float | None = None
) -> dict[str, object]:
    """Return a row with the mean of independent values (n,) and its interval by Student's t, NaN for fewer than two."""
    n, mean = len(values), float(np.mean(values)) if len(values) else float("nan")
    error = float(scipy.stats.sem(values)) if n > 1 else float("nan")
    reach = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * error if n > 1 else float("nan")
    found = {"value": mean, "ci_low": mean - reach, "ci_high": mean + reach, "n": n, "paper": paper}
    return {"row": row, "metric": metric, **found}


def groups_of(features: np.ndarray) -> list[np.ndarray]:
    """Return `GROUPS` equal groups of features (n, d); the last n % GROUPS are in none."""
    return np.split(features[: len(features) // GROUPS * GROUPS], GROUPS)
