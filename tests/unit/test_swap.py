"""Each planned image tries distinct donors, and the best success is taken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import BoxRegion, Edit, PartRegion, RateRule, Rebalance
from pipeline_lib.data.shards import count_images, iterate_shards, read_shards
from pipeline_lib.data.tables import read_table, read_tables, write_table
from pipeline_lib.editing import swap as swap_module
from pipeline_lib.editing.choice import SURE
from pipeline_lib.editing.donors import gather
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.editing.swap import held_groups, swap_parts
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import write_json

COUNT, CANDIDATES = 24, 5
NAMES = [f"samples-{number:08d}" for number in range(COUNT)]
WITHOUT_MOUTH = {4, 9}
TARGETS = [RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
SMILING = [number % 3 == 0 for number in range(COUNT)]
EDITED = [0, 1, 3, 7, 8, 12, 15, 16, 19, 22, 23]


@pytest.fixture
def image_set(tmp_path, write_shards):
    """Return shards, parts and plan of a set in which two images show no mouth."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
    images = write_shards(coarse.repeat(4, axis=1).repeat(4, axis=2), NAMES, shards=2)
    rows = []
    for number, name in enumerate(NAMES):
        codes = np.zeros((16, 16), np.int64)
        if number not in WITHOUT_MOUTH:
            top, left = random.integers(8, 11), random.integers(4, 7)
            codes[top : top + 3, left : left + 6] = 1
        rows += part_rows(name, codes, ["background", "mouth"])
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    plan = pd.DataFrame({"image_id": [NAMES[position] for position in EDITED], "position": EDITED, "target": 0})
    plan["attribute"], plan["wanted"] = "smiling", [position % 2 == 0 for position in EDITED]
    write_table(tmp_path / "plan.parquet", "plan", plan)
    labels = pd.DataFrame(
        {"image_id": NAMES, "split": "train", "smiling": [number % 3 == 0 for number in range(COUNT)]}
    )
    write_table(tmp_path / "labels.parquet", "labels", labels)
    return {"images": images, "parts": tmp_path / "parts.parquet", "plan": tmp_path / "plan.parquet"}


@pytest.fixture
def detector(networks, tmp_path):
    """Return a function that writes the detector with its logits of smiling and long hair moved."""

    def write(smiling, long_hair=1e3):
        network = load_weights(networks.detector)
        network.head.bias += torch.tensor([smiling, long_hair])
        save_weights(tmp_path / "selector.safetensors", network, {})
        return tmp_path / "selector.safetensors"

    return write


def precision_report(folder, precision="float32", device="cpu"):
    write_json(folder / "encoder.json", {"inversion": {"precision": precision, "device": device}})
    return folder / "encoder.json"


def run(
    networks,
    image_set,
    selector,
    folder,
    *,
    shards=1,
    faces=8,
    seed=0,
    region=None,
    candidates=CANDIDATES,
    editor="latent-regression",
    finish="detail",
    donors="any",
    choose="strongest",
    seam_tolerance=0.0,
    pool=None,
):
    settings = Rebalance(
        targets=TARGETS,
        edit=Edit(
            region=region or PartRegion(grow=0.07, buffer=0.07),
            candidates=candidates,
            editor=editor,
            finish=finish,
            donors=donors,
            choose=choose,
            seam_tolerance=seam_tolerance,
            pool=pool,
        ),
    )
    weights = {"encoder": networks.encoder, "generator": networks.generator, "precision": precision_report(folder)}
    tables = [folder / f"{shard}.candidates.parquet" for shard in range(shards)]
    composites = [folder / f"{shard}.images.parquet" for shard in range(shards)]
    for shard in range(shards):
        swap_parts(
            **image_set,
            table=image_set["plan"].with_name("labels.parquet"),
            kind="labels",
            **{role: [path] if editor == "latent-regression" else [] for role, path in weights.items()},
            model=[],
            selector=selector,
            settings=settings,
            shards=shards,
            run="toy",
            seed=seed,
            name="samples",
            shard=shard,
            candidates=tables[shard],
            composites=composites[shard],
            device=torch.device("cpu"),
            faces=faces,
        )
    pictures: dict[str, np.ndarray] = {}
    for names, images in iterate_shards(composites):
        pictures.update(zip(names, images, strict=True))
    rows = read_tables(tables, "candidates").sort_values(["image_id", "candidate"], ignore_index=True)
    return rows, pictures


