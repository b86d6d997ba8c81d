"""A folder of images becomes a dataset; what cannot be used is left out by name, and too much of it is an error."""

from __future__ import annotations

import csv
import unicodedata
from concurrent.futures import Future

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.config.columns import label_columns
from pipeline_lib.data.images import PREPROCESSING, load_codes, load_square, open_photograph
from pipeline_lib.data.prepare import CHUNKS_AHEAD, prepare_dataset
from pipeline_lib.data.readers.folder import FolderData
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
    source = settings.open()
    assert [item.image_id for item in source.held_out] == ["deep/03.png", "deep/07.png"]
    wrong = settings.model_copy(update={"labels": tmp_path / "wrong.csv"})
    (tmp_path / "wrong.csv").write_text(settings.labels.read_text().replace("held_out", "test"))
    with pytest.raises(DataError, match=r"`split` is 'test' for deep/03.png; it must be one of train, held_out, or"):
        wrong.open()


def test_the_middle_square_is_seen(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (load_square(tmp_path / "wide.png", 10).image == 255).all()
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    assert (load_square(tmp_path / "tall.png", 10).image == 255).all()


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert (load_square(tmp_path / "a.png", 8).image[4:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_greys_and_opaque_images_are_colours_too(tmp_path, mode):
    Image.new("RGB", (8, 8), (90, 90, 90)).convert(mode).save(tmp_path / "a.png")
    assert (load_square(tmp_path / "a.png", 8).image == 90).all()


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
        (lambda path: Image.new("F", (64, 64)).save(path, format="tiff"), "colour mode of 04.png is F"),
        (lambda path: Image.new("RGBA", (64, 64), (0, 0, 0, 9)).save(path), "04.png is transparent"),
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
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    with pytest.raises(BadImageError, match=reason):
        load_codes(tmp_path / "a.png", 8, 2, open_photograph(tmp_path / "image.png"))


@pytest.mark.parametrize("spelling", ["1,0", "1,-1", "True,False", " true ,FALSE", "1.0,0.0"])
def test_true_and_false_may_be_written_in_several_ways(tmp_path, spelling):
    yes, no = spelling.split(",")
    settings = write_dataset(tmp_path, smiling=[yes, no] * 10)
    source = settings.open()
    for item in [*source.train, *source.held_out]:
        assert item.attributes == {"smiling": int(item.image_id[5:7]) % 2 == 0}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[3].update(smiling="perhaps"), "deep/03.png: `smiling` is 'perhaps', neither true nor false"),
        (lambda rows: rows[3].update(image="deep/04.png"), "`deep/04.png` appears in two rows, 4 and 5"),
        (lambda rows: rows[3].update(image="./deep//04.png"), "`deep/04.png` appears in two rows, 4 and 5"),
        (lambda rows: rows[3].update(image="/deep/03.png"), "row 4 is '/deep/03.png', an absolute path"),
        (lambda rows: rows[3].update(image="../faces/deep/03.png"), "row 4 is '../faces/deep/03.png', no file of"),
        (lambda rows: rows[3].update(image="."), "row 4 is '.', no file of `data.folder`"),
        (lambda rows: rows[3].update(image="deep\n03.png"), "a name with a line break"),
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
    again = settings.model_copy(update={"labels": table}).open()
    assert again.train == settings.open().train
    assert label_columns(table) == label_columns(settings.labels) == ["image", "smiling"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, suffix):
    path = tmp_path / f"labels.{suffix}"
    with pytest.raises(DataError, match=f"labels.{suffix}: cannot be read as a label table"):
        label_columns(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"labels.{suffix}: cannot be read as a label table"):
        label_columns(path)


def test_what_the_folder_holds_besides_its_images_is_left_out_with_a_reason(tmp_path):
    settings = write_dataset(tmp_path)
    faces = tmp_path / "faces"
    settings.labels.rename(faces / "labels.csv")
    (faces / ".thumbs").mkdir()
    (faces / "@eaDir").mkdir()
    hidden = (".thumbs/00.png", "@eaDir/t.jpg", "deep/._00.png", "Thumbs.db")
    for name in (*hidden, "deep/more.JPG", "deep/more.gif", "deep/phone.heic", "notes", "b\u0308.png"):
        (faces / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (faces / "link").symlink_to(tmp_path / "elsewhere")
    source = settings.model_copy(update={"labels": faces / "labels.csv"}).open()
    assert len(source.train) + len(source.held_out) == 20
    unlabelled, folder = "a file without a row in the label table", "a hidden folder, which is not searched"
    unread = "no row in the label table, and {} is no kind of image that is read"
    assert {left.name: left.reason for left in source.left_out} == {
        ".thumbs": folder,
        "@eaDir": folder,
        "link": "a link to a folder, which is not searched",
        "deep/more.gif": unlabelled,
        "Thumbs.db": "a hidden file",
        "b\u0308.png": unlabelled,
        "deep/more.JPG": unlabelled,
        "deep/phone.heic": unread.format(".heic"),
        "notes": unread.format("no suffix"),
        "deep/._00.png": "a hidden file",
    }


def test_images_behind_a_link_are_read_where_they_have_rows(tmp_path):
    settings = write_dataset(tmp_path)
    (tmp_path / "faces/deep").rename(tmp_path / "elsewhere")
    (tmp_path / "faces/deep").symlink_to(tmp_path / "elsewhere")
    source = settings.open()
    for item in source.train:
        assert (source.read(item).image == COLORS[int(item.image_id[5:7])]).all()
    assert source.left_out == []
    assert source.missing == []
    (tmp_path / "elsewhere/03.png").unlink()
    assert settings.open().missing == ["deep/03.png"]


def test_hidden_images_are_read_where_they_have_rows(tmp_path):
    settings = write_dataset(tmp_path)
    (tmp_path / "faces/deep").rename(tmp_path / "faces/.deep")
    settings.labels.write_text(settings.labels.read_text().replace("deep/", ".deep/"))
    source = settings.open()
    assert (source.left_out, source.missing) == ([], [])


def test_an_image_without_a_mask_is_known_before_it_is_read(tmp_path):
    settings = write_dataset(tmp_path, masks=True)
    (tmp_path / "masks/deep/07.png").unlink()
    source = settings.open()
    assert source.missing == ["deep/07.png"]
    (item,) = (item for item in (*source.train, *source.held_out) if item.image_id == "deep/07.png")
    with pytest.raises(BadImageError, match=r"no file .*masks/deep/07.png"):
        source.read(item)


@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_a_name_is_found_in_whichever_unicode_form_the_disk_has_it(tmp_path, in_table, on_disk):
    settings = write_dataset(tmp_path, masks=True)
    for folder in ("faces", "masks"):
        named = unicodedata.normalize(on_disk, "deep/l\u00e4chelnd.png")
        (tmp_path / folder / "deep/04.png").rename(tmp_path / folder / named)
    text = settings.labels.read_text().replace("deep/04", unicodedata.normalize(in_table, "./deep/l\u00e4chelnd"))
    settings.labels.write_text(text)
    source = settings.open()
    (item,) = (item for item in (*source.train, *source.held_out) if item.image_id == "deep/l\u00e4chelnd.png")
    record = source.read(item)
    assert (record.image == COLORS[4]).all()
    assert record.codes.sum() == 16 * 16
    assert source.left_out == []


def test_two_files_of_one_name_in_two_unicode_forms_are_refused(tmp_path):
    settings = write_dataset(tmp_path)
    for form in ("NFC", "NFD"):
        (tmp_path / "faces" / unicodedata.normalize(form, "\u00e4.png")).touch()
    settings.open()  # no row says that it is one of them
    settings.labels.write_text(settings.labels.read_text() + "\u00e4.png,1\n")
    assert "two files are named \u00e4.png, in different Unicode forms" in refusal(tmp_path, settings)


def test_two_images_with_one_mask_are_refused(tmp_path):
    settings = write_dataset(tmp_path, masks=True)
    settings.labels.write_text(settings.labels.read_text() + "deep/04.jpg,1\n")
    assert "deep/04.png and deep/04.jpg have one mask, deep/04.png" in refusal(tmp_path, settings)


def test_masks_beside_their_images_are_not_left_out(tmp_path):
    settings = write_dataset(tmp_path, count=2, masks=True)
    table = "image,smiling\n"
    for number in range(2):
        Image.open(tmp_path / f"faces/deep/0{number}.png").save(tmp_path / f"masks/deep/0{number}.bmp")
        table += f"deep/0{number}.bmp,{number}\n"
    settings.labels.write_text(table)
    source = settings.model_copy(update={"folder": settings.masks}).open()
    assert source.left_out == []
    within = settings.model_copy(update={"folder": tmp_path}).open()
    assert {left.name.split("/")[0] for left in within.left_out} == {"faces"}


def test_a_person_is_on_one_side_of_a_random_split_and_of_a_given_one(tmp_path):
    persons = [f"p{number // 4}" for number in range(16)] + [""] * 4
    settings = write_dataset(tmp_path, who=persons, split=["train"] * 10 + ["held_out"] * 10)
    settings = settings.model_copy(update={"attributes": ["smiling"], "person_column": "who", "held_out": 0.4})
    source = settings.open()
    assert len(source.held_out) >= 8
    sides = [{item.person for item in side if item.person} for side in (source.train, source.held_out)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {"p0", "p1", "p2", "p3"}
    source = settings.model_copy(update={"split_column": "split"}).open()
    assert [item.image_id for item in source.held_out] == [f"deep/{number}.png" for number in range(12, 20)]
    assert [left.name for left in source.left_out] == ["deep/10.png", "deep/11.png"]


def test_waterbirds_metadata_is_read_as_published(tmp_path):
    (tmp_path / "metadata.csv").write_text(
        "img_id,img_filename,y,split,place,place_filename\n"
        "1,001.Black_footed_Albatross/a_0046_18.jpg,1,0,0,/b/bamboo_forest/00002.jpg\n"
        "2,002.Laysan_Albatross/b_0002_1027.jpg,1,1,1,/l/lake/natural/00065.jpg\n"
        "3,004.Groove_billed_Ani/c_0001_2.jpg,0,2,1,/o/ocean/00001.jpg\n"
    )
    given = {
        "reader": "folder",
        "folder": tmp_path,
        "labels": tmp_path / "metadata.csv",
        "id_column": "img_filename",
        "attributes": ["y", "place"],
        "split_column": "split",
    }
    source = FolderData(**given, split_values={0: "train", "1": "train", 2: "held_out"}).open()
    assert [tuple(item.attributes.values()) for item in source.train] == [(True, False), (True, True)]
    assert [tuple(item.attributes.values()) for item in source.held_out] == [(False, True)]
    with pytest.raises(
        DataError, match=r"`split` is '2' for 004.Groove_billed_Ani/c_0001_2.jpg; it must be one of 0, 1,"
    ):
        FolderData(**given, split_values={0: "train", 1: "train"}).open()


def test_fairfaces_columns_of_several_values_are_read_by_value(tmp_path):
    (tmp_path / "fairface_label_train.csv").write_text(
        "file,age,gender,race,service_test\n"
        "train/1.jpg,50-59,Male,East Asian,True\n"
        "train/2.jpg,30-39,Female,Indian,False\n"
        "train/3.jpg,3-9,Female,Black,False\n"
    )
    given = {"reader": "folder", "folder": tmp_path, "labels": tmp_path / "fairface_label_train.csv"}
    given |= {"id_column": "file", "held_out": 0.0}
    attributes = ["gender=Female", "race=East Asian", "age=3-9", "service_test"]
    source = FolderData(**given, attributes=attributes).open()
    assert [item.attributes for item in source.train] == [
        dict(zip(attributes, (False, True, False, True), strict=True)),
        dict(zip(attributes, (True, False, False, False), strict=True)),
        dict(zip(attributes, (True, False, True, False), strict=True)),
    ]
    with pytest.raises(
        DataError, match=r"no cell of `race` is 'White'.* use one of 'Black', 'East Asian', 'Indian' in"
    ):
        FolderData(**given, attributes=["race=White"]).open()


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
