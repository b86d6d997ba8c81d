"""The score of a part is the variation that replacing it causes elsewhere, as the paper defines it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import Evaluate, Studies
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies import independence
from pipeline_lib.studies.independence import replace_parts, study_independence, variation_maps, variation_outside
from pipeline_lib.studies.report import independence_figure, plot_independence
from pipeline_lib.studies.rows import collect_studies, mean_row

NAMES = ["background", "skin", "mouth"]
SIDE = 16
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[2:14, 2:14] = 1
CODES[10:12, 5:11] = 2


class Perfect:
    """Changes what is replaced and nothing else."""

    precision = "float32"

    def __call__(self, images, known):
        assert known.shape == (len(images), 1, *images.shape[2:])
        assert known.all()
        return images


class Entangled(Perfect):
    """Paints the whole image in its mean colour, so that every part changes all pixels alike."""

    def __call__(self, images, known):
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def masks():
    return torch.stack([torch.from_numpy(code == CODES) for code in range(3)])


def draw(count, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_collage_has_the_part_of_the_donor_and_all_else_of_the_image():
    image, donors = draw(1), draw(4, seed=1)
    made = replace_parts(Perfect(), image, donors, masks())
    assert made.shape == (3, 4, 3, SIDE, SIDE)
    for part, mask in enumerate(masks()):
        assert made[part][:, :, mask].equal(donors[:, :, mask])
        assert made[part][:, :, ~mask].equal(image.expand(4, -1, -1, -1)[:, :, ~mask])


def test_without_leakage_every_score_is_0():
    variation = variation_maps(replace_parts(Perfect(), draw(1), draw(6, seed=1), masks()))
    assert variation.sum(dim=0).allclose(torch.ones(SIDE, SIDE, dtype=torch.float64))
    assert variation_outside(variation, masks()).abs().max() == 0


def test_with_all_pixels_alike_a_score_is_the_share_of_the_variance_times_the_area_outside():
    donors = draw(8, seed=1)
    variation = variation_maps(replace_parts(Entangled(), draw(1), donors, masks()))
    shares = torch.stack(
        [(donors * mask).mean(dim=(2, 3)).double().var(dim=0, correction=0).mean().sqrt() for mask in masks()]
    )
    expected = shares / shares.sum() * (~masks()).double().mean(dim=(1, 2))
    torch.testing.assert_close(variation_outside(variation, masks()), expected, rtol=1e-4, atol=0)


def test_a_pixel_that_no_part_changes_has_no_variation():
    assert variation_maps(torch.zeros(3, 5, 3, SIDE, SIDE)).abs().max() == 0


@pytest.fixture
def study(tmp_path, write_shards, monkeypatch):
    """Return a function that runs the study on 6 images, of which the last has no part and two others have no mouth."""
    names = [f"image-{number}" for number in range(6)]
    random = np.random.default_rng(0)
    images = write_shards(random.integers(0, 256, (6, SIDE, SIDE, 3), np.uint8), names)
    (tmp_path / "samples").mkdir()
    codes = [CODES] * 3 + [np.minimum(CODES, 1)] * 2 + [np.zeros_like(CODES)]
    rows = [row for name, code in zip(names, codes, strict=True) for row in part_rows(name, code, NAMES)]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    for name in ("encoder", "generator", "precision"):
        (tmp_path / name).write_text(name)

    def run(inverter=None, name="first", faces_of=None, **how):
        monkeypatch.setattr(independence, "open_inverter", lambda *_: inverter or Entangled())
        made = {kind: tmp_path / f"{name}.{kind}" for kind in ("table", "maps")}
        study_independence(
            images=images,
            parts=tmp_path / "parts.parquet",
            samples=images,
            **{name: tmp_path / name for name in ("encoder", "generator", "precision")},
            names=NAMES,
            faces_of=faces_of,
            settings=Studies(independence={"images": 5, "replacements": 4} | how),
            evaluate=Evaluate(),
            inversion="float32",
            run="toy",
            seed=0,
            **made,
            device=torch.device("cpu"),
        )
        return made

    return run


def test_a_part_is_scored_over_the_images_that_have_it(study):
    rows = read_table(study()["table"], "studies").set_index("row")
    assert rows["n"].to_dict() == {"background": 5, "skin": 5, "mouth": 3, "average": 5}
    assert ((rows["ci_low"] < rows["value"]) & (rows["value"] < rows["ci_high"])).all()
    assert rows["paper"].isna().all()
    assert read_table(study(Perfect(), "perfect")["table"], "studies")["value"].abs().max() == 0


def test_the_paper_is_quoted_for_faces_alone(study):
    rows = read_table(study(faces_of="stylegan2")["table"], "studies").set_index("row")
    assert rows["paper"].to_dict() == {"background": 0.148, "skin": 0.248, "mouth": 0.045, "average": 0.105}


def test_the_same_seed_gives_the_same_bytes_and_fewer_images_the_first_of_them(study):
    first, again = study(), study(name="again")
    assert first["table"].read_bytes() == again["table"].read_bytes()
    with np.load(first["maps"]) as whole, np.load(study(name="few", images=2)["maps"]) as few:
        assert whole["images"].shape == (4, SIDE, SIDE, 3)
        np.testing.assert_array_equal(few["maps"], whole["maps"][:2])


def test_more_replacements_than_samples_are_refused(study):
    with pytest.raises(DataError, match=r"`studies.independence.replacements`: 7, but there are only 6 samples"):
        study(replacements=7)


def test_the_figure_has_a_map_for_each_part_and_none_for_one_that_is_lacking(study, tmp_path):
    with np.load(study()["maps"]) as found:
        drawn = independence_figure(found["names"].tolist(), found["images"], found["maps"], found["masks"])
    cells = np.array(drawn.axes[:16]).reshape(4, 4)
    assert [axes.get_title() for axes in cells[0]] == ["image", *NAMES]
    lacking = [not axes.images for axes in cells[:, 3]]
    assert sum(lacking) == sum(not mask.any() for mask in np.load(tmp_path / "first.maps")["masks"][:, 2]) > 0
    plot_independence(maps=tmp_path / "first.maps", figure=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_an_interval_is_students_and_a_single_value_has_none():
    row = mean_row("s", "r", "m", np.array([1.0, 2.0, 3.0]), 0.95)
    assert (row["value"], row["n"]) == (2.0, 3)
    assert row["ci_high"] - row["value"] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom
    assert np.isnan(mean_row("s", "r", "m", np.array([1.0]), 0.95)["ci_low"])


def test_the_tables_of_all_studies_are_put_together(study, tmp_path):
    tables = [study()["table"], study(Perfect(), "perfect")["table"]]
    collect_studies(studies=tables, run="toy", table=tmp_path / "all.parquet")
    assert len(read_table(tmp_path / "all.parquet", "studies")) == 8
