"""A collage shows the donor where it is pasted; what is unknown cannot reach its composite."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.editing.inversion import Inverter, make_collage
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.runtime.errors import WeightsError

CPU = torch.device("cpu")


def draw(count, channels=3, seed=0):
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_collage_is_the_donor_where_pasted_and_the_context_elsewhere():
    context, donor, pasted = draw(4), draw(4, seed=1), (draw(4, 1, seed=2) > 0).float()
    collage = make_collage(context, donor, pasted)
    inside = pasted.bool().expand_as(collage)
    assert collage[inside].equal(donor[inside])
    assert collage[~inside].equal(context[~inside])


def test_a_composite_does_not_depend_on_unknown_pixels(networks):
    inverter = Inverter(networks.encoder, networks.generator, CPU)
    images, noise, known = draw(3), draw(3, seed=1), (draw(3, 1, seed=2) > 0).float()
    hidden = torch.where(known.bool(), images, noise)
    assert inverter(images, known).equal(inverter(hidden, known))
    assert not inverter(images).equal(inverter(hidden))


def test_composites_are_images_in_range(networks):
    composites = Inverter(networks.encoder, networks.generator, CPU)(draw(3))
    assert composites.shape == (3, 3, 16, 16)
    assert composites.abs().max() <= 1


def test_an_encoder_without_a_mask_channel_sees_the_whole_collage(networks, tmp_path):
    encoder = ResNetEncoder((6, 8), width=4, masked=False, small=True)
    save_weights(tmp_path / "rgb.safetensors", encoder, {})
    inverter = Inverter(tmp_path / "rgb.safetensors", networks.generator, CPU)
    assert inverter(draw(2), torch.zeros(2, 1, 16, 16)).equal(inverter(draw(2)))


def test_an_encoder_of_another_latent_space_is_refused(networks, tmp_path):
    save_weights(tmp_path / "other.safetensors", ResNetEncoder((8,), width=4, small=True), {})
    with pytest.raises(WeightsError, match=r"other\.safetensors regresses latents of shape \(8,\)"):
        Inverter(tmp_path / "other.safetensors", networks.generator, CPU)