@pytest.fixture
def halfway(networks, image_set, detector, tmp_path):
    """Return a detector that says yes to half of the composites."""
    rows, _ = run(networks, image_set, detector(0.0), tmp_path / "trial")
    assert rows["logit"].nunique() > CANDIDATES
    return detector(-float(rows["logit"].median()))


@pytest.mark.parametrize("region", [PartRegion(grow=0.07, buffer=0.07), BoxRegion()])
def test_each_image_tries_distinct_donors_that_show_the_part_and_never_itself(
    networks, image_set, halfway, tmp_path, region
):
    rows, _ = run(networks, image_set, halfway, tmp_path, region=region)
    assert sorted(set(rows["image_id"])) == [NAMES[position] for position in EDITED]
    for image_id, tried in rows.groupby("image_id"):
        assert tried["candidate"].tolist() == list(range(CANDIDATES))
        donors = set(tried["donor_id"])
        assert len(donors) == CANDIDATES
        assert not donors & {image_id, *(NAMES[number] for number in WITHOUT_MOUTH)}


def test_the_strongest_success_is_chosen_and_its_composite_written(networks, image_set, halfway, tmp_path):
    rows, pictures = run(networks, image_set, halfway, tmp_path)
    wanted = read_table(image_set["plan"], "plan").set_index("image_id")["wanted"]
    strength = np.where(rows["image_id"].map(wanted), rows["logit"], -rows["logit"])
    assert (rows["success"] == (strength > 0)).all()
    for image_id, tried in rows.assign(strength=strength).groupby("image_id"):
        best = tried["strength"].max()
        assert tried.loc[tried["chosen"], "strength"].tolist() == ([best] if best > 0 else [])
        assert (image_id in pictures) == (best > 0)
    assert len(pictures) > 0
    assert rows["success"].any()
    assert not rows["success"].all()


def test_of_successes_the_one_whose_donor_fits_best_is_chosen(networks, image_set, halfway, tmp_path):
    rows, _ = run(networks, image_set, halfway, tmp_path, choose="seam", region=BoxRegion(buffer=0.07))
    names, pixels = read_shards(image_set["images"])
    images = dict(zip(names, pixels / 127.5 - 1, strict=True))
    rim = np.zeros((16, 16), bool)
    rim[8:16, 2:14] = True
    rim[9:16, 3:13] = False  # the box from row 10 to 15 and from column 4 to 12, with a ring of one pixel
    for row in rows.itertuples():
        difference = (images[row.image_id] - images[row.donor_id])[rim]
        assert row.seam == pytest.approx(np.sqrt((difference**2).mean()), abs=1e-5)
    wanted = read_table(image_set["plan"], "plan").set_index("image_id")["wanted"]
    strength = np.where(rows["image_id"].map(wanted), rows["logit"], -rows["logit"])
    for _, tried in rows.assign(strength=strength).groupby("image_id"):
        sure = tried[tried["success"] & (tried["strength"] >= min(tried["strength"].max(), SURE))]
        assert tried.loc[tried["chosen"], "seam"].tolist() == ([sure["seam"].min()] if len(sure) else [])


