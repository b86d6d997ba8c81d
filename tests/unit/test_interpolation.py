"""Composition is told from blends by the distances that the paper defines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.studies.collages import PartImages
from pipeline_lib.studies.interpolation import METHODS, blend, distances_of, draw_pairs
from pipeline_lib.studies.report import studies_page

SIDE = 16
NAMES = ["background", "skin", "mouth"]
CODES = np.ones((SIDE, SIDE), np.int64)
CODES[8:12, 4:12] = 2  # an eighth of the image


class Perfect:
    """An encoder and generator that rebuild every image exactly; its latents are half of the pixels' values."""

    precision = "float32"

    def __call__(self, images, known):
        assert known.all()
        return images

    def encode(self, images, known):
        return images.flatten(1) / 2

    def decode(self, latents):
        return latents.view(-1, 3, SIDE, SIDE) * 2


def constant(value, count=2):
    return torch.full((count, 3, SIDE, SIDE), value)


def taken(count=2):
    return torch.from_numpy(CODES == 2).expand(count, 1, -1, -1)


def test_a_perfect_composition_is_the_collage_and_blends_are_weighted_by_the_parts_area():
    context, target = constant(0.0), constant(0.8)
    made = blend(Perfect(), context, target, taken())
    assert list(made) == list(METHODS)
    assert made["composition"].equal(torch.where(taken(), target, context))
    for method in ("latent blend", "pixel blend"):
        torch.testing.assert_close(made[method], constant(0.1), rtol=0, atol=1e-6)


def test_distances_are_taken_where_each_image_is_wanted():
    context, target = constant(0.0), constant(0.8)
    assert (
        max(each.abs().max() for each in distances_of(torch.where(taken(), target, context), context, target, taken()))
        == 0
    )
    found = torch.stack(distances_of(constant(0.1), context, target, taken()), dim=1)
    expected = torch.tensor([0.1, 0.7, 0.1 * 7 / 8 + 0.7 / 8]).expand(2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def images(tmp_path, write_shards):
    names = [f"image-{number}" for number in range(8)]
    codes = [CODES] * 4 + [np.minimum(CODES, 1)] * 3 + [np.zeros_like(CODES)]
    rows = [row for name, code in zip(names, codes, strict=True) for row in part_rows(name, code, NAMES)]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    shards = write_shards(np.zeros((8, SIDE, SIDE, 3), np.uint8), names)
    return PartImages(shards, tmp_path / "parts.parquet", NAMES)


def test_a_pair_is_two_images_and_a_part_that_the_second_has(images):
    pairs = draw_pairs(images, 20, np.random.default_rng(0))
    assert len(pairs) == 7  # the last image has no part
    assert len({pair.target for pair in pairs}) == 7
    for pair in pairs:
        assert pair.context != pair.target
        assert pair.part in images.masks(pair.target)
    assert draw_pairs(images, 3, np.random.default_rng(0)) == pairs[:3]
    assert draw_pairs(images, 20, np.random.default_rng(1)) != pairs


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("distance", 0.1, 0.3, "As in the paper, composition has a smaller distance than latent blend, by 0.2 "),
        ("distance", -0.3, -0.1, "Unlike in the paper, composition has a larger distance than latent blend, by 0.2 "),
        ("distance", -0.1, 0.5, "Whether composition or latent blend has a smaller distance could not be determined."),
        ("density", -0.3, -0.1, "As in the paper, composition has a larger density than latent blend, by 0.2 "),
        ("density", 0.1, 0.3, "Unlike in the paper, composition has a smaller density than latent blend, by 0.2 "),
    ],
)
def test_the_page_says_whether_an_ordering_holds(metric, low, high, said):
    row = {"study": "interpolation", "metric": metric, "n": 9, "paper": None}
    shown = row | {"row": "composition", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    over = row | {"row": "latent blend over composition", "value": (low + high) / 2, "ci_low": low, "ci_high": high}
    page = studies_page(pd.DataFrame([shown, over]))
    assert said in page
    assert "| composition | 0.5 [0.4, 0.6] | 9 |" in page
    assert "over composition" not in page


def test_the_page_has_the_papers_figure_beside_ours_where_there_is_one():
    rows = [
        {"study": "independence", "row": name, "metric": "variation", "value": 0.1, "ci_low": 0.0, "ci_high": 0.2}
        | {"n": 5, "paper": paper}
        for name, paper in (("skin", 0.177), ("hat", None))
    ]
    rows.append(rows[1] | {"metric": "masked L1", "value": 0.00042, "ci_low": 0.0004, "ci_high": 0.0005, "n": 300})
    page = studies_page(pd.DataFrame(rows))
    assert "| skin | 0.1 [0, 0.2] | 0.177 |  | 5 |" in page
    assert "| hat | 0.1 [0, 0.2] |  | 0.00042 [0.0004, 0.0005] | 5, 300 |" in page
