"""Applications of the paper's encoder (A.2.1, A.2.4, 4.4), with inverters of which the result is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import Edit, Evaluate, Studies
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies import discovery, illumination, multimodal
from pipeline_lib.studies.discovery import area_outside, draw_superpixel, superpixels
from pipeline_lib.studies.illumination import darker, left_half, shares
from pipeline_lib.studies.multimodal import differences
from pipeline_lib.studies.report import plot_pictures, studies_page

SIDE, COUNT = 32, 12
NAMES = ["background", "mouth"]
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[16:30, 4:28] = 1
TARGETS = [{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]


class Perfect:
    """Returns what it is given."""

    precision = "float32"

    def __call__(self, images, known):
        return images


class Uniform(Perfect):
    """Paints known pixels' mean colour over the whole image."""

    def __call__(self, images, known):
        total = (images * known).sum(dim=(2, 3), keepdim=True) / known.sum(dim=(2, 3), keepdim=True)
        return total.expand_as(images)


class ByPart(Perfect):
    """Paints each half of `CODES` in its own mean colour, so that a part changes as a whole."""

    def __call__(self, images, known):
        made = images.clone()
        for code in (0, 1):
            place = torch.from_numpy(code == CODES)
            made[:, :, place] = images[:, :, place].mean(dim=2, keepdim=True).expand(-1, -1, int(place.sum()))
        return made


