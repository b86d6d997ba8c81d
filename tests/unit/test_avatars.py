"""The embedded faces are what they are said to be: their rates, their attributes and their masks are the truth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import python_avatars as drawing
import torch
from scipy.stats import binomtest

from pipeline_lib.config import RateRule
from pipeline_lib.config.names import (
    AVATAR_ATTRIBUTES,
    AVATAR_EXCHANGEABLE,
    AVATAR_PARTS,
    AVATAR_SETTABLE,
    AVATAR_SHOWN_BY,
)
from pipeline_lib.data.avatars.drawing import render_face, render_image
from pipeline_lib.data.avatars.faces import (
    HATS,
    HELD_OUT_FROM,
    LONG_HAIR,
    OTHER_MOUTHS,
    SHORT_HAIR,
    SMILING_MOUTHS,
    combine_faces,
    draw_face,
    variants_of,
)
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.prepare import prepare_dataset, shard_of
from pipeline_lib.data.readers.avatars import Avatars
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.imaging.masks import grow
from pipeline_lib.runtime.errors import DataError

DEFAULTS = AvatarData()
MOUTH = AVATAR_PARTS.index("mouth")
LONG, SHORT = {"long_hair": True}, {"long_hair": False}


def attributes_of(count, rules=(), seed=0):
    faces = [draw_face(seed, index, rules).attributes for index in range(count)]
    return {name: np.array([face[name] for face in faces]) for name in faces[0]}


def assert_rate(found, wanted):
    """Accept what a rate of `wanted` gives in all but one of a thousand data sets."""
    assert binomtest(int(found.sum()), len(found), wanted).pvalue > 1e-3


def test_a_bias_is_drawn_at_the_rates_asked_for():
    rules = [RateRule(where=LONG, attribute="smiling", rate=0.8), RateRule(where=SHORT, attribute="smiling", rate=0.3)]
    found = attributes_of(2000, rules)
    assert_rate(found["smiling"][found["long_hair"]], 0.8)
    assert_rate(found["smiling"][~found["long_hair"]], 0.3)
    assert_rate(found["long_hair"][~found["hat"]], AVATAR_SETTABLE["long_hair"])  # a hat leaves none to be seen
    for name in ("hat", "beard", "eyeglasses", "dark_skin"):
        assert_rate(found[name], AVATAR_SETTABLE[name])


def test_a_later_rule_overrides_an_earlier_one():
    never, always = (RateRule(attribute="hat", rate=rate) for rate in (0, 1))
    assert attributes_of(20, [never, always])["hat"].all()
    assert not attributes_of(20, [always, never])["hat"].any()


def test_what_is_not_biased_does_not_move_with_the_bias():
    before, after = attributes_of(200), attributes_of(200, [RateRule(where=LONG, attribute="smiling", rate=1)])
    assert (before["smiling"] != after["smiling"]).any()
    for name in set(before) - {"smiling", "mouth_open"}:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_attributes_contradict_neither_each_other_nor_the_masks():
    for index in range(40):
        face = draw_face(1, index, [])
        true, codes = face.attributes, render_face(face, 64, DEFAULTS.crop)[1]
        shown = {AVATAR_PARTS[code] for code in np.unique(codes)}
        assert not (true["long_hair"] and (true["hat"] or true["bald"]))
        assert true["eyeglasses"] or not true["sunglasses"]
        assert not (true["sunglasses"] and true["eyes_closed"])
        assert ("hat" in shown, "glasses" in shown, "facial_hair" in shown) == (
            true["hat"],
            true["eyeglasses"],
            true["beard"],
        )
        assert {"skin", "mouth", "nose"} <= shown


def test_the_mouth_mask_holds_every_pixel_that_another_mouth_changes():
    mouths = [*SMILING_MOUTHS, *OTHER_MOUTHS]
    for index, (one, other) in enumerate(pairwise(mouths)):
        face = draw_face(2, index, [RateRule(attribute="beard", rate=0)])
        faces = [face.redraw({"mouth": drawing.MouthType[mouth]}) for mouth in (one, other)]
        images, codes = zip(*(render_face(drawn, 64, DEFAULTS.crop) for drawn in faces), strict=True)
        masks = [of_face == MOUTH for of_face in codes]
        moved = (images[0] != images[1]).any(axis=2)
        union = grow(torch.from_numpy(masks[0] | masks[1])[None, None].float(), 1)[0, 0].bool().numpy()
        assert min(mask.sum() for mask in masks) >= 16, (one, other)
        assert not (moved & ~union).any(), (one, other)
        assert moved.sum() > union.sum() / 4, (one, other)  # nor does the mask reach far beyond the mouths


@pytest.mark.parametrize(
    ("exchanged", "count", "decided"),
    [
        (["mouth"], 10, {"smiling", "mouth_open"}),
        (["eyes"], 3, {"eyes_closed"}),
        (["brows"], 3, set()),
        (["facial_hair"], 3, {"beard"}),
        (["glasses"], 4, {"eyeglasses", "sunglasses", "eyes_closed"}),
        (["eyes", "glasses"], 12, {"eyeglasses", "sunglasses", "eyes_closed"}),
    ],
)
def test_variants_are_every_drawing_of_a_part_and_nothing_else(exchanged, count, decided):
    for index in range(12):
        face = draw_face(5, index, [])
        variants = variants_of(face, exchanged)
        assert len(variants) == count
        own = [variant for variant in variants.values() if vars(variant.avatar) == vars(face.avatar)]
        assert [variant.attributes for variant in own] == [face.attributes]
        for variant in variants.values():
            differs = {name for name, value in face.attributes.items() if variant.attributes[name] != value}
            assert differs <= decided
        for name in decided - {"eyes_closed"}:  # which no variant shows behind sunglasses
            assert len({variant.attributes[name] for variant in variants.values()}) == 2
        if exchanged == ["mouth"]:
            smiling = [name for name, variant in variants.items() if variant.attributes["smiling"]]
            assert smiling == list(SMILING_MOUTHS)


@pytest.mark.slow
@pytest.mark.parametrize("part", AVATAR_EXCHANGEABLE)
def test_every_drawing_of_a_part_can_be_seen_with_every_hair_and_hat(part):
    face = draw_face(5, 0, [])
    tops = [*(drawing.HairType[name] for name in (*LONG_HAIR, *SHORT_HAIR)), *(drawing.HatType[name] for name in HATS)]
    for top in tops:
        variants = variants_of(face.redraw({"top": top, "accessory": drawing.AccessoryType.NONE}), [part]).values()
        images = [render_image(variant, 48, DEFAULTS.crop) for variant in variants]
        assert len({image.tobytes() for image in images}) == len(images), top


def test_a_face_combined_from_its_own_parts_is_the_face():
    for index in range(40):
        face = draw_face(5, index, [])
        again = combine_faces(dict.fromkeys(AVATAR_PARTS, face))
        assert again.attributes == face.attributes
        np.testing.assert_array_equal(render_image(again, 32, DEFAULTS.crop), render_image(face, 32, DEFAULTS.crop))


@pytest.mark.slow
def test_a_face_combined_from_others_has_the_parts_of_each():
    """Most pixels of a collage of the parts, by their true masks, are those of the combined face; not all, because hair
    that a face does not have any more has cast a shadow on it, and at the edges two parts share a pixel."""
    combined = 0
    for first in range(0, 400, 20):
        faces = {part: draw_face(5, first + place, []) for place, part in enumerate(AVATAR_PARTS)}
        face = combine_faces(faces)
        if face is None:
            assert faces["hat"].attributes["hat"]
            continue
        combined += 1
        image = render_image(face, 64, DEFAULTS.crop)
        collage, known = np.zeros_like(image), np.zeros((64, 64), bool)
        for code, part in enumerate(AVATAR_PARTS):
            source, codes = render_face(faces[part], 64, DEFAULTS.crop)
            collage[codes == code] = source[codes == code]
            known |= codes == code
        off = np.abs(collage.astype(int) - image).max(axis=-1)[known]
        assert np.mean(off > 8) < 0.35
        assert np.median(off) == 0
        for part, attribute in (
            ("mouth", "smiling"),
            ("glasses", "eyeglasses"),
            ("facial_hair", "beard"),
            ("hat", "hat"),
        ):
            assert face.attributes[attribute] == faces[part].attributes[attribute]
    assert combined > 10


def test_hats_are_not_combined_with_the_hair_of_another_face():
    faces = [draw_face(5, index, []) for index in range(60)]
    hatted = next(face for face in faces if face.attributes["hat"])
    haired = next(face for face in faces if face.attributes["long_hair"])
    sources = dict.fromkeys(AVATAR_PARTS, haired)
    assert combine_faces(sources | {"hat": hatted}) is None
    bare = combine_faces(sources | {"hair": hatted})  # whose hair is not seen
    assert bare.attributes["bald"]
    assert not bare.attributes["hat"]
    assert combine_faces(sources | {"hair": hatted, "hat": hatted}).attributes["hat"]


def test_a_part_without_drawings_to_exchange_is_named():
    assert set(AVATAR_EXCHANGEABLE) < set(AVATAR_PARTS)
    with pytest.raises(DataError, match="no drawings to exchange of hair; the parts are mouth"):
        variants_of(draw_face(0, 0, []), ["mouth", "hair"])


def test_shards_are_runs_of_nearly_equal_length():
    for count, shards in ((10, 3), (64, 1), (5, 5), (7, 2)):
        where = [shard_of(position, count, shards) for position in range(count)]
        assert where == sorted(where)
        sizes = np.bincount(where, minlength=shards)
        assert len(sizes) == shards
        assert sizes.max() - sizes.min() <= 1


def prepare(folder, shards, threads):
    def paths(name):
        return [folder / name / f"{shard}.parquet" for shard in range(shards)]

    prepare_dataset(
        settings=Avatars(images=130, held_out=64, resolution=32),
        run="toy",
        images=paths("dataset"),
        labels=folder / "labels.parquet",
        masks=folder / "masks.parquet",
        held_out=paths("held_out"),
        held_out_labels=folder / "held_out_labels.parquet",
        held_out_masks=folder / "held_out_masks.parquet",
        quarantine=folder / "quarantine.parquet",
        notes=folder / "notes.parquet",
        threads=threads,
    )
    return paths("dataset"), paths("held_out")


@pytest.mark.slow
def test_shards_and_workers_change_no_image_label_or_mask(tmp_path):
    one, _ = prepare(tmp_path / "one", shards=1, threads=1)
    three, held_out = prepare(tmp_path / "three", shards=3, threads=2)
    names, pixels = read_shards(one)
    names_again, pixels_again = read_shards(three)
    assert names == names_again
    np.testing.assert_array_equal(pixels, pixels_again)
    for table in ("labels", "masks", "held_out_labels", "held_out_masks"):
        paths = [tmp_path / folder / f"{table}.parquet" for folder in ("one", "three")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not set(names) & set(read_shards(held_out)[0])


@pytest.mark.slow
def test_tables_tell_the_truth_of_the_images_beside_them(tmp_path):
    _, held_out = prepare(tmp_path, shards=2, threads=2)
    names, pixels = read_shards(held_out)
    labels = read_table(tmp_path / "held_out_labels.parquet", "labels")
    masks = read_table(tmp_path / "held_out_masks.parquet", "masks")
    assert attribute_columns(labels, "labels") == list(AVATAR_ATTRIBUTES)
    assert names == labels["image_id"].tolist() == masks["image_id"].tolist()
    assert set(labels["split"]) == {"held_out"}
    face = draw_face(DEFAULTS.seed, HELD_OUT_FROM + 7, DEFAULTS.rates)
    image, codes = render_face(face, 32, DEFAULTS.crop)
    np.testing.assert_array_equal(pixels[7], image)
    assert masks["codes"][7] == codes.tobytes()
    assert labels.loc[7, list(AVATAR_ATTRIBUTES)].to_dict() == face.attributes


@pytest.mark.parametrize("part", AVATAR_SHOWN_BY)
def test_what_an_edit_of_a_part_makes_unknown_is_what_its_drawings_differ_in(part):
    faces = [draw_face(0, index, []) for index in range(40)]
    differ = {
        name
        for face in faces
        for variant in variants_of(face, [part]).values()
        for name, value in variant.attributes.items()
        if value != face.attributes[name]
    }
    assert differ == set(AVATAR_SHOWN_BY[part])
