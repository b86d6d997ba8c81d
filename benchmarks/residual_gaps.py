"""How far the rates of rebalanced datasets are from their targets by truth, over several seeds.

`python -m benchmarks.residual_gaps --seeds 0 1 2 3 4 5 6 7` runs a config of avatars once a seed up to the certificate,
with faces of their own and without any retraining (a run that was stopped is resumed, a finished one is only read). It
prints for each target the distance of the true rate from it, and the distance of the group gap, with the 95 % interval
of the mean over seeds. Distances that scatter about zero have an interval with zero in it. It exits with 1 if a target
is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from scipy.stats import t

from pipeline_lib.runtime.files import read_json, write_json

CONFIG = Path("config/config.yaml")
CERTIFICATE = "evaluation/certificate.json"


def run_seed(config: Path, seed: int, spares: float, cores: int) -> list[dict[str, Any]]:
    """Run a config with a seed up to the certificate; returns what that says of each target."""
    values = yaml.safe_load(config.read_text())
    run = f"{values['run']}-residual-{spares:g}-{seed}"
    values |= {"run": run, "seed": seed, "retrain": None}
    values["data"] |= {"seed": seed}
    values["rebalance"] |= {"spares": spares}
    results = Path("results") / run
    results.mkdir(parents=True, exist_ok=True)
    path = results / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    command = [sys.executable, "-m", "pipeline_lib", "run", f"{results}/{CERTIFICATE}"]
    subprocess.run([*command, "--configfile", str(path), "--cores", str(cores)], check=True)
    found = read_json(results / CERTIFICATE)
    assert found["source"] == "truth", f"{results}: the truth of edits is unknown; use a config of avatars"
    return found["targets"]


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean."""
    spread = np.std(values, ddof=1) / np.sqrt(len(values)) * t.ppf(0.975, len(values) - 1)
    return float(np.mean(values) - spread), float(np.mean(values) + spread)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every seed and print the table; returns 0 if every target is met in every run, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--spares", type=float, default=0.1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("residual-gaps.json"))
    options = parser.parse_args(arguments)
    runs = [run_seed(options.config, seed, options.spares, options.cores) for seed in options.seeds]
    away = {
        f"{targets[0]['group']}: {targets[0]['attribute']}": [
            target["rate"]["value"] - target["target"] for target in targets
        ]
        for targets in zip(*runs, strict=True)
    }
    first, second = list(away.values())[:2]
    away["group gap"] = [one - other for one, other in zip(first, second, strict=True)]
    table = Table("distance from the target, by truth", "smallest", "median", "largest", "mean")
    for name, values in away.items():
        low, high = mean_interval(values) if len(values) > 1 else (np.nan, np.nan)
        figures = (f"{figure:+.4f}" for figure in (min(values), float(np.median(values)), max(values)))
        table.add_row(name, *figures, f"{np.mean(values):+.4f} [{low:+.4f}, {high:+.4f}]")
    Console(width=130).print(table)
    missed = sum(target["verdict"] != "met" for targets in runs for target in targets)
    print(f"{missed} of {sum(map(len, runs))} targets missed")
    write_json(options.output, {"seeds": options.seeds, "spares": options.spares, "away": away, "missed": missed})
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
