"""A label table gives the labels that it holds, in whatever form people keep it, or one line that says why not."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.config.columns import column_of, label_columns, read_cells, text_of
from pipeline_lib.data.labels import read_column
from pipeline_lib.data.readers.folder import FolderData
from pipeline_lib.data.sources import Item, Source, hold_out
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.seeding import numpy_generator

PLAIN = "image,smiling,race\na.png,1,Black\nb.png,0,White\nc.png,,Black\n"
EXPECTED = {"a.png": (True, True), "b.png": (False, False), "c.png": (None, True)}


def settings_of(folder, name="labels.csv", **changes):
    values = {"reader": "folder", "folder": folder, "labels": folder / name, "attributes": ["smiling", "race=Black"]}
    return FolderData(**(values | {"resolution": 32} | changes))


def read(folder, name="labels.csv", **changes):
    """Return the values of each image's attributes, as the reader gives them."""
    source = settings_of(folder, name, **changes).open()
    return {item.image_id: tuple(item.attributes.values()) for item in (*source.train, *source.held_out)}


def refusal(folder, name="labels.csv", **changes):
    with pytest.raises(DataError) as caught:
        read(folder, name, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder / name}: ")


def column(cells, attribute="smiling", unknown=()):
    return read_column(cells, attribute, unknown, lambda row: f"labels.csv: {row}.png")


@pytest.mark.parametrize(
    ("cells", "unknown", "expected"),
    [
        (["1", "0", ""], [], [True, False, None]),
        (["1", "-1"], [], [True, False]),
        ([1.0, 0.0, float("nan"), np.float32("nan"), None, pd.NA], [], [True, False, *[None] * 4]),
        ([True, False, None], [], [True, False, None]),
        (["Yes", " no ", "TRUE", "False"], [], [True, False, True, False]),
        (["1", "0", "-1"], ["-1"], [True, False, None]),
        ([1, 0, -1], ["0"], [True, None, False]),
        (["1", "0", "?", "uncertain"], ["?", "uncertain"], [True, False, None, None]),
    ],
)
def test_a_cell_is_true_false_or_unknown(cells, unknown, expected):
    assert column(cells, unknown=unknown) == expected


@pytest.mark.parametrize("cells", [["1", "0", "-1"], [1, 0, -1], [1.0, -1.0, 0.0], ["yes", "no", "-1"]])
def test_three_values_are_refused_unless_one_is_said_to_be_unknown(cells):
    row = [text_of(cell) for cell in cells].index("-1")
    with pytest.raises(
        DataError, match=rf"{row}.png: `smiling` is -1, and (0|no) in other rows; say in `data.unknown`"
    ):
        column(cells)


def test_a_column_with_other_values_is_refused_but_one_of_them_can_be_named():
    cells = ["female", "male", "unknown", ""]
    with pytest.raises(
        DataError, match=r"0.png: `gender` is 'female', neither true nor false; .* as in `gender=value`"
    ):
        column(cells, "gender")
    assert column(cells, "gender=female", ["unknown"]) == [True, False, None, None]
    with pytest.raises(DataError, match=r"no cell of `gender` is 'Female'.* use one of 'female', 'male', 'unknown' in"):
        column(cells, "gender=Female")
    with pytest.raises(DataError, match="no cell of `gender` is ''"):
        column(cells, "gender=")
    assert column([30.0, 7.0, None], "age=30") == [True, False, None]
    assert column(["la\u0308chelnd"], "mund=l\u00e4chelnd") == [True]


