"""Fréchet distance (Heusel et al. 2017) and kernel distance (Binkowski et al. 2018) by torch-fidelity.

The offline extractors replace the Inception network, so the values are neither FID nor KID. They are comparable only
with values of the same extractor. Importing this module registers the extractors with torch-fidelity, whose
`calculate_metrics(feature_extractor=...)` then takes the names in `EXTRACTORS`.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

logger = logging.getLogger(__name__)

#: Names under which the offline extractors are registered with torch-fidelity.
EXTRACTORS: dict[str, Literal["alex", "vgg"]] = {"shift-tolerant-alex": "alex", "shift-tolerant-vgg": "vgg"}
LAYER = "pooled"
# Half of torch-fidelity's defaults, for an eighth of the time. The estimate is unbiased at any size, and 25,000 draws
# include nearly all images of a set of thousands.
LARGEST_SUBSET = 500
SUBSETS = 50


class OfflineExtractor(FeatureExtractorBase):
    """The offline extractor for torch-fidelity, from uint8 images (n, 3, H, W) to a tuple of features (n, d)."""

    def __init__(self, name: str, features_list: list[str], **_: Any):
        super().__init__(name, features_list)
        self.perceptual = load_perceptual(EXTRACTORS[name])

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.perceptual.features(to_float(images, images.device)),)

    @staticmethod
    def get_provided_features_list() -> tuple[str]:
        return (LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False


for _name in EXTRACTORS:
    register_feature_extractor(_name, OfflineExtractor)


def frechet_distance(reference: np.ndarray, features: np.ndarray) -> float:
    """Return the Fréchet distance of Gaussians fitted to two sets of features, in squared units of the features.

    It is biased upwards by about the inverse of the number of images, so compare only sets of the same size.

    Args:
        reference: (m, d), of real images.
        features: (n, d), of the set to evaluate.

    Raises:
        DataError: a set has fewer than two images, or the feature sizes differ.
    """
    _check(reference, features)
    of_reference, of_set = gaussian_statistics(reference), gaussian_statistics(features)
    return fid_statistics_to_metric(of_reference, of_set, verbose=False)[KEY_METRIC_FID]


def gaussian_statistics(features: np.ndarray, chunk: int = 4096) -> dict[str, np.ndarray]:
    """Return mean `mu` (d,) and covariance `sigma` (d, d) of features (n, d), as torch-fidelity names them.

    They are summed in float64 over `chunk` images at a time, so that memory-mapped features are not loaded at once.
    """
    starts = range(0, len(features), chunk)
    mean = sum(features[start : start + chunk].sum(axis=0, dtype=np.float64) for start in starts) / len(features)
    scatter = np.zeros((features.shape[1],) * 2)
    for start in starts:
        centered = features[start : start + chunk] - mean
        scatter += centered.T @ centered
    return {"mu": mean, "sigma": scatter / (len(features) - 1)}


def kernel_distance(reference: np.ndarray, features: np.ndarray, seed: int = 0) -> float:
    """Return the squared maximum mean discrepancy of two sets of features, by KID's unbiased estimator.

    It can be negative for similar sets. The kernel is KID's cubic polynomial, with gamma from `kernel_gamma`.

    Args:
        reference: (m, d), of real images.
        features: (n, d), of the set to evaluate.
        seed: seed of the run, for the subsets over which the estimate is averaged.

    Raises:
        DataError: a set has fewer than two images, or the feature sizes differ.
    """
    _check(reference, features)
    size = min(LARGEST_SUBSET, len(reference), len(features))
    logger.info("kernel distance: mean over %d subsets of %d images of each set", SUBSETS, size)
    found = kid_features_to_metric(
        _as_double(reference),
        _as_double(features),
        kid_subsets=SUBSETS,
        kid_subset_size=size,
        kid_kernel_poly_gamma=kernel_gamma(reference),
        rng_seed=kernel_seed(seed),
        verbose=False,
    )
    return found[KEY_METRIC_KID_MEAN]


def kernel_gamma(reference: np.ndarray) -> float:
    """Return gamma of the polynomial kernel, one over the mean squared norm of the reference features.

    KID uses one over the number of features, which suits Inception's range near one. Features of the offline extractors
    are hundreds of times smaller or larger, for which that kernel would be nearly linear or dominated by outliers.
    """
    return float(1 / np.square(reference, dtype=np.float64).sum(axis=1).mean())


def kernel_seed(seed: int) -> int:
    """Return the 32-bit seed of the subsets."""
    return seeding.derive(seed, "kernel_distance") % 2**32


def _as_double(features: np.ndarray) -> Tensor:
    return torch.from_numpy(features.astype(np.float64))


def _check(reference: np.ndarray, features: np.ndarray) -> None:
    if reference.shape[1:] != features.shape[1:]:
        raise DataError(f"features of shapes {reference.shape} and {features.shape}; use the same extractor for both")
    if min(len(reference), len(features)) < 2:
        raise DataError(f"{len(reference)} and {len(features)} images; a distance of sets needs at least 2 of each")
