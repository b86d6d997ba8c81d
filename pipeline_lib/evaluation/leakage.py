"""Edit leakage: how well a small classifier tells edited images from unedited ones that show the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.stats import norm, rankdata
from torch import Tensor

from pipeline_lib.audit.estimate import UNKNOWN, Estimate, estimate_json
from pipeline_lib.config import BoxRegion, Evaluate, PartRegion, Rebalance
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.features import features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.probe import Probe
from pipeline_lib.evaluation.results import Crop, Leakage, LeakageOfCell, Pooled
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.perceptual import Perceptual, load_perceptual
from pipeline_lib.rebalance.groups import group_name, in_group
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.progress import Progress

LEAST, MOST = 20, 1000  # edited images, and unedited ones, of a cell: with fewer it is left out, more are not used
FOLDS = 5
BATCH, LEARNING_RATE = 64, 3e-3  # of the probe
MARGIN = 3 / 64  # of the crop around the region, as a share of the image's side, since seams show at the rim
OUTLIERS = 0.01  # share of the parts that may reach beyond the crop, at each side
FIGURES = ("frechet_distance", "frechet_distance_of_halves")


def measure_leakage(
    pixels: np.ndarray,
    edited: np.ndarray,
    cells: Mapping[str, np.ndarray],
    crop: tuple[slice, slice],
    evaluate: Evaluate,
    seed: int,
    device: torch.device,
) -> Leakage:
    """Measure the edited-versus-unedited AUC among images of the same group and the same value.

    Edited and unedited images are compared only within a cell, so that neither the group nor the value tells them
    apart. A cell with fewer than `LEAST` images of either kind is left out. Pooled figures are None without a cell.

    Args:
        pixels: uint8 (n, H, W, 3), the rebalanced set.
        edited: bool (n,).
        cells: which images are in each cell, by `cells_of`.
        crop: rows and columns that the classifier sees, by `crop_of`.
        evaluate: the config section of the evaluation.
        seed: seed of the run.
        device: where to compute.
    """
    counts = {name: _count(edited[inside]) for name, inside in cells.items()}
    kept = [name for name, count in counts.items() if min(count.values()) >= LEAST]
    chosen = _draw({name: cells[name] for name in kept}, edited, seed)
    rows, columns = crop
    crops = torch.from_numpy(pixels[chosen["position"]][:, rows, columns]).permute(0, 3, 1, 2)
    chosen["score"] = cross_fit(
        crops, chosen["edited"].to_numpy(), chosen["cell"].to_numpy(), seed, device, evaluate.leakage_steps
    )
    extractor = load_perceptual("alex").to(device)
    areas, distances = {}, {}
    for name, rows_of_cell in chosen.groupby("cell", sort=False):
        is_edited, positions = rows_of_cell["edited"].to_numpy(), rows_of_cell["position"].to_numpy()
        area = area_under_curve(rows_of_cell["score"].to_numpy(), is_edited)
        areas[name] = area_interval(area, int(is_edited.sum()), int((~is_edited).sum()), evaluate.confidence)
        distances[name] = _distances(pixels[positions[is_edited]], pixels[positions[~is_edited]], extractor, device)
    pairs = {name: counts[name]["edited"] * counts[name]["unedited"] for name in kept}
    return Leakage(
        cells={name: LeakageOfCell(**counts[name], auc=estimate_json(areas[name]), **distances[name]) for name in kept},
        left_out={name: count for name, count in counts.items() if name not in kept},
        pooled=Pooled(
            auc=estimate_json(pool_areas(areas, pairs)),
            **{figure: _pool(distances, pairs, figure) for figure in FIGURES},
        ),
        crop=Crop(top=rows.start, bottom=rows.stop, left=columns.start, right=columns.stop),
        extractor=extractor.name,
    )


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, the share of pairs in which the positive has the higher score.

    Ties count half.

    Args:
        scores: float (n,).
        positive: bool (n,), with at least one of either kind.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    above = rankdata(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def area_interval(area: float, positives: int, negatives: int, confidence: float) -> Estimate:
    """Return an area under a ROC curve with its score interval by Newcombe (2006, part 2, method 5).

    A limit is as far from the area as the confidence level allows at the variance that the limit itself gives, by
    Hanley and McNeil (1982). So the interval has a width even if every pair is in the right order.

    Args:
        area: share of pairs of a positive and a negative in the right order.
        positives: number of positives.
        negatives: number of negatives.
        confidence: level of the interval, in (0, 1).
    """
    z, more = norm.ppf((1 + confidence) / 2), (positives + negatives) / 2 - 1

    def lower(value: float) -> float:
        def excess(limit: float) -> float:
            of_pairs = 1 + more * ((1 - limit) / (2 - limit) + limit / (1 + limit))
            return value - limit - z * (limit * (1 - limit) * of_pairs / (positives * negatives)) ** 0.5

        return brentq(excess, 0, np.nextafter(value, 0)) if value > 0 else 0.0

    return Estimate(area, lower(area), 1 - lower(1 - area))  # the variance of 1 minus the area is the same


def pool_areas(areas: Mapping[str, Estimate], pairs: Mapping[str, int]) -> Estimate:
    """Return the share of pairs within cells in the right order, which is the mean of areas weighted by pairs.

    The limits are as far away as those of the cells, weighted and squared, as Zou and Donner (2008) combine intervals;
    of two cells it is Newcombe's hybrid score interval. NaN without a cell.
    """
    if not areas:
        return UNKNOWN
    weights = np.array([pairs[name] for name in areas]) / sum(pairs[name] for name in areas)
    value, low, high = np.array([*areas.values()]).T
    pooled = weights @ value
    below, above = (np.linalg.norm(weights * distance) for distance in (value - low, high - value))
    return Estimate(float(pooled), float(pooled - below), float(pooled + above))


def crop_of(regions: Collection[PartRegion | BoxRegion], parts: Path, resolution: int) -> tuple[slice, slice]:
    """Return the rows and columns, the same in every image, that hold the regions of nearly all images and a margin."""
    edges = np.array([_edges(region, parts, resolution) for region in regions])
    top, left = edges[:, :2].min(axis=0).tolist()
    bottom, right = edges[:, 2:].max(axis=0).tolist()
    return slice(top, bottom), slice(left, right)


def _edges(region: PartRegion | BoxRegion, parts: Path, resolution: int) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of one region with a margin, in pixels."""
    if isinstance(region, BoxRegion):
        edges = np.array([region.top, region.left, region.bottom, region.right]) * resolution
        reach = region.buffer
    else:
        table = read_table(parts, "parts", filters=[("part", "in", list(region.parts))])
        edges = np.array(
            [table[side].quantile(OUTLIERS) for side in ("top", "left")]
            + [table[side].quantile(1 - OUTLIERS) for side in ("bottom", "right")]
        )
        reach = region.grow + region.buffer
    reach = round((reach + MARGIN) * resolution)
    top, left = (max(0, int(np.floor(edge)) - reach) for edge in edges[:2])
    bottom, right = (min(resolution, int(np.ceil(edge)) + reach) for edge in edges[2:])
    return top, left, bottom, right


