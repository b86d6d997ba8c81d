"""A config that cannot run is refused with one line that names the key, what was found and how to fix it."""

from __future__ import annotations

import copy
import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.config import BoxRegion, PartRegion, load_config, named_files, parse_config
from pipeline_lib.config import values as values_of_columns
from pipeline_lib.config.names import IMAGE_SETS, RESERVED
from pipeline_lib.data.tables import OPEN, SCHEMAS
from pipeline_lib.release.image_sets import LINEAGE
from pipeline_lib.runtime.errors import ConfigError
from pipeline_lib.runtime.files import SHIPPED

LONG, SHORT = {"long_hair": True}, {"long_hair": False}
MINIMAL = {
    "generator": {"training": {"kimg": 1}},
    "encoder": {"training": {"kimg": 1}},
    "rebalance": {
        "targets": [
            {"where": LONG, "attribute": "smiling", "rate": 0.5},
            {"where": SHORT, "attribute": "smiling", "rate": 0.5},
        ]
    },
    "retrain": {"training": {"kimg": 1}},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return the minimal config with the value at `key`, a dotted path, replaced."""
    config = copy.deepcopy(MINIMAL)
    *place, last = key.split(".")
    node: Any = config
    for step in place:
        node = node[int(step)] if step.isdigit() else node.setdefault(step, {})
    node[int(last) if last.isdigit() else last] = value
    return config


def refusal(values: Any) -> str:
    """Return the message that a config is refused with, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        parse_config(values, source="my.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("my.yaml: ")
    return message


def target(where: dict[str, bool], attribute: str = "smiling", rate: Any = 0.5) -> dict[str, Any]:
    return {"where": where, "attribute": attribute, "rate": rate}


def test_the_minimal_config_takes_every_other_value_from_its_defaults() -> None:
    config = parse_config(MINIMAL)
    assert (config.run, config.data.resolution, config.rebalance.edit.candidates) == ("avatars", 64, 16)
    assert config.rebalance.targets[1].where == SHORT


def test_a_config_survives_being_dumped_and_read(tmp_path: Path) -> None:
    config = parse_config(changed("rebalance.edit.region", {"kind": "box"}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(tmp_path / "config.yaml") == config
    assert config.rebalance.edit.region == BoxRegion()


def test_a_preset_gives_what_a_config_does_not() -> None:
    values = MINIMAL | {"preset": "photos", "data": {"reader": "avatars"}, "seed": 3}
    config = parse_config(values)
    assert (config.seed, config.data.reader, config.evaluate.images) == (3, "avatars", 1000)
    assert config.retrain is not None  # the preset's null is below it
    assert config.rebalance.edit.editor.kind == "poisson"
    part = {"rebalance": MINIMAL["rebalance"] | {"edit": {"region": {"kind": "part", "name": "eyes"}}}}
    assert parse_config(values | part).rebalance.edit.region == PartRegion(name="eyes")  # of another kind: not merged
    assert parse_config(config.model_dump(mode="json")) == config
    assert refusal(MINIMAL | {"preset": "foto"}).endswith("did you mean `photos`?")
    wrong = values | {"evaluate": {"image": 3}}
    assert refusal(wrong) == "my.yaml: unknown key `evaluate.image`; did you mean `images`?"


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sed", "seed"),
        ("rebalance.edit.candidate", "candidates"),
        ("rebalance.targets.0.atribute", "attribute"),
        ("detectors.training.kimgs", "kimg"),
        ("generator.training.gama", "gamma"),
    ],
)
def test_an_unknown_key_is_answered_by_the_nearest_known_one(key: str, near: str) -> None:
    assert refusal(changed(key, 1)).endswith(f"unknown key `{key}`; did you mean `{near}`?")


def test_an_unknown_key_of_a_region_is_answered_by_a_key_of_that_region() -> None:
    message = refusal(changed("rebalance.edit.region", {"kind": "part", "grwo": 0.1}))
    assert "grwo`; did you mean `grow`?" in message


@pytest.mark.parametrize(
    ("values", "key", "name", "near"),
    [
        (changed("rebalance.targets.0", target(LONG, "smilling")), "rebalance.targets", "smilling", "smiling"),
        (changed("rebalance.targets.0", target({"longhair": True})), "rebalance.targets", "longhair", "long_hair"),
        (changed("detectors.attributes", ["smiling", "long_hair", "bear"]), "detectors.attributes", "bear", "beard"),
        (changed("data.rates", [target({}, "eyeglass")]), "data.rates.attribute", "eyeglass", "eyeglasses"),
        (changed("data.rates", [target({"hot": True})]), "data.rates.where", "hot", "hat"),
        (
            changed("rebalance.edit.region", {"kind": "part", "name": "moth"}),
            "rebalance.edit.region.name",
            "moth",
            "mouth",
        ),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest_known_one(
    values: dict[str, Any], key: str, name: str, near: str
) -> None:
    message = refusal(values)
    assert f"`{key}` names `{name}`" in message
    assert f"did you mean `{near}`?" in message


def test_a_target_that_no_detector_learns_is_refused() -> None:
    message = refusal(changed("detectors.attributes", ["long_hair", "hat"]))
    assert "`rebalance.targets` names `smiling`, which is not one of long_hair, hat" in message


@pytest.mark.parametrize(("rate", "limit"), [(1.5, "less than or equal to 1"), (-0.1, "greater than or equal to 0")])
@pytest.mark.parametrize("key", ["rebalance.targets.0", "data.rates.0"])
def test_a_rate_outside_0_and_1_is_refused(key: str, rate: float, limit: str) -> None:
    values = copy.deepcopy(MINIMAL) | {"data": {"rates": [target({})]}}
    section, name, number = key.split(".")
    values[section][name][int(number)]["rate"] = rate
    message = refusal(values)
    assert f"`{key}.rate`" in message
    assert limit in message
    assert message.endswith(f"found {rate}")


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ({"top": 0.9, "bottom": 0.6}, "the box is empty; `top` must be less than `bottom`"),
        (
            {"left": 0.5, "right": 0.5},
            "the box is empty; `top` must be less than `bottom`, and `left` less than `right`",
        ),
        ({"bottom": 1.2}, "less than or equal to 1, found 1.2"),
        ({"left": -0.1}, "greater than or equal to 0, found -0.1"),
    ],
)
def test_a_box_that_is_empty_or_outside_the_image_is_refused(box: dict[str, float], found: str) -> None:
    message = refusal(changed("rebalance.edit.region", {"kind": "box", **box}))
    assert "rebalance.edit.region" in message
    assert found in message


@pytest.mark.parametrize("missing", ["generator.weights", "generator.discriminator", "encoder.weights"])
def test_a_missing_weights_file_is_named(tmp_path: Path, missing: str) -> None:
    values = copy.deepcopy(MINIMAL)
    values["generator"] = {}
    for key in ("generator.weights", "generator.discriminator", "encoder.weights"):
        section, name = key.split(".")
        path = tmp_path / f"{key}.safetensors"
        values[section][name] = str(path)
        if key != missing:
            path.touch()
    assert f"`{missing}`: no file {tmp_path / missing}.safetensors; correct the path" in refusal(values)

    (tmp_path / f"{missing}.safetensors").touch()
    assert parse_config(values).generator.weights == tmp_path / "generator.weights.safetensors"


@pytest.mark.parametrize("key", ["detectors.selector.path", "data.folder"])
def test_a_path_that_leads_nowhere_is_named_wherever_it_stands(folder: dict[str, Any], key: str) -> None:
    if key.startswith("detectors"):
        folder["detectors"]["selector"] = {"backend": "transformers", "classes": {"smiling": "a", "long_hair": "b"}}
    *place, last = key.split(".")
    node = folder
    for step in place:
        node = node.setdefault(step, {})
    node[last] = "nowhere"
    assert f"`{key}`: no folder nowhere; correct the path" in refusal(folder)
    node[last] = folder["data"]["labels"]
    assert f"`{key}`: no folder {node[last]}" in refusal(folder)


def test_a_generator_needs_an_origin() -> None:
    assert "`generator`: set `weights`, `training` or both" in refusal(changed("generator", {}))


@pytest.mark.parametrize("further", [{}, {"training": {"kimg": 1}}])
def test_training_from_given_weights_needs_their_discriminator(tmp_path: Path, further: dict[str, Any]) -> None:
    weights = tmp_path / "generator.safetensors"
    weights.touch()
    values = changed("generator", {"weights": str(weights), **further})
    assert "also needs `generator.discriminator`" in refusal(values)
    values["generator"]["discriminator"] = str(weights)
    assert parse_config(values).generator.weights == weights


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"top": 0.75}, "the square exceeds the image"),
        ({"side": 0.4}, "`generator.training.local`: the square is 25.6 pixels wide at 64 pixels"),
        ({"channels": [8, 8]}, "with 2 `channels` it must be 8"),
    ],
)
def test_a_square_that_does_not_fit_the_local_discriminator_is_refused(change: dict[str, Any], problem: str) -> None:
    local = {"top": 0.5, "left": 0.25, "side": 0.5, "channels": [8, 8, 8, 8]}
    assert parse_config(changed("generator.training.local", local)).generator.training is not None
    assert problem in refusal(changed("generator.training.local", local | change))