def test_of_a_pool_the_donors_that_fit_best_are_tried(networks, image_set, halfway, tmp_path):
    whole, _ = run(networks, image_set, halfway, tmp_path / "all", candidates=12)
    tried, pictures = run(networks, image_set, halfway, tmp_path / "fitting", candidates=4, pool=12)
    for image_id, pool in whole.groupby("image_id"):
        rows = tried[tried["image_id"] == image_id]
        assert rows["seam"].tolist() == sorted(rows["seam"].tolist(), key=list(pool["seam"]).index)  # in drawn order
        assert sorted(rows["seam"]) == sorted(pool["seam"])[:4]
        assert (
            rows.set_index("donor_id")["seam"].to_dict().items() <= pool.set_index("donor_id")["seam"].to_dict().items()
        )
    again, pictures_again = run(networks, image_set, halfway, tmp_path / "shards", candidates=4, pool=12, shards=2)
    pd.testing.assert_frame_equal(tried, again, check_exact=True)
    assert all(np.array_equal(pictures[name], pictures_again[name]) for name in pictures)


def test_seams_within_the_tolerance_are_equal_and_the_first_drawn_is_taken(networks, image_set, halfway, tmp_path):
    whole, _ = run(networks, image_set, halfway, tmp_path / "all", candidates=12)
    middle = float(whole["seam"].median())
    how = {"candidates": 4, "pool": 12, "choose": "seam", "seam_tolerance": middle}
    tried, _ = run(networks, image_set, halfway, tmp_path / "tolerant", **how)
    strict, _ = run(networks, image_set, halfway, tmp_path / "strict", **how | {"seam_tolerance": 0.0})
    assert set(tried["donor_id"]) != set(strict["donor_id"])
    wanted = read_table(image_set["plan"], "plan").set_index("image_id")["wanted"]
    for image_id, pool in whole.groupby("image_id"):
        rows = tried[tried["image_id"] == image_id]
        order = sorted(range(12), key=lambda place: max(pool["seam"].iloc[place], middle))  # sorted is stable
        assert list(rows["donor_id"]) == [pool["donor_id"].iloc[place] for place in sorted(order[:4])]
        strength = np.where(wanted[image_id], rows["logit"], -rows["logit"])
        sure = rows[(strength > 0) & rows["in_group"] & (strength >= min(strength[rows["in_group"]].max(), SURE))]
        first = sure.iloc[[int(sure["seam"].clip(lower=middle).argmin())]] if len(sure) else sure
        assert list(rows.loc[rows["chosen"], "candidate"]) == list(first["candidate"])


def test_a_pool_smaller_than_the_candidates_is_refused():
    with pytest.raises(ValueError, match="`pool`: 8 donors are fewer than the 16 `candidates`"):
        Edit(pool=8)


def test_where_no_candidate_succeeds_nothing_is_chosen_or_written(networks, image_set, detector, tmp_path):
    rows, pictures = run(networks, image_set, detector(1e3), tmp_path)  # everybody smiles, as half are wanted to
    wanted = read_table(image_set["plan"], "plan").set_index("image_id")["wanted"]
    gave_up = ~rows["image_id"].map(wanted).to_numpy()
    assert not rows["success"][gave_up].any()
    assert not rows["chosen"][gave_up].any()
    assert set(pictures) == set(wanted.index[wanted])


def test_a_composite_that_leaves_its_group_is_no_success(networks, image_set, detector, tmp_path):
    rows, pictures = run(networks, image_set, detector(1e3, long_hair=-1e3), tmp_path / "bald")
    assert not rows[["in_group", "success", "chosen"]].any(axis=None)
    assert not pictures

    low, high = -1e3, 1e3
    for _ in range(60):  # until the detector finds long hair in some of the composites
        middle = (low + high) / 2
        rows, pictures = run(networks, image_set, detector(1e3, long_hair=middle), tmp_path / f"{middle}")
        if 0 < rows["in_group"].mean() < 1:
            break
        low, high = (middle, high) if not rows["in_group"].any() else (low, middle)
    wanted = rows["image_id"].map(read_table(image_set["plan"], "plan").set_index("image_id")["wanted"])
    assert 0 < rows["in_group"].mean() < 1
    assert rows["success"].equals(rows["in_group"] & wanted)
    assert rows.loc[rows["chosen"], "in_group"].all()


