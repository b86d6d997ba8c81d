"""Part masks survive their table, and the segmenter's answer is what the table holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import BoxRegion
from pipeline_lib.data.part_masks import BOX, PartMasks
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.parts import extract_parts, part_rows
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.segmenter import UNetSegmenter

PARTS = ["background", "skin", "mouth"]
CODES = np.zeros((8, 8), np.int64)
CODES[1:7, 2:6] = 1
CODES[4:6, 3:5] = 2


def test_a_row_has_the_count_and_the_box_of_its_part():
    skin, mouth = part_rows("a", CODES, PARTS)
    assert {key: mouth[key] for key in ("part", "pixels", "top", "bottom", "left", "right")} == {
        "part": "mouth",
        "pixels": 4,
        "top": 4,
        "bottom": 6,
        "left": 3,
        "right": 5,
    }
    assert (skin["part"], skin["pixels"]) == ("skin", 6 * 4 - 4)


def test_masks_survive_the_table_and_small_or_absent_parts_are_left_out(tmp_path):
    rows = part_rows("a", CODES, PARTS) + part_rows("b", np.minimum(CODES, 1), PARTS)
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    masks = PartMasks(tmp_path / "parts.parquet", ["mouth"], 8)
    assert list(masks) == ["a"]
    np.testing.assert_array_equal(masks["a"], CODES == 2)
    assert PartMasks(tmp_path / "parts.parquet", ["mouth"], 8, least_pixels=5) == {}
    np.testing.assert_array_equal(PartMasks(tmp_path / "parts.parquet", ["skin"], 8)["b"], CODES > 0)


def test_pieces_that_are_small_beside_the_largest_are_left_out():
    codes = np.zeros((16, 16), np.int64)
    codes[2:6, 2:12] = 1  # an eye of 40 pixels
    codes[10:12, 2:4] = 1  # another of 4, just enough
    codes[13, 13] = 2  # a mouth of a single pixel is all that there is of it
    expected = codes == 1
    codes[10, 8:11] = 1  # 3 stray pixels
    eyes, mouth = part_rows("a", codes, PARTS)
    mask = np.unpackbits(np.frombuffer(eyes["mask"], np.uint8)).reshape(16, 16)
    np.testing.assert_array_equal(mask, expected)
    assert (eyes["pixels"], eyes["right"]) == (44, 12)
    assert mouth["pixels"] == 1


def test_an_image_that_is_all_background_has_no_part():
    assert part_rows("a", np.zeros((8, 8), np.int64), PARTS) == []


@pytest.mark.parametrize(("shards", "batch"), [(1, 128), (3, 2)])
def test_the_table_holds_what_the_segmenter_says_of_each_image(tmp_path, write_shards, shards, batch):
    torch.manual_seed(0)
    segmenter = UNetSegmenter(PARTS, width=4).eval()
    save_weights(tmp_path / "segmenter.safetensors", segmenter, {})
    pixels = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)
    names = [f"image-{number}" for number in range(7)]
    extract_parts(
        images=write_shards(pixels, names, shards=shards),
        weights=[tmp_path / "segmenter.safetensors"],
        box=None,
        run="toy",
        parts=tmp_path / "parts.parquet",
        device=torch.device("cpu"),
        batch=batch,
    )
    with torch.no_grad():
        codes = segmenter(to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2), "cpu")).numpy()
    for code, part in enumerate(PARTS[1:], start=1):
        found = PartMasks(tmp_path / "parts.parquet", [part], 16)
        for name, expected in zip(names, codes == code, strict=True):
            np.testing.assert_array_equal(found.get(name, np.zeros((16, 16), bool)), expected)
    assert read_table(tmp_path / "parts.parquet", "parts")["part"].isin(PARTS[1:]).all()


def test_without_a_segmenter_every_image_has_one_part_the_box(tmp_path, write_shards):
    extract_parts(
        images=write_shards(np.zeros((3, 16, 16, 3), np.uint8), list("abc")),
        weights=[],
        box=BoxRegion(top=0.5, bottom=0.75, left=0.25, right=1.0, shows=None),
        run="toy",
        parts=tmp_path / "parts.parquet",
        device=torch.device("cpu"),
        batch=2,
    )
    found = PartMasks(tmp_path / "parts.parquet", [BOX], 16)
    assert sorted(found) == ["a", "b", "c"]
    for mask in found.values():
        assert mask[8:12, 4:].all()
        assert mask.sum() == 4 * 12