@pytest.mark.parametrize("change", [{"perceptual_crop": 0.3}, {"local": {"top": 0.5, "left": 0.5, "side": 0.3}}])
def test_the_perceptual_distance_needs_enough_pixels(change: dict[str, Any]) -> None:
    (key,) = change
    message = refusal(changed("encoder.training", {"kimg": 1, **change}))
    assert f"`encoder.training.{key}`: 0.3 of 64 pixels is less than the 22" in message


def test_collages_need_a_square_to_exchange() -> None:
    assert "`collages` needs `local`" in refusal(changed("encoder.training", {"kimg": 1, "collages": 0.5}))
    all_of_them = {"kimg": 1, "collages": 1.0, "local": {"top": 0.5, "left": 0.25, "side": 0.5}}
    assert "leaves no image with known latents" in refusal(changed("encoder.training", all_of_them))


def test_an_encoder_needs_a_loss() -> None:
    nothing = {"kimg": 1, "mse": 0, "perceptual": 0, "latent": 0}
    assert "every loss has a weight of 0" in refusal(changed("encoder.training", nothing))


def test_a_square_keeps_four_pixels_while_the_resolution_grows() -> None:
    values = changed("generator.training.local", {"top": 0.5, "left": 0.25, "side": 0.5, "channels": [8, 8, 8, 8]})
    values["generator"]["training"]["growth"] = [{"resolution": 4, "kimg": 1}]
    complaint = "2 at the lowest resolution; with 4 `channels` it must be 32, and nowhere less than 4"
    assert complaint in refusal(values)


@pytest.mark.parametrize("other", [{}, LONG, {"eyeglasses": True}])
def test_overlapping_targets_are_refused(other: dict[str, bool]) -> None:
    message = refusal(changed("rebalance.targets.1", target(other)))
    assert f"`rebalance.targets` overlap, because an image can match both {LONG} and {other}" in message


def test_targets_that_differ_in_one_condition_do_not_overlap() -> None:
    targets = [target({**LONG, "eyeglasses": True}), target({**LONG, "eyeglasses": False}), target(SHORT)]
    assert len(parse_config(changed("rebalance.targets", targets)).rebalance.targets) == 3


