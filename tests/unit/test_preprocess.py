"""Images are scaled as Pillow scales them, whose filter other people's preprocessing takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_lib.networks.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)


@pytest.mark.parametrize("side", [20, 48, 100])
def test_scaling_and_colours_are_those_of_pillow(side: int) -> None:
    image = torch.from_numpy(PIXELS).permute(2, 0, 1)[None].float() / 127.5 - 1
    found = Preprocess(side, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))(image)[0].permute(1, 2, 0).numpy()
    scaled = np.asarray(Image.fromarray(PIXELS).resize((side, side), Image.Resampling.BILINEAR))
    wanted = (scaled / 255 - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0]
    assert np.abs(found - wanted).max() < 2.1 / 255 / 0.5  # Pillow rounds to whole colours, once an axis