def cross_fit(
    images: Tensor, edited: np.ndarray, cells: np.ndarray, seed: int, device: torch.device, steps: int
) -> np.ndarray:
    """Return a score of each image by a probe that was trained on the other folds; high if the image looks edited.

    Batches are drawn evenly from edited and unedited images of each cell, so that a probe gains nothing by telling
    cells apart. Scores are standardised within each fold, since the scales of probes differ.

    Args:
        images: uint8 (n, 3, H, W), crops around the region.
        edited: bool (n,).
        cells: name of each image's cell, (n,).
        seed: seed of the run.
        device: where to train.
        steps: training steps of each fold's probe.

    Returns:
        float (n,).
    """
    scores = np.zeros(len(images))
    if not len(images):
        return scores
    strata = pd.Series([f"{cell} {is_edited}" for cell, is_edited in zip(cells, edited, strict=True)])
    folds = _folds(strata, seed)
    weights = 1 / strata.map(strata.value_counts()).to_numpy(float)
    with Progress("evaluate_edits", FOLDS * steps, unit="steps") as progress:
        for fold in range(FOLDS):
            left_out = np.flatnonzero(folds == fold)
            random = seeding.torch_generator(seed, "leakage", "batches", fold)
            drawn = torch.multinomial(
                torch.from_numpy(np.where(folds == fold, 0, weights)), steps * BATCH, replacement=True, generator=random
            )
            torch.manual_seed(seeding.derive(seed, "leakage", "weights", fold))
            probe = _train(images, torch.tensor(edited), drawn.view(steps, BATCH), random, device)
            found = _score(probe, images[left_out], device)
            scores[left_out] = (found - found.mean()) / max(found.std(), np.finfo(float).tiny)
            progress.advance(steps)
    return scores