def test_one_target_is_enough_and_can_be_of_every_image() -> None:
    for only in (target(LONG), {"attribute": "smiling", "rate": 0.5}):
        found = parse_config(changed("rebalance.targets", [only])).rebalance
        assert [rule.where for rule in found.targets] == [only.get("where", {})]
        assert found.compared == ()
    assert parse_config(joint(targets=JOINT[1:])).rebalance.compared == ()
    assert "`rebalance.targets`" in refusal(changed("rebalance.targets", []))


def test_columns_of_one_thing_overlap_and_the_mend_is_a_column_with_values() -> None:
    message = refusal(changed("rebalance.targets", [target({name: True}) for name in ("long_hair", "eyeglasses")]))
    assert "`rebalance.targets` overlap" in message
    assert "where: {race: each}" in message


FACES = [  # as FairFace is published; smiling is another's
    ("train/1.jpg", "50-59", "Male", "East Asian", "True", "yes", "0"),
    ("train/2.jpg", "3-9", "Female", "Latino_Hispanic", "False", "no", "1"),
    ("train/3.jpg", "more than 70", "Female", "Black", "True", "YES", "4"),
    ("train/4.jpg", "3-9", "Female", "", "True", "no", "1"),
]


@pytest.fixture
def faces(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that gives a config of a table in FairFace's layout with these targets."""
    (tmp_path / "faces").mkdir()
    with (tmp_path / "faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "age", "gender", "race", "service_test", "smiling", "ethnicity"), *FACES])

    def values(targets: list[dict[str, Any]], attributes: list[str]) -> dict[str, Any]:
        data = {"reader": "folder", "folder": str(tmp_path / "faces"), "labels": str(tmp_path / "faces.csv")}
        config = changed("rebalance", {"targets": targets, "edit": {"region": {"kind": "box", "shows": None}}})
        config["data"] = data | {"id_column": "file", "attributes": attributes, "resolution": 64}
        return config | {"detectors": {"attributes": attributes}}

    return values


CELLS = {"age": ["3-9"], "gender": ["Female"], "race": ["Black"]}
BLACK, ASIAN, LATINO = ({f"race={value}": True} for value in ("Black", "East Asian", "Latino_Hispanic"))


@pytest.mark.parametrize(
    ("where", "value", "attribute", "wheres"),
    [
        ({"race": "Black"}, "Female", "gender=Female", [BLACK]),
        ({"race": "each"}, "Female", "gender=Female", [BLACK, ASIAN, LATINO]),
        ({"age": "50-59"}, "Male", "gender=Male", [{"age=50-59": True}]),
        ({"race=Black": False}, "Female", "gender=Female", [{"race=Black": False}]),
        ({"ethnicity": 4}, "Female", "gender=Female", [{"ethnicity=4": True}]),
        ({"ethnicity": 1}, "Female", "gender=Female", [{"ethnicity=1": True}]),  # UTKFace's races are numbers
        ({"smiling": "no"}, "Female", "gender=Female", [{"smiling": False}]),
        ({"smiling": "each"}, "Female", "gender=Female", [{"smiling": True}, {"smiling": False}]),
        ({"race": "each"}, "yes", "smiling", [BLACK, ASIAN, LATINO]),
        ({"race": "each"}, True, "smiling", [BLACK, ASIAN, LATINO]),
    ],
)
def test_a_value_is_named_as_the_table_has_it(faces, where, value, attribute, wheres) -> None:
    written = {"where": where, "attribute": attribute.partition("=")[0], "value": value, "rate": 0.5}
    config = parse_config(faces([written], ["gender", "smiling", "race", "age", "ethnicity"]))
    assert [rule.attribute for rule in config.rebalance.targets] == [attribute] * len(wheres)
    assert sorted(map(str, (rule.where for rule in config.rebalance.targets))) == sorted(map(str, wheres))
    named = {name for where in (*wheres, {attribute: True}) for name in where}
    assert named <= set(config.data.attributes) == set(config.detectors.attributes)
    assert not {name.partition("=")[0] for name in named if "=" in name} & set(config.data.attributes)
    assert parse_config(config.model_dump(mode="json")) == config


def test_every_group_of_two_columns_is_a_target(faces) -> None:
    every = {"where": {"race": "each", "age": "each"}, "attribute": "smiling", "rate": 0.5}
    wheres = [rule.where for rule in parse_config(faces([every], ["smiling", "race", "age"])).rebalance.targets]
    assert len(wheres) == 9
    assert {"race=Black": True, "age=3-9": True} in wheres


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"where": {"race": "Blck"}}, "has no row whose `race` is 'Blck'; did you mean `Black`?"),
        ({"where": {"Race": "Black"}}, "names `Race`, which is not one of file, age"),
        ({"where": {"age": "3-9"}}, "`rebalance.targets` names `age`, which is not one of"),
        ({"value": False}, "give 1 minus the rate"),
        ({"value": "no"}, "`rebalance.targets.0.value` means false"),
        ({"where": {"smiling": True}}, "`smiling` is conditioned on itself"),
        ({"attribute": "race", "value": "Black", "where": {"race": "East Asian"}}, "of one column"),
        ({"where": {"race": ["Black"]}}, "`rebalance.targets.0.where.race`"),
    ],
)
def test_what_no_row_of_the_table_can_meet_is_refused(faces, changes, found) -> None:
    written = {"where": {}, "attribute": "smiling", "rate": 0.5} | changes
    assert found in refusal(faces([written], ["smiling", "race", "gender"]))


def test_edits_towards_two_values_of_one_column_are_refused(faces) -> None:
    written = [{"attribute": "race", "value": value, "rate": 0.5} for value in ("Black", "East Asian")]
    values = faces(written, ["race"]) | {"evaluate": {"utility": None}}
    assert "`race=East Asian` too, since both are of one column" in refusal(values)


