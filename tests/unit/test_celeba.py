"""CelebA and CelebA-HQ are read from the folders as they were published, every label and mask with its own image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.config.names import CELEBA_ATTRIBUTES, CELEBA_HQ_PARTS
from pipeline_lib.data.images import open_photograph
from pipeline_lib.data.readers.celeba import MASKS, CelebAData, CelebAHQData, load_parts
from pipeline_lib.data.sources import BadImageError
from pipeline_lib.runtime.errors import DataError

SMILING = {"000001.jpg": True, "000002.jpg": False, "000003.jpg": True, "000004.jpg": False}


def attribute_list(smiling):
    """Write a list as CelebA's: a count, forty names, and 1 or -1 for each image; only Smiling is ever 1."""
    rows = [
        f"{name}  {'  '.join('1' if held and attribute == 'Smiling' else '-1' for attribute in CELEBA_ATTRIBUTES)}"
        for name, held in smiling.items()
    ]
    return "\n".join([str(len(rows)), " ".join(CELEBA_ATTRIBUTES) + " ", *rows]) + "\n"


@pytest.fixture
def celeba(tmp_path):
    root = tmp_path / "celeba"
    for folder in ("Anno", "Eval", "Img/img_align_celeba"):
        (root / folder).mkdir(parents=True)
    (root / "Anno/list_attr_celeba.txt").write_text(attribute_list(SMILING))
    partition = "".join(f"{name} {number}\n" for name, number in zip(SMILING, "0012", strict=True))
    (root / "Eval/list_eval_partition.txt").write_text(partition)
    for number, name in enumerate(SMILING):
        Image.new("RGB", (178, 218), (60 * number, 0, 0)).save(root / "Img/img_align_celeba" / name)
    return root


@pytest.fixture
def celeba_hq(tmp_path, celeba):
    """Two images: 0.jpg was made from the third of CelebA (validation), 2001.jpg from the first (train)."""
    root = tmp_path / "CelebAMask-HQ"
    (root / "CelebA-HQ-img").mkdir(parents=True)
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text(attribute_list({"0.jpg": True, "2001.jpg": False}))
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx    orig_idx    orig_file\n0    2    000003.jpg\n2001    0    000001.jpg\n"
    )
    for number, folder in ((0, "0"), (2001, "1")):
        Image.new("RGB", (1024, 1024), (0, 90, 0)).save(root / f"CelebA-HQ-img/{number}.jpg")
        masks = root / "CelebAMask-HQ-mask-anno" / folder
        masks.mkdir(parents=True)
        for part, box in {"skin": (0, 0, 512, 512), "u_lip": (200, 300, 300, 350), "hair": (0, 0, 512, 100)}.items():
            mask = Image.new("RGB", (512, 512))
            mask.paste((255, 255, 255), box)
            mask.save(masks / f"{number:05d}_{part}.png")
    return root


def settings_of(celeba, **changes):
    return CelebAData(**({"reader": "celeba", "folder": celeba, "resolution": 32} | changes))


def settings_of_hq(root, celeba, **changes):
    partition = celeba / "Eval/list_eval_partition.txt"
    return CelebAHQData(**({"reader": "celeba-hq", "folder": root, "partition": partition, "resolution": 64} | changes))


def test_celeba_is_divided_by_its_own_partition(celeba):
    source = settings_of(celeba).open()
    assert [item.image_id for item in source.train] == ["000001.jpg", "000002.jpg"]
    assert [item.image_id for item in source.held_out] == ["000003.jpg", "000004.jpg"]
    for item in (*source.train, *source.held_out):
        record = source.read(item)
        assert item.attributes == {"Smiling": SMILING[item.image_id], "Male": False}
        assert record.codes is None
        assert record.image.shape == (32, 32, 3)
        assert abs(int(record.image[0, 0, 0]) - 60 * list(SMILING).index(item.image_id)) < 4  # JPEG


@pytest.mark.parametrize(("part", "name"), [("validation", "000003.jpg"), ("test", "000004.jpg")])
def test_one_part_may_be_held_out_as_in_a_published_protocol(celeba, part, name):
    source = settings_of(celeba, held_out_from=part).open()
    assert [item.image_id for item in source.train] == ["000001.jpg", "000002.jpg"]
    assert [item.image_id for item in source.held_out] == [name]


def test_the_first_images_may_be_enough(celeba):
    source = settings_of(celeba, images=1, held_out=1).open()
    assert [item.image_id for item in (*source.train, *source.held_out)] == ["000001.jpg", "000003.jpg"]


