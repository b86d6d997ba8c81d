"""Every script that the documentation names runs, at toy size; those that train whole runs are given their results.

Others have tests of their own: accept, gpu, oracle, plan, reconstruction, residual_gaps and utkface.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import bench, scale
from experiments import biased_selector, seeds, severity
from experiments.runs import CONFIG, Check
from pipeline_lib.config import load_config
from pipeline_lib.data.tables import write_table
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.onnx_model import OnnxClassifier
from pipeline_lib.runtime.files import read_json
from pipeline_lib.stages import call_stage

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_scale_runs_every_stage_on_both_sizes(tmp_path, monkeypatch, capsys):
    ran = []

    def in_this_process(name, values):
        ran.append(name)
        call_stage(name, values)
        return 100.0

    monkeypatch.setattr(scale, "run_stage", in_this_process)
    scale.main(["64", "96", "--output", str(tmp_path / "scale.json")])
    found = read_json(tmp_path / "scale.json")
    assert found.keys() == {"64", "96"}
    assert list(found["64"]) == ran[:6] and ran[:6] == ran[6:]
    assert "assemble_rebalanced" in capsys.readouterr().out


@pytest.mark.slow
def test_bench_compares_with_its_baselines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setitem(bench.SETS, "storage", partial(bench.storage, count=64))
    bench.main(["storage", "--output", str(tmp_path / "bench.json")])
    rows = read_json(tmp_path / "bench.json")["rows"]
    assert len(rows) >= 2
    assert all(row["rate"] > 0 and row["peer_rate"] > 0 for row in rows)


def test_seeds_sums_up_the_checks_of_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "run_workflow", lambda values, cores: values["seed"])
    monkeypatch.setattr(seeds, "check_run", lambda seed: [Check("a criterion", 0.6 + seed / 10, 0.65, False)])
    assert seeds.main(["--seeds", "0", "1", "--output", str(tmp_path / "seeds.json")]) == 1
    found = read_json(tmp_path / "seeds.json")["criteria"]["a criterion"]
    assert (found["worst"], found["missed"]) == (pytest.approx(0.6), 1)


def test_severity_writes_its_figures_and_curves(tmp_path, monkeypatch):
    worst = dict.fromkeys(severity.SHOWN, 0.9) | {"reweighted": 0.3, "resampled": 0.5, "group_dro": 0.6}
    found = {
        "methods": {name: {"worst_group": {"value": value}, "images": {"a": 20}} for name, value in worst.items()},
        "detectors": {"selector": 0.9, "referee": 0.8},
    }
    monkeypatch.setattr(severity, "run_one", lambda name, seed, cores: found)
    output = tmp_path / "severity.json"
    assert severity.main(["--seeds", "0", "1", "--severities", "20 images", "--output", str(output)]) == 0
    assert read_json(output)["severities"]["20 images"]["worst_group"]["rebalanced"]["median"] == 0.9
    assert output.with_suffix(".png").stat().st_size > 1000


def test_a_biased_selector_is_trained_as_its_benchmark_asks(tmp_path, write_shards):
    """The only training of its own; the rounds are runs of the workflow."""
    values = biased_selector.config_of(0)
    values["detectors"] = {"training": {"kimg": 0.016, "batch": 8}}
    names = [f"avatar-{number}" for number in range(16)]
    images = write_shards(np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8), names, "dataset")
    images[0].parent.with_name("held_out").symlink_to(images[0].parent)
    labels = pd.DataFrame({"image_id": names, "split": "train"})
    for place, name in enumerate(load_config(CONFIG).detectors.attributes):
        labels[name] = np.arange(16) % (place + 2) == 0
    labels["mouth_open"] = labels["smiling"]
    for name in ("dataset", "held_out"):
        write_table(tmp_path / f"labels/{name}.parquet", "labels", labels)
    biased_selector.train_biased(values, tmp_path, tmp_path / "selector.onnx")
    attributes = load_weights(tmp_path / "biased/selector.safetensors").attributes
    network = OnnxClassifier.from_file(
        tmp_path / "selector.onnx", attributes, list(range(len(attributes))), 64,
        side=None, mean=(0.5,) * 3, std=(0.5,) * 3, gives="logits", mirror=False,
    )  # fmt: skip
    assert network.attributes == attributes


def test_biased_selector_checks_what_its_rounds_found(tmp_path, monkeypatch, capsys):
    def targets(first, second, verdict):
        return [{"claimed": 0.5, "rate": {"value": rate}, "verdict": verdict} for rate in (first, second)]

    rounds = {
        "first": targets(0.42, 0.5, "met"),
        "first, by an audit": targets(0.42, 0.5, "missed"),
        "planned again": targets(0.49, 0.5, "met"),
        "planned again, by a fresh audit": targets(0.49, 0.5, "met"),
    }
    monkeypatch.setattr(biased_selector, "run_one", lambda seed, cores: rounds)
    options = ["--seeds", "0", "1", "--output", str(tmp_path / "found.json")]
    assert biased_selector.main(options) == 0
    rounds["first, by an audit"] = targets(0.42, 0.5, "met")
    assert biased_selector.main(options) == 1
    assert "FAIL  first round: audits that find the target met" in capsys.readouterr().out


def test_every_script_that_the_documentation_names_has_its_command_in_a_test():
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    documents += [*(ROOT / "docs").glob("*.md"), *(ROOT / "config").rglob("*.yaml")]
    named = {
        name for path in documents for name in re.findall(r"-m (?:benchmarks|experiments)\.(\w+)", path.read_text())
    }
    tests = "\n".join(path.read_text() for path in (ROOT / "tests/unit").glob("*.py"))
    called = re.findall(r"\b(\w+)\.main\(", tests) + re.findall(
        r"from (?:benchmarks|experiments)\.(\w+) import .*\bmain\b", tests
    )
    assert "scale" in named
    assert named <= set(called)