@pytest.mark.parametrize(
    ("where", "found"),
    [({"hair": "long"}, "the reader avatars are true or false"), ({"long_hair": "each"}, "needs a label table")],
)
def test_a_reader_without_a_table_has_no_values(where: dict[str, Any], found: str) -> None:
    assert found in refusal(changed("rebalance.targets", [target(where)]))
    spelled = parse_config(changed("rebalance.targets", [target({"long_hair": 1}), target({"long_hair": "no"})]))
    assert [rule.where for rule in spelled.rebalance.targets] == [LONG, SHORT]


def test_too_many_attributes_are_refused_before_every_combination_is_gone_through(faces, tmp_path) -> None:
    rows = [f"{age}.jpg,{age},{age % 2}" for age in range(100, 120)]
    (tmp_path / "faces.csv").write_text("\n".join(["file,age,smiling", *rows]))
    written = {"where": {"age": "each"}, "attribute": "smiling", "rate": 0.5}
    assert "name 21 attributes, and at most 12" in refusal(faces([written], ["smiling", "age"]))


def test_the_region_of_a_column_is_that_of_its_values(faces) -> None:
    values = faces([{"attribute": "gender", "value": "Male", "rate": 0.5}], ["gender"])
    values["rebalance"].setdefault("edit", {})["regions"] = {"gender": {"kind": "box", "shows": None, "top": 0.1}}
    assert parse_config(values).rebalance.edit.region_of("gender=Male").top == 0.1


def test_columns_that_are_named_like_values_are_columns(faces, tmp_path) -> None:
    """As in the table of an exported run whose attributes were values of a column."""
    (tmp_path / "faces.csv").write_text("file,race=Black,gender=Female\n1.jpg,True,False\n2.jpg,False,True\n")
    written = [{"where": {"race": "Black"}, "attribute": "gender=Female", "rate": 0.5}]
    config = parse_config(faces(written, ["race=Black", "gender=Female"]))
    assert config.rebalance.targets[0].where == BLACK
    assert config.data.attributes == ["race=Black", "gender=Female"]
    assert "which is not one of file, race=Black" in refusal(faces(written, ["race=Black", "gender=Male"]))
    (tmp_path / "faces.csv").write_text("file,race=Black,gender=Female,race\n1.jpg,True,False,Black\n")
    assert "is itself a column" in refusal(faces(written, ["race=Black", "gender=Female"]))


@pytest.mark.parametrize("listed", ["smiling=yes", "smiling=no", "smiling"])
def test_a_listed_value_that_is_true_or_false_is_its_column(faces, listed: str) -> None:
    written = [{"where": {"smiling": "no"}, "attribute": "gender", "value": "Female", "rate": 0.5}]
    config = parse_config(faces(written, [listed, "gender=Female"]))
    assert config.data.attributes == config.detectors.attributes == ["smiling", "gender=Female"]
    written = [{"attribute": "smiling", "value": "yes", "rate": 0.5}]
    assert parse_config(faces(written, [listed, "race=Black"])).data.attributes == ["smiling", "race=Black"]


def test_a_class_named_by_a_number_is_a_value_unless_its_column_is_listed(tmp_path) -> None:
    written = {"where": {"age": 1}, "attribute": "gender", "value": "Female", "rate": 0.5}
    values = changed("rebalance", {"targets": [written], "edit": {"region": {"kind": "box", "shows": None}}})
    names = ["age=1", "age=30", "gender=Female"]
    values["data"] = {"reader": "huggingface", "folder": str(tmp_path), "attributes": names, "resolution": 64}
    values["detectors"] = {"attributes": ["age", "gender"]}
    config = parse_config(values)
    assert config.rebalance.targets[0].where == {"age=1": True}
    assert config.data.attributes == names
    assert config.detectors.attributes == ["age=1", "gender=Female"]
    values["data"]["attributes"] = ["age", "gender"]
    assert parse_config(values).rebalance.targets[0].where == {"age": True}


def test_what_edits_alter_may_be_named_by_columns_and_values_as_targets_are(faces) -> None:
    names = ["smiling", "gender", "race=Black", "race=East Asian"]
    of_smiles = faces([{"attribute": "smiling", "value": "yes", "rate": 0.5}], names)
    for key in ("smiling", "smiling=yes"):
        box = {"kind": "box", "shows": None}
        of_smiles["rebalance"]["edit"] = {"region": box, "alters": {key: ["race"]}, "regions": {key: box}}
        settings = parse_config(of_smiles).rebalance
        assert settings.edit.alters == {"smiling": ["race=Black", "race=East Asian"]}
        assert list(settings.edit.regions) == ["smiling"]
    target = {"where": {"smiling": "no"}, "attribute": "gender", "value": "Male", "rate": 0.5}
    of_men = faces([target], names)
    of_men["rebalance"]["edit"]["alters"] = {"gender": ["race=Black"]}
    settings = parse_config(of_men).rebalance
    assert [settings.carries("gender=Male", name) for name in ("race=Black", "race=East Asian")] == [False, True]
    of_men["rebalance"]["edit"]["alters"] = {"gender": ["smiling=yes"]}
    assert "`edit.alters.gender` names `smiling`, a condition of its target" in refusal(of_men)


def test_a_table_is_read_once_for_all_columns(faces, monkeypatch) -> None:
    read: list[list[str]] = []
    monkeypatch.setattr(values_of_columns, "read_cells", lambda path, wanted: read.append(wanted) or CELLS)
    written = [{"where": {"race": "each", "age": "each"}, "attribute": "gender", "value": "Female", "rate": 0.5}]
    parse_config(faces(written, ["gender", "race", "age"]))
    assert [sorted(wanted) for wanted in read] == [["age", "gender", "race"]]


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Person", "IMAGE_ID"])
def test_an_attribute_named_like_a_column_of_ours_is_refused(faces, tmp_path, name: str) -> None:
    path = tmp_path / "faces.csv"
    path.write_text(path.read_text().replace("service_test", name))
    written = [{"attribute": "smiling", "rate": 0.5}]
    assert f"`data.attributes`: `{name}` is the name of a column of our" in refusal(faces(written, ["smiling", name]))


