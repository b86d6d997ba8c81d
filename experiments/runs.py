"""What scripts of several runs share: options, criteria, runs of the workflow, and audits answered by the truth."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline_lib.audit.sheets import Sheet
from pipeline_lib.config import Config, load_config
from pipeline_lib.data.tables import read_table
from pipeline_lib.rebalance.groups import attributes_of

CONFIG = Path("config/config.yaml")


@dataclass(frozen=True)
class Check:
    """A criterion, the measured value, and its bound, which is the most or the least allowed."""

    promise: str
    value: float
    bound: float
    at_most: bool

    @property
    def passed(self) -> bool:
        """Whether the criterion is met; not if there is no value."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def at_least(promise: str, value: float, bound: float) -> Check:
    """Return the criterion that a value is at least the bound."""
    return Check(f"{promise} is at least {bound}", value, bound, at_most=False)


def at_most(promise: str, value: float, bound: float) -> Check:
    """Return the criterion that a value is at most the bound."""
    return Check(f"{promise} is at most {bound}", value, bound, at_most=True)


def failures_of(checks: Iterable[Check]) -> int:
    """Print every criterion with its value, and return how many are not met."""
    failed = 0
    for check in checks:
        print(f"{'pass' if check.passed else 'FAIL'}  {check.promise}: {check.value:.3f}")
        failed += not check.passed
    return failed


def options_of(documentation: str | None, seeds: int, output: str) -> argparse.ArgumentParser:
    """Return the options of a script that runs the workflow with several seeds, and writes what it found."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(seeds)))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(output))
    return parser


def default_config(run: str, seed: int, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the default config with a seed, under a run name of its own, and without some of its sections."""
    values = load_config(CONFIG).model_dump(mode="json")
    return {key: value for key, value in values.items() if key not in without} | {"run": run, "seed": seed}


def run_workflow(values: dict[str, Any], cores: int, target: str | None = None) -> Path:
    """Run the workflow with a config; returns the folder of its results.

    A run that was stopped is resumed, and a finished one is only read.

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
