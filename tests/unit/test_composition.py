"""Collages have one part of each image, from back to front, and are measured beside what is made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.studies.collages import Layers, PartImages, as_rectangles, blend_layers, fill, lay

SIDE = 32
NAMES = ["background", "skin", "mouth"]
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[8:24, 8:24] = 1
CODES[16:20, 12:20] = 2


def layers_of(*colours, back=True):
    """Return two equal collages of plain layers, with the masks of `CODES`; without a back, a hole is left."""
    images = torch.stack([torch.full((3, SIDE, SIDE), colour) for colour in colours])
    masks = torch.stack([torch.from_numpy(code == CODES) for code in range(len(colours))])[:, None]
    masks[0, :, :4] &= back
    return Layers(torch.stack([images, images]), torch.stack([masks, masks]), np.array([["a", "b", "c"]] * 2))


def test_later_parts_lie_over_earlier_ones_and_holes_are_unknown():
    layers = layers_of(0.1, 0.5, -0.5, back=False)
    collage, known = lay(layers)
    expected = torch.tensor([0.1, 0.5, -0.5])[torch.from_numpy(CODES)]
    expected[:4] = 0
    assert collage.equal(expected.expand(2, 3, -1, -1))
    assert known.equal((torch.arange(SIDE) >= 4).float()[:, None].expand(2, 1, SIDE, SIDE))
    layers.masks[:, 1] = True  # a face that is larger hides the background
    assert (lay(layers)[0][:, :, 0] == 0.5).all()


def test_a_rectangle_takes_the_place_of_each_part():
    layers = layers_of(0.0, 0.5, -0.5)
    layers.masks[1, 2] = False  # this image lacks the part
    ring = layers.masks[:, 1].clone()
    layers.masks[:, 1, :, 10:20, 10:14] = False
    boxes = as_rectangles(layers)
    assert boxes.masks[:, 0].all()  # that around the background is the whole image
    assert boxes.masks[:, 1].equal(torch.from_numpy((CODES > 0)[None]).expand_as(ring))
    assert not boxes.masks[1, 2].any()


def test_holes_are_filled_with_the_mean_colour_of_the_back_layer():
    layers = layers_of(0.0, 0.5, -0.5, back=False)
    layers.images[:, 0, :, 4:8] = 0.8  # half of what lies above the face, an eighth of the background
    filled = fill(*lay(layers), layers)
    share = 4 * SIDE / int(layers.masks[0, 0].sum())
    torch.testing.assert_close(filled[:, :, :4], torch.full((2, 3, 4, SIDE), 0.8 * share))
    assert filled[:, :, 8:].equal(lay(layers)[0][:, :, 8:])


def test_plain_parts_vanish_when_they_are_blended_and_the_whole_back_image_shows():
    blended = blend_layers(layers_of(0.2, 0.5, -0.5, back=False))
    torch.testing.assert_close(blended, torch.full_like(blended, 0.2), rtol=0, atol=2e-3)


@pytest.fixture
def samples(tmp_path, write_shards):
    """Return shards of 60 samples, each of its own colour, with their parts; the first has no mouth."""
    names = [f"sample-{number:02d}" for number in range(60)]
    random = np.random.default_rng(0)
    colours, noise = random.integers(0, 240, (60, 1, 1, 3)), random.integers(0, 16, (60, SIDE, SIDE, 3))
    pixels = (colours + noise).astype(np.uint8)
    codes = [np.minimum(CODES, 1)] + [CODES] * 59
    rows = [row for name, code in zip(names, codes, strict=True) for row in part_rows(name, code, NAMES)]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    return pixels, write_shards(pixels, names), tmp_path / "parts.parquet"


def test_each_layer_is_the_part_of_the_image_that_was_drawn_for_it(samples):
    pixels, shards, parts = samples
    layers = PartImages(shards, parts, NAMES).layers(np.array([[3, 5, 7], [1, 2, 0]]), torch.device("cpu"))
    assert layers.images.shape == (2, 3, 3, SIDE, SIDE)
    for part, place in enumerate([3, 5, 7]):
        restored = ((layers.images[0, part] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(restored, pixels[place])
        np.testing.assert_array_equal(layers.masks[0, part, 0].numpy(), part == CODES)
    assert not layers.masks[1, 2].any()  # that image has no mouth