def test_the_reserved_names_are_those_of_every_table_with_attributes() -> None:
    of_tables = {name for kind in OPEN for name in SCHEMAS[kind].names}
    of_files = {"image", "image_id", "image_set", "digest", "edit"}  # of exported labels, and of the CSV of an audit
    assert of_tables | set(LINEAGE.names) | of_files == RESERVED


@pytest.mark.parametrize("other", ["Smiling", "smiling_", "SMILING"])
def test_attributes_that_would_have_one_name_in_a_report_are_refused(faces, tmp_path, other: str) -> None:
    path = tmp_path / "faces.csv"
    path.write_text(path.read_text().replace("service_test", other))
    written = [{"attribute": "smiling", "rate": 0.5}]
    assert "would have one name" in refusal(faces(written, ["smiling", other]))
    assert "would have one name" in refusal(faces(written, ["smiling", "smiling"]))


def test_a_target_conditioned_on_itself_is_refused() -> None:
    message = refusal(changed("rebalance.targets.0", target({"smiling": True})))
    assert "`smiling` is conditioned on itself; use another attribute" in message


GLASSES = {"kind": "part", "name": ["eyes", "glasses"]}
JOINT = [target(LONG), target(SHORT), target({**LONG, "smiling": True}, "eyeglasses")]


def joint(**rebalance: Any) -> dict[str, Any]:
    """Return a config with targets of two attributes."""
    values = changed("rebalance.targets", JOINT)
    values["rebalance"] |= {"edit": {"regions": {"eyeglasses": GLASSES}}} | rebalance
    values["evaluate"] = {"utility": None}
    return values


def test_targets_can_be_of_several_attributes_each_with_its_region() -> None:
    found = parse_config(joint()).rebalance
    assert found.edited == ("smiling", "eyeglasses")
    assert found.edit.region_of("eyeglasses").parts == ("eyes", "glasses")
    assert found.parts == ("mouth", "eyes", "glasses")
    assert [target.attribute for target in found.first_attribute().targets] == ["smiling", "smiling"]
    assert found.edits_digest("smiling") != found.edits_digest("eyeglasses")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            joint(edit={"regions": {"hat": GLASSES}}),
            "`edit.regions` names `hat`, which has no target; remove it, or add a target",
        ),
        (joint(edit={"regions": {"eyeglasses": {"kind": "box", "shows": None}}}), "some show parts and others none"),
        (joint(edit={"regions": {"eyeglasses": GLASSES | {"name": "ears"}}}), "`ears`"),
        (joint() | {"evaluate": {"utility": {}}}, "`evaluate.utility` trains classifiers of one attribute"),
    ],
)
def test_what_several_attributes_cannot_have_is_refused(values: dict[str, Any], message: str) -> None:
    assert message in refusal(values)


def test_the_generator_has_a_width_for_every_resolution() -> None:
    message = refusal(changed("generator.channels", [8, 8, 8]))
    assert "`generator.channels` has 3 entries; 5 are required, one for each resolution from 4 to 64 pixels" in message


def test_an_encoder_that_would_be_neither_trained_nor_loaded_is_refused() -> None:
    assert "`encoder.weights` is not set; set one of the two" in refusal(changed("encoder.training.kimg", 0))


def test_a_missing_section_is_named() -> None:
    values = {key: value for key, value in MINIMAL.items() if key != "retrain"}
    assert refusal(values) == "my.yaml: `retrain` is missing; add it"


def without(editor: str, retrain: Any, *missing: str) -> dict[str, Any]:
    """Return the minimal config with that editor and retraining, but without some sections."""
    values = changed("rebalance.edit.editor", editor) | {"retrain": retrain}
    return {key: value for key, value in values.items() if key not in missing}


@pytest.mark.parametrize(
    ("editor", "retrain", "missing", "reason"),
    [
        ("latent-regression", None, "encoder", "`rebalance.edit.editor: latent-regression` needs it; add it, or use"),
        ("latent-regression", None, "generator", "`rebalance.edit.editor: latent-regression` needs it; add it, or use"),
        ("poisson", MINIMAL["retrain"], "generator", "`retrain` needs it; add it, or set `retrain: null`"),
    ],
)
def test_a_missing_network_is_named_with_what_needs_it(editor: str, retrain: Any, missing: str, reason: str) -> None:
    message = refusal(without(editor, retrain, missing))
    assert message.startswith(f"my.yaml: `{missing}` is missing, and {reason}")


@pytest.mark.parametrize("family", ["progan", "stylegan2"])
def test_a_generator_without_truncation_is_not_sampled_with_it(family: str) -> None:
    values = changed("generator.architecture", family)
    assert parse_config(values | {"sample": {"truncation": 1.0}})
    truncated = values | {"sample": {"truncation": 0.7}}
    if family == "stylegan2":
        assert parse_config(truncated)
    else:
        assert "`sample.truncation` is 0.7, but a generator of the architecture progan has no" in refusal(truncated)


def test_a_method_for_latents_that_the_generator_lacks_is_refused() -> None:
    values = changed("studies", {"methods": ["latent-regression", "multi-code"]})
    assert "`studies.methods`: multi-code is not possible" in refusal(values)


