"""An audit sheet holds edited and unedited images at random, does not tell them apart, and is not written over."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib import cli
from pipeline_lib.config import load_config
from pipeline_lib.data.tables import write_table
from pipeline_lib.report.audit import write_audit
from pipeline_lib.runtime.errors import DataError

COUNT, EDITED = 100, 40
CONFIG = load_config("config/config.yaml")


@pytest.fixture
def results(tmp_path, write_shards):
    """Return a run whose edited images are white, and the others black."""
    names = [f"image-{number:03d}" for number in range(COUNT)]
    edited = np.arange(COUNT) < EDITED
    pixels = np.where(edited, 255, 0).astype(np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)
    folder = tmp_path / "results"
    for made in ("labels", "plan"):
        (folder / made).mkdir(parents=True)
    table = pd.DataFrame({"image_id": names, "edited": edited, "touched": False})
    write_table(folder / "labels/dataset_rebalanced.parquet", "assembled", table)
    plan = pd.DataFrame({"image_id": names[:EDITED], "position": range(EDITED), "target": 0, "attribute": "smiling"})
    write_table(folder / "plan/dataset.parquet", "plan", plan.assign(wanted=True))
    (folder / "images/dataset_rebalanced").mkdir(parents=True)
    for path in write_shards(pixels, names):
        path.rename(folder / "images/dataset_rebalanced" / path.name)
    return folder


def images_of(page):
    """Return the name of each image of a page and whether it is white."""
    return {name: white for name, (white, _) in rows_of(page).items()}


def rows_of(page):
    """Return for each image of a page whether it is white, and with which settings it was edited."""
    found = json.loads(re.search(r"const images = (\[\[.*?\]\]), attributes", page.read_text()).group(1))
    decoded = {name: Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for name, url, _ in found}
    return {name: (bool(np.asarray(decoded[name]).all()), edit) for name, _, edit in found}


def test_edited_and_unedited_images_are_mixed_at_random(results, tmp_path):
    page, count = write_audit(CONFIG, results, tmp_path / "audit", 30, 1)
    found = images_of(page)
    assert (count, len(found), sum(found.values())) == (36, 36, 30)
    assert all((int(name[-3:]) < EDITED) == white for name, white in found.items())
    order = list(found.values())
    assert True in order[:12]
    assert False in order[:12]  # not the edited ones first
    assert "edited" not in page.read_text().lower()
    assert '[["smiling", "smiling"], ["long_hair", "long hair"]]' in page.read_text()


def test_the_csv_will_say_which_images_are_edited_and_how(results, tmp_path):
    page, _ = write_audit(CONFIG, results, tmp_path / "audit", 10, 1)
    for name, (_, edit) in rows_of(page).items():
        assert edit == (CONFIG.rebalance.edits_digest("smiling") if int(name[-3:]) < EDITED else "")


def test_another_sheet_has_other_images_and_the_same_one_the_same(results, tmp_path):
    first, again, other = (
        images_of(write_audit(CONFIG, results, tmp_path / folder, 20, sheet)[0])
        for folder, sheet in (("a", 1), ("b", 1), ("a", 2))
    )
    assert list(first) == list(again)
    assert not set(first) & set(other)


def test_what_cannot_be_drawn_is_named_and_no_sheet_is_written_over(results, tmp_path):
    with pytest.raises(DataError, match=r"sheet 1 of 41 edited images: only 40 images of this run are edited"):
        write_audit(CONFIG, results, tmp_path / "audit", 41, 1)
    with pytest.raises(DataError, match=r"sheet 3 of 15 edited images: only 40"):
        write_audit(CONFIG, results, tmp_path / "audit", 15, 3)
    with pytest.raises(DataError, match="this run has no rebalanced dataset yet; run it first"):
        write_audit(CONFIG, tmp_path / "nothing", tmp_path / "audit", 1, 1)
    write_audit(CONFIG, results, tmp_path / "audit", 5, 1)
    with pytest.raises(DataError, match=r"audit-1.html exists, with labels perhaps"):
        write_audit(CONFIG, results, tmp_path / "audit", 5, 1)


def test_the_command_says_what_to_do_with_the_page(results, tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(Path("config/config.yaml").read_text().replace("resources/", f"{Path.cwd()}/resources/"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/avatars").mkdir()
    for part in ("labels", "images", "plan"):
        (results / part).rename(tmp_path / "results/avatars" / part)
    assert cli.main(["audit", "sheets", "--config", str(config), "--count", "10"]) == 0
    assert "audit-1.html: 12 images; label them, save the CSV, and name it" in capsys.readouterr().out
