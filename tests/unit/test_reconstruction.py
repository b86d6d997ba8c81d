"""An encoder's error on samples is measured over the pixels that it knows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.reconstruction import main, reconstruct
from pipeline_lib.config import MaskSampling
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.progan import ProGANGenerator


class Off:
    """An inverter that is off by 0.1 where it knows a pixel, and by 1 elsewhere."""

    encoder = SimpleNamespace(masked=True)
    generator = SimpleNamespace(
        z_dim=4, map_latents=lambda z: z, decode=lambda z: z[:, :3, None, None].clamp(-1, 1).expand(-1, 3, 16, 16)
    )

    def __call__(self, images, known):
        return images + torch.where(known.bool(), 0.1, 1.0)


@pytest.mark.parametrize("masks", [None, MaskSampling(least=0.3)])
def test_only_known_pixels_count(masks):
    psnr, l1, same, (images, seen, rebuilt) = reconstruct(Off(), masks, 60, seed=0)
    assert same.shape == (60, 0)
    np.testing.assert_allclose(psnr, np.full(60, 20 * np.log10(2 / 0.1)), rtol=1e-5)
    np.testing.assert_allclose(l1, np.full(60, 0.1), rtol=1e-5)
    assert images.shape == seen.shape == rebuilt.shape == (12, 3, 16, 16)
    assert torch.equal(images, seen) == (masks is None)


def test_a_detector_is_asked_of_sample_and_reconstruction():
    bright = SimpleNamespace(logits=lambda images: torch.stack([images[:, 0, 0, 0], images[:, 1, 0, 0]], dim=1))
    found = reconstruct(Off(), None, 60, 0, bright)
    sample = found.shown[0][:, :2, 0, 0]
    np.testing.assert_array_equal(found.same[:12], ((sample > 0) == (sample + 0.1 > 0)).numpy())
    assert 0.9 < found.same.mean() < 1  # some are just below zero


@pytest.mark.parametrize("masked", [True, False])
def test_the_table_has_a_row_for_each_way_to_mask(masked, tmp_path, capsys):
    torch.manual_seed(0)
    save_weights(tmp_path / "generator.safetensors", ProGANGenerator(16, [8, 8, 8], z_dim=8), {})
    save_weights(tmp_path / "rgb.safetensors", ResNetEncoder((8,), width=4, masked=masked, small=True), {})
    main([str(tmp_path), "--encoder", "rgb.safetensors", "--images", "4", "--grid", str(tmp_path / "grid.png")])
    said = capsys.readouterr().out
    assert "all" in said
    assert ("random masks" in said) == masked
    assert (tmp_path / "grid.png").exists()