@pytest.mark.parametrize(
    ("editor", "retrain", "missing", "image_sets"),
    [
        ("latent-regression", MINIMAL["retrain"], (), IMAGE_SETS),
        ("latent-regression", None, (), IMAGE_SETS[:4]),
        ("poisson", MINIMAL["retrain"], ("encoder",), IMAGE_SETS),
        ("poisson", None, ("generator", "encoder"), ("dataset", "dataset_rebalanced")),
        ("latent-regression", {**MINIMAL["retrain"], "baselines": ["resampled"]}, (), (*IMAGE_SETS, "resampled")),
    ],
)
def test_a_run_compares_the_image_sets_that_its_editor_and_retraining_make(
    editor: str, retrain: Any, missing: tuple[str, ...], image_sets: tuple[str, ...]
) -> None:
    assert parse_config(without(editor, retrain, *missing)).image_sets == image_sets


def test_a_baseline_is_named_once() -> None:
    twice = {**MINIMAL["retrain"], "baselines": ["resampled", "resampled"]}
    assert "`baselines` names one twice" in refusal(changed("retrain", twice))


def test_several_faults_are_told_at_once() -> None:
    values = changed("seeds", 1) | {"run": "a/b"}
    message = refusal(values)
    assert "unknown key `seeds`; did you mean `seed`?" in message
    assert "`run`" in message
    assert "'a/b'" in message


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "text"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: contains no keys; start from a copy of config/config.yaml"


def test_a_file_that_is_no_yaml_or_no_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(path)
    path.write_text("a: [1\nb: 2\n")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "faces").mkdir()
    (tmp_path / "labels.csv").write_text("image,smiling,long_hair\na.png,1,0\n")
    data = {
        "reader": "folder",
        "folder": str(tmp_path / "faces"),
        "labels": str(tmp_path / "labels.csv"),
        "attributes": ["smiling", "long_hair"],
        "resolution": 64,
    }
    values = changed("data", data) | {"detectors": {"attributes": ["smiling", "long_hair"]}}
    values["rebalance"]["edit"] = {"region": {"kind": "box", "shows": None}}
    return values