@pytest.mark.slow
@pytest.mark.parametrize("shards", [2, 3, 20])
def test_resharding_changes_no_candidate_and_no_composite(networks, image_set, halfway, tmp_path, shards):
    rows, pictures = run(networks, image_set, halfway, tmp_path / "whole", faces=3)
    rows_again, pictures_again = run(networks, image_set, halfway, tmp_path / "other", shards=shards, faces=3)
    pd.testing.assert_frame_equal(rows, rows_again, check_exact=True)
    assert {name: picture.tobytes() for name, picture in pictures.items()} == {
        name: picture.tobytes() for name, picture in pictures_again.items()
    }


def test_batching_changes_nothing_but_the_last_digit(networks, image_set, halfway, tmp_path):
    rows, pictures = run(networks, image_set, halfway, tmp_path / "whole")
    rows_again, pictures_again = run(networks, image_set, halfway, tmp_path / "other", faces=1)
    assert rows["donor_id"].tolist() == rows_again["donor_id"].tolist()
    # the selector sees images of whole grey levels, and one in a thousand pixels may round to the next
    np.testing.assert_allclose(rows["logit"], rows_again["logit"], atol=0.02)
    for name in set(pictures) & set(pictures_again):
        assert np.abs(pictures[name].astype(int) - pictures_again[name]).max() <= 1


def test_donors_follow_the_seed(networks, image_set, halfway, tmp_path):
    donors = [tuple(run(networks, image_set, halfway, tmp_path, seed=seed)[0]["donor_id"]) for seed in (0, 0, 1)]
    assert donors[0] == donors[1] != donors[2]


def test_a_plan_without_edits_makes_empty_files(networks, image_set, halfway, tmp_path):
    empty = read_table(image_set["plan"], "plan").iloc[:0]
    write_table(image_set["plan"], "plan", empty)
    rows, pictures = run(networks, image_set, halfway, tmp_path)
    assert rows.empty
    assert not pictures
    assert count_images([tmp_path / "0.images.parquet"]) == 0


def test_more_candidates_than_donors_are_refused(networks, image_set, halfway, tmp_path):
    with pytest.raises(DataError, match="22 donors requested, but samples has only 21"):
        run(networks, image_set, halfway, tmp_path, candidates=22)


def test_a_part_that_no_image_shows_cannot_be_swapped(networks, image_set, halfway, tmp_path):
    with pytest.raises(DataError, match="only 0 images have the part `hat`"):
        run(networks, image_set, halfway, tmp_path, region=PartRegion(name="hat"))


