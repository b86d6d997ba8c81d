"""The retrained GAN is certified by labels of some of its samples, and without them the page says what is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.audit.certificate_samples import certify_samples
from pipeline_lib.audit.labels import digests_of_samples, sealed_name
from pipeline_lib.config import Certify, Rebalance, parse_config
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.report.certificate_samples import describe_samples, say_samples
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import read_json

TARGETS = Rebalance(
    targets=[{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]
)
ATTRIBUTES = ["long_hair", "smiling"]
COUNT = 8000
#: Shares of the samples that smile, by group, and the share of smiles that the referee denies where hair is long.
RATES, DENIED = (0.5, 0.3), 0.1


@pytest.fixture
def certify(tmp_path):
    """Return a function that certifies samples of which some are labelled."""
    random = np.random.default_rng(0)
    names = {name: [f"{name}-{number:08d}" for number in range(COUNT)] for name in ("retrained", "control")}
    long_hair = random.random(COUNT) < 0.5
    smiling = random.random(COUNT) < np.where(long_hair, *RATES)
    said = smiling & ~(long_hair & (random.random(COUNT) < DENIED))
    for name, found in names.items():
        scores = pd.DataFrame({"image_id": found, "long_hair": long_hair, "smiling": said})
        write_table(tmp_path / f"{name}.parquet", "scores", scores.astype(dict.fromkeys(ATTRIBUTES, "float32")))
    with shard_writer(tmp_path / "0.parquet", 4, {"generator_digest": "of-this-gan"}) as writer:
        writer.add(names["retrained"][:1], np.zeros((1, 4, 4, 3), np.uint8))
    digest, earlier = digests_of_samples([tmp_path / "0.parquet"], 1.0, 0)
    truth = pd.DataFrame({"long_hair": long_hair, "smiling": smiling}).astype(int)

    def run(labels=0, controls=0, unclear=0, differing=0, tolerance=0.03, edit=None, truncation=1.0, rates=None):
        audit = []
        if labels or controls:
            drawn = np.random.default_rng(1).permutation(COUNT)
            sheet = truth.iloc[drawn[: labels + controls]].astype(str)
            of = names["retrained"], names["control"]
            called = [sealed_name(of[place >= labels][number]) for place, number in enumerate(sheet.index)]
            sheet = sheet.assign(image_id=called, dataset=digest, edit="")
            sheet.iloc[:unclear, :2] = "?"
            if edit:
                edit(sheet)
            audit = [tmp_path / "audit.csv"]
            sheet.to_csv(audit[0], index=False)
            if differing:
                sheet.loc[sheet.index[:differing], "smiling"] = (1 - truth.iloc[drawn[:differing]]["smiling"]).astype(
                    str
                )
                audit.append(tmp_path / "second.csv")
                sheet.to_csv(audit[1], index=False)
        certify_samples(
            retrained=tmp_path / "retrained.parquet",
            control=tmp_path / "control.parquet",
            images=[tmp_path / "0.parquet"],
            audit=audit,
            targets=TARGETS,
            settings=Certify(tolerance=tolerance),
            truncation=truncation,
            confidence=0.95,
            seed=0,
            certificate=tmp_path / "certificate.json",
        )
        return read_json(tmp_path / "certificate.json")

    run.earlier = earlier
    run.rates = [smiling[long_hair == value].mean() for value in (True, False)]
    return run


def test_labels_correct_a_referee_that_is_wrong_about_one_group(certify):
    found = certify(labels=1500, controls=300, tolerance=0.05)
    assert (found["source"], found["labels"], found["samples"]) == ("audit", 1500, COUNT)
    for target, rate, believed, right in zip(found["targets"], certify.rates, (0.45, 0.3), (0.975, 1), strict=True):
        assert target["by_referee"]["value"] == pytest.approx(believed, abs=0.02)
        assert target["rate"]["ci"][0] < rate < target["rate"]["ci"][1]
        assert target["rate"]["value"] == pytest.approx(rate, abs=0.015)
        assert target["told"] == 1500
        assert target["agree"] / 1500 == pytest.approx(right, abs=0.01)
    assert [target["verdict"] for target in found["targets"]] == ["met", "missed"]
    errors = [target["errors"] for target in found["targets"]]
    assert errors[0]["with"]["wrong"] / errors[0]["with"]["n"] == pytest.approx(DENIED, abs=0.03)
    assert errors[0]["without"]["wrong"] == errors[1]["with"]["wrong"] == errors[1]["without"]["wrong"] == 0
    assert sum(of_value["n"] for of_group in errors for of_value in of_group.values()) == 1500


def test_the_page_says_what_is_met_and_of_which_gan(certify):
    found = certify(labels=1500, controls=300, tolerance=0.05)
    first, second = say_samples(found)
    low, high = (f"{100 * limit:.1f} %" for limit in found["targets"][0]["rate"]["ci"])
    assert first.startswith(
        "Of the retrained GAN's samples with “long hair”, 50.0 % were to have “smiling”, give or take 5 points. "
        f"With 95.0 % confidence, between {low} and {high} do. The target is met. The referee was right about 1,"
    )
    missed, absent = found["targets"][0]["errors"]["with"], found["targets"][0]["errors"]["without"]
    assert first.endswith(
        f"In this group it saw no “smiling” in {missed['wrong']} of {missed['n']} that show it, and saw it in 0 of "
        f"{absent['n']} that do not."
    )
    assert "“not long hair”" in second
    assert "The target is missed." in second
    note = describe_samples(found)
    assert note.startswith("1,500 of 8,000 samples were labelled by eye.")
    assert "This holds for the GAN of this run" in note
    assert "not for the recipe" in note
    assert "pipeline_lib audit" not in note


def test_without_labels_nothing_is_certain_and_the_command_that_draws_enough_is_said(certify):
    found = certify()
    assert found["source"] is None
    assert [(target["rate"], target["verdict"]) for target in found["targets"]] == [(None, "not enough evidence")] * 2
    first, second = say_samples(found)
    believed = f"{100 * found['targets'][0]['by_referee']['value']:.1f} %"
    assert f"The referee, a detector, believes that {believed} do. There is not enough evidence to tell" in first
    needed = [target["labels_needed"] for target in found["targets"]]
    assert f"About {needed[1]:,} labels of samples are likely to be enough." in second
    note = describe_samples(found)
    assert "only detectors' opinions of them are known" in note
    assert "it takes the referee to be wrong about 2.0 % of the samples" in note
    known = max(count for count in needed if count is not None)
    assert f"audit sheets --config YOUR_CONFIG.yaml --set retrained --count {known}`" in note


def test_too_few_labels_are_not_enough_and_the_page_says_how_many_would_be(certify):
    found = certify(labels=150, tolerance=0.06)
    first = found["targets"][0]
    assert first["verdict"] == "not enough evidence"
    assert first["labels_needed"] > 150
    said = say_samples(found)[0]
    assert f"About {first['labels_needed']:,} labels of samples are likely to be enough" in said
    assert "; there are 150." in said


def test_what_needs_more_samples_says_so():
    target = {
        "group": "all", "attribute": "smiling", "target": 0.5, "tolerance": 0.03, "told": 0, "agree": 0, "rate": None,
        "by_referee": {"value": 0.5, "ci": [0.47, 0.53]}, "verdict": "not enough evidence",
        "labels_needed": 964, "samples_needed": 20_000,
    }  # fmt: skip
    found = {"source": None, "confidence": 0.95, "samples": 2000, "labels": 0, "targets": [target]}
    said = say_samples(found)[0]
    assert said.startswith("Of the retrained GAN's samples, 50.0 % were to")
    assert "enough, if the GAN makes 20,000 samples instead of 2,000 (`retrain.samples`)." in said
    hopeless = found | {"targets": [target | {"labels_needed": None}]}
    assert "Not even labels of all of 20,000 samples are likely to be enough." in say_samples(hopeless)[0]
    assert "pipeline_lib audit" not in describe_samples(hopeless)
    empty = found | {"targets": [target | {"by_referee": {"value": None, "ci": [None, None]}}]}
    assert "No samples of this kind were found." in say_samples(empty)[0]


@pytest.mark.slow
def test_samples_that_show_nothing_clear_widen_the_interval(certify):
    clear, unclear = (certify(labels=1500, unclear=count) for count in (0, 60))
    widths = [np.diff(found["targets"][0]["rate"]["ci"])[0] for found in (clear, unclear)]
    assert widths[1] > widths[0] + 0.02
    assert unclear["unclear"] == 60
    assert "Of 60 samples it could not be told what they show." in describe_samples(unclear)


def test_a_second_opinion_is_counted_and_said(certify):
    found = certify(labels=400, differing=20)
    assert found["unclear"] == 20
    assert "audit.csv and second.csv agree on “smiling” in 380 of 400 images (Cohen's kappa 0." in describe_samples(
        found
    )
    assert "counts as failed" not in describe_samples(found)


def _unknown(sheet):
    sheet.iloc[0, sheet.columns.get_loc("image_id")] = "retrained-00000001"


def _double(sheet):
    sheet.iloc[1] = sheet.iloc[0]
    sheet.iloc[1, 1] = "?"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_unknown, "retrained-00000001 is no image of this run's retrained GAN; draw a new audit"),
        (_double, "has two rows with different labels; keep one"),
        (lambda sheet: sheet.pop("smiling"), "no column `smiling`; it has long_hair, image_id"),
        (lambda sheet: sheet.__setitem__("smiling", "perhaps"), "has `perhaps` for `smiling`; 1, 0 or \\? is needed"),
        (
            lambda sheet: sheet.__setitem__("dataset", "x"),
            "since the retrained GAN has changed; draw a new one",
        ),
    ],
)
def test_an_audit_that_cannot_be_used_is_named(certify, edit, message):
    with pytest.raises(DataError, match=message) as refused:
        certify(labels=20, edit=edit)
    assert "audit.csv: " in str(refused.value)


def test_labels_of_the_control_alone_are_no_labels_of_the_retrained_gan(certify):
    with pytest.raises(DataError, match=r"audit.csv: no labels of samples of the retrained GAN; label the sheet"):
        certify(controls=5)


def test_labels_of_an_earlier_version_count_while_generator_and_settings_are_the_same(certify):
    def as_earlier(sheet):
        sheet["dataset"] = certify.earlier

    assert certify(labels=20, edit=as_earlier)["labels"] == 20
    with pytest.raises(DataError, match="an audit of other images"):
        certify(labels=20, edit=as_earlier, truncation=0.7)


def test_the_digest_is_of_how_samples_look_and_not_of_how_many_there_are(tmp_path):
    def digest(shade, count, generator="a"):
        path = tmp_path / "0.parquet"
        with shard_writer(path, 4, {"generator_digest": generator} if generator else None) as writer:
            writer.add([f"retrained-{number}" for number in range(count)], np.full((count, 4, 4, 3), shade, np.uint8))
        return digests_of_samples([path], 1.0, 0)[0]

    assert digest(0, 20) == digest(0, 50) == digest(0, 20, "of the same weights, by another run")
    assert digest(0, 20) != digest(1, 20)
    with pytest.raises(DataError, match="no digest of a generator, so not a shard of samples"):
        digest(0, 20, None)


def test_the_config_names_labels_of_samples_only_where_there_are_any(tmp_path):
    (tmp_path / "one.csv").write_text("")
    rebalance = {"targets": [target.model_dump() for target in TARGETS.targets], "edit": {"editor": "poisson"}}
    with pytest.raises(ConfigError, match=r"`certify.samples` are labels of samples of a retrained GAN, but `retrain`"):
        parse_config({"rebalance": rebalance, "retrain": None, "certify": {"samples": [str(tmp_path / "one.csv")]}})
    with pytest.raises(ConfigError, match=r"`certify.samples.0`: no file .*two.csv"):
        parse_config({"rebalance": rebalance, "retrain": None, "certify": {"samples": [str(tmp_path / "two.csv")]}})
