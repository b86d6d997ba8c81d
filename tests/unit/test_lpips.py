"""LPIPS is the package's own distance on a trunk that is given, and says what is missing where there is none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from pipeline_lib.networks.distances import TRUNKS, open_distance
from pipeline_lib.networks.perceptual import Perceptual
from pipeline_lib.runtime.errors import WeightsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the folder of torch's downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def write_trunk(cache, network, of=None):
    torch.manual_seed(0)
    trunk = getattr(torchvision.models, TRUNKS[network][1])(weights=None)
    torch.save(trunk.state_dict(), cache / TRUNKS[of or network][0])
    return trunk.features.eval()


@pytest.fixture(scope="module")
def pair():
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return a, b


@pytest.mark.slow
@pytest.mark.parametrize(("network", "taps"), [("alex", (1, 4, 7, 9, 11)), ("vgg", (3, 8, 15, 22, 29))])
@torch.no_grad()
def test_the_distance_is_the_weighted_one_of_unit_features(cache, pair, network, taps):
    trunk = write_trunk(cache, network)
    distance = open_distance(f"lpips-{network}")
    assert distance.name == f"LPIPS {network} 0.1"
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    features = [(image - shift) / scale for image in pair]
    expected = torch.zeros(2)
    weights = dict(distance.named_parameters())
    for index, layer in enumerate(trunk):
        features = [layer(x) for x in features]
        if index in taps:
            weight = weights[f"_distance.lin{taps.index(index)}.model.1.weight"]
            unit = [F.normalize(x, dim=1, eps=1e-10) for x in features]
            expected += ((unit[0] - unit[1]).square() * weight).sum(1).mean((1, 2))
    torch.testing.assert_close(distance(*pair), expected, rtol=1e-4, atol=1e-6)
    assert distance(pair[0], pair[0]).tolist() == [0, 0]


def test_squeeze_takes_its_own_trunk_and_gradients_reach_the_images(cache, pair):
    write_trunk(cache, "squeeze")
    distance = open_distance("lpips-squeeze")
    moved = pair[0].clone().requires_grad_(True)
    distance(moved, pair[1]).sum().backward()
    assert moved.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_a_trunk_that_is_missing_damaged_or_of_another_network_is_refused(cache):
    with pytest.raises(WeightsError, match=r"no backbone weights for lpips-alex; download them .*alexnet\(weights="):
        open_distance("lpips-alex")
    write_trunk(cache, "alex", of="vgg")
    with pytest.raises(WeightsError, match=r"not the backbone of LPIPS vgg 0.1; features.0.weight is missing or has"):
        open_distance("lpips-vgg")
    (cache / TRUNKS["alex"][0]).write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"not a readable weight file"):
        open_distance("lpips-alex")


def test_the_offline_distances_need_nothing():
    assert isinstance(open_distance("stlpips-alex"), Perceptual)
