"""A folder of images becomes a dataset; what cannot be used is left out by name, and too much of it is an error."""

from __future__ import annotations

import csv
from concurrent.futures import Future

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.config import FolderData
from pipeline_lib.config.columns import label_columns
from pipeline_lib.data.folder import open_folder
from pipeline_lib.data.images import PREPROCESSING, load_codes, load_square
from pipeline_lib.data.prepare import CHUNKS_AHEAD, prepare_dataset
from pipeline_lib.data.shards import open_shard, read_shards
from pipeline_lib.data.sources import BadImageError
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.overlap import map_ahead

COLORS = np.random.default_rng(0).integers(0, 256, (40, 3))


def write_dataset(root, count=20, masks=False, **columns):
    """Write `count` images of one colour each, wider than high, and their labels; returns the config section."""
    (root / "faces/deep").mkdir(parents=True)
    names = [f"deep/{number:02d}.png" for number in range(count)]
    for name, color in zip(names, COLORS, strict=False):
        Image.new("RGB", (48, 40), tuple(map(int, color))).save(root / "faces" / name)
    table = {"image": names, "smiling": [number % 2 for number in range(count)]} | columns
    pd.DataFrame(table).to_csv(root / "labels.csv", index=False)
    given = {}
    if masks:
        (root / "masks/deep").mkdir(parents=True)
        for name in names:
            codes = np.zeros((40, 48), np.uint8)
            codes[20:, 24:] = 1
            Image.fromarray(codes).save(root / "masks" / name)
        given = {"masks": root / "masks", "parts": ["background", "mouth"]}
    return FolderData(
        reader="folder",
        folder=root / "faces",
        labels=root / "labels.csv",
        attributes=[name for name in table if name not in ("image", "split")],
        resolution=32,
        **given,
    )


def prepare(root, settings):
    made = {
        name: root / f"{name}.parquet"
        for name in ("labels", "masks", "held_out_labels", "held_out_masks", "quarantine", "notes")
    }
    shards = {name: [root / name / f"{shard}.parquet" for shard in range(2)] for name in ("images", "held_out")}
    prepare_dataset(settings=settings, run="toy", threads=1, **made, **shards)
    return made, shards


def refusal(root, settings):
    with pytest.raises(DataError) as caught:
        prepare(root, settings)
    assert not (root / "labels.parquet").exists()
    return str(caught.value)


def test_every_image_lands_once_in_one_split_with_its_own_label(tmp_path):
    settings = write_dataset(tmp_path).model_copy(update={"held_out": 0.25})
    made, shards = prepare(tmp_path, settings)
    seen = {}
    for labels, images, split in (("labels", "images", "train"), ("held_out_labels", "held_out", "held_out")):
        table = read_table(made[labels], "labels")
        names, pixels = read_shards(shards[images])
        assert table["image_id"].tolist() == names
        assert set(table["split"]) == {split}
        assert attribute_columns(table, "labels") == ["smiling"]
        for name, image, smiling in zip(names, pixels, table["smiling"], strict=True):
            number = int(name[5:7])
            assert (image == COLORS[number]).all()
            assert smiling == number % 2
            seen[name] = split
    assert len(seen) == 20
    assert open_shard(shards["images"][0]).schema_arrow.metadata[b"preprocessing"].decode() == PREPROCESSING
    assert list(seen.values()).count("held_out") == 5
    assert read_table(made["masks"], "masks").empty
    assert read_table(made["quarantine"], "quarantine").empty


def test_a_column_says_which_images_are_held_out(tmp_path):
    splits = ["held_out" if number in (3, 7) else "train" for number in range(20)]
    settings = write_dataset(tmp_path, split=splits).model_copy(update={"split_column": "split"})
    source = open_folder(settings)
    assert [item.image_id for item in source.held_out] == ["deep/03.png", "deep/07.png"]
    wrong = settings.model_copy(update={"labels": tmp_path / "wrong.csv"})
    (tmp_path / "wrong.csv").write_text(settings.labels.read_text().replace("held_out", "test"))
    with pytest.raises(DataError, match=r"`split` is 'test' for deep/03.png; it must be train or held_out"):
        open_folder(wrong)


def test_the_middle_square_is_seen(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (load_square(tmp_path / "wide.png", 10) == 255).all()
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    assert (load_square(tmp_path / "tall.png", 10) == 255).all()


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert (load_square(tmp_path / "a.png", 8)[4:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_greys_and_opaque_images_are_colours_too(tmp_path, mode):
    Image.new("RGB", (8, 8), (90, 90, 90)).convert(mode).save(tmp_path / "a.png")
    assert (load_square(tmp_path / "a.png", 8) == 90).all()


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.unlink(missing_ok=True), "no file"),
        (truncated, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("hello"), "cannot be read"),
        (lambda path: Image.new("I;16", (64, 64)).save(path), "colour mode is I;16"),
        (lambda path: Image.new("CMYK", (64, 64)).save(path, format="tiff"), "colour mode is CMYK"),
        (lambda path: Image.new("P", (64, 64)).save(path), "colour mode is P"),
        (lambda path: Image.new("RGBA", (64, 64), (0, 0, 0, 9)).save(path), "colour mode is RGBA"),
        (lambda path: Image.new("RGB", (64, 31)).save(path), "64 by 31 pixels, less than the required 32"),
        (lambda path: Image.new("1", (20_000, 5_000)).save(path), "more than 89,478,485 pixels"),
    ],
)
def test_an_image_that_cannot_be_used_is_left_out_with_a_reason(tmp_path, make, reason):
    settings = write_dataset(tmp_path).model_copy(update={"bad_images": 0.5})
    make(tmp_path / "faces/deep/04.png")
    made, shards = prepare(tmp_path, settings)
    bad = read_table(made["quarantine"], "quarantine")
    assert bad["image_id"].tolist() == ["deep/04.png"]
    assert reason in bad["reason"][0]
    kept = read_shards(shards["images"])[0] + read_shards(shards["held_out"])[0]
    assert sorted(kept) == [f"deep/{number:02d}.png" for number in range(20) if number != 4]


