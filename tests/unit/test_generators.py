"""Both generators grow smoothly, modulate as published, and draw each latent by its index."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline_lib.networks.layers import EqualConv2d, EqualLinear, pixel_norm, resolutions_up_to
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator, _ModulatedConv

CHANNELS = [12, 8, 6]  # at 4, 8 and 16 pixels


def make(kind):
    torch.manual_seed(0)
    if kind == "progan":
        return ProGANGenerator(16, CHANNELS, z_dim=8).requires_grad_(False)
    return StyleGAN2Generator(16, CHANNELS, style_dim=8, mapping_layers=2, noise=False).requires_grad_(False)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("upsample", [True, False])
@torch.no_grad()
def test_modulation_equals_one_kernel_a_sample_written_out(upsample, demodulate):
    torch.manual_seed(0)
    layer = _ModulatedConv(5, 7, 3, style_dim=4, demodulate=demodulate, upsample=upsample).double()
    x, w = normal(3, 5, 6, 6).double(), normal(3, 4, seed=2).double()
    expected = []
    for image, style in zip(x, w @ layer.modulation.weight.T / 4**0.5 + layer.modulation.bias, strict=True):
        kernel = layer.weight[0] / 45**0.5 * style[None, :, None, None]
        if demodulate:
            kernel = kernel / torch.sqrt(kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if upsample:
            image = layer.blur(F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2))
        else:
            image = F.conv2d(image[None], kernel, padding=1)
        expected.append(image)
    features, factor = layer(x, w)
    torch.testing.assert_close(features * factor if demodulate else features, torch.cat(expected))


@pytest.mark.parametrize("kind", ["progan", "stylegan2"])
def test_images_are_square_and_in_range_whatever_the_latents(kind):
    generator = make(kind)
    images = generator.decode(100 * generator.sample_latents(range(3), 0))
    assert images.shape == (3, 3, 16, 16)
    assert images.abs().max() == 1


@pytest.mark.parametrize("kind", ["progan", "stylegan2"])
def test_a_new_resolution_fades_in_from_the_enlarged_coarser_image(kind):
    generator = make(kind)
    latents = generator.map_latents(normal(2, 8))
    for size in (8, 16):
        fine, coarse = generator.synthesize(latents, size), generator.synthesize(latents, size // 2)
        assert fine.shape[-1] == size
        if kind == "progan":
            enlarged = F.interpolate(coarse, scale_factor=2)
        else:
            enlarged = generator.to_rgbs[size // 16].upsample(coarse)
        torch.testing.assert_close(generator.synthesize(latents, size, fade=1e-9), enlarged, rtol=1e-4, atol=1e-5)
        weight = 0.25
        if kind == "progan":
            expected = weight * fine + (1 - weight) * enlarged
        else:  # the skip connection adds, so only what the new block adds is faded
            expected = enlarged + weight * (fine - enlarged)
        torch.testing.assert_close(generator.synthesize(latents, size, fade=weight), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["progan", "stylegan2"])
def test_a_latent_is_a_function_of_seed_and_index(kind):
    generator = make(kind)
    whole = generator.sample_latents(range(9), 3)
    assert whole.shape == (9, *generator.latent_shape)
    torch.testing.assert_close(generator.sample_latents([8, 2], 3), whole[[8, 2]])
    assert not torch.allclose(generator.sample_latents([2], 4), whole[[2]])


def test_truncation_moves_latents_on_the_line_to_the_mean():
    generator = make("stylegan2")
    generator.latent_avg.copy_(normal(8, seed=5))
    latents = generator.sample_latents(range(4), 0)
    mean = generator.latent_avg.expand_as(latents)
    torch.testing.assert_close(generator.truncate(latents, 1.0), latents)
    torch.testing.assert_close(generator.truncate(latents, 0.0), mean)
    torch.testing.assert_close(generator.truncate(latents, 0.5), (latents + mean) / 2)


def test_each_layer_of_a_style_generator_has_its_own_latent():
    generator = make("stylegan2")
    latents, other = generator.sample_latents(range(2), 0)[:, None]
    for layer in range(generator.latent_shape[0]):
        mixed = latents.clone()
        mixed[:, layer] = other[:, layer]
        assert not torch.allclose(generator.synthesize(mixed), generator.synthesize(latents)), layer


def test_the_mapping_and_progan_ignore_the_length_of_z():
    z = normal(2, 8)
    for generator in (make("progan"), make("stylegan2")):
        images = (generator.synthesize(generator.map_latents(scale * z)) for scale in (1, 3))
        torch.testing.assert_close(*images, rtol=1e-4, atol=1e-5)


def test_a_resolution_without_a_head_is_refused():
    generator = ProGANGenerator(16, CHANNELS, z_dim=8, heads=[16])
    with pytest.raises(ValueError, match=r"no RGB head at 8 pixels; it has \[16\]"):
        generator.synthesize(normal(1, 8), 8)


@pytest.mark.parametrize("network", [ProGANGenerator, StyleGAN2Generator])
def test_every_resolution_needs_its_channels(network):
    with pytest.raises(ValueError, match=r"2 channel counts for 3 resolutions \[4, 8, 16\]"):
        network(16, [8, 8])


def test_resolutions_are_powers_of_two():
    assert resolutions_up_to(32) == [4, 8, 16, 32]
    for wrong in (2, 12, 0):
        with pytest.raises(ValueError, match="not a power of two"):
            resolutions_up_to(wrong)


def test_pixel_norm_gives_each_position_a_mean_square_of_one():
    x = pixel_norm(3 * normal(2, 16, 4, 4))
    torch.testing.assert_close(x.square().mean(dim=1), torch.ones(2, 4, 4))


@torch.no_grad()
def test_equalised_layers_keep_the_scale_of_their_input():
    torch.manual_seed(0)
    assert EqualLinear(400, 400, lr_multiplier=0.01)(normal(64, 400)).std() == pytest.approx(1, abs=0.05)
    inside = EqualConv2d(64, 64, 3)(normal(8, 64, 12, 12))[..., 1:-1, 1:-1]
    assert inside.std() == pytest.approx(1, abs=0.05)
    activated = EqualLinear(400, 400, activate=True)(normal(64, 400))
    assert activated.square().mean() == pytest.approx(1 + 0.2**2, abs=0.1)  # half of 2 (x^2 and (0.2 x)^2)
