"""Several runs say of a further one what Student's prediction interval says, and only of the same recipe."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from pipeline_lib.audit.estimate import Verdict, decide
from pipeline_lib.audit.recipe import OverRuns, assess_recipe, runs_needed, student_interval
from pipeline_lib.cli import main
from pipeline_lib.config import load_config, parse_config
from pipeline_lib.config.reseeding import first_difference, reseed
from pipeline_lib.release.provenance import FORM
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json, write_json

CONFIG = "config/config.yaml"


def test_the_limits_are_those_of_students_prediction_interval():
    found = OverRuns.of([1.0, 2.0, 3.0], 0.95)
    quantile = 4.302653  # Student's t with two degrees of freedom, 97.5 %
    assert found.mean == pytest.approx((2, 2 - quantile / 3**0.5, 2 + quantile / 3**0.5), abs=1e-5)
    assert found.further == pytest.approx((2, 2 - quantile * (4 / 3) ** 0.5, 2 + quantile * (4 / 3) ** 0.5), abs=1e-5)


def test_nineteen_of_twenty_further_runs_are_between_the_limits():
    runs = np.random.default_rng(0).normal(0.5, 0.01, (4000, 6))
    intervals = [OverRuns.of(list(values[:5]), 0.95).further for values in runs]
    held = [found.low <= further <= found.high for found, further in zip(intervals, runs[:, 5], strict=True)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.011)  # three standard errors


def test_as_many_runs_are_asked_for_as_would_decide():
    values = [0.50, 0.51, 0.52]
    needed = runs_needed(values, 0.5, 0.04, 0.95)
    verdicts = [decide(student_interval(values, runs, 0.95, 1), 0.5, 0.04) for runs in (needed - 1, needed)]
    assert verdicts == [Verdict.UNKNOWN, Verdict.MET]
    assert runs_needed(values, 0.5, 0.02, 0.95) is None  # every third run would be beyond it


def certificate(rates, source, reach=0.0, **more):
    asked = {"attribute": "smiling", "target": 0.5, "tolerance": 0.03}
    targets = [
        asked | {"group": group, "rate": {"value": rate, "ci": [rate - reach, rate + reach]}} | more
        for group, rate in zip(("long_hair", "not long_hair"), rates, strict=True)
    ]
    return {"source": source, "confidence": 0.95, "targets": targets}


@pytest.fixture
def runs(tmp_path):
    """Return the folders of four runs: datasets near their targets, GANs that nobody has labelled."""
    folders = []
    for seed, away in enumerate((0.001, -0.002, 0.003, 0.0), 1):
        config = reseed(load_config(CONFIG), seed)
        folders.append(tmp_path / config["run"])
        made = {"form": FORM, "config": config, "installation": {"code": "0"}}
        write_json(folders[-1] / "provenance.json", made)
        write_json(folders[-1] / "evaluation/certificate.json", certificate((0.5 + away, 0.56 + away), "truth"))
        opinions = certificate((0.5, 0.5), None, rate=None, by_referee={"value": 0.5 + 5 * away, "ci": [0, 1]})
        write_json(folders[-1] / "evaluation/certificate-samples.json", opinions)
        gaps = {
            gan: {"referee": {"value": gap + away, "ci": [0, 1]}} for gan, gap in (("retrained", 0), ("control", 0.5))
        }
        write_json(folders[-1] / "evaluation/metrics.json", {"gap": {"smiling": gaps}})
    return folders


def test_certificates_decide_on_datasets_and_no_detector_decides_on_gans(runs):
    first, second, *gans = assess_recipe(runs).targets
    assert (first.verdict, second.verdict) == (Verdict.MET, Verdict.MISSED)
    assert first.rates.mean.value == pytest.approx(0.5005)
    assert {(gan.image_set, gan.source, gan.verdict, gan.runs_needed) for gan in gans} == {
        ("retrained", "referee", Verdict.UNKNOWN, None)
    }


def test_labels_of_samples_of_every_run_decide_on_the_gan(runs):
    for folder in runs:
        write_json(folder / "evaluation/certificate-samples.json", certificate((0.5, 0.5), "audit"))
    assert [found.verdict for found in assess_recipe(runs).targets[2:]] == [Verdict.MET] * 2


def test_small_audits_without_a_failure_do_not_add_up_to_a_verdict(runs):
    for folder in runs:
        write_json(folder / "evaluation/certificate.json", certificate((0.505, 0.505), "audit", reach=0.05))
    found = assess_recipe(runs).targets[0]
    assert (found.verdict, found.audited_enough, found.runs_needed) == (Verdict.UNKNOWN, False, None)


def test_rates_that_one_run_does_not_know_are_unknown(runs):
    # without an audit a certificate has the rate that it would expect, between wide limits
    write_json(runs[1] / "evaluation/certificate.json", certificate((0.5, 0.5), None))
    unknown = assess_recipe(runs).targets[:2]
    assert {(found.source, found.verdict) for found in unknown} == {(None, Verdict.UNKNOWN)}
    assert all(np.isnan(found.rates.mean.value) for found in unknown)


def test_the_command_prints_every_target_and_writes_plain_values(runs, tmp_path, capsys):
    assert main(["tools", "recipe", *map(str, runs), "--output", str(tmp_path / "recipe.json")]) == 0
    printed = capsys.readouterr().out
    for said in ("long hair: smiling", "0.498 to 0.503", "met", "missed", "not decided", "group gap: smiling"):
        assert said in printed
    found = read_json(tmp_path / "recipe.json")
    assert found["seeds"] == [1, 2, 3, 4] and not found["same_images"]
    assert found["gaps"]["smiling"]["control"]["mean"]["value"] == pytest.approx(0.5005)
    assert found["targets"][0]["rates"]["values"] == [0.501, 0.498, 0.503, 0.5]


def rewrite(folder, change):
    made = read_json(folder / "provenance.json")
    change(made["config"])
    write_json(folder / "provenance.json", made)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda runs: runs.pop() and runs.pop(), "2 runs; a recipe needs 3 or more"),
        (lambda runs: (runs[2] / "provenance.json").unlink(), "provenance.json is missing"),
        (lambda runs: (runs[2] / "evaluation/certificate.json").unlink(), "certificate.json is missing"),
        (lambda runs: rewrite(runs[2], lambda config: config.update(seed=1)), "seed 1 like"),
        (lambda runs: (runs[2] / "evaluation/metrics.json").unlink(), "metrics.json is missing"),
        (
            lambda runs: rewrite(runs[2], lambda config: config["rebalance"].update(labels=["a.csv"])),
            "edits are planned by an audit here or in",
        ),
        (
            lambda runs: rewrite(runs[2], lambda config: config["rebalance"]["edit"].update(candidates=4)),
            "`rebalance.edit.candidates` is not as in",
        ),
    ],
)  # fmt: skip
def test_runs_of_two_recipes_or_unfinished_ones_are_refused(runs, spoil, said):
    spoil(runs)
    with pytest.raises(DataError, match=said):
        assess_recipe(runs)


def test_a_reseeded_config_is_the_same_recipe_with_other_seeds_throughout():
    config = load_config(CONFIG)
    values = reseed(config, 3)
    again = parse_config(copy.deepcopy(values))
    assert (again.run, again.seed, again.data.seed) == ("avatars-run-3", 3, 3)
    assert first_difference(config.model_dump(mode="json"), values) is None
    values["encoder"]["training"]["kimg"] = 9
    assert first_difference(config.model_dump(mode="json"), values) == "encoder.training.kimg"


def test_runs_that_share_a_seed_of_their_images_are_said_to(runs):
    rewrite(runs[2], lambda config: config["data"].update(seed=1))  # that of the first run
    assert assess_recipe(runs).same_images
