"""What all studies share: their files and settings, the images that they take, and the rows that they write."""

from __future__ import annotations

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

from pipeline_lib.config import AvatarData, Encoder, Evaluate, Rebalance, Studies
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.imaging.transfer import as_pixels, at_once, to_float
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path, digest_of, digest_of_files
from pipeline_lib.runtime.progress import Progress

GROUPS = 5  # disjoint groups of images, on each of which a distance between sets is measured
OVER = " over "  # between the names of two methods, in a row of their differences
SHOWN = 6  # rows of a figure

Metrics = dict[tuple[str, str], np.ndarray]  # independent values by method and metric


@dataclass(kw_only=True, frozen=True)
class Study:
    """Inputs, settings and outputs of one study; of the inputs those that it needs, see `catalogue`."""

    study: str
    settings: Studies
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
    pictures: Path
    images: list[Path] = field(default_factory=list)  # shards of real images, from the dataset
    held_out: list[Path] = field(default_factory=list)
    samples: list[Path] = field(default_factory=list)
    parts: Path | None = None
    sample_parts: Path | None = None
    plan: Path | None = None  # of the samples
    scores: Path | None = None  # of the images, by the selector
    made: list[Path] = field(default_factory=list)  # what the methods of the comparison made
    generator: Path | None = None
    encoder: Path | None = None
    precision: Path | None = None
    selector: Path | None = None
    referee: Path | None = None
    rgb: Path | None = None
    all_losses: Path | None = None
    no_latent: Path | None = None
    no_perceptual: Path | None = None

    @property
    def count(self) -> int:
        """Images, collages or pairs of the study."""
        return getattr(self.settings, self.study)

    def inverter(self, device: torch.device) -> Inverter:
        """Open the run's encoder and generator, in the run's precision."""
        return open_inverter(self.encoder, self.generator, device, self.precision, compile=False)

    def read(
        self, shards: list[Path], least: int | None = None, key: str | None = None
    ) -> tuple[list[str], np.ndarray]:
        """Return names and pixels, uint8 (n, H, W, 3), of an image set.

        Raises:
            DataError: there are fewer images than the study wants, or than `least`, the value of the config's `key`.
        """
        names, pixels = read_shards(shards)
        least = self.count if least is None else least
        if len(names) < least:
            raise DataError(
                f"`studies.{key or self.study}`: {least}, but there are only {len(names)} images in "
                f"{shards[0].parent}; use fewer"
            )
        return names, pixels

    def image_set(self, more: int = 0) -> tuple[ImageSet, np.ndarray]:
        """Return the images with the parts of the region, and positions of those that are drawn for the study.

        Raises:
            DataError: fewer images have the part than are to be drawn, or `more` than one.
        """
        found = ImageSet(self.images, self.parts, parts_of(self.rebalance.edit.region))
        if len(found.with_part) < max(self.count, more + 1):
            raise DataError(
                f"`studies.{self.study}`: {max(self.count, more + 1)}, but only {len(found.with_part)} images have the "
                "part; use fewer"
            )
        return found, self.random().choice(found.with_part, self.count, replace=False)

    def random(self, *names: str | int) -> np.random.Generator:
        """Return random numbers that depend on the seed, the study and the names alone."""
        return seeding.numpy_generator(self.seed, self.study, *names)

    def progress(self, items: Sequence[Any], together: int = 1) -> Iterator[Sequence[Any]]:
        """Yield items in batches, and log how many are done."""
        with Progress(f"study_{self.study}", len(items)) as progress:
            for start in range(0, len(items), together):
                batch = items[start : start + together]
                yield batch
                progress.advance(len(batch))

    def masked(self, shards: list[Path], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first images with a mask of known pixels each, drawn as in the training of encoders (paper 3.2)."""
        _, pixels = self.read(shards)
        random = seeding.torch_generator(self.seed, "masks of studies")
        masks = random_masks(self.like.mask, self.count, pixels.shape[1], random)
        for rows in self.progress(range(self.count), at_once(pixels.shape[1])):
            yield as_images(pixels[rows], device), masks[rows].to(device)


class Findings:
    """What a study measures on each image, and the pictures of its figure."""

    def __init__(self, study: Study, shown: int = SHOWN):
        self._study, self._shown = study, shown
        self.values: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        self._pixels: list[np.ndarray] = []
        self._labels: list[str] = []

    def add(self, method: str, figures: Mapping[str, Tensor]) -> None:
        """Add figures of a batch, (n,) by metric; images with one that is NaN are left out."""
        rows = torch.stack(list(figures.values()), dim=1).float().cpu().numpy()
        rows = rows[~np.isnan(rows).any(axis=1)]
        for metric, column in zip(figures, rows.T, strict=True):
            self.values[method, metric].append(column)

    def show(self, columns: Sequence[Tensor], label: str = "") -> None:
        """Add images (n, 3, H, W) of each column to the figure, as long as there is room."""
        room = self._shown - len(self._labels)
        if room > 0:
            rows = np.stack([as_pixels(column[:room]).cpu().numpy() for column in columns], axis=1)
            self.show_pixels(rows, [label] * len(rows))

    def show_pixels(self, rows: np.ndarray, labels: Sequence[str]) -> None:
        """Add rows of images to the figure, uint8 (n, columns, H, W, 3), each with its label."""
        self._pixels.append(rows)
        self._labels += labels

    @property
    def metrics(self) -> Metrics:
        """The values on all images."""
        return {key: np.concatenate(values) for key, values in self.values.items()}

    def write(self, columns: Sequence[str], metrics: Metrics | None = None, **rows: Any) -> None:
        """Write the table, and the pictures with the titles of their columns; see `write_table_of` for `rows`."""
        write_table_of(self._study, self.metrics if metrics is None else metrics, **rows)
        labels = {"parts": np.array(self._labels)} if any(self._labels) else {}
        write_arrays(self._study.pictures, columns=np.array(columns), pixels=np.concatenate(self._pixels), **labels)


def write_table_of(
    study: Study,
    metrics: Metrics,
    differences: Iterable[tuple[str, str, str]] = (),
    paper: Mapping[tuple[str, str], float | None] | None = None,
    lacking: Iterable[tuple[str, str]] = (),
    precision: str = "float32",
) -> None:
    """Write the table of one study.

    Args:
        study: the study.
        metrics: independent values by method and metric.
        differences: (other, ours, metric), of which a row says how much larger the figure is for the other method.
        paper: what the paper reports, by method and metric, where its domain is the same.
        lacking: methods and metrics that the paper has and this study lacks.
        precision: of the inversion.
    """
    confidence, quoted = study.evaluate.confidence, paper or {}
    rows = [mean_row(*key, values, confidence, quoted.get(key)) for key, values in metrics.items()]
    rows += [mean_row(*key, np.empty(0), confidence) for key in lacking]
    rows += [
        mean_row(f"{other}{OVER}{ours}", metric, metrics[other, metric] - metrics[ours, metric], confidence)
        for other, ours, metric in differences
    ]
    given = [getattr(study, each.name) for each in fields(study)]
    models = [path for path in given if isinstance(path, Path) and path.suffix == ".safetensors"]
    metadata = {
        "run": study.run,
        "config_digest": digest_of(study.settings.model_dump()),
        "models_digest": digest_of_files(*models, *study.made),
        "precision": precision,
    }
    write_table(study.table, "studies", pd.DataFrame(rows).assign(study=study.study), metadata)


def mean_row(
    row: str, metric: str, values: np.ndarray, confidence: float, paper: float | None = None
) -> dict[str, object]:
    """Return a row with the mean of independent values (n,) and its interval by Student's t, NaN for fewer than two."""
    n, mean = len(values), float(np.mean(values)) if len(values) else float("nan")
    error = float(scipy.stats.sem(values)) if n > 1 else float("nan")
    reach = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * error if n > 1 else float("nan")
    return {
        "row": row,
        "metric": metric,
        "value": mean,
        "ci_low": mean - reach,
        "ci_high": mean + reach,
        "n": n,
        "paper": paper,
    }


def groups_of(features: np.ndarray) -> list[np.ndarray]:
    """Return `GROUPS` equal groups of features (n, d); the last n % GROUPS are in none."""
    return np.split(features[: len(features) // GROUPS * GROUPS], GROUPS)


def as_images(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Return images (n, 3, H, W) in [-1, 1] of pixels, uint8 (n, H, W, 3)."""
    return to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2), device)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write what a figure is drawn from, atomically, as NPZ."""
    with atomic_path(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
