"""What is exported has the pixels and labels of the run, and says of each image how it was made."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.made_run import TRUTH, VALUES, make_run
from pipeline_lib.cli import main
from pipeline_lib.config import parse_config
from pipeline_lib.data.readers.folder import FolderData
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.imaging.png import LINEAGE
from pipeline_lib.release.export import export
from pipeline_lib.release.formats import FORMATS, METADATA, check_file_names, file_name
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files

NAMES, HELD_OUT = ["a/1.jpg", "a/2.v2", "b/1", "b/2", "b/3"], ["a/1.jpg", "c"]
EDITED = {1: "b/1", 3: "b/3"}  # place of an edited image, and its donor
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
AFTER = np.where(np.isin(np.arange(5), list(EDITED))[:, None, None, None], 255 - PIXELS, PIXELS)


ROLES = {"encoder": "encoder", "generator": "source/generator"}


@pytest.fixture
def run(tmp_path):
    """Write a run of five avatars, two of them edited to smile, of which the second does not by its rendering."""
    make_run(tmp_path / "run", NAMES, HELD_OUT, PIXELS, edited=list(EDITED), shows=[True, False])
    return tmp_path / "run"


@pytest.fixture
def photographs(tmp_path):
    """Return a function that writes such a run of photographs; the referee sees the first of the edits succeed alone.

    It takes rows of an audit, with the columns image_id, smiling and long_hair.
    """

    def write(*audit):
        folder, values = tmp_path / "photographs", copy.deepcopy(VALUES)
        (tmp_path / "files").mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / "files/1.png")
        (tmp_path / "labels.csv").write_text("image,smiling,long_hair\n1.png,1,0\n")
        values["data"] = {
            "reader": "folder",
            "folder": str(tmp_path / "files"),
            "labels": str(tmp_path / "labels.csv"),
            "attributes": ["smiling", "long_hair"],
            "resolution": 32,
        }
        values["rebalance"]["edit"]["region"] = {"kind": "box", "shows": None}
        values["detectors"] = {"attributes": ["smiling", "long_hair"]}
        if audit:
            edit = parse_config(values).rebalance.edits_digest("smiling")
            rows = [
                f"{name},dataset_rebalanced,0,{edit if name in ('a/2.v2', 'b/2') else ''},{said}"
                for name, said in audit
            ]
            (tmp_path / "audit.csv").write_text("\n".join(["image_id,image_set,digest,edit,smiling,long_hair", *rows]))
            values["certify"] = {"labels": [str(tmp_path / "audit.csv")]}
        make_run(folder, NAMES, HELD_OUT, PIXELS, values, edited=list(EDITED))
        scores = pd.DataFrame({"image_id": NAMES, "smiling": [0.9, 0.9, 0.9, 0.2, 0.9], "long_hair": 0.5})
        write_table(folder / "scores/referee/dataset_rebalanced.parquet", "scores", scores)
        return folder

    return write


def pixels_of(png: Path | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png) if isinstance(png, bytes) else png))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_can_be_chosen_and_says_what_made_it(run, tmp_path, capsys, form):
    assert main(["export", str(run), "held_out", str(tmp_path / "out"), "--format", form]) == 0
    assert "out: 2 images (test)\n" in capsys.readouterr().out
    assert {"README.md", "config.yaml", "provenance.json"} < {path.name for path in (tmp_path / "out").iterdir()}


def read_back(out, table=METADATA, **settings):
    return FolderData(
        reader="folder",
        folder=out,
        labels=out / table,
        id_column="file_name",
        attributes=["smiling", "long_hair"],
        resolution=32,
        held_out=0,
        **settings,
    ).open()


def test_a_rebalanced_export_keeps_its_edited_images_when_it_is_read_as_a_folder(photographs, tmp_path):
    """What is null is unknown, so that these images are read and nothing is said of them."""
    export(photographs(), "dataset_rebalanced", tmp_path / "out")
    source = read_back(tmp_path / "out/train")
    assert [item.attributes["smiling"] for item in source.train] == [True, None, True, None, True]
    assert [item.attributes["long_hair"] for item in source.train] == [True, False, False, True, False]
    assert all(np.array_equal(source.read(item).image, AFTER[place]) for place, item in enumerate(source.train))
    assert all(not left.name.endswith(".png") for left in source.left_out)


def test_a_key_and_a_line_of_code_give_the_label_or_else_the_confirmed_target(photographs, tmp_path):
    expected = [True, True, True, None, True]  # nobody confirms the second edit
    export(photographs(), "dataset_rebalanced", tmp_path / "out")
    source = read_back(tmp_path / "out/train", edited_labels="confirmed")
    assert [item.attributes["smiling"] for item in source.train] == expected
    assert [item.attributes["long_hair"] for item in source.train] == [True, False, False, True, False]
    line = (tmp_path / "out/README.md").read_text().split("```python\n")[1].split("```")[0]
    found = {"table": pd.read_parquet(tmp_path / "out/train/metadata.parquet")}
    exec(line, found)
    assert found["labels"].astype("boolean").tolist() == [pd.NA if value is None else value for value in expected]


def test_confirmed_targets_are_refused_where_a_table_has_none(tmp_path):
    (tmp_path / "labels.csv").write_text("file_name,smiling,long_hair\n1.png,1,0\n")
    with pytest.raises(DataError, match=r"labels\.csv: no column `target_attribute`"):
        read_back(tmp_path, "labels.csv", edited_labels="confirmed")


@pytest.mark.parametrize(
    ("said", "smiling", "long_hair", "confirmed_by", "carried_over"),
    [
        ("1,0", True, False, "audit", None),
        ("0,0", False, False, None, None),  # seen to have failed, whatever the referee says
        ("?,0", None, False, None, None),  # nobody can tell, so the referee cannot either
        ("1,?", True, False, "audit", '["long_hair"]'),
        ("1,1", True, True, "audit", None),  # seen to have left its group
    ],
)
def test_a_label_by_eye_is_believed_before_anything_else(
    photographs, tmp_path, said, smiling, long_hair, confirmed_by, carried_over
):
    export(photographs(("a/2.v2", said), ("b/1", "0,1")), "dataset_rebalanced", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/train/metadata.parquet").to_pylist()
    expected = {"smiling": smiling, "long_hair": long_hair, "confirmed_by": confirmed_by, "carried_over": carried_over}
    assert {name: rows[1][name] for name in expected} == expected
    assert rows[2]["smiling"] and not rows[2]["long_hair"]  # an unedited image keeps its labels
    not_audited = {"smiling": None, "long_hair": True, "confirmed_by": None, "carried_over": '["long_hair"]'}
    assert {name: rows[3][name] for name in not_audited} == not_audited


def test_an_audit_that_is_not_the_one_of_the_run_is_refused(photographs, tmp_path):
    run = photographs(("a/2.v2", "1,0"))
    (tmp_path / "audit.csv").write_text((tmp_path / "audit.csv").read_text().replace("1,0", "0,0"))
    with pytest.raises(DataError, match=r"audit\.csv: labels of edited images \(`certify\.labels`\), but not the file"):
        export(run, "dataset_rebalanced", tmp_path / "out")


def test_drawings_that_are_wrong_about_unedited_faces_say_nothing_of_edited_ones(run, tmp_path):
    TRUTH.model_copy(update={"counts": False}).write(run / "evaluation/counterfactual.json")
    export(run, "dataset_rebalanced", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/train/metadata.parquet").to_pylist()
    assert [rows[place]["smiling"] for place in EDITED] == [None, None]
    assert [rows[place]["confirmed_by"] for place in EDITED] == ["referee", "referee"]


def test_a_row_of_an_image_folder_says_how_the_image_was_made(run, tmp_path):
    out = tmp_path / "out"
    export(run, "dataset_rebalanced", out)
    table = pq.read_table(out / "train/metadata.parquet")
    assert table.column_names[0] == "file_name"
    rows = table.to_pylist()
    selector = digest_of_files(run / "models/selector.safetensors")
    nothing = dict.fromkeys(("donor_id", "target_attribute", "target_value", "region", "editor", "finish"))
    nothing |= dict.fromkeys(("confirmed_by", "carried_over"))
    always = {"synthetic": True, "run": "made-up", "seed": 3}
    for place, row in enumerate(rows):
        assert np.array_equal(pixels_of(out / "train" / row["file_name"]), AFTER[place])
        expected = always | nothing | {"edited": place in EDITED, "original_id": NAMES[place]}
        expected |= dict.fromkeys(f"{role}_digest" for role in ("selector", "encoder", "editor", "generator"))
        expected |= {"smiling": place % 2 == 0, "long_hair": place % 3 == 0}
        if place in EDITED:
            expected |= {"donor_id": EDITED[place], "target_attribute": "smiling", "target_value": True}
            expected |= {"region": "mouth", "editor": "poisson", "finish": "detail", "selector_digest": selector}
            expected |= {"smiling": place == 1, "confirmed_by": "drawing" if place == 1 else None}
            expected |= {"carried_over": '["long_hair"]'}
        assert {key: value for key, value in row.items() if key != "file_name"} == expected


@pytest.mark.parametrize("kind", ["inpainting", "latent-regression"])
def test_the_row_of_an_edit_names_the_networks_of_its_editor(tmp_path, kind):
    run, values = tmp_path / "run", copy.deepcopy(VALUES)
    if kind == "latent-regression":
        values |= {"generator": {"channels": [8] * 4, "training": {"kimg": 1}}, "encoder": {"training": {"kimg": 1}}}
        values["rebalance"]["edit"]["editor"] = kind
        own = {role: [run / f"models/{name}.safetensors"] for role, name in ROLES.items()}
    else:
        (tmp_path / "model").mkdir()
        prompts = {"present": "a smile", "absent": "no smile"}
        values["rebalance"]["edit"] |= {
            "editor": {"kind": kind, "path": str(tmp_path / "model"), **prompts},
            "finish": "region",
        }
        own = {"editor": [tmp_path / "model/unet.safetensors"]}
    make_run(run, NAMES, HELD_OUT, PIXELS, values, edited=list(EDITED))
    export(run, "dataset_rebalanced", tmp_path / "out")
    row = pq.read_table(tmp_path / "out/train/metadata.parquet").to_pylist()[min(EDITED)]
    assert row["editor"] == kind
    for role in ("encoder", "generator", "editor"):
        assert row[f"{role}_digest"] == (digest_of_files(*own[role]) if role in own else None)


def test_splits_stay_apart_and_have_the_same_columns(run, tmp_path):
    out = tmp_path / "out"
    export(run, "dataset_rebalanced", out)
    train, test = (pq.read_table(out / split / "metadata.parquet") for split in ("train", "test"))
    assert train.schema == test.schema
    assert test.column("file_name").to_pylist() == ["a/1.png", "c.png"]
    assert not any(test.column("edited").to_pylist())
    assert set(filter(None, train.column("donor_id").to_pylist())) <= set(train.column("original_id").to_pylist())
    assert np.array_equal(pixels_of(out / "test/c.png"), PIXELS[1])


def test_a_donor_of_another_split_is_refused(run, tmp_path):
    for path in run.glob("swaps/dataset/*.candidates.parquet"):
        tried = read_table(path, "candidates")
        tried.loc[tried["chosen"], "donor_id"] = "c"
        metadata = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
        write_table(path, "candidates", tried, metadata)
    with pytest.raises(DataError, match="the donor c is not in images/dataset"):
        export(run, "dataset_rebalanced", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_png_says_whether_it_was_edited_and_of_what(run, tmp_path):
    export(run, "dataset_rebalanced", tmp_path / "out")
    found = {}
    for path in (tmp_path / "out").rglob("*.png"):
        with Image.open(path) as image:
            said = json.loads(image.text[LINEAGE])
        if "test" not in path.parts:
            found.setdefault(said["original"], said)
    assert {name: said["edited"] for name, said in found.items() if name in NAMES} == {
        name: place in EDITED for place, name in enumerate(NAMES)
    }
    assert found["a/2.v2"]["steps"] == [
        {
            "donor": "b/1",
            "attribute": "smiling",
            "value": True,
            "region": "mouth",
            "editor": "poisson",
            "finish": "detail",
        }
    ]
    assert found["a/2.v2"]["models"] == {"selector": digest_of_files(run / "models/selector.safetensors")}
    assert found["b/1"]["steps"] == [] and found["b/1"]["models"] == {} and found["b/1"]["synthetic"]


def test_of_photographs_only_edited_ones_are_synthetic(photographs, tmp_path):
    export(photographs(), "dataset_rebalanced", tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out/train/metadata.parquet")
    assert table["synthetic"].tolist() == table["edited"].tolist() == [False, True, False, True, False]
    assert table["region"].dropna().unique().tolist() == ["box rows 0.65-0.93 columns 0.25-0.75"]


def test_tar_shards_hold_image_and_lineage_and_are_the_same_each_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline_lib.release.formats.MOST_IN_A_TAR", 2)
    for name in ("one", "two"):
        export(run, "dataset_rebalanced", tmp_path / name, "webdataset")
    tars = sorted(path.name for path in (tmp_path / "one").glob("*.tar"))
    assert tars == ["test-000000.tar", "train-000000.tar", "train-000001.tar", "train-000002.tar"]
    content = {}
    for name in tars:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        with tarfile.open(tmp_path / "one" / name) as tar:
            members = tar.getmembers()
            assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
            content |= {f"{name} {member.name}": tar.extractfile(member).read() for member in members}
    last = content["train-000001.tar 00000003.png"], json.loads(content["train-000001.tar 00000003.json"])
    assert np.array_equal(pixels_of(last[0]), AFTER[3])
    assert last[1]["original_id"] == "b/2" and last[1]["donor_id"] == "b/3" and last[1]["smiling"] is False
    assert len(content) == 2 * 7


def test_samples_of_a_gan_are_synthetic_and_name_the_gan(run, tmp_path):
    for shard, name in enumerate(("samples-0", "samples-1")):
        path = run / f"images/samples/{shard}.parquet"
        with shard_writer(path, 32, {"generator_digest": "0123456789abcdef"}) as writer:
            writer.add([name], PIXELS[[shard]])
    export(run, "samples", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["train"]
    table = pd.read_parquet(tmp_path / "out/train/metadata.parquet")
    assert table["generator_digest"].tolist() == ["0123456789abcdef"] * 2
    assert table["synthetic"].all() and not table["edited"].any()


def test_nothing_is_overwritten_and_an_unknown_set_is_named(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(DataError, match=r"out: not empty; use another folder"):
        export(run, "dataset", tmp_path / "out")
    with pytest.raises(DataError, match=r"no image set retrained; it has dataset, dataset_rebalanced, held_out"):
        export(run, "retrained", tmp_path / "new")
    with pytest.raises(DataError, match=r"nowhere: no such run"):
        export(tmp_path / "nowhere", "dataset", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    export(run, "dataset", tmp_path / "empty")
    assert (tmp_path / "empty/README.md").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "lacking",
    [
        "evaluation/metrics.json",
        "provenance.json",
        "images/dataset_rebalanced/1.parquet",
        "swaps/dataset/0.candidates.parquet",
    ],
)
def test_a_run_that_is_not_finished_is_refused(run, tmp_path, form, lacking):
    (run / lacking).unlink()
    with pytest.raises(DataError, match=f"run: the run is not finished, it lacks {lacking}"):
        export(run, "dataset_rebalanced", tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_files_that_do_not_belong_together_are_refused(run, tmp_path):
    (run / "models/selector.safetensors").write_text("another")
    with pytest.raises(DataError, match=r"selector.safetensors: not the file that provenance.json records"):
        export(run, "dataset_rebalanced", tmp_path / "out")
    with shard_writer(run / "images/dataset/1.parquet", 32) as writer:
        writer.add(NAMES[3:], PIXELS[:2])
    with pytest.raises(DataError, match=r"dataset/1.parquet: not the file that provenance.json records"):
        export(run, "dataset", tmp_path / "out")
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["config"]["rebalance"]["edit"]["candidates"] = 9
    (run / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(DataError, match=r"0.candidates.parquet: made with another config than provenance.json says"):
        export(run, "dataset_rebalanced", tmp_path / "out")


@pytest.mark.parametrize("name", ["../1", "/1", "a/../../b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(DataError, match=r"image .*: its name leads out of the folder"):
        check_file_names(["good", name])


def test_two_names_that_are_one_file_are_refused():
    with pytest.raises(DataError, match=r"image A/b.png: another image would be the file A/b.png too"):
        check_file_names(["a/B.jpg", "A/b.png"])
    assert list(map(file_name, ["a.b", "ä b.tif"])) == ["a.b.png", "ä b.png"]


def test_a_bad_name_leaves_nothing_behind_and_is_no_problem_where_files_are_numbered(tmp_path):
    make_run(tmp_path / "run", ["a.jpg", "A.png", "c"], ["d", "e"], PIXELS)
    with pytest.raises(DataError, match="another image would be the file"):
        export(tmp_path / "run", "dataset", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    export(tmp_path / "run", "dataset", tmp_path / "out", "webdataset")


def test_what_a_killed_export_left_is_removed_by_the_next_one(run, tmp_path):
    left = tmp_path / "release/.out[1].part"
    (left / "train").mkdir(parents=True)
    export(run, "dataset", tmp_path / "release/out[1]")
    assert [path.name for path in left.parent.iterdir()] == ["out[1]"]
    assert len(list((tmp_path / "release").rglob("*.png"))) == 7
