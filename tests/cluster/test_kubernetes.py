"""The Kubernetes profile: pods get what they ask for, and files of a run travel through storage alone.

`make test-cluster` installs what this needs; elsewhere it skips itself. A folder stands in for the object storage.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import kubernetes_stub
import pytest
from harness import CONFIG, REPOSITORY, RESULTS, SOURCES, Run

PLUGINS = ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs")
LACKING = [
    *(name for name in PLUGINS if find_spec(name) is None),
    *(["rsync"] if shutil.which("rsync") is None else []),
]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(LACKING), reason=f"no {', '.join(LACKING)} here; run `make test-cluster`"),
]


def test_stages_run_in_pods_that_share_nothing_but_storage(tmp_path: Path) -> None:
    run = Run.take(REPOSITORY, SOURCES, tmp_path / "run")
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=run.folder, check=True)
    storage = tmp_path / "storage"
    (tmp_path / "cluster").mkdir()
    with kubernetes_stub.one_node(tmp_path / "cluster") as (cluster, reached_by):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/kubernetes"),
                *("--until", "sample_generator", "--configfile", CONFIG, "--container-image", "none"),
                *("--default-storage-provider", "fs", "--default-storage-prefix", str(storage)),
                *("--seconds-between-status-checks", "1", "--show-failed-logs"),
            ],
            cwd=run.folder,
            env=os.environ | reached_by,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr + cluster.logs()
    made = storage / RESULTS
    for name in ("labels/dataset.parquet", "models/source/generator.safetensors", "images/samples/1.parquet"):
        assert (made / name).stat().st_size > 0
    assert list((tmp_path / "cluster/claims/latent-rebalance").glob("toy/checkpoints/train_generator-*/checkpoint.pt"))
    asked = {}
    for pod in cluster.specs.values():
        (container,) = pod["containers"]
        rule = re.search(r"--target-jobs '?(\w+):", container["args"][1])[1]
        asked[rule] = (container["resources"]["limits"].get("nvidia.com/gpu"), bool(pod.get("tolerations")))
    assert asked["prepare_dataset"] == asked["assemble_rebalanced"] == (None, False)
    assert asked["train_generator"] == asked["swap_parts"] == ("1", True)
