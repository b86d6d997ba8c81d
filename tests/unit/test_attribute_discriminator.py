"""A discriminator of attributes finds who goes with whom, which no rate by itself shows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline_lib.networks.classifier import Detector
from pipeline_lib.training.attributes import AttributeDiscriminator

CPU = torch.device("cpu")


class TwoPixels(Detector):
    """Says of an image's first two pixels whether they are bright."""

    def __init__(self):
        super().__init__(["smiling", "long_hair"], width=1, mirror=False)
        self.weight = nn.Parameter(torch.tensor(20.0))

    def view_logits(self, images):
        return self.weight * images[:, 0, 0, :2]


def draw(count, together, seed):
    """Draw images in which both pixels are bright half of the time, and alike in a share `together` of them."""
    random = torch.Generator().manual_seed(seed)
    first = torch.rand(count, generator=random) < 0.5
    second = torch.where(torch.rand(count, generator=random) < together, first, ~first)
    images = torch.zeros(count, 3, 2, 2)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = first.float() * 2 - 1, second.float() * 2 - 1
    return images


def make(weight=3.0):
    return AttributeDiscriminator(TwoPixels(), weight, 0, CPU)


def train(discriminator, steps=400):
    for step in range(steps):
        real, fake = draw(32, 0.5, 2 * step), draw(32, 0.8, 2 * step + 1)
        loss = discriminator.learn(discriminator.look(real), discriminator.look(fake))
    return loss


@pytest.mark.slow
def test_it_finds_that_two_attributes_go_together_though_each_is_as_frequent_as_it_should_be():
    discriminator = make()
    train(discriminator)
    with torch.no_grad():
        alike, unlike = (discriminator.network(discriminator.look(draw(64, together, 0))).mean() for together in (1, 0))
    # the log ratio of real to generated is log(0.5 / 0.8) where both agree and log(0.5 / 0.2) where they differ
    assert float(unlike - alike) == pytest.approx(1.39, abs=0.5)


def test_its_loss_moves_images_towards_the_rates_of_the_real_ones():
    discriminator = make(weight=2.0)
    train(discriminator)
    torn = torch.zeros(64, 3, 2, 2)
    torn[:, 0, 0, 0], torn[:, 0, 0, 1] = 0.05, 0.01  # smiles, barely has long hair
    torn.requires_grad_()
    loss = discriminator.against(discriminator.look(draw(64, 0.5, 1)), discriminator.look(torn))
    loss.backward()
    assert (torn.grad[:, 0, 0, 1] > 0).all()  # less of the other attribute lowers the loss
    assert (torn.grad[:, 1:] == 0).all()
    gentle = make(weight=1.0)
    gentle.load_state_dict(discriminator.state_dict())
    assert loss == 2 * gentle.against(gentle.look(draw(64, 0.5, 1)), gentle.look(torn))


def test_the_detector_is_never_changed():
    discriminator = make()
    train(discriminator, 3)
    assert float(discriminator.detector.weight) == 20
    assert discriminator.detector.weight.grad is None


def test_it_resumes_to_the_very_same_weights():
    whole, first, second = make(), make(), make()
    seen = [(whole.look(draw(8, 0.5, i)), whole.look(draw(8, 0.9, i))) for i in range(6)]
    for pair in seen:
        whole.learn(*pair)
    for pair in seen[:3]:
        first.learn(*pair)
    second.load_state_dict(first.state_dict())
    for pair in seen[3:]:
        second.learn(*pair)
    for name, value in whole.network.state_dict().items():
        assert value.equal(second.network.state_dict()[name]), name
