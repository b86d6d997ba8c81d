"""Detectors give calibrated probabilities by attribute; selector and referee are different networks."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.networks.classifier import PlainClassifier, ResidualClassifier, one_value_of_each_column
from pipeline_lib.networks.segmenter import UNetSegmenter

ATTRIBUTES = ["smiling", "hat", "beard"]
BOTH = pytest.mark.parametrize("network", [PlainClassifier, ResidualClassifier])


def draw(count, side=32, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make(network):
    torch.manual_seed(0)
    return network(ATTRIBUTES, width=4).requires_grad_(False).eval()


@BOTH
@pytest.mark.parametrize("side", [16, 32, 64])
def test_every_image_gets_a_probability_for_every_attribute(network, side):
    probabilities = make(network)(draw(2, side))
    assert probabilities.shape == (2, 3)
    assert ((probabilities > 0) & (probabilities < 1)).all()


@BOTH
def test_the_temperature_of_an_attribute_divides_its_logit(network):
    detector, images = make(network), draw(4)
    before = detector.logits(images)
    detector.temperature.copy_(torch.tensor([1.0, 2.0, 0.5]))
    torch.testing.assert_close(detector.logits(images), before / torch.tensor([1.0, 2.0, 0.5]))
    torch.testing.assert_close(detector(images), detector.logits(images).sigmoid())
    torch.testing.assert_close(detector.raw_logits(images), before)


@BOTH
def test_an_image_is_judged_by_itself(network):
    detector, images = make(network), draw(5)
    torch.testing.assert_close(detector.logits(images)[3:4], detector.logits(images[3:4]))


@BOTH
def test_an_image_and_its_mirror_image_are_judged_alike_unless_an_attribute_has_a_side(network):
    detector, images = make(network), draw(4)
    one, other = detector.view_logits(images), detector.view_logits(images.flip(-1))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(detector.logits(images), (one + other) / 2)
    detector.mirror = False
    torch.testing.assert_close(detector.logits(images), one)


def test_no_image_has_two_values_of_one_column():
    attributes = ["race=Black", "smiling", "race=East Asian", "age=3-9", "race=White"]
    logits = torch.tensor([[3.0, 3.0, -1.0, 5.0, -2.0], [-2.0, -3.0, -1.0, 5.0, -4.0], [0.1, 2.0, 0.1, -1.0, 0.1]])
    found = one_value_of_each_column(logits, attributes)
    races = found[:, [0, 2, 4]].sigmoid()
    before = logits[:, [0, 2, 4]].sigmoid()
    torch.testing.assert_close(races, before / before.sum(dim=1, keepdim=True).clamp(min=1))
    assert ((found[:, [0, 2, 4]] > 0).sum(dim=1)).tolist() == [1, 0, 0]
    assert found[:, [1, 3]].equal(logits[:, [1, 3]])
    assert one_value_of_each_column(logits, ["a", "b=1", "c", "d", "e"]).equal(logits)


def test_a_detectors_answers_have_one_value_of_each_column():
    torch.manual_seed(0)
    detector = PlainClassifier(["race=Black", "race=White"], width=4).requires_grad_(False).eval()
    detector.head.bias.fill_(1.0)  # sees both in every image
    images = draw(4)
    assert (detector.raw_logits(images) > 0).all()
    assert ((detector.logits(images) > 0).sum(dim=1) <= 1).all()
    assert (detector(images).sum(dim=1) <= 1 + 1e-6).all()


@BOTH
def test_attributes_are_found_by_name(network):
    assert [make(network).index(name) for name in ATTRIBUTES] == [0, 1, 2]


def test_selector_and_referee_share_no_architecture():
    plain, residual = make(PlainClassifier), make(ResidualClassifier)
    assert plain.architecture != residual.architecture
    shapes = [
        {tuple(value.shape) for value in network.parameters() if value.ndim == 4} for network in (plain, residual)
    ]
    assert shapes[0] != shapes[1]


def test_the_segmenter_names_the_likeliest_part_of_every_pixel():
    torch.manual_seed(0)
    segmenter, images = UNetSegmenter(["background", "skin", "mouth"], width=4).requires_grad_(False).eval(), draw(2)
    codes = segmenter(images)
    assert (codes.shape, codes.dtype) == ((2, 32, 32), torch.int64)
    logits = segmenter.logits(images)
    assert logits.gather(1, codes[:, None])[:, 0].equal(logits.amax(dim=1))