def test_a_folder_of_images_needs_no_masks_to_swap_a_box(folder: dict[str, Any]) -> None:
    assert parse_config(folder).data.id_column == "image"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("data.folder", "nowhere", "`data.folder`: no folder nowhere; correct the path"),
        ("data.labels", "nowhere.csv", "`data.labels`: no file nowhere.csv; correct the path"),
        (
            "data.id_column",
            "imag",
            "`data.id_column` names `imag`, which is not one of image, smiling, long_hair; did you",
        ),
        ("data.attributes", ["smilin"], "`data.attributes` names `smilin`"),
        ("data.split_column", "split", "`data.split_column` names `split`"),
        ("data.parts", ["background", "mouth"], "`masks` and `parts` must be set together"),
        ("data.masks", "nowhere", "`masks` and `parts` must be set together"),
        ("data.lables", "a.csv", "unknown key `data.lables`; did you mean `labels`?"),
        (
            "data.reader",
            "celeb",
            "`data`: `celeb` is not one of avatars, celeba, celeba-hq",
        ),
        (
            "rebalance.edit.region",
            {"kind": "part"},
            "`rebalance.edit.region.name` names the part `mouth`, but these images have no part masks",
        ),
        (
            "rebalance.edit.region",
            {"kind": "box"},
            "`rebalance.edit.region.shows` names the part `mouth`, but these images have no part masks",
        ),
        ("detectors.attributes", ["smiling", "beard"], "`detectors.attributes` names `beard`"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_before_anything_runs(
    folder: dict[str, Any], key: str, value: Any, complaint: str
) -> None:
    *sections, name = key.split(".")
    section = folder
    for step in sections:
        section = section.setdefault(step, {})
    section[name] = value
    assert complaint in refusal(folder)


def test_a_name_is_the_same_in_both_unicode_forms_and_a_path_is_that_of_the_disk(
    folder: dict[str, Any], tmp_path: Path
) -> None:
    composed, decomposed = "l\u00e4chelnd", "la\u0308chelnd"
    (tmp_path / "labels.csv").write_text(f"image,{decomposed},long_hair\na.png,1,0\n")
    for named, written in ((composed, decomposed), (decomposed, composed)):
        folder["data"] |= {"attributes": [named, "long_hair"], "folder": str(tmp_path / decomposed)}
        folder["detectors"] = {"attributes": [written, "long_hair"]}
        folder["rebalance"]["targets"] = [target(where, written) for where in (LONG, SHORT)]
        (tmp_path / decomposed).mkdir(exist_ok=True)
        config = parse_config(folder)
        assert config.rebalance.targets[0].attribute == config.data.attributes[0] == composed
        assert config.data.folder.name == decomposed


def test_cells_of_a_table_may_be_named_as_numbers_but_not_as_what_yaml_makes_of_yes(folder: dict[str, Any]) -> None:
    folder["data"] |= {
        "split_column": "long_hair",
        "split_values": {0: "train", "1": "held_out"},
        "unknown": [-1, 2.0, " ? "],
    }
    data = parse_config(folder).data
    assert data.split_values == {"0": "train", "1": "held_out"}
    assert data.unknown == ["-1", "2", "?"]
    folder["data"]["unknown"] = [False]
    assert "`data.unknown.0`: put it in quotes" in refusal(folder)
    folder["data"] |= {"unknown": [], "split_values": {False: "train"}}
    assert "put it in quotes" in refusal(folder)
    folder["data"] |= {"split_values": {"0": "train"}, "split_column": None}
    assert "`split_values` are cells of `split_column`, which is not set" in refusal(folder)


def test_an_attribute_may_be_a_value_of_a_column(folder: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,smiling,race,who\na.png,1,Black,p\n")
    folder["data"] |= {"attributes": ["smiling", "race=Black"], "person_column": "who"}
    folder["detectors"] = {"attributes": ["smiling", "race=Black"]}
    folder["rebalance"]["targets"] = [target({"race=Black": value}) for value in (True, False)]
    assert parse_config(folder).data.attributes == ["smiling", "race=Black"]
    folder["data"]["attributes"] = ["smiling", "rase=Black"]
    assert (
        "`data.attributes` names `rase`, which is not one of image, smiling, race, who; did you mean `race`?"
        in refusal(folder)
    )
    folder["data"] |= {"attributes": ["smiling", "race=Black"], "person_column": "name"}
    assert "`data.person_column` names `name`" in refusal(folder)


PUBLISHED = {"family": "progan", "domain": "celebahq-small"}


def published(**sections: Any) -> dict[str, Any]:
    values = changed("published", PUBLISHED) | {"generator": {}, "encoder": {"training": {"kimg": 0}}}
    values["data"] = {"resolution": 128}
    values["generator"] = {"channels": [128, 128, 64, 48, 32, 16]}
    values["retrain"] = {"init": "scratch", "training": {"kimg": 1}}
    return values | sections


def test_published_weights_are_named_without_being_there_yet() -> None:
    config = parse_config(published())
    assert config.generator.weights == Path("pretrained/pgans_celebahq-small_generator.pth")
    assert config.encoder.weights == Path("pretrained/pgan_encoders_celebahq-small_RGBM_model_final.pth")


def test_published_weights_are_taken_by_those_networks_that_a_config_describes() -> None:
    values = {key: value for key, value in published().items() if key != "encoder"}
    values["rebalance"] = values["rebalance"] | {"edit": {"editor": "poisson"}}
    assert parse_config(values).generator.weights == Path("pretrained/pgans_celebahq-small_generator.pth")


def test_a_file_given_by_path_stands_in_for_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").touch()
    config = parse_config(published(encoder={"weights": str(tmp_path / "mine.pth"), "training": {"kimg": 0}}))
    assert config.encoder.weights == tmp_path / "mine.pth"
    assert config.generator.weights == Path("pretrained/pgans_celebahq-small_generator.pth")


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"published": PUBLISHED | {"domain": "celebahq-smal"}}, "`published.domain` names `celebahq-smal`"),
        ({"published": PUBLISHED | {"family": "stylegan3"}}, "`published.family`"),
        ({"published": {"family": "progan"}}, "`published.domain` is missing; add it"),
        ({"data": {"resolution": 64}, "generator": {}}, "celebahq-small makes images of 128 pixels"),
    ],
)
def test_weights_that_nobody_published_are_refused(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(published(**sections))


@pytest.fixture
def onnx_file(tmp_path: Path) -> str:
    (tmp_path / "judge.onnx").touch()
    return str(tmp_path / "judge.onnx")


def detectors(**networks: Any) -> dict[str, Any]:
    return changed("detectors", {"attributes": ["smiling", "long_hair"], **networks})


def test_a_detector_may_be_an_onnx_file(onnx_file: str) -> None:
    network = {"backend": "onnx", "path": onnx_file, "columns": {"smiling": 31, "long_hair": 5, "young": 39}}
    config = parse_config(detectors(selector=network))
    assert config.detectors.selector.side is None
    assert config.detectors.referee.backend == "trained"


def test_an_onnx_file_must_know_the_attributes_and_not_judge_itself(onnx_file: str) -> None:
    network = {"backend": "onnx", "path": onnx_file, "columns": {"smiling": 31}}
    assert "selector.columns has no entry for long_hair; add it" in refusal(detectors(selector=network))
    network["columns"]["long_hair"] = 5
    message = refusal(detectors(selector=network, referee=network))
    assert "selector.path equals referee.path; the two detectors must differ in it" in message
    missing = network | {"path": "nowhere.onnx"}
    assert "`detectors.referee.path`: no file nowhere.onnx" in refusal(detectors(referee=missing))
    wrong = refusal(detectors(referee=network | {"mena": [0, 0, 0]}))
    assert "unknown key `detectors.referee.mena`; did you mean `mean`?" in wrong


def test_attributes_are_not_matched_through_a_selector_without_gradients(onnx_file: str) -> None:
    network = {"backend": "onnx", "path": onnx_file, "columns": {"smiling": 31, "long_hair": 5}}
    values = detectors(selector=network)
    values["retrain"]["attributes"] = {}
    assert "`retrain.attributes` needs a differentiable selector" in refusal(values)
    assert parse_config(changed("retrain.attributes", {})).retrain.attributes.weight == 3


def test_a_segmenter_that_is_given_names_the_parts(onnx_file: str) -> None:
    values = changed("parts", {"backend": "onnx", "path": onnx_file, "groups": {"lips": [11, 12]}})
    values["rebalance"]["edit"] = {"region": {"kind": "part", "name": "lips"}}
    assert parse_config(values).part_names == ("background", "lips")
    values["rebalance"]["edit"]["region"]["name"] = "mouth"
    assert "`rebalance.edit.region.name` names `mouth`, which is not one of lips" in refusal(values)
    values["parts"] = {"backend": "onnx", "path": "nowhere.onnx", "groups": {"mouth": [0]}}
    assert "`parts.path`: no file nowhere.onnx" in refusal(values)
    values["parts"] |= {"path": onnx_file, "treshold": 0.4}
    assert "unknown key `parts.treshold`; did you mean `threshold`?" in refusal(values)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"metadata": "nowhere.json"}, "`data.metadata`: no file nowhere.json; correct the path"),
        ({"folder": "nowhere"}, "`data.folder`: no folder nowhere"),
        ({"attributes": ["smiling", "long_hare"]}, "`data.attributes` names `long_hare`"),
        ({"id_column": "number"}, "`data.id_column` names `number`"),
    ],
)
def test_ffhq_that_does_not_fit_is_refused(folder: dict[str, Any], changes: dict[str, Any], complaint: str) -> None:
    labels = Path(folder["data"]["labels"])
    folder["data"] |= {"reader": "ffhq", "metadata": str(labels), "id_column": "image"}
    parse_config(folder)
    folder["data"] |= changes
    assert complaint in refusal(folder)


