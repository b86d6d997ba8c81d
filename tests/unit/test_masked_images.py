"""Encoders are compared on real images of which some pixels are unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline_lib.config import Encoder, Evaluate, MaskSampling, Studies, parse_config
from pipeline_lib.data.tables import read_table
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.studies import ablation, completion
from pipeline_lib.studies.ablation import ALL, ENCODERS, NO_LATENT, NO_PERCEPTUAL, study_ablation
from pipeline_lib.studies.completion import HOLES, RGB, RGBM, study_completion
from pipeline_lib.studies.masked import masked_images
from pipeline_lib.studies.report import plot_pictures, studies_page
from pipeline_lib.studies.rows import GROUPS, groups_of

SIDE, COUNT = 32, 60
CPU = torch.device("cpu")
LIKE = Encoder(width=8, training={"kimg": 1})


@pytest.fixture
def shards(write_shards):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)
    return write_shards(pixels, [f"image-{number:02d}" for number in range(COUNT)])


@pytest.fixture
def study(shards, tmp_path, monkeypatch):
    """Return a function that runs a study with given reconstructions in place of encoders, and returns its files."""

    def run(module, stage, fakes, **values):
        monkeypatch.setattr(module, "Inverter", lambda path, *_, **__: fakes[path.name])
        for name in (*fakes, "generator"):
            (tmp_path / name).write_text(name)
        made = {"table": tmp_path / "table.parquet", "pictures": tmp_path / "pictures.npz"}
        common = {"generator": tmp_path / "generator", "like": LIKE, "evaluate": Evaluate(), "run": "toy", "seed": 0}
        stage(images=shards, **common, **made, **values, device=CPU)
        return made

    return run


def test_a_mask_belongs_to_its_image_whatever_the_number_of_images(shards):
    few, all_ = (list(masked_images(shards, count, MaskSampling(), "k", 0, CPU)) for count in (10, COUNT))
    assert sum(len(images) for images, _ in all_) == COUNT
    assert few[0][0].equal(all_[0][0][:10])
    assert set(few[0][1].unique().tolist()) == {0.0, 1.0}
    with pytest.raises(DataError, match=r"`k`: 61, but there are only 60 images in .*; use fewer"):
        next(masked_images(shards, 61, MaskSampling(), "k", 0, CPU))


@pytest.mark.slow
def test_errors_are_measured_where_pixels_are_known_and_by_another_backbone(study, tmp_path):
    encoders = {
        "all": lambda images, known: images * known,  # wrong where nobody can know
        "latent": lambda images, known: images + 0.1,
        "perceptual": lambda images, known: gaussian_blur(images, 1.5),
    }
    made = study(
        ablation, study_ablation, encoders, encoders=[tmp_path / name for name in encoders], of_paper=True,
        settings=Studies(ablation={"images": COUNT}),
    )  # fmt: skip
    table = read_table(made["table"], "studies")
    values = table.set_index(["row", "metric"])["value"]
    perceptual = "perceptual distance (shift-tolerant VGG16)"
    assert values[ALL, "masked L1"] == values[ALL, perceptual] == 0
    assert values[NO_LATENT, "masked L1"] == pytest.approx(0.1, abs=1e-5)
    assert values[NO_PERCEPTUAL, perceptual] > 0
    difference = table.set_index("row").loc[f"{NO_PERCEPTUAL} over {ALL}"]
    assert (difference["n"], difference["value"]) == (COUNT, pytest.approx(values[NO_PERCEPTUAL, perceptual]))
    assert table["paper"].notna().sum() == 2 * len(ENCODERS)  # Table 2
    assert f"As in the paper, {ALL} has a smaller {perceptual} than {NO_PERCEPTUAL}" in studies_page(table)
    plot_pictures(pictures=made["pictures"], figure=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_an_encoder_that_knows_what_is_missing_is_told_from_one_that_does_not(shards, study, tmp_path):
    whole = torch.cat([images for images, _ in masked_images(shards, COUNT, LIKE.mask, "k", 0, CPU)])
    seen = iter([whole])
    encoders = {"rgb": lambda images, known: images, "rgbm": lambda images, known: next(seen)}
    made = study(
        completion, study_completion, encoders, held_out=shards, rgb=tmp_path / "rgb", rgbm=tmp_path / "rgbm",
        settings=Studies(completion={"images": COUNT}), cache=tmp_path / "cache",
    )  # fmt: skip
    table = read_table(made["table"], "studies").set_index(["row", "metric"])
    assert table.loc[(RGBM, "L1 in the holes"), "value"] == table.loc[(RGBM, "perceptual distance"), "value"] == 0
    for metric in ("L1 in the holes", "perceptual distance", "Fréchet distance"):
        assert table.loc[(RGB, metric), "value"] == table.loc[(HOLES, metric), "value"]
        assert table.loc[(f"{RGB} over {RGBM}", metric), "ci_low"] > 0
    with np.load(made["pictures"]) as found:
        assert found["pixels"].shape == (6, 4, SIDE, SIDE, 3)
        np.testing.assert_array_equal(found["pixels"][:, 1], found["pixels"][:, 2])  # grey holes, as this one sees them


def test_groups_are_equal_and_disjoint():
    groups = groups_of(np.arange(23.0)[:, None])
    assert [len(group) for group in groups] == [4] * GROUPS
    assert len(np.unique(np.concatenate(groups))) == 20


@pytest.mark.parametrize(
    ("variant", "weights", "kind"),
    [
        ("all_losses", (1, 1, 1), "random"),
        ("no_latent", (1, 1, 0), "random"),
        ("no_perceptual", (1, 0, 1), "random"),
        ("rgb", (1, 1, 1), "none"),
    ],
)
def test_encoders_of_the_studies_differ_in_one_thing_alone(variant, weights, kind):
    square = {"top": 0.25, "left": 0.25, "side": 0.5}
    own = Encoder(
        weights="given.pth", mask={"least": 0.5}, training={"kimg": 2, "mse": 3, "local": square, "collages": 0.5}
    )
    section = Studies(encoders={"kimg": 7}).encoders.like(own, variant)
    training = section.training
    assert (training.mse, training.perceptual, training.latent, section.mask.kind) == (*weights, kind)
    assert (section.weights, section.mask.least, training.kimg, training.local, training.collages) == (
        None, 0.5, 7, None, 0,
    )  # fmt: skip
    assert math.isclose(own.training.mse, 3)  # the run's own is left as it is


def test_encoders_without_a_length_are_refused():
    with pytest.raises(ConfigError, match=r"`studies.encoders.kimg`"):
        parse_config({"rebalance": {"targets": []}, "retrain": None, "studies": {"encoders": {"kimg": 0}}})
