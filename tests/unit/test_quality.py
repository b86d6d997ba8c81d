from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch_fidelity
from torch_fidelity.metric_fid import fid_features_to_statistics

from pipeline_lib.data.shards import shard_writer
from pipeline_lib.evaluation.features import extract_features
from pipeline_lib.evaluation.frechet import (
    SUBSETS,
    frechet_distance,
    gaussian_statistics,
    kernel_distance,
    kernel_gamma,
    kernel_seed,
)
from pipeline_lib.evaluation.images import measure_quality
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.errors import DataError


@pytest.fixture(scope="module")
def alex():
    return load_perceptual("alex")


def draw_images(n, seed, highest=256):
    return np.random.default_rng(seed).integers(0, highest, (n, 32, 32, 3), dtype=np.uint8)


def write_shards(folder, images, counts):
    paths, start = [], 0
    for number, count in enumerate(counts):
        paths.append(folder / f"{number}.parquet")
        with shard_writer(paths[-1], 32) as writer:
            writer.add([str(start + i) for i in range(count)], images[start : start + count])
        start += count
    return paths


class UInt8Images(torch.utils.data.Dataset):
    """Images as torch-fidelity reads them: uint8 (3, H, W)."""

    def __init__(self, images):
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def draw_features(n, seed, mean=0.0, scale=1.0):
    return np.random.default_rng(seed).standard_normal((n, 3)) * scale + mean


def test_features_are_the_same_however_images_lie_in_shards_and_batches(alex, tmp_path):
    images = draw_images(13, 0)
    one, two = tmp_path / "one", tmp_path / "two"
    whole = extract_features(write_shards(one, images, [13]), alex)
    parted = extract_features(write_shards(two, images, [4, 9]), alex, batch=3)
    assert whole.shape == (13, 256)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(parted, whole, rtol=1e-4, atol=1e-7)
    by_hand = alex.features(torch.from_numpy(images[7:8]).permute(0, 3, 1, 2) / 127.5 - 1)
    np.testing.assert_allclose(whole[7:8], by_hand, rtol=1e-4, atol=1e-7)


def test_features_of_images_seen_before_come_from_the_cache(alex, tmp_path, monkeypatch):
    images, cache = draw_images(13, 0), tmp_path / "cache"
    shards = write_shards(tmp_path / "one", images, [13])
    first = extract_features(shards, alex, cache=cache)
    shorter = extract_features(shards, alex, cache=cache, limit=5)
    monkeypatch.setattr(alex, "features", lambda images: pytest.fail("computed again"))
    copied = write_shards(tmp_path / "two", images, [13])
    np.testing.assert_array_equal(extract_features(copied, alex, cache=cache), first)
    assert len(extract_features(copied, alex, cache=cache, limit=5)) == len(shorter) == 5
    monkeypatch.undo()
    changed = extract_features(write_shards(tmp_path / "three", 255 - images, [13]), alex, cache=cache)
    assert not np.allclose(changed, first)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_statistics_are_those_of_torch_fidelity_however_they_are_summed(chunk):
    features = draw_features(40, 0, mean=1e3).astype(np.float32)
    expected = fid_features_to_statistics(torch.from_numpy(features.astype(np.float64)))
    found = gaussian_statistics(features, chunk)
    for name in ("mu", "sigma"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-9)


def test_shards_without_images_are_an_error(alex, tmp_path):
    with pytest.raises(DataError, match="no image"):
        extract_features(write_shards(tmp_path, draw_images(0, 0), [0]), alex)