def test_class_folders_must_be_there(folder: dict[str, Any], tmp_path: Path) -> None:
    for name in ("smiling", "long"):
        (tmp_path / name).mkdir()
    attributes = {"smiling": ["smiling"], "long_hair": ["long"]}
    folder["data"] = {"reader": "class-folders", "folder": str(tmp_path), "attributes": attributes, "resolution": 64}
    assert parse_config(folder).data.others == []
    folder["data"]["attributes"]["long_hair"] = ["longer"]
    assert f"`data.attributes.long_hair`: no folder {tmp_path}/longer" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value", "found", "near"),
    [
        ("editor", "poison", "poison", "poisson"),
        ("editor", {"kind": "latent"}, "latent", "latent-regression"),
        ("editor", {"kind": "inpaint"}, "inpaint", "inpainting"),
        ("region", {"kind": "parts"}, "parts", "part"),
        ("regions", {"smiling": {"kind": "bocks"}}, "bocks", "box"),
    ],
)
def test_an_unknown_kind_is_answered_with_the_nearest(key: str, value: Any, found: str, near: str) -> None:
    place = f"rebalance.edit.{key}"
    complaint = rf"`{place}[.a-z]*`: `{found}` is not one of .*{near}.*; did you mean `{near}`\?"
    assert re.search(complaint, refusal(changed(place, value)))


def test_an_editor_may_be_named_alone_or_with_its_keys() -> None:
    for value in ("poisson", {"kind": "poisson"}):
        assert parse_config(changed("rebalance.edit.editor", value)).rebalance.edit.editor.kind == "poisson"


def test_the_keys_of_inpainting_are_named_as_in_the_file(tmp_path: Path) -> None:
    editor = {"kind": "inpainting", "path": str(tmp_path), "absent": "serious", "presnt": "smiling"}
    message = refusal(changed("rebalance.edit.editor", editor))
    assert "`rebalance.edit.editor.present` is missing; add it" in message
    assert "unknown key `rebalance.edit.editor.presnt`; did you mean `present`?" in message


def test_what_a_region_can_show_is_known_of_avatars_and_else_only_what_targets_name_is_kept() -> None:
    avatars = parse_config(MINIMAL)
    assert avatars.alters == {"smiling": ["mouth_open"]}
    named = parse_config(changed("rebalance.edit.alters", {"smiling": ["mouth_open", "beard"]}))
    assert named.alters == {"smiling": ["mouth_open", "beard"]}
    assert (
        parse_config(changed("rebalance.edit.region", {"kind": "box"})).alters == {}
    )  # a box shows more than its part
    kept = [name for name in ("smiling", "long_hair", "hat") if avatars.rebalance.carries("smiling", name)]
    assert kept == ["long_hair"]
    assert named.rebalance.carries("smiling", "hat") and not named.rebalance.carries("smiling", "beard")
    assert named.rebalance.edits_digest("smiling") == avatars.rebalance.edits_digest("smiling")  # audits stay valid


@pytest.mark.parametrize(
    ("alters", "message"),
    [
        ({"hat": []}, "`edit.alters` names `hat`, which has no target"),
        ({"smiling": ["long_hair"]}, "`edit.alters.smiling` names `long_hair`, a condition of its target"),
        ({"smiling": ["mouth_opn"]}, "`rebalance.edit.alters.smiling` names `mouth_opn`, .*did you mean `mouth_open`"),
    ],
)
def test_what_no_edit_can_alter_is_refused(alters: dict[str, list[str]], message: str) -> None:
    assert re.search(message, refusal(changed("rebalance.edit.alters", alters)))


def test_named_files_are_weights_and_tables_but_no_images(tmp_path: Path) -> None:
    for name in ("faces/1.png", "faces.csv", "gan.safetensors", "audit.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image,smiling,long_hair\n1.png,1,0\n")
    values = changed("generator.weights", str(tmp_path / "gan.safetensors"))
    del values["generator"]["training"]
    values["data"] = {
        "reader": "folder",
        "folder": str(tmp_path / "faces"),
        "labels": str(tmp_path / "faces.csv"),
        "attributes": ["smiling", "long_hair"],
        "resolution": 64,
    }
    values["rebalance"] |= {"edit": {"region": {"kind": "box", "shows": None}}, "labels": [str(tmp_path / "audit.csv")]}
    values["detectors"] = {"attributes": ["smiling", "long_hair"]}
    values["retrain"] = None
    found = named_files(parse_config(values))
    assert {path.name for path in found} == {"faces.csv", "gan.safetensors", "audit.csv"}
    assert named_files(parse_config(MINIMAL)) == []


def test_weights_that_come_with_the_library_are_found_where_the_folder_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = SHIPPED / "resources/avatars-64/generator.safetensors"
    assert load_config(SHIPPED / "config/config.yaml").generator.weights == shipped
    own = Path("resources/avatars-64/generator.safetensors")
    own.parent.mkdir(parents=True)
    own.touch()
    assert load_config(SHIPPED / "config/config.yaml").generator.weights == own
    wrong = yaml.safe_load((SHIPPED / "config/config.yaml").read_text())
    wrong["encoder"] = {"weights": "resources/none.safetensors"}
    with pytest.raises(ConfigError, match=rf"`encoder.weights`: no file resources/none.safetensors, nor in {SHIPPED};"):
        parse_config(wrong)