def test_celeba_hq_is_divided_as_the_images_it_was_made_from(celeba, celeba_hq):
    source = settings_of_hq(celeba_hq, celeba).open()
    (train,), (held_out,) = source.train, source.held_out
    assert (train.image_id, held_out.image_id) == ("2001.jpg", "0.jpg")
    record = source.read(train)
    assert train.attributes == {"Smiling": False, "Male": False}
    assert {CELEBA_HQ_PARTS[code] for code in np.unique(record.codes)} == {"skin", "mouth", "hair"}


def test_masks_lie_over_each_other_in_the_published_order(celeba_hq):
    photograph = open_photograph(celeba_hq / "CelebA-HQ-img/0.jpg")
    codes = load_parts(celeba_hq / "CelebAMask-HQ-mask-anno", 0, 512, photograph)
    assert CELEBA_HQ_PARTS[codes[50, 250]] == "hair"
    assert CELEBA_HQ_PARTS[codes[320, 250]] == "mouth"
    assert CELEBA_HQ_PARTS[codes[320, 50]] == "skin"
    assert set(MASKS.values()) | {"background"} == set(CELEBA_HQ_PARTS)


def test_an_image_without_masks_is_named(celeba_hq):
    photograph = open_photograph(celeba_hq / "CelebA-HQ-img/2001.jpg")
    with pytest.raises(BadImageError, match=r"no masks .*/1/02002_\*.png"):
        load_parts(celeba_hq / "CelebAMask-HQ-mask-anno", 2002, 64, photograph)


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        (
            "Anno/list_attr_celeba.txt",
            lambda text: text.replace("Smiling", "Smilin"),
            "no attribute Smiling; it has 5_o",
        ),
        ("Anno/list_attr_celeba.txt", lambda text: text[:-9], "line 6 is not a file name and 40 values of 1 or -1"),
        (
            "Anno/list_attr_celeba.txt",
            lambda text: text.replace("  1  ", "  0  "),
            "000001.jpg: `Smiling` is '0', neither 1 nor -1",
        ),
        ("Anno/list_attr_celeba.txt", lambda text: text.replace("  1  ", "  2  "), "000001.jpg: `Smiling` is '2', nei"),
        ("Anno/list_attr_celeba.txt", lambda text: text.replace("000002", "000001"), "000001.jpg appears in two lines"),
        (
            "Eval/list_eval_partition.txt",
            lambda text: text.replace("2.jpg", "1.jpg"),
            "000001.jpg appears in two lines",
        ),
        ("Eval/list_eval_partition.txt", lambda text: text.replace(" 1", ""), "line 3 is not a file name and a number"),
        ("Eval/list_eval_partition.txt", lambda text: text[:39], "000004.jpg has no partition"),
        (
            "Anno/list_attr_celeba.txt",
            None,
            r"no list_attr_celeba.txt or list_attr_celeba.csv here or in Anno, Eval or Img",
        ),
    ],
)
def test_lists_that_are_not_the_published_ones_are_refused(celeba, file, change, complaint):
    path = celeba / file
    text = path.read_text()
    path.unlink()
    if change:
        path.write_text(change(text))
    with pytest.raises(DataError, match=complaint):
        settings_of(celeba).open()


def test_an_image_of_celeba_hq_that_no_mapping_names_is_refused(celeba, celeba_hq):
    path = celeba_hq / "CelebA-HQ-to-CelebA-mapping.txt"
    path.write_text(path.read_text().replace("2001 ", "2002 "))
    with pytest.raises(DataError, match=r"2001.jpg has attributes but no line in"):
        settings_of_hq(celeba_hq, celeba).open()
    whole = path.read_text()
    path.write_text(whole.rsplit(" ", 1)[0])
    with pytest.raises(DataError, match=r"mapping.txt: line 3 is not two numbers and a file name"):
        settings_of_hq(celeba_hq, celeba).open()
    path.write_text(whole.replace("orig_idx", "index"))
    with pytest.raises(DataError, match="the first line must name the columns"):
        settings_of_hq(celeba_hq, celeba).open()


