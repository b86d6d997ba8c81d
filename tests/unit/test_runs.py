"""The workflow runs with other seeds, elsewhere than in the repository, and with no config that holds code."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipeline_lib import runs
from pipeline_lib.cli import main
from pipeline_lib.runtime.files import SHIPPED

DEFAULT = SHIPPED / "config/config.yaml"
TOY = Path(__file__).parents[1] / "workflow" / "toy.yaml"


def refusal(capsys, *arguments):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.fixture
def spiked(tmp_path, monkeypatch):
    """A config that leaves a file behind when its expression is run, in a folder where Snakemake may not be started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs.subprocess, "run", lambda *_, **__: pytest.fail("Snakemake was started"))
    config = tmp_path / "spiked.yaml"
    config.write_text(f"__use_yte__: true\nrun: ?open({str(tmp_path / 'executed')!r}, 'w').name\n")
    yield config
    assert not (tmp_path / "executed").exists()


def test_check_refuses_a_config_that_holds_code_without_running_it(capsys, spiked):
    message = refusal(capsys, "check", str(spiked))
    assert message.startswith(f"ConfigError: {spiked}: `__use_yte__` would have Snakemake run the file's expressions")


@pytest.mark.parametrize(
    "arguments",
    [
        ["spiked.yaml"],
        ["spiked.yaml", "all", "-n"],
        ["--configfile=spiked.yaml"],
        ["--configfiles", "spiked.yaml", "--cores", "1"],
        ["--cores", "1", "-n", "all", "--configfile", str(TOY), "spiked.yaml"],
        ["--profile", "profile.yaml"],
    ],
)
def test_run_refuses_a_config_that_holds_code_without_running_it(capsys, spiked, arguments):
    Path("profile.yaml").write_text("configfile: spiked.yaml\n")
    assert refusal(capsys, "run", *arguments).startswith("ConfigError: spiked.yaml: `__use_yte__` would have")


@pytest.mark.parametrize("directory", [".", "elsewhere"])
def test_run_refuses_a_default_config_that_holds_code(capsys, spiked, directory):
    default = Path(directory) / "config/config.yaml"
    default.parent.mkdir(parents=True)
    spiked.rename(default)
    assert refusal(capsys, "run", "--directory", directory).startswith(f"ConfigError: {default}: `__use_yte__`")


def test_run_passes_on_what_snakemake_says_of_its_options(capsys, spiked):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--configf", "spiked.yaml", "--no-such-option"])
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return the arguments of every Snakemake that would have been started, of which the third fails."""
    calls = []

    def run(arguments):
        calls.append(arguments)
        return 5 if len(calls) == 3 else 0

    monkeypatch.setattr(runs, "run_workflow", run)
    (tmp_path / "my.yaml").write_text(DEFAULT.read_text())  # weights are those that come with the library
    monkeypatch.chdir(tmp_path)
    return calls


def test_run_makes_a_run_for_each_seed(started, capsys):
    assert main(["run", "my.yaml", "--seeds", "2", "--cores", "2", "certify"]) == 0
    for seed, arguments in enumerate(started, 1):
        assert arguments[2:-2] == ["--configfile=my.yaml", "--cores", "2", "certify"]
        own = Path(arguments[-1])
        assert own == Path.cwd() / f"results/avatars-run-{seed}/config.yaml"
        assert yaml.safe_load(own.read_text())["seed"] == seed
    assert "recipe" not in capsys.readouterr().out  # two runs are too few


def test_rules_after_the_end_of_the_options_stay_rules(started):
    main(["run", "my.yaml", "--seeds", "1", "--", "certify"])
    assert started[0][-2:] == ["--", "certify"]


def test_a_second_call_keeps_the_labels_that_a_run_names(started, tmp_path):
    main(["run", "my.yaml", "--seeds", "1"])
    own = tmp_path / "results/avatars-run-1/config.yaml"
    (tmp_path / "audit.csv").write_text("")
    labelled = own.read_text().replace("labels: null", f"labels: [{tmp_path}/audit.csv]", 1)
    own.write_text(labelled)
    assert main(["run", "my.yaml", "--seeds", "1"]) == 0
    assert own.read_text() == labelled and len(started) == 2


def test_another_recipe_does_not_take_the_folders_of_one(started, capsys):
    main(["run", "my.yaml", "--seeds", "1"])
    Path("my.yaml").write_text(Path("my.yaml").read_text() + "sample: {images: 16}\n")
    assert main(["run", "my.yaml", "--seeds", "1"]) == 2
    assert "`sample.images` is not as in" in capsys.readouterr().err and len(started) == 1


def test_another_directory_has_its_own_config_and_results(started, tmp_path):
    (tmp_path / "there/config").mkdir(parents=True)
    Path("my.yaml").rename(tmp_path / "there/config/config.yaml")
    assert main(["run", "--seeds", "1", "--directory", "there"]) == 0
    assert started[0][-1] == str(tmp_path / "there/results/avatars-run-1/config.yaml")


def test_a_run_that_fails_is_the_last(started):
    assert main(["run", "my.yaml", "--seeds", "5"]) == 5
    assert len(started) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["my.yaml", "--seeds", "0"], "a number of runs from 1"),
        (["my.yaml", "--seeds", "2", "--config", "seed=3"], "takes one config file and no --config"),
        (["--seeds", "2", "--configfile", "my.yaml", "all"], "takes one config file and no --config"),
    ],
)
def test_what_would_mix_up_the_seeds_is_refused(started, more, said, capsys):
    assert main(["run", *more]) == 2
    assert said in capsys.readouterr().err and not started


def test_labels_of_one_runs_images_are_refused_in_a_recipe(started, capsys):
    Path("a.csv").write_text("")
    Path("my.yaml").write_text(Path("my.yaml").read_text() + "certify: {labels: [a.csv]}\n")
    assert main(["run", "my.yaml", "--seeds", "1"]) == 2
    assert "`certify.labels` are labels of one run's images" in capsys.readouterr().err


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Return the options of every Snakemake that would have been started in an empty folder."""
    calls = []

    def run(command, **_):
        calls.append(runs._read_options(command[3:]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(runs.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    return calls


def test_elsewhere_the_workflow_that_comes_with_the_library_runs_on_all_cores(commands):
    Path("my.yaml").write_text("run: mine\n")
    assert main(["run", "my.yaml", "results/mine/plan.json", "-n"]) == 0
    (given,) = commands
    assert given.snakefile == str(SHIPPED / "Snakefile")
    assert (given.configfile, given.targets, given.dryrun) == ([Path("my.yaml")], ["results/mine/plan.json"], True)
    assert given.cores == os.cpu_count()


def test_options_of_snakemake_are_passed_on(commands):
    Path("my.yaml").write_text("run: mine\n")
    main(["run", "my.yaml", "--cores", "8", "--resources", "gpu=2", "--snakefile", "Snakefile"])
    assert (commands[0].cores, commands[0].snakefile) == (8, "Snakefile")


def test_the_demo_is_the_default_config_and_names_its_report(commands, tmp_path, capsys):
    (tmp_path / "results/avatars").mkdir(parents=True)
    (tmp_path / "results/avatars/report.html").touch()
    assert main(["demo"]) == 0
    (run,) = commands
    assert run.configfile == [DEFAULT]
    assert "results/avatars/report.html" in capsys.readouterr().out