def _train(images: Tensor, edited: Tensor, batches: Tensor, random: torch.Generator, device: torch.device) -> Probe:
    """Train a probe on given batches, positions int64 (steps, batch), with half of the images mirrored."""
    probe = Probe.of_side(max(images.shape[2:])).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(probe.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=len(batches))
    for batch in batches:
        shown = to_float(images[batch], device)
        mirrored = torch.rand(len(batch), 1, 1, 1, generator=random).to(device) < 0.5
        logits = probe(torch.where(mirrored, shown.flip(-1), shown))
        loss = F.binary_cross_entropy_with_logits(logits, edited[batch].to(logits))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return probe.eval()


@torch.inference_mode()
def _score(probe: Probe, images: Tensor, device: torch.device) -> np.ndarray:
    """Return the sum of a probe's logits of each image and its mirror image, float64 (n,)."""
    shown = [to_float(chunk, device) for chunk in images.split(batch_for(images.shape[-1], 256))]
    return torch.cat([probe(chunk) + probe(chunk.flip(-1)) for chunk in shown]).double().cpu().numpy()


def _folds(strata: pd.Series, seed: int) -> np.ndarray:
    """Return the fold of each image; every stratum is spread evenly over the folds."""
    order = seeding.numpy_generator(seed, "leakage", "folds").permutation(len(strata))
    return strata.iloc[order].groupby(strata).cumcount().sort_index().to_numpy() % FOLDS


def cells_of(selector: pd.DataFrame, referee: pd.DataFrame, settings: Rebalance) -> dict[str, np.ndarray]:
    """Return which images are in each cell, bool (n,), by the cell's name, such as `not long_hair, smiling`.

    A cell is a group (by the referee) and a value of the attribute (by the selector).

    Args:
        selector: what it says of each image, a bool for each attribute.
        referee: likewise.
        settings: the config section of the edits.
    """
    said = {attribute: referee[attribute].to_numpy() for attribute in referee}
    cells = {}
    for target in settings.first_attribute().targets:  # those of one attribute do not overlap
        for value in (False, True):
            name = f"{group_name(target.where)}, {group_name({target.attribute: value})}"
            cells[name] = in_group(said, target.where) & (selector[target.attribute].to_numpy() == value)
    return cells


def _count(edited: np.ndarray) -> dict[str, int]:
    return {"edited": int(edited.sum()), "unedited": int((~edited).sum())}


def _draw(cells: Mapping[str, np.ndarray], edited: np.ndarray, seed: int) -> pd.DataFrame:
    """Draw at most `MOST` edited and unedited images of each cell: position, cell and whether it is edited."""
    rows = []
    for name, inside in cells.items():
        for kind in (True, False):
            rng = seeding.numpy_generator(seed, "leakage", name, str(kind))
            positions = rng.permutation(np.flatnonzero(inside & (edited == kind)))[:MOST]
            rows += [(position, name, kind) for position in positions]
    return pd.DataFrame(rows, columns=["position", "cell", "edited"]).astype({"position": int, "edited": bool})


def _distances(
    edited: np.ndarray, unedited: np.ndarray, extractor: Perceptual, device: torch.device
) -> dict[str, float]:
    """Return the Fréchet distance of edited to unedited images, and of two halves of the latter, all of equal number.

    With equal numbers both are biased alike, so that they can be compared.
    """
    number = min(len(edited), len(unedited) // 2)
    features = features_of(np.concatenate([edited[:number], unedited[: 2 * number]]), extractor, device)
    of_edited, half, other_half = np.split(features, 3)
    values = frechet_distance(half, of_edited), frechet_distance(half, other_half)
    return dict(zip(FIGURES, values, strict=True)) | {"n_of_frechet_distance": number}


def _pool(distances: Mapping[str, Mapping[str, float]], pairs: Mapping[str, int], figure: str) -> float | None:
    """Return the mean of a figure over cells, weighted by their pairs; None without any."""
    total = sum(pairs.values())
    return sum(of_cell[figure] * pairs[name] / total for name, of_cell in distances.items()) if total else None
