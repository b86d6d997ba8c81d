"""A stage is called with plain values, and gets what its signature asks for."""

from __future__ import annotations

import inspect
import sys
import types
from pathlib import Path

import pytest
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from pipeline_lib import stages
from pipeline_lib.config import Sample
from pipeline_lib.runtime.errors import ConfigError
from pipeline_lib.stages import STAGES, at_revision, call_stage, find_stage, values_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_stage_takes_named_and_typed_values(name):
    for parameter in inspect.signature(find_stage(name)).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.annotation is not parameter.empty


@pytest.mark.parametrize("name", sorted(STAGES))
def test_rules_read_the_revision_that_stands_at_a_stages_definition(name):
    assert at_revision(name) == f"{name}@{find_stage(name).revision}"


def test_every_rule_gives_its_stage_what_it_takes_and_nothing_else():
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        read = api.workflow(
            ResourceSettings(cores=2),
            ConfigSettings(config={"studies": {}}, configfiles=[ROOT / "config/config.yaml"]),
            snakefile=ROOT / "Snakefile",
        )
        rules = [rule for rule in read._workflow.rules if rule.params]
    assert len(rules) > 30
    for rule in rules:
        stage, _, revision = rule.params.stage.partition("@")
        assert revision, rule.name
        taken = values_of(find_stage(stage))
        given = [name for part in (rule.input, rule.output, rule.params) for name, _ in part.items()]
        assert len(given) == len(set(given)), rule.name
        assert {value for value, is_needed in taken.items() if is_needed} <= set(given), rule.name
        assert set(given) - {"stage"} <= set(taken), rule.name


@pytest.fixture
def calls(monkeypatch):
    """Return the values that the stage `made_up` was called with."""
    seen = []

    def made_up(
        *, images: list[Path], settings: Sample, run: str, seed: int, source: list[Path], weights: Path | None = None
    ) -> None:
        seen.append({"images": images, "settings": settings, "run": run, "seed": seed, "source": source})
        seen[-1]["weights"] = weights

    def with_device(*, device: object, threads: int) -> None:
        seen.append({"device": str(device), "threads": threads})

    module = types.ModuleType("made_up_module")
    module.made_up, module.with_device, module.Path, module.Sample = made_up, with_device, Path, Sample
    monkeypatch.setitem(sys.modules, "made_up_module", module)
    monkeypatch.setattr(stages, "STAGES", {"made_up": "made_up_module", "with_device": "made_up_module"})
    return seen


VALUES = {"images": ["a", "b"], "settings": {"images": 20}, "run": "toy", "seed": 3, "source": []}


def test_plain_values_become_paths_and_config_sections(calls):
    call_stage("made_up", {**VALUES, "weights": "c"})
    assert calls == [
        {
            "images": [Path("a"), Path("b")],
            "settings": Sample(images=20),
            "run": "toy",
            "seed": 3,
            "source": [],
            "weights": Path("c"),
        }
    ]


@pytest.mark.parametrize("lone", ["a", Path("a")])
def test_a_lone_value_is_a_list_of_one_where_a_list_is_asked_for(calls, lone):
    call_stage("made_up", {**VALUES, "images": lone})
    assert calls[0]["images"] == [Path("a")]


def test_a_value_left_out_takes_its_default(calls):
    call_stage("made_up", VALUES)
    assert calls[0]["weights"] is None


@pytest.mark.parametrize(("given", "nearest"), [("weigths", "weights"), ("seeds", "seed")])
def test_a_value_that_a_stage_does_not_take_is_refused_with_the_nearest_that_it_does(calls, given, nearest):
    with pytest.raises(ConfigError, match=f"stage made_up takes no `{given}`; did you mean `{nearest}`"):
        call_stage("made_up", {**VALUES, given: 7})
    assert not calls


@pytest.mark.parametrize("given", ["device", "threads"])
def test_device_and_threads_of_a_stage_are_no_values(calls, given):
    with pytest.raises(ConfigError, match=f"takes no `{given}`"):
        call_stage("made_up", {**VALUES, given: "2"})


def test_a_missing_value_is_named(calls):
    with pytest.raises(ConfigError, match="stage made_up: no value for `seed`; add `seed=VALUE`"):
        call_stage("made_up", {name: value for name, value in VALUES.items() if name != "seed"})
    assert not calls


def test_a_stage_without_a_gpu_gets_the_cpu_and_its_threads(calls, monkeypatch):
    import torch

    tuned = []
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", "")
    monkeypatch.setattr(stages, "tune_cpu", tuned.append)
    call_stage("with_device", {}, threads=3, gpus=1)
    assert calls == [{"device": str(torch.device("cpu")), "threads": 3}]
    assert tuned == [3]