def test_too_many_bad_images_are_an_error_that_names_the_first(tmp_path):
    splits = ["held_out" if number == 3 else "train" for number in range(20)]
    settings = write_dataset(tmp_path, split=splits).model_copy(update={"split_column": "split"})
    (tmp_path / "faces/deep/04.png").unlink()
    message = refusal(tmp_path, settings)
    assert message.startswith("data: 1 of 19 train images cannot be used, more than `data.bad_images` tolerates")
    assert "the first is deep/04.png (no file" in message


def test_a_split_without_images_is_an_error(tmp_path):
    assert "no images in the split held_out" in refusal(
        tmp_path, write_dataset(tmp_path).model_copy(update={"held_out": 0.0})
    )


def test_masks_are_cut_like_their_images_and_no_codes_are_mixed(tmp_path):
    settings = write_dataset(tmp_path, masks=True)
    made, _ = prepare(tmp_path, settings)
    table = read_table(made["masks"], "masks")
    codes = np.frombuffer(table["codes"][0], np.uint8).reshape(32, 32)
    assert (codes[16:, 16:] == 1).all()
    assert codes.sum() == 16 * 16


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (Image.new("RGB", (8, 8)), "the colour mode RGB"),
        (Image.new("L", (8, 8), 3), "has the code 3, but `data.parts` names 2 parts"),
    ],
)
def test_a_mask_that_holds_no_codes_is_refused(tmp_path, mask, reason):
    mask.save(tmp_path / "a.png")
    with pytest.raises(BadImageError, match=reason):
        load_codes(tmp_path / "a.png", 8, 2)


@pytest.mark.parametrize("spelling", ["1,0", "1,-1", "True,False", " true ,FALSE", "1.0,0.0"])
def test_true_and_false_may_be_written_in_several_ways(tmp_path, spelling):
    yes, no = spelling.split(",")
    settings = write_dataset(tmp_path, smiling=[yes, no] * 10)
    source = open_folder(settings)
    for item in [*source.train, *source.held_out]:
        assert item.attributes == {"smiling": int(item.image_id[5:7]) % 2 == 0}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[3].update(smiling="perhaps"), "`smiling` of deep/03.png is 'perhaps', neither true nor"),
        (lambda rows: rows[3].update(smiling=""), "`smiling` of deep/03.png is nan, neither true nor false"),
        (lambda rows: rows[3].update(image="deep/04.png"), "`deep/04.png` appears in two rows"),
        (lambda rows: rows[3].update(image=""), "row 4 has no `image`"),
    ],
)
def test_labels_that_say_nothing_are_refused(tmp_path, change, complaint):
    settings = write_dataset(tmp_path)
    with settings.labels.open() as file:
        rows = list(csv.DictReader(file))
    change(rows)
    pd.DataFrame(rows).to_csv(settings.labels, index=False)
    assert complaint in refusal(tmp_path, settings)


def test_a_parquet_table_says_the_same(tmp_path):
    settings = write_dataset(tmp_path)
    table = tmp_path / "labels.parquet"
    pd.read_csv(settings.labels).to_parquet(table)
    again = open_folder(settings.model_copy(update={"labels": table}))
    assert again.train == open_folder(settings).train
    assert label_columns(table) == label_columns(settings.labels) == ["image", "smiling"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, suffix):
    path = tmp_path / f"labels.{suffix}"
    with pytest.raises(DataError, match=f"labels.{suffix}: cannot be read as a label table"):
        label_columns(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"labels.{suffix}: cannot be read as a label table"):
        label_columns(path)


def test_chunks_come_in_order_and_few_are_read_ahead():
    class Pool:
        """Does the work at once, and counts how much is asked for."""

        asked = 0

        def submit(self, work, chunk):
            self.asked += 1
            done = Future()
            done.set_result(work(chunk))
            return done

    pool, chunks = Pool(), [[number] for number in range(3 * CHUNKS_AHEAD)]
    results = map_ahead(pool, lambda chunk: [10 * chunk[0]], chunks, CHUNKS_AHEAD)
    for number, result in enumerate(results):
        assert result == [10 * number]
        assert pool.asked <= number + CHUNKS_AHEAD + 1
    assert number == len(chunks) - 1
