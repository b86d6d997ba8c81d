"""An audit sheet holds edited and unedited images at random, does not tell them apart, and is not written over."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline_lib import cli
from pipeline_lib.audit.labels import digest_of_set, read_present_labels, sealed_name
from pipeline_lib.audit.sheets import Sheet
from pipeline_lib.config import load_config
from pipeline_lib.data.shards import read_shards, shard_writer, shards_in
from pipeline_lib.data.tables import read_table, write_table
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
    table = pd.DataFrame({"image_id": names, "edited": edited})
    write_table(folder / "labels/dataset_rebalanced.parquet", "assembled", table)
    plan = pd.DataFrame({"image_id": names[:EDITED], "position": range(EDITED), "target": 0, "attribute": "smiling"})
    write_table(folder / "plan/dataset.parquet", "plan", plan.assign(wanted=True))
    (folder / "images/dataset_rebalanced").mkdir(parents=True)
    for path in write_shards(pixels, names):
        path.rename(folder / "images/dataset_rebalanced" / path.name)
    return folder


@pytest.fixture
def sampled(tmp_path):
    """Return a run whose retrained GAN makes white samples, and its control GAN black ones."""
    folder = tmp_path / "results"
    for name, shade in (("retrained", 255), ("control", 0)):
        names = [f"{name}-{number:08d}" for number in range(COUNT)]
        for kind in ("images", "scores"):
            (folder / kind / {"images": name, "scores": "referee"}[kind]).mkdir(parents=True, exist_ok=True)
        scores = pd.DataFrame({"image_id": names, "smiling": np.float32(0.4), "long_hair": np.float32(0.6)})
        write_table(folder / f"scores/referee/{name}.parquet", "scores", scores)
        with shard_writer(folder / f"images/{name}/0.parquet", 16, {"generator_digest": name}) as writer:
            writer.add(names, np.full((COUNT, 16, 16, 3), shade, np.uint8))
    return folder


def write_audit(results, folder, count, sheet, image_set="dataset_rebalanced"):
    return Sheet(CONFIG, results, image_set, count, sheet).write(folder)


def images_of(page):
    """Return the name of each image of a page and whether it is white."""
    return {name: white for name, (white, _) in rows_of(page).items()}


def rows_of(page):
    """Return for each image of a page whether it is white, and with which settings it was edited."""
    found = json.loads(re.search(r"const images = (\[\[.*?\]\]), attributes", page.read_text()).group(1))
    decoded = {name: Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for name, url, _ in found}
    return {name: (bool(np.asarray(decoded[name]).all()), edit) for name, _, edit in found}


def test_edited_and_unedited_images_are_mixed_at_random(results, tmp_path):
    page, count = write_audit(results, tmp_path / "audit", 30, 1)
    found = images_of(page)
    assert (count, len(found), sum(found.values())) == (36, 36, 30)
    assert all((int(name[-3:]) < EDITED) == white for name, white in found.items())
    order = list(found.values())
    assert True in order[:12]
    assert False in order[:12]  # not the edited ones first
    assert "edited" not in page.read_text().lower()
    assert '[["smiling", "smiling"], ["long_hair", "long hair"]]' in page.read_text()


def test_the_csv_will_say_which_images_are_edited_and_how(results, tmp_path):
    page, _ = write_audit(results, tmp_path / "audit", 10, 1)
    for name, (_, edit) in rows_of(page).items():
        assert edit == (CONFIG.rebalance.edits_digest("smiling") if int(name[-3:]) < EDITED else "")


def test_another_sheet_has_other_images_and_the_same_one_the_same(results, tmp_path):
    first, again, other = (
        images_of(write_audit(results, tmp_path / folder, 20, sheet)[0])
        for folder, sheet in (("a", 1), ("b", 1), ("a", 2))
    )
    assert list(first) == list(again)
    assert not set(first) & set(other)


def spread(folder, shards, **options):
    """Write the images of a folder anew, over `shards` files."""
    names, pixels = read_shards(shards_in(folder))
    for path in shards_in(folder):
        path.unlink()
    for number, places in enumerate(np.array_split(np.arange(len(names)), shards)):
        path = folder / f"{number}.parquet"
        with shard_writer(path, pixels.shape[1], {"run": f"{shards} shards"}) as writer:
            writer.add([names[place] for place in places], pixels[places])
        if options:
            pq.write_table(pq.read_table(path), path, **options)


def test_a_sheet_is_of_the_images_however_they_are_stored(results, tmp_path):
    """The workflow names shards by number: 0, 1, 2 ... 10, and not 0, 1, 10, 2."""
    images = results / "images/dataset_rebalanced"
    sheets = [Sheet(CONFIG, results, "dataset_rebalanced", 10, 1).draw()]
    for shards, options in ((12, {}), (12, {"compression": "gzip"}), (3, {})):
        spread(images, shards, **options)
        sheets.append(Sheet(CONFIG, results, "dataset_rebalanced", 10, 1).draw())
    of = "dataset_rebalanced"
    shards = [images / f"{number}.parquet" for number in range(3)]
    for sheet in sheets:
        sheet.assign(smiling=1).to_csv(tmp_path / "audit.csv", index=False)
        names = set(read_table(results / "labels/dataset_rebalanced.parquet", "assembled")["image_id"])
        assert len(*read_present_labels([tmp_path / "audit.csv"], of, names, ["smiling"], shards).values()) == 12


def test_samples_of_both_gans_are_mixed_at_random_and_not_told_apart(sampled, tmp_path):
    page, count = write_audit(sampled, tmp_path / "audit", 30, 1, "retrained")
    found = images_of(page)
    assert page.name == "audit-samples-1.html"
    assert (count, len(found), sum(found.values())) == (36, 36, 30)
    white = {sealed_name(f"retrained-{number:08d}") for number in range(COUNT)}
    assert {name for name, is_white in found.items() if is_white} <= white  # the right picture for each name
    order = list(found.values())
    assert True in order[:12]
    assert False in order[:12]
    text = page.read_text()
    assert text.count("retrained") == 1  # what the sheet is of
    assert "control" not in text
    assert digest_of_set("retrained", [sampled / "images/retrained/0.parquet"]) in text
    assert "audit-avatars-samples-1.csv" in text
    other = images_of(write_audit(sampled, tmp_path / "audit", 30, 2, "retrained")[0])
    assert not set(found) & set(other)


def test_samples_that_are_not_there_cannot_be_drawn(sampled, results, tmp_path):
    with pytest.raises(DataError, match=r"sheet 2 of 60 samples: this run has 100; use a smaller"):
        write_audit(sampled, tmp_path / "audit", 60, 2, "retrained")
    with pytest.raises(DataError, match=r"retrained.parquet: this run has no samples of a retrained GAN yet; run it"):
        write_audit(tmp_path / "nothing", tmp_path / "audit", 1, 1, "retrained")


def test_what_cannot_be_drawn_is_named_and_no_sheet_is_written_over(results, tmp_path):
    with pytest.raises(DataError, match=r"sheet 1 of 41 edited images: this run has 40"):
        write_audit(results, tmp_path / "audit", 41, 1)
    with pytest.raises(DataError, match=r"sheet 3 of 15 edited images: this run has 40"):
        write_audit(results, tmp_path / "audit", 15, 3)
    with pytest.raises(DataError, match="this run has no rebalanced dataset yet; run it first"):
        write_audit(tmp_path / "nothing", tmp_path / "audit", 1, 1)
    write_audit(results, tmp_path / "audit", 5, 1)
    with pytest.raises(DataError, match=r"audit-1.html exists, with labels perhaps"):
        write_audit(results, tmp_path / "audit", 5, 1)


@pytest.mark.parametrize("image_set", ["dataset_rebalanced", "retrained"])
def test_the_command_says_what_to_do_with_the_page(image_set, request, tmp_path, monkeypatch, capsys):
    run = request.getfixturevalue("sampled" if image_set == "retrained" else "results")
    config = tmp_path / "config.yaml"
    config.write_text(Path("config/config.yaml").read_text())
    (tmp_path / "resources").symlink_to(Path("resources").resolve())
    monkeypatch.chdir(tmp_path)
    parts = list(run.iterdir())
    (tmp_path / "results/avatars").mkdir()
    for part in parts:
        part.rename(tmp_path / "results/avatars" / part.name)
    command = ["audit", "sheets", "--config", str(config), "--set", image_set, "--count"]
    assert cli.main([*command, "10"]) == 0
    said = capsys.readouterr().out
    assert "1.html: 12 images; label them, save the CSV, and name it in the config as `certify.labels`" in said
    assert ("rebalance.labels" in said) == (image_set == "dataset_rebalanced")
    assert cli.main([*command, "0"]) == 2
    assert "`--count` and `--sheet` are numbers from 1; correct them" in capsys.readouterr().err
