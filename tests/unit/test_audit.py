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
from pipeline_lib.audit.labels import digests_of_dataset, digests_of_samples, read_audit, sealed_name
from pipeline_lib.audit.sheets import draw_audit, write_audit
from pipeline_lib.config import load_config
from pipeline_lib.data.shards import read_shards, shard_writer, shards_in
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files

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
    sheets = [draw_audit(CONFIG, results, 10, 1)]
    for shards, options in ((12, {}), (12, {"compression": "gzip"}), (3, {})):
        spread(images, shards, **options)
        sheets.append(draw_audit(CONFIG, results, 10, 1))
    paths = [images / f"{number}.parquet" for number in range(3)]
    for sheet in sheets:
        sheet.assign(smiling=1).to_csv(tmp_path / "audit.csv", index=False)
        names = set(read_table(results / "labels/dataset_rebalanced.parquet", "assembled")["image_id"])
        assert len(read_audit(tmp_path / "audit.csv", names, ["smiling"], digests_of_dataset(paths))) == 12


@pytest.mark.parametrize("shards", [2, 12])
def test_a_sheet_of_an_earlier_version_is_accepted_while_the_files_are_the_same(results, shards):
    """Its digest was of the files' bytes, with the shards sorted as text."""
    images = results / "images/dataset_rebalanced"
    spread(images, shards)
    earlier = digest_of_files(*sorted(images.glob("*.parquet")))
    paths = [images / f"{number}.parquet" for number in range(shards)]
    assert earlier in digests_of_dataset(paths)
    spread(images, shards, compression="gzip")
    assert earlier not in digests_of_dataset(paths)


def test_samples_of_both_gans_are_mixed_at_random_and_not_told_apart(sampled, tmp_path):
    page, count = write_audit(CONFIG, sampled, tmp_path / "audit", 30, 1, "retrained")
    found = images_of(page)
    assert page.name == "audit-samples-1.html"
    assert (count, len(found), sum(found.values())) == (36, 36, 30)
    white = {sealed_name(f"retrained-{number:08d}") for number in range(COUNT)}
    assert {name for name, is_white in found.items() if is_white} <= white  # the right picture for each name
    order = list(found.values())
    assert True in order[:12]
    assert False in order[:12]
    text = page.read_text()
    assert "retrained" not in text
    assert "control" not in text
    digest, _ = digests_of_samples([sampled / "images/retrained/0.parquet"], CONFIG.sample.truncation, CONFIG.seed)
    assert digest in text
    assert "audit-avatars-samples-1.csv" in text
    other = images_of(write_audit(CONFIG, sampled, tmp_path / "audit", 30, 2, "retrained")[0])
    assert not set(found) & set(other)


def test_samples_that_are_not_there_cannot_be_drawn(sampled, results, tmp_path):
    with pytest.raises(DataError, match=r"sheet 2 of 60 samples: this run has 100 of its retrained GAN; use a smaller"):
        write_audit(CONFIG, sampled, tmp_path / "audit", 60, 2, "retrained")
    with pytest.raises(DataError, match=r"retrained.parquet: this run has no samples of a retrained GAN yet; run it"):
        write_audit(CONFIG, tmp_path / "nothing", tmp_path / "audit", 1, 1, "retrained")


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


def test_the_command_draws_samples_too(sampled, tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(Path("config/config.yaml").read_text().replace("resources/", f"{Path.cwd()}/resources/"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/avatars").mkdir()
    for part in ("scores", "images"):
        (sampled / part).rename(tmp_path / "results/avatars" / part)
    command = ["audit", "sheets", "--config", str(config), "--count", "10", "--set"]
    assert cli.main([*command, "retrained"]) == 0
    said = capsys.readouterr().out
    assert "audit-samples-1.html: 12 images; label them, save the CSV, and name it in the config as `certify.sa" in said
    with pytest.raises(SystemExit):
        cli.main([*command, "control"])
    assert cli.main(["audit", "sheets", "--config", str(config), "--count", "0"]) == 2
    assert "`--count` and `--sheet` are numbers from 1; correct them" in capsys.readouterr().err
