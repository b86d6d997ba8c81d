"""Runs of the workflow for benchmarks of several, and audits of avatars that are answered by the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline_lib.audit.sheets import Sheet
from pipeline_lib.config import Config
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import attributes_of


def run_workflow(values: dict[str, Any], cores: int, target: str | None = None) -> Path:
    """Run the workflow with a config; returns the folder of its results.

    Args:
        values: the config.
        cores: CPU cores.
        target: file of the results to make; None: all of them.
    """
    results = Path("results") / values["run"]
    results.mkdir(parents=True, exist_ok=True)
    config = results / "config.yaml"
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    command = [sys.executable, "-m", "pipeline_lib", "run", *([f"{results}/{target}"] if target else [])]
    subprocess.run([*command, "--configfile", str(config), "--cores", str(cores)], check=True)
    return results


def answer_by_truth(config: Config, results: Path, count: int, sheet: int) -> pd.DataFrame:
    """Draw an audit of the present edits of a run of avatars, and answer it by the truth; returns the CSV's rows."""
    drawn = Sheet(config, results, "dataset_rebalanced", count, sheet).draw()
    truth = read_table(results / "labels/dataset_rebalanced_true.parquet", "labels").set_index("image_id")
    answers = truth.loc[drawn["image_id"], attributes_of(config.rebalance.targets)]
    return drawn.join(answers.astype(int).reset_index(drop=True))
