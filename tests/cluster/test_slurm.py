"""The Slurm profile on a real Slurm of one node: jobs ask for GPUs, and one that is killed under way goes on.

`make test-cluster` installs what this needs; elsewhere it skips itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import slurm
import yaml
from harness import CONFIG, REPOSITORY, RESULTS, SOURCES, Run

LACKING = [*slurm.missing(), *(["the plugin"] if find_spec("snakemake_executor_plugin_slurm") is None else [])]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(LACKING), reason=f"no {', '.join(LACKING)} here; run `make test-cluster`"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm.one_node(tmp_path_factory.mktemp("slurm")) as environment:
        yield os.environ | environment


def jobs(cluster: dict[str, str]) -> dict[str, str]:
    """Return the id of each running job by its rule."""
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%i|%k"]
    lines = subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split("|") for line in lines]
    return {comment.removeprefix("rule_").partition("_wildcards")[0]: number for number, comment in rows}


def describe(cluster: dict[str, str], number: str) -> str:
    """Return all that Slurm knows of a job."""
    command = ["scontrol", "show", "job", number]
    return subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout


def wait_for(what: str, process: subprocess.Popen[str], found: Callable[[], bool], seconds: int = 240) -> None:
    for _ in range(2 * seconds):
        assert process.poll() is None, f"the run ended before {what}"
        if found():
            return
        time.sleep(0.5)
    raise AssertionError(f"{what} did not come in {seconds} s")


def test_a_training_that_is_requeued_goes_on_from_its_checkpoint(cluster: dict[str, str], tmp_path: Path) -> None:
    run = Run.take(REPOSITORY, SOURCES, tmp_path / "run")
    values = yaml.safe_load((run.folder / CONFIG).read_text())
    values["generator"]["training"]["kimg"] = 12
    (run.folder / "slurm.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", "--configfile", "slurm.yaml"]
    command += ["--until", "train_generator", "train_detector", "--max-threads", "2", "--slurm-no-account"]
    command += ["--default-resources", "mem_mb=2000", "runtime=30", "--slurm-status-command", "squeue"]
    command += ["--slurm-init-seconds-before-status-checks", "3"]
    environment = cluster | {"PYTHONPATH": str(run.folder), "LATENT_REBALANCE_DEVICES": ""}
    rows = run.results / "checkpoints"

    def trained() -> bool:
        return any(path.read_text().count("\n") > 1 for path in rows.glob("train_generator-*/log.jsonl"))

    with (run.folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=run.folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        try:
            wait_for("the training's first log rows", process, trained)
            number = jobs(cluster)["train_generator"]
            assert "TresPerJob=gres:gpu:1" in describe(cluster, number)
            subprocess.run(["scontrol", "requeue", number], env=cluster, check=True)
            assert process.wait(timeout=900) == 0, (run.folder / "output.txt").read_text()
        finally:
            process.kill()
    assert "Restarts=1" in describe(cluster, number)
    assert "resumed from step" in (run.results / "logs/train_generator.log").read_text()
    (log,) = rows.glob("train_generator-*/log.jsonl")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert (run.folder / RESULTS / "models/source/generator.safetensors").exists()