def test_a_column_may_have_an_equals_sign_in_its_name(tmp_path):
    """As in the table of an exported run whose attributes were values of a column."""
    (tmp_path / "labels.csv").write_text("image,race=Black\na.png,1\nb.png,0\n")
    assert read(tmp_path, attributes=["race=Black"], held_out=0) == {"a.png": (True,), "b.png": (False,)}
    assert column_of("race=Black", ["race", "image"]) == "race"
    assert column_of("race=Black", ["race=Black", "image"]) == "race=Black"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("labels.csv", b"image;smiling;race\na.png;1;Black\n", "separated by a semicolon; separate them by a comma"),
        ("labels.csv", b"image\tsmiling\trace\na.png\t1\tBlack\n", "separated by a tab; separate them by a comma"),
        ("labels.tsv", PLAIN.encode(), "separated by a comma; separate them by a tab"),
        ("labels.csv", b"PK\x03\x04\x14\x00\x06\x00\n1,2\n", "no text, whatever its suffix; save it as CSV"),
    ],
)
def test_a_table_in_another_form_than_its_suffix_says_is_refused(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    assert found in refusal(tmp_path, name)


def test_cells_that_are_to_mean_unknown_but_are_nowhere_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("image,smiling,race,who\na.png,1,Black,p\nb.png,0,Unknown,?\n")
    assert "`data.unknown` names 'unknown', which no cell of smiling, race is; did you mean 'Unknown'?" in refusal(
        tmp_path, unknown=["unknown"]
    )
    assert "names '?'" in refusal(tmp_path, unknown=["Unknown", "?"])
    known = read(tmp_path, unknown=["Unknown", "?", ""], person_column="who", held_out=0)
    assert known == {"a.png": (True, True), "b.png": (False, None)}


def parquet(path, text):
    pd.read_csv(io.StringIO(text)).to_parquet(path)


def indexed(path, text):
    pd.read_csv(io.StringIO(text)).set_index("image").to_parquet(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("labels.csv", lambda path, text: path.write_text(text)),
        ("labels.csv", lambda path, text: path.write_text(text + "\n\n")),
        ("labels.csv", lambda path, text: path.write_text(text, encoding="utf-8-sig")),
        ("labels.csv", lambda path, text: path.write_text(text.replace("\n", "\r\n"), newline="")),
        ("labels.csv", lambda path, text: path.write_text(text.replace("Black", '"Black"').replace(",1", " , 1 "))),
        ("labels.CSV", lambda path, text: path.write_text(text.replace("\n", ",\n"))),  # a column without a name
        ("Labels.TSV", lambda path, text: path.write_text(text.replace(",", "\t"))),
        ("labels.csv.gz", lambda path, text: path.write_bytes(gzip.compress(text.encode()))),
        ("labels.tsv.GZ", lambda path, text: path.write_bytes(gzip.compress(text.replace(",", "\t").encode()))),
        ("labels.parquet", parquet),
        ("labels.PARQUET", parquet),
        ("labels.pq", indexed),
        ("split=train/labels.parquet", indexed),
    ],
)
def test_the_forms_of_a_table_hold_the_same_labels(tmp_path, name, write):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, PLAIN)
    assert set(label_columns(path)) - {""} == {"image", "smiling", "race"}
    assert read(tmp_path, name) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("labels.csv", "image,smiling,race\na.png,1,Black,\n", "line 2 has 4 fields, and the first line names 3"),
        ("labels.csv", "image,smiling,race\n0,a.png,1,Black\n", "line 2 has 4 fields, and the first line names 3"),
        ("labels.csv", f"{PLAIN}d.png,1\n", "line 5 has 2 fields, and the first line names 3"),
        ("labels.csv", "image,smiling,race,smiling\na.png,1,Black,0\n", "two columns are named `smiling`"),
        ("labels.csv", f"\n{PLAIN}", "the first line is blank"),
        ("labels.csv", "", "the first line is blank"),
        ("labels.csv", "image,race\na.png,Black\n", "no column `smiling`; it has image, race"),
        ("labels.csv", 'image,smiling,race\n"a.png,1,Black\n', "cannot be read as a label table (unexpected end"),
        ("labels.csv", "image,smiling,race\n\xfc.png,1,Black\n".encode("latin-1"), "cannot be read as a label table"),
        pytest.param(
            "labels.csv.gz",
            gzip.compress(PLAIN.encode())[:-9],
            "cannot be read as a label table (Compressed file ended",
            id="cut short",
        ),
        ("labels.csv.gz", PLAIN, "cannot be read as a label table (Not a gzipped file"),
        ("labels.pq", PLAIN, "cannot be read as a label table"),
        ("labels.xlsx", PLAIN, "not a label table by its suffix; use one of .csv, .csv.gz, .tsv"),
    ],
)
def test_a_table_that_is_in_doubt_is_refused_with_its_row(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refusal(tmp_path, name).startswith(complaint)


def test_two_columns_of_a_parquet_file_that_are_spelled_alike_are_refused(tmp_path):
    pd.DataFrame({"image": ["a.png"], "l\u00e4chelnd": [1], "la\u0308chelnd": [0]}).to_parquet(tmp_path / "l.parquet")
    with pytest.raises(DataError, match="two columns are named `l\u00e4chelnd`"):
        label_columns(tmp_path / "l.parquet")


def test_columns_of_a_parquet_file_are_read_by_their_whole_names(tmp_path):
    table = pd.DataFrame({"image": ["a"], "a.b": [1], "a": [0], "deep": [{"b": 1}], " la\u0308chelnd ": [-1]})
    table.to_parquet(tmp_path / "labels.parquet")
    found = read_cells(tmp_path / "labels.parquet", ["a.b", "l\u00e4chelnd"])
    assert found == {"a.b": [1], "l\u00e4chelnd": [-1]}


@pytest.mark.parametrize("blank", ["", "   ", "\t"])
def test_a_blank_line_is_no_row(tmp_path, blank):
    path = tmp_path / "labels.csv"
    path.write_text(f"image,smiling\na.png,1\n{blank}\nb.png,0\n{blank}")
    assert read_cells(path, ["image", "smiling"]) == {"image": ["a.png", "b.png"], "smiling": ["1", "0"]}
    path.write_text(f"image,smiling\na.png,1\n{blank},{blank}\n")
    assert len(read_cells(path, ["image"])["image"]) == 2  # fields without a name are a row, which a reader refuses


def test_persons_stay_on_one_side_of_a_random_split_and_nothing_else_moves():
    alone = hold_out(1000, 0.1, 7)
    assert (alone == (numpy_generator(7, "held out").permutation(1000) < 100)).all()
    assert (hold_out(1000, 0.1, 7, [None] * 1000) == alone).all()
    assert (hold_out(1000, 0.1, 7, [str(number) for number in range(1000)]) == alone).all()
    persons = [None if number % 4 == 0 else f"p{number * number % 97}" for number in range(1000)]
    held = hold_out(1000, 0.1, 7, persons)
    sides = pd.DataFrame({"person": persons, "held": held}).dropna().groupby("person")["held"]
    assert sides.nunique().max() == 1
    assert sides.first().nunique() == 2
    largest = pd.Series(persons).value_counts().max()
    assert 100 <= held.sum() < 100 + largest
    assert not hold_out(10, 0.0, 7, persons[:10]).any()


def test_persons_are_held_out_as_often_whether_they_have_many_images_or_one():
    persons = [f"many{number}" for number in range(20) for _ in range(10)] + [None] * 200
    held = np.array([hold_out(400, 0.2, seed, persons) for seed in range(300)])
    assert held[:, :200].mean() == pytest.approx(held[:, 200:].mean(), abs=0.03)


def test_a_person_on_both_sides_is_held_out_by_no_source():
    train, other, unknown = Item("a.png", None, {}, "p"), Item("b.png", None, {}, "p"), Item("c.png", None, {})
    source = Source(train=[train], held_out=[unknown, other], read=str, preprocessing="", missing=["a.png", "b.png"])
    assert (source.train, source.held_out) == ([train], [unknown])
    assert [left.name for left in source.left_out] == ["b.png"]
    assert source.missing == ["a.png"]


# Any table: either exactly the labels of a plain reading, or one line.

FAULTS = (
    *("odd cell", "odd name", "copy of a name", "extra field", "trailing comma", "missing field", "column twice"),
    *("column twice in Unicode", "blank first line", "other delimiter", "open quote", "unknown suffix"),
)
ODD_CELLS = ["-1", "nan", "maybe", "2", "x,y", 'a"b', "a\nb", "e\u0301"]
ODD_NAMES = ["", " ", "/9.png", "../9.png", "a\nb.png"]


@st.composite
def tables(draw):
    """Draw a suffix and the text of a table, as people write it and with at most two faults."""
    faults = draw(st.sets(st.sampled_from(FAULTS), max_size=2))
    further = ["", "note", "é"][: draw(st.integers(0, 3))]
    further += ["smiling"] * ("column twice" in faults) + ["é", "e\u0301"] * ("column twice in Unicode" in faults)
    header = draw(st.permutations(["image", "smiling", "hat", *further]))
    spellings = draw(st.sampled_from([["1", "0"], ["yes", "No"], ["1", "-1"], ["1.0", "0.0"], ["True", "false"]]))
    cells = st.sampled_from([*spellings, *spellings, "", " ", "?", f" {spellings[0]} "])
    names = draw(
        st.lists(
            st.sampled_from(["1.png", "2.png", "./3.png", "b/ü.png", "a b.png"]),
            min_size=draw(st.sampled_from([0, 2, 2, 2])),
            unique=True,
        )
    )
    names += ["3.png", "b//u\u0308.png"] * ("copy of a name" in faults) + draw(
        st.lists(st.sampled_from(ODD_NAMES), min_size=1, max_size=1) if "odd name" in faults else st.just([])
    )
    rows = [{"image": name, "smiling": draw(cells), "hat": draw(cells)} for name in draw(st.permutations(names))]
    if "odd cell" in faults and rows:
        draw(st.sampled_from(rows))["hat"] = draw(st.sampled_from(ODD_CELLS))
    lines = [[row.get(name, "z") for name in header] for row in rows]
    for fault, spoil in {
        "extra field": lambda line: ["0", *line],
        "trailing comma": lambda line: [*line, ""],
        "missing field": lambda line: line[:-1],
    }.items():
        if fault in faults:
            first = draw(st.integers(0, 2))
            lines[first:] = map(spoil, lines[first:])
    suffix = ".txt" if "unknown suffix" in faults else draw(st.sampled_from([".csv", ".CSV", ".tsv", ".csv.gz"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = io.StringIO()
    csv.writer(
        text,
        delimiter=";" if "other delimiter" in faults else "\t" if suffix == ".tsv" else ",",
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=end,
    ).writerows([header, *lines])
    before = draw(st.sampled_from(["", "\ufeff"])) + end * ("blank first line" in faults)
    after = '"' if "open quote" in faults else end * draw(st.integers(0, 2))
    return suffix, unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), before + text.getvalue() + after)


def plain_reading(suffix, text):
    """Read a table with nothing but Python's own csv module; None where its labels are in doubt."""
    if suffix == ".txt":
        return None
    lines = list(
        csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter="\t" * (suffix == ".tsv") or ",")
    )
    lines = lines[:1] + [line for line in lines[1:] if line]
    header = [unicodedata.normalize("NFC", name).strip() for name in lines[0]] if lines else []
    named = [name for name in header if name]
    if not {"image", "smiling", "hat"} <= set(named) or len(named) != len(set(named)):
        return None
    if any(len(line) != len(header) for line in lines):
        return None
    values = dict.fromkeys(["1", "1.0", "yes", "true"], True) | {"": None, "?": None}
    values |= dict.fromkeys(["0", "0.0", "no", "false", "-1"], False)
    labels = {}
    for line in lines[1:]:
        row = {name: unicodedata.normalize("NFC", cell).strip() for name, cell in zip(header, line, strict=True)}
        image = row["image"].removeprefix("./").replace("//", "/")
        cells = [row["smiling"].lower(), row["hat"].lower()]
        if image in ("", "/9.png", "../9.png", "a\nb.png") or image in labels or not set(cells) <= set(values):
            return None
        labels[image] = cells
    for column_cells in zip(*labels.values(), strict=True):
        if "-1" in column_cells and {"0", "0.0", "no", "false"} & set(column_cells):
            return None
    return {image: tuple(values[cell] for cell in cells) for image, cells in labels.items()}


@given(tables())
def test_any_table_gives_the_labels_of_a_plain_reading_or_one_line(table):
    suffix, text = table
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, f"labels{suffix}")
        encoded = text.encode()
        path.write_bytes(gzip.compress(encoded) if suffix.endswith(".gz") else encoded)
        expected = plain_reading(suffix, text)
        try:
            found = read(Path(root), path.name, attributes=["smiling", "hat"], unknown=["?"] * ("?" in text))
        except DataError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error)
            found = None
        assert found == expected
