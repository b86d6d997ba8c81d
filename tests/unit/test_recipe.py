"""Several runs say of a further one what Student's prediction interval says, and only of the same recipe."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline_lib import cli
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
        write_json(folders[-1] / "evaluation/gaps.json", {"smiling": gaps})
    return folders


def test_datasets_are_judged_by_their_certificates_and_gans_not_by_a_detector(runs):
    first, second, *gans = assess_recipe(runs).targets
    assert (first.verdict, second.verdict) == (Verdict.MET, Verdict.MISSED)
    assert first.rates.mean.value == pytest.approx(0.5005)
    assert {(gan.image_set, gan.source, gan.verdict, gan.runs_needed) for gan in gans} == {
        ("retrained", "referee", Verdict.UNKNOWN, None)
    }


def test_labels_of_samples_of_every_run_judge_the_gan(runs):
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
    assert main(["recipe", *map(str, runs), "--output", str(tmp_path / "recipe.json")]) == 0
    printed = capsys.readouterr().out
    for said in ("long hair: smiling", "0.498 to 0.503", "met", "missed", "not decided", "group gap: smiling"):
        assert said in printed
    found = read_json(tmp_path / "recipe.json")
    assert found["seeds"] == [1, 2, 3, 4] and not found["same_images"] and not found["shared"]
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
        (lambda runs: (runs[2] / "evaluation/gaps.json").unlink(), "gaps.json is missing"),
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
    seeds = [detector.seed for detector in (config.detectors.selector, config.detectors.referee)]
    reseeded = [detector.seed for detector in (again.detectors.selector, again.detectors.referee)]
    assert not {*seeds} & {*reseeded} and len({*reseeded}) == 2
    assert first_difference(config.model_dump(mode="json"), values) is None
    values["encoder"]["training"]["kimg"] = 9
    assert first_difference(config.model_dump(mode="json"), values) == "encoder.training.kimg"


def test_seeds_that_runs_share_are_named(runs, capsys):
    rewrite(runs[2], lambda config: config["detectors"]["selector"].update(seed=1001))  # that of the first run
    assert assess_recipe(runs).shared == ["detectors.selector.seed"]
    main(["recipe", *map(str, runs)])
    assert "Some runs share detectors.selector.seed" in capsys.readouterr().out


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return the arguments of every Snakemake that would have been started, of which the third fails."""
    calls = []

    def run(arguments):
        calls.append(arguments)
        return 5 if len(calls) == 3 else 0

    monkeypatch.setattr(cli, "_run_snakemake", run)
    config = (tmp_path / "my.yaml").resolve()
    config.write_text(Path(CONFIG).read_text())
    (tmp_path / "resources").symlink_to(Path("resources").resolve())
    monkeypatch.chdir(tmp_path)
    return calls


def test_run_makes_a_run_for_each_seed(started, capsys):
    assert main(["run", "--seeds", "2", "--cores", "2", "certify_targets", "--configfile", "my.yaml"]) == 0
    for seed, arguments in enumerate(started, 1):
        assert arguments[:-2] == ["--cores", "2", "certify_targets", "--configfile", "my.yaml"]
        own = Path(arguments[-1])
        assert own == Path.cwd() / f"results/avatars-run-{seed}/config.yaml"
        assert yaml.safe_load(own.read_text())["seed"] == seed
    assert "recipe" not in capsys.readouterr().out  # two runs are too few


def test_rules_after_the_end_of_the_options_stay_rules(started):
    main(["run", "--seeds", "1", "--configfile", "my.yaml", "--", "certify_targets"])
    assert started[0][:3] == ["--configfile", "my.yaml", "--configfile"]
    assert started[0][4:] == ["--", "certify_targets"]


def test_a_second_call_keeps_the_labels_that_a_run_names(started, tmp_path):
    main(["run", "--seeds", "1", "--configfile", "my.yaml"])
    own = tmp_path / "results/avatars-run-1/config.yaml"
    (tmp_path / "audit.csv").write_text("")
    labelled = own.read_text().replace("labels: null", f"labels: [{tmp_path}/audit.csv]", 1)
    own.write_text(labelled)
    assert main(["run", "--seeds", "1", "--configfile", "my.yaml"]) == 0
    assert own.read_text() == labelled and len(started) == 2


def test_another_recipe_does_not_take_the_folders_of_one(started, capsys):
    main(["run", "--seeds", "1", "--configfile", "my.yaml"])
    Path("my.yaml").write_text(
        Path("my.yaml").read_text().replace("rebalance:\n", "rebalance:\n  edit: {candidates: 4}\n")
    )
    assert main(["run", "--seeds", "1", "--configfile", "my.yaml"]) == 2
    assert "`rebalance.edit.candidates` is not as in" in capsys.readouterr().err and len(started) == 1


def test_labels_of_one_runs_images_are_refused_in_a_recipe(started, capsys):
    Path("a.csv").write_text("")
    Path("my.yaml").write_text(Path("my.yaml").read_text() + "certify: {labels: [a.csv]}\n")
    assert main(["run", "--seeds", "1", "--configfile", "my.yaml"]) == 2
    assert "`certify.labels` are labels of one run's images" in capsys.readouterr().err


def test_another_directory_has_its_own_config_and_results(started, tmp_path):
    (tmp_path / "there/config").mkdir(parents=True)
    for name, there in (("my.yaml", "config/config.yaml"), ("resources", "resources")):
        Path(name).rename(tmp_path / "there" / there)
    assert main(["run", "--seeds", "1", "--directory", "there"]) == 0
    assert started[0][-1] == str(tmp_path / "there/results/avatars-run-1/config.yaml")


def test_a_run_that_fails_is_the_last(started):
    assert main(["run", "--seeds", "5", "--configfile", "my.yaml"]) == 5
    assert len(started) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seeds", "0", "--configfile", "my.yaml"], "a number of runs from 1"),
        (["--seeds", "2", "--configfile", "my.yaml", "--config", "seed=3"], "takes no --config"),
        (["--seeds", "2", "--configfile", "my.yaml", "all"], "found my.yaml, all; merge them, or name rules first"),
    ],
)
def test_what_would_mix_up_the_seeds_is_refused(started, more, said, capsys):
    assert main(["run", *more]) == 2
    assert said in capsys.readouterr().err and not started
