"""The reference values in tests/reference/perceptual.npz come from the package's own forward; its `note` says how."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline_lib.networks import perceptual as module
from pipeline_lib.networks.perceptual import BlurPool, load_perceptual
from pipeline_lib.runtime.errors import WeightsError

REFERENCE = Path(__file__).parents[1] / "reference" / "perceptual.npz"


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCE)


@pytest.fixture(scope="module")
def alex():
    return load_perceptual("alex")


def images_of(reference, key):
    return torch.from_numpy(reference[key]).float() / 127.5 - 1


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_distances_and_features_are_those_of_the_package(network, reference):
    perceptual = load_perceptual(network)
    for shape in ("square", "oblong"):
        a, b = (images_of(reference, f"{shape}_{side}") for side in "ab")
        np.testing.assert_allclose(perceptual(a, b), reference[f"{shape}_{network}_distance"], rtol=1e-4)
        expected = reference[f"{shape}_{network}_features"]
        np.testing.assert_allclose(perceptual.features(a), expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_blur_pool_is_a_strided_binomial_convolution():
    x = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    expected = F.conv2d(padded, kernel.expand(3, 1, 3, 3), stride=2, groups=3)
    torch.testing.assert_close(BlurPool()(x), expected)


def test_distance_is_symmetric_and_zero_for_equal_images(alex, reference):
    a, b = (images_of(reference, f"square_{side}") for side in "ab")
    torch.testing.assert_close(alex(a, b), alex(b, a))
    assert alex(a, a).tolist() == [0, 0, 0]


def test_an_image_of_a_batch_is_measured_as_if_alone(alex, reference):
    a, b = (images_of(reference, f"square_{side}") for side in "ab")
    alone = torch.cat([alex(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
    torch.testing.assert_close(alex(a, b), alone)


def test_gradients_flow_to_the_images_and_to_no_weight(alex, reference):
    a, b = (images_of(reference, f"square_{side}") for side in "ab")
    a.requires_grad_()
    alex(a, b).sum().backward()
    assert a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0
    assert all(weight.grad is None and not weight.requires_grad for weight in alex.parameters())


def test_gradients_stay_finite_where_a_block_is_silent(reference):
    a, b = (images_of(reference, f"square_{side}") for side in "ab")
    perceptual = load_perceptual("alex")
    perceptual.trunk[13].bias.fill_(-1e3)  # silences the last block everywhere
    a.requires_grad_()
    perceptual(a, b).sum().backward()
    assert a.grad.isfinite().all()


def test_distances_are_exact_within_autocast_even_of_nearly_equal_images(alex, reference):
    image, _ = (images_of(reference, f"square_{side}") for side in "ab")
    nearly = image + 0.005 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = alex(image, nearly)
    assert found.equal(alex(image, nearly))


def test_name_says_trunk_and_package(alex):
    assert alex.name == "shift-tolerant AlexNet (stlpips 0.0.2)"
    assert not alex.training


def test_a_missing_package_is_named_with_its_mend(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(WeightsError, match=r"stlpips_pytorch.*pip install stlpips-pytorch==0\.0\.2"):
        load_perceptual("alex")


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_damaged_or_missing_weights_are_named(content, monkeypatch, tmp_path):
    path = tmp_path / "alex_shift_tolerant.pth"
    if content is not None:
        path.write_bytes(content)

    class Package:
        version = "0.0.2"

        def locate_file(self, _):
            return path

    monkeypatch.setattr(module.metadata, "distribution", lambda _: Package())
    with pytest.raises(WeightsError, match=r"alex_shift_tolerant\.pth"):
        load_perceptual("alex")


def test_weights_of_another_network_are_refused(monkeypatch):
    package = metadata.distribution("stlpips_pytorch")

    class Swapped:
        version = package.version

        def locate_file(self, path):
            return package.locate_file(path.replace("vgg", "alex"))

    monkeypatch.setattr(module.metadata, "distribution", lambda _: Swapped())
    with pytest.raises(WeightsError, match="not the weights of this network"):
        load_perceptual("vgg")