@pytest.fixture
def run(tmp_path, write_shards, monkeypatch):
    """Return a function that runs one of the studies with an inverter, on images with a mouth of random colours."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 220, (2, COUNT, 1, 1, 3))
    pixels = np.where(CODES[..., None] == 1, colours[0], colours[1]) + random.integers(0, 30, (COUNT, SIDE, SIDE, 3))
    ids = [f"image-{number:02d}" for number in range(COUNT)]
    shards = write_shards(pixels.astype(np.uint8), ids)
    rows = [row for name in ids for row in part_rows(name, CODES, NAMES)]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    for name in ("encoder", "generator"):
        (tmp_path / name).write_text(name)

    def study(module, inverter, settings, **own):
        monkeypatch.setattr(module, "open_inverter", lambda *_, **__: inverter)
        getattr(module, f"study_{module.STUDY}")(
            images=shards,
            **{name: tmp_path / name for name in ("encoder", "generator")},
            precision=tmp_path / "encoder",
            settings=Studies.model_validate({module.STUDY: settings}),
            evaluate=Evaluate(),
            run="toy",
            seed=0,
            table=tmp_path / "table.parquet",
            pictures=tmp_path / "pictures.npz",
            device=torch.device("cpu"),
            **own,
        )
        plot_pictures(pictures=tmp_path / "pictures.npz", figure=tmp_path / "figure.png")
        return read_table(tmp_path / "table.parquet", "studies")

    study.parts, study.images = tmp_path / "parts.parquet", shards
    return study


def values(table):
    return table.set_index(["row", "metric"])["value"]


def test_two_results_differ_where_they_do():
    results = torch.zeros(2, 3, 8, 8)
    results[1, :, :4] = 1
    region = torch.zeros(2, 1, 8, 8)
    region[0, :, :2], region[1, :, :4] = 1, 1
    inside, outside = differences(results, region).tolist()
    assert (inside, outside) == (1, 0)


@pytest.mark.slow
def test_collages_of_several_donors_differ_in_the_region_alone(run):
    options = {"parts": run.parts, "edit": Edit()}
    table = run(multimodal, Uniform(), {"images": 4, "donors": 3}, **options)
    found = values(table)
    inside, outside = multimodal.METRICS
    assert found["collages", outside] == 0
    assert found["collages", inside] > 0.1
    assert found["composition", outside] > 0.01  # this inverter repaints the whole image
    assert found["composition, finished", outside] == 0
    assert "## Several examples of a part (A.2.1, Fig. 10)" in studies_page(table)
    found = values(run(multimodal, Perfect(), {"images": 4, "donors": 3}, **options))
    assert found["composition", inside] == found["collages", inside]
    with pytest.raises(DataError, match=r"`studies.multimodal`: 13 images with 5 donors each, but only 12 images"):
        run(multimodal, Perfect(), {"images": 13}, **options)


def test_the_share_of_a_change_is_1_where_all_of_it_is_seen():
    images = torch.rand(2, 3, 8, 8)
    left = left_half(images)
    wanted = darker(images, torch.ones_like(left)) - images
    assert shares(wanted * left, wanted, left).allclose(torch.tensor([1.0, 0.0]))
    assert shares(0.5 * wanted, wanted, left).allclose(torch.tensor([0.5, 0.5]))
    assert darker(torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2)).allclose(torch.tensor(2 * 0.6 - 1))
    assert darker(-torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2)).allclose(torch.tensor(-1.0))  # black stays black


@pytest.mark.slow
def test_an_inverter_that_sees_the_left_half_alone_darkens_the_other_as_much(run):
    lit, other = illumination.METRICS
    found = values(run(illumination, Perfect(), {"images": 8}, inversion="float32"))
    assert found[illumination.WHOLE, lit] == pytest.approx(1, abs=1e-5)
    assert found[illumination.WHOLE, other] == pytest.approx(0, abs=1e-6)
    found = values(run(illumination, Uniform(), {"images": 8}, inversion="float32"))
    assert found[illumination.WHOLE, other] == pytest.approx(0.5, abs=0.1)  # half of the pixels became darker
    assert found[illumination.MASKED, other] == pytest.approx(1, abs=0.1)
    with pytest.raises(DataError, match=r"`studies.illumination.images`: 13, but there are only 12; use fewer"):
        run(illumination, Perfect(), {"images": 13}, inversion="float32")


def test_superpixels_keep_to_the_edges_of_colours():
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[CODES == 1] = 250
    labels = superpixels(image, 36)
    assert 20 < len(np.unique(labels)) <= 36
    of_part = [len(np.unique(CODES[labels == number])) for number in np.unique(labels)]
    assert np.mean(np.array(of_part) == 1) > 0.9


def test_a_superpixel_is_drawn_in_a_part_that_is_larger():
    random = np.random.default_rng(0)
    labels = np.arange(SIDE)[:, None] // 8 * 4 + np.arange(SIDE)[None] // 8
    masks = {"background": CODES == 0, "mouth": CODES == 1}
    for _ in range(10):
        superpixel, part = draw_superpixel(labels, masks, random)
        assert (superpixel & part).sum() >= 0.8 * superpixel.sum()
        assert (part & ~superpixel).sum() >= 0.02 * labels.size
    assert draw_superpixel(labels, {"all": np.ones_like(CODES, bool)}, random) is None


def test_the_area_leaves_the_superpixel_out():
    part = CODES == 1
    superpixel = np.zeros_like(part)
    superpixel[18:22, 6:10] = True
    assert area_outside(part.astype(float), superpixel, part) == 1
    assert area_outside(superpixel.astype(float), superpixel, part) == 0.5


def test_a_part_that_changes_as_a_whole_is_found(run):
    options = {"parts": run.parts, "samples": run.images, "names": NAMES, "inversion": "float32"}
    table = run(discovery, ByPart(), {"images": 6, "replacements": 4}, **options)
    found = values(table)
    assert found[discovery.VARIATION, discovery.METRIC] == 1
    assert found[discovery.NEARNESS, discovery.METRIC] < 1
    page = studies_page(table)
    assert f"Variation with the superpixel has a larger {discovery.METRIC} than nearness" in page
    found = values(run(discovery, Perfect(), {"images": 6, "replacements": 4}, **options))
    assert found[discovery.VARIATION, discovery.METRIC] == 0.5
    with pytest.raises(DataError, match=r"`studies.discovery.replacements`: 13, but there are only 12 samples"):
        run(discovery, Perfect(), {"images": 6, "replacements": 13}, **options)