def test_the_composite_is_the_inversion_of_the_chosen_donors_collage(networks, image_set, halfway, tmp_path):
    rows, pictures = run(networks, image_set, halfway, tmp_path, region=BoxRegion(buffer=0.07), finish="none")
    chosen = rows[rows["chosen"]].iloc[0]
    names, pixels = read_shards(image_set["images"])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    image_of = dict(zip(names, images, strict=True))
    collage, known = image_of[chosen["image_id"]].clone(), torch.ones(1, 16, 16)
    box = slice(round(0.65 * 16), round(0.93 * 16)), slice(4, 12)
    collage[:, *box] = image_of[chosen["donor_id"]][:, *box]
    known[:, box[0].start - 1 : box[0].stop + 1, 3:13] = 0
    known[:, *box] = 1
    encoder, generator = load_weights(networks.encoder), load_weights(networks.generator)
    composite = generator.decode(encoder(collage[None], known[None]))[0]
    expected = ((composite + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(pictures[chosen["image_id"]] - expected).max() <= 0.501
    error = ((composite - collage).abs() * known).sum() / (3 * known.sum())
    assert chosen["masked_l1"] == pytest.approx(float(error), rel=1e-4)


@pytest.mark.parametrize("finish", ["none", "region", "detail"])
def test_the_error_of_an_edit_is_that_of_the_image_that_is_kept(networks, image_set, detector, tmp_path, finish):
    rows, pictures = run(networks, image_set, detector(1e3), tmp_path, region=BoxRegion(buffer=0.07), finish=finish)
    chosen = rows[rows["chosen"]].iloc[0]
    names, pixels = read_shards(image_set["images"])
    image_of = dict(zip(names, pixels / 127.5 - 1, strict=True))
    box = slice(round(0.65 * 16), round(0.93 * 16)), slice(4, 12)
    collage, known = image_of[chosen["image_id"]].copy(), np.ones((16, 16), bool)
    collage[box] = image_of[chosen["donor_id"]][box]
    known[box[0].start - 1 : box[0].stop + 1, 3:13] = False
    known[box] = True
    error = np.abs(pictures[chosen["image_id"]] / 127.5 - 1 - collage)[known].mean()
    assert chosen["masked_l1"] == pytest.approx(error, abs=0.5 / 127.5)  # pictures are rounded


@pytest.mark.parametrize(("editor", "finish"), [("latent-regression", "region"), ("poisson", "detail")])
def test_a_finished_edit_keeps_every_byte_outside_the_region(networks, image_set, detector, tmp_path, editor, finish):
    region = BoxRegion(buffer=0.07)
    _, pictures = run(networks, image_set, detector(1e3), tmp_path, region=region, editor=editor, finish=finish)
    names, pixels = read_shards(image_set["images"])
    original = dict(zip(names, pixels, strict=True))
    inside = np.zeros((16, 16), bool)
    inside[9:16, 3:13] = True  # the box from row 10 to 15 and from column 4 to 12, with a ring of one pixel
    assert len(pictures) > 0
    for name, edited in pictures.items():
        assert np.array_equal(edited[~inside], original[name][~inside])
        assert not np.array_equal(edited[inside], original[name][inside])


def test_the_stored_edit_is_what_the_selector_scored(networks, image_set, halfway, tmp_path):
    rows, pictures = run(networks, image_set, halfway, tmp_path, finish="none")
    chosen = rows[rows["chosen"]].set_index("image_id")["logit"]
    stored = torch.from_numpy(np.stack([pictures[name] for name in chosen.index])).permute(0, 3, 1, 2) / 127.5 - 1
    logits = load_weights(halfway, Detector).logits(stored)[:, 0]
    torch.testing.assert_close(logits, torch.tensor(chosen.to_numpy()), rtol=0, atol=1e-4)


def test_candidates_scored_in_bfloat16_succeed_or_fail_in_float32(networks, image_set, halfway, tmp_path, monkeypatch):
    exact, _ = run(networks, image_set, halfway, tmp_path / "exact", choose="strongest")
    monkeypatch.setattr(swap_module, "scored_in_bfloat16", lambda editor, device: True)
    rounded, pictures = run(networks, image_set, halfway, tmp_path / "rounded", choose="strongest")
    assert not exact["logit"].equals(rounded["logit"])
    assert (exact["logit"] - rounded["logit"]).abs().max() < 0.1
    chosen = rounded["chosen"]
    assert chosen.sum() == len(pictures) > 0
    stored = torch.from_numpy(np.stack([pictures[name] for name in rounded["image_id"][chosen]]))
    logits = load_weights(halfway, Detector).logits(stored.permute(0, 3, 1, 2) / 127.5 - 1)[:, 0]
    torch.testing.assert_close(logits, torch.tensor(rounded["logit"][chosen].to_numpy()), rtol=0, atol=1e-4)


def test_rows_are_gathered_in_the_order_asked_for():
    rows = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    for positions in ([], [3], [4, 0, 0, 2, 1, 4, 3, 3, 1, 0, 2]):
        places = np.array(positions, np.int64)
        np.testing.assert_array_equal(gather(rows, places), rows[places])


def test_donors_with_the_attribute_have_the_target_value_by_the_labels(networks, image_set, halfway, tmp_path):
    rows, _ = run(networks, image_set, halfway, tmp_path, donors="with-attribute")
    smiling = dict(zip(NAMES, SMILING, strict=True))
    wanted = read_table(image_set["plan"], "plan").set_index("image_id")["wanted"]
    assert [smiling[donor] for donor in rows["donor_id"]] == rows["image_id"].map(wanted).tolist()


def test_too_few_donors_with_the_attribute_are_refused(networks, image_set, halfway, tmp_path):
    with pytest.raises(DataError, match=r"9 donors requested, but samples has only \d; use fewer or `donors: any`"):
        run(networks, image_set, halfway, tmp_path, donors="with-attribute", candidates=9)


@pytest.fixture
def of_two_attributes(image_set):
    """Return settings, plan and labels of edits of smiles by the mouth and of long hair by a box above it."""
    settings = Rebalance(
        targets=[*TARGETS, RateRule(where={"smiling": True}, attribute="long_hair", rate=0.5)],
        edit=Edit(
            region=PartRegion(grow=0.07, buffer=0.07),
            regions={"long_hair": BoxRegion(top=0.0, bottom=0.3, left=0.0, right=1.0, buffer=0.05)},
            candidates=CANDIDATES,
        ),
    )
    labels = read_table(image_set["plan"].with_name("labels.parquet"), "labels")
    long_hair = np.arange(COUNT) % 2 == 0
    write_table(image_set["plan"].with_name("labels.parquet"), "labels", labels.assign(long_hair=long_hair))
    plan = read_table(image_set["plan"], "plan")
    of_hair = np.array([SMILING[position] for position in EDITED])
    plan["attribute"] = np.where(of_hair, "long_hair", "smiling")
    plan["target"] = np.where(of_hair, 2, np.where(long_hair[EDITED], 0, 1)).astype(np.int16)
    plan["wanted"] = np.where(of_hair, ~long_hair[EDITED], True)
    write_table(image_set["plan"], "plan", plan)
    return settings, plan


def test_each_attribute_is_edited_in_its_own_region(networks, image_set, of_two_attributes, detector, tmp_path):
    settings, plan = of_two_attributes
    tables, composites = ([tmp_path / f"{shard}.{kind}.parquet" for shard in range(2)] for kind in ("rows", "images"))
    for shard in range(2):
        swap_parts(
            **image_set,
            table=image_set["plan"].with_name("labels.parquet"),
            kind="labels",
            encoder=[networks.encoder],
            generator=[networks.generator],
            precision=[precision_report(tmp_path)],
            model=[],
            selector=detector(0.0, 0.0),
            settings=settings,
            shards=2,
            run="toy",
            seed=0,
            name="samples",
            shard=shard,
            candidates=tables[shard],
            composites=composites[shard],
            device=torch.device("cpu"),
            faces=2,
        )
    rows = read_tables(tables, "candidates")
    assert rows.groupby("image_id").size().to_dict() == dict.fromkeys(plan["image_id"], CANDIDATES)
    before = dict(zip(*read_shards(image_set["images"]), strict=True))
    seen = {name: set() for name in ("smiling", "long_hair")}
    attribute = plan.set_index("image_id")["attribute"]
    for name, image in zip(*read_shards(composites), strict=True):
        seen[attribute[name]] |= set(np.flatnonzero((image != before[name]).any(axis=(1, 2))))
    assert max(seen["long_hair"], default=0) <= 6  # of 16 rows
    assert min(seen["smiling"], default=15) >= 6
    assert seen["long_hair"]


def test_an_edit_may_change_no_other_attribute_that_has_targets(image_set, of_two_attributes):
    settings, plan = of_two_attributes
    held, groups = held_groups(plan, image_set["plan"].with_name("labels.parquet"), "labels", settings)
    for row, number in zip(plan.itertuples(), held, strict=True):
        position = row.position
        if row.attribute == "long_hair":
            assert groups[number] == {"smiling": True}
        else:
            assert groups[number] == {"long_hair": position % 2 == 0}
    alone = settings.model_copy(update={"targets": TARGETS, "regions": {}})
    assert held_groups(plan, image_set["plan"], "plan", alone)[1] == [target.where for target in TARGETS]
