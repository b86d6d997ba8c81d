"""The default run with several seeds, and how far its figures are from one another.

`python -m experiments.seeds --seeds 0 1 2 3 4` runs `config/config.yaml` once a seed (hours; a run that was
stopped is resumed, a finished one is only read), then prints every criterion of `experiments.accept` with worst,
median and best value, and writes them to a JSON file. It exits with 1 if a seed misses a criterion.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from experiments.accept import check_run
from experiments.runs import Check, default_config, options_of, run_workflow
from pipeline_lib.runtime.files import write_json


def spread(checks: Sequence[Check]) -> dict[str, object]:
    """Return worst, median and best of one criterion over the seeds, and how many miss it."""
    values = sorted((check.value for check in checks), reverse=checks[0].at_most)
    return {
        "worst": values[0],
        "median": statistics.median(values),
        "best": values[-1],
        "bound": checks[0].bound,
        "missed": sum(not check.passed for check in checks),
        "values": [check.value for check in checks],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every seed and print the table; returns 0 if every seed meets every criterion, else 1."""
    options = options_of(__doc__, 5, "seeds.json").parse_args(arguments)
    configs = [default_config(f"avatars-seed-{seed}", seed) for seed in options.seeds]
    by_seed = [check_run(run_workflow(values, options.cores)) for values in configs]
    found = {checks[0].promise: spread(checks) for checks in zip(*by_seed, strict=True)}
    write_json(options.output, {"seeds": options.seeds, "criteria": found})
    table = Table("criterion", "worst", "median", "best", "missed by")
    for promise, figures in found.items():
        numbers = (f"{figures[name]:.3f}" for name in ("worst", "median", "best"))
        table.add_row(promise, *numbers, f"{figures['missed']} of {len(by_seed)}")
    Console(width=150).print(table)
    return int(any(figures["missed"] for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