def test_frechet_distance_is_the_closed_form_of_two_gaussians():
    # Diagonal Gaussians fitted to points that have exactly these moments: |m - m'|^2 + sum (s - s')^2.
    points = draw_features(50, 1)
    points -= points.mean(axis=0)
    points = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T  # unit covariance
    moved = points * [2.0, 0.5, 1.0] + [3.0, 0.0, -4.0]
    assert frechet_distance(points, moved) == pytest.approx(25 + 1 + 0.25)
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_the_unbiased_estimator_written_out():
    # Sets no larger than a subset: every subset is the whole, and nothing is left to chance.
    x, y = draw_features(20, 2), draw_features(20, 3, mean=1.0)
    gamma = 1 / (x**2).sum(axis=1).mean()

    def kernel(a, b):
        return (gamma * float(a @ b) + 1) ** 3

    def mean_of_pairs(points):
        return np.mean([kernel(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j])

    expected = mean_of_pairs(x) + mean_of_pairs(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_kernel_distance_does_not_depend_on_the_features_unit():
    x, y = draw_features(30, 4), draw_features(40, 5, mean=0.5)
    assert kernel_distance(x * 1e-3, y * 1e-3) == pytest.approx(kernel_distance(x * 1e3, y * 1e3))


def test_kernel_distance_of_one_distribution_is_zero_on_average():
    # Unbiased: 60 independent estimates average to zero within four standard errors, and not all are positive.
    found = np.array([kernel_distance(draw_features(25, i), draw_features(25, 1000 + i)) for i in range(60)])
    assert abs(found.mean()) < 4 * found.std(ddof=1) / np.sqrt(60)
    assert found.min() < 0


def test_subset_size_fits_the_smaller_set_and_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        kernel_distance(draw_features(30, 0), draw_features(12, 1))
    assert "subsets of 12 images" in caplog.text


def test_distances_agree_with_torch_fidelitys_own_run_of_the_registered_extractor(alex, tmp_path):
    real, fake = draw_images(24, 0), draw_images(16, 1, highest=200)
    reference = extract_features(write_shards(tmp_path / "real", real, [24]), alex)
    features = extract_features(write_shards(tmp_path / "fake", fake, [16]), alex)
    found = torch_fidelity.calculate_metrics(
        input1=UInt8Images(real),
        input2=UInt8Images(fake),
        feature_extractor="shift-tolerant-alex",
        fid=True,
        kid=True,
        kid_subset_size=16,
        kid_subsets=SUBSETS,
        kid_kernel_poly_gamma=kernel_gamma(reference),
        rng_seed=kernel_seed(7),
        cuda=False,
        cache=False,
        save_cpu_ram=True,  # loads images in this process
        verbose=False,
    )
    assert frechet_distance(reference, features) == pytest.approx(found["frechet_inception_distance"], rel=1e-3)
    assert kernel_distance(reference, features, seed=7) == pytest.approx(
        found["kernel_inception_distance_mean"], rel=1e-3
    )


def test_each_measure_names_extractor_reference_and_numbers(alex, tmp_path):
    real = write_shards(tmp_path / "real", draw_images(24, 0), [24])
    shards = write_shards(tmp_path / "fake", draw_images(16, 1, highest=200), [7, 9])
    found = measure_quality({"samples": shards}, real, None, 0, None, torch.device("cpu"))["samples"]
    reference, features = extract_features(real, alex), extract_features(shards, alex)
    density, coverage = density_and_coverage(reference, features)
    assert {name: measured.value for name, measured in found.items()} == pytest.approx(
        {
            "frechet_distance": frechet_distance(reference, features),
            "kernel_distance": kernel_distance(reference, features),
            "density": density,
            "coverage": coverage,
        }
    )
    for measured in found.values():
        assert measured.extractor == "shift-tolerant AlexNet (stlpips 0.0.2)"
        assert (measured.reference, measured.n, measured.n_reference) == ("held-out real images", 16, 24)


def test_a_single_image_has_no_distance():
    with pytest.raises(DataError, match="at least 2 of each"):
        frechet_distance(draw_features(5, 0), draw_features(1, 1))
    with pytest.raises(DataError, match="the same extractor"):
        kernel_distance(draw_features(5, 0), draw_features(5, 1)[:, :2])
