"""A detector on a library's network starts from its published weights, whatever classes those were for."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
import torchvision

from pipeline_lib.networks.backbone import BackboneClassifier
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.runtime.errors import WeightsError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
MEAN, STD = ([[[value]] for value in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.mark.parametrize(
    ("library", "name", "publish"),
    [
        ("torchvision", "resnet18", lambda: torchvision.models.resnet18(weights=None)),
        ("timm", "resnet10t", lambda: timm.create_model("resnet10t", pretrained=False)),
    ],
)
def test_features_are_those_of_the_published_weights(tmp_path, library, name, publish):
    torch.manual_seed(0)
    published = publish().eval()
    torch.save(published.state_dict(), tmp_path / "published.pth")
    torch.manual_seed(1)
    detector = BackboneClassifier(["smiling", "hat"], library, name, mirror=False).eval()
    detector.load_pretrained(tmp_path / "published.pth")
    published.fc = torch.nn.Identity()
    with torch.no_grad():
        features = published(((IMAGES + 1) / 2 - torch.tensor(MEAN)) / torch.tensor(STD))
        torch.testing.assert_close(detector.logits(IMAGES), detector.network.fc(features))
        save_weights(tmp_path / "ours.safetensors", detector, {})
        assert load_weights(tmp_path / "ours.safetensors").logits(IMAGES).equal(detector.logits(IMAGES))


def test_weights_of_another_network_are_refused(tmp_path):
    detector = BackboneClassifier(["smiling"], "torchvision", "resnet18")
    torch.save(torchvision.models.resnet34(weights=None).fc.state_dict(), tmp_path / "head.pth")
    with pytest.raises(WeightsError, match=r"head.pth: not the weights of resnet18; conv1.weight, bn1.weight"):
        detector.load_pretrained(tmp_path / "head.pth")
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth: not the weights of resnet18"):
        detector.load_pretrained(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(WeightsError, match=r"text.pth: not a readable weight file"):
        detector.load_pretrained(tmp_path / "text.pth")


def test_a_network_that_a_library_lacks_is_named(monkeypatch):
    for library in ("torchvision", "timm"):
        with pytest.raises(WeightsError, match=rf"{library} has no network resnet17"):
            BackboneClassifier(["smiling"], library, "resnet17")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match=r"pip install latent-rebalance\[timm\]"):
        BackboneClassifier(["smiling"], "timm", "resnet10t")


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_damaged_weights_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"(K")
    with pytest.raises(WeightsError, match=f"{name}: not a readable weight file"):
        BackboneClassifier(["smiling"], "torchvision", "resnet18").load_pretrained(tmp_path / name)