def test_people_are_told_apart_where_the_list_is_given(tmp_path, celeba, celeba_hq):
    identities = tmp_path / "identity_CelebA.txt"
    identities.write_text("000001.jpg 2880\n000002.jpg 2937\n000003.jpg 8692\n000004.jpg 8692\n")
    source = settings_of(celeba, identities=identities).open()
    assert [item.person for item in source.train] == ["2880", "2937"]
    source = settings_of_hq(celeba_hq, celeba, identities=identities).open()
    assert [item.person for item in (*source.train, *source.held_out)] == ["2880", "8692"]
    alone = settings_of(celeba).open()
    assert alone.train[0].person is None
    identities.write_text("000001.jpg 2880\n000002.jpg 2937\n000003.jpg 8692\n000004.jpg 2880\n")
    source = settings_of(celeba, identities=identities).open()
    assert [item.image_id for item in source.held_out] == ["000003.jpg"]
    assert [left.name for left in source.left_out] == ["000004.jpg"]
    identities.write_text("000001.jpg 2880\n")
    with pytest.raises(DataError, match=r"identity_CelebA.txt: no line for the image of 000002.jpg"):
        settings_of(celeba, identities=identities).open()


def test_kaggles_celeba_is_read_as_its_zip_unpacks(celeba, tmp_path):
    """Lists as CSV, and the folder of images inside one of the same name."""
    root = tmp_path / "kaggle"
    (root / "img_align_celeba").mkdir(parents=True)
    (celeba / "Img/img_align_celeba").rename(root / "img_align_celeba/img_align_celeba")
    rows = [
        [name, *("1" if held and attribute == "Smiling" else "-1" for attribute in CELEBA_ATTRIBUTES)]
        for name, held in SMILING.items()
    ]
    header = ["image_id", *CELEBA_ATTRIBUTES]
    (root / "list_attr_celeba.csv").write_text("".join(",".join(row) + "\r\n" for row in [header, *rows]))
    partition = [f"{name},{part}\r\n" for name, part in zip(SMILING, "0012", strict=True)]
    (root / "list_eval_partition.csv").write_text("".join(["image_id,partition\r\n", *partition]))
    source = settings_of(root).open()
    assert {item.image_id: item.attributes["Smiling"] for item in (*source.train, *source.held_out)} == SMILING
    assert [item.image_id for item in source.held_out] == ["000003.jpg", "000004.jpg"]
    for item in source.train:
        assert abs(int(source.read(item).image[0, 0, 0]) - 60 * list(SMILING).index(item.image_id)) < 4  # JPEG


@pytest.mark.parametrize("file", ["Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"])
def test_a_blank_last_line_of_a_list_is_no_image(celeba, file):
    expected = settings_of(celeba).open()
    with (celeba / file).open("a") as list_file:
        list_file.write("\n \n")
    found = settings_of(celeba).open()
    assert (found.train, found.held_out) == (expected.train, expected.held_out)


def test_a_value_of_the_lists_may_mean_unknown_or_be_named(celeba):
    """As in the lists that `export --format celeba` writes, where 0 is unknown."""
    path = celeba / "Anno/list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("  1  ", "  0  ")
    path.write_text("\n".join(lines))
    source = settings_of(celeba, attributes=["Smiling", "Smiling=-1"], unknown=[0]).open()
    found = {item.image_id: tuple(item.attributes.values()) for item in (*source.train, *source.held_out)}
    assert found == {
        "000001.jpg": (None, None),
        "000002.jpg": (False, True),
        "000003.jpg": (True, False),
        "000004.jpg": (False, True),
    }
    with pytest.raises(DataError, match=r"list_attr_celeba\.txt: `data\.unknown` names '2', which no cell of Smiling"):
        settings_of(celeba, attributes=["Smiling"], unknown=[2]).open()


def test_a_name_that_is_no_number_is_refused(celeba, celeba_hq):
    path = celeba_hq / "CelebAMask-HQ-attribute-anno.txt"
    path.write_text(path.read_text().replace("2001.jpg", "face.jpg"))
    with pytest.raises(DataError, match=r"attribute-anno.txt: face.jpg is not the number of an image"):
        settings_of_hq(celeba_hq, celeba).open()


def test_images_without_a_file_or_a_mask_are_known_before_they_are_read(celeba, celeba_hq):
    assert settings_of(celeba).open().missing == []
    assert settings_of_hq(celeba_hq, celeba).open().missing == []
    (celeba / "Img/img_align_celeba/000002.jpg").unlink()
    assert settings_of(celeba).open().missing == ["000002.jpg"]
    for mask in (celeba_hq / "CelebAMask-HQ-mask-anno/1").iterdir():
        mask.unlink()
    assert settings_of_hq(celeba_hq, celeba).open().missing == ["2001.jpg"]
