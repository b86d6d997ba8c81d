"""How far the rates of rebalanced datasets are from their targets by truth, with and without an audit, over seeds.

`python -m experiments.residual_gaps --seeds 0 1 2 3 4 5 6 7` runs a config of avatars once a seed to the certificate,
with faces of their own and without any retraining. Some edits are then audited, with the truth as the answer. Edits are
planned again by this audit, and the run goes on to its second certificate. A run that was stopped is resumed, and a
finished one is only read. It prints for both rounds the distance of each rate from its target, and of the group gap
from the one that was asked for, with the 95 % interval of the mean over seeds. It exits with 1 if a target is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.runs import CONFIG, answer_by_truth, options_of, run_workflow
from pipeline_lib.audit.recipe import OverRuns
from pipeline_lib.config import parse_config, read_config
from pipeline_lib.config.names import readable
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, read_json, write_json

CERTIFICATE = "evaluation/certificate.json"
ROUNDS = ("as planned", "planned again by an audit")

Targets = list[dict[str, Any]]  # what a certificate says of each


def run_seed(values: dict[str, Any], seed: int, audited: int, cores: int) -> dict[str, Targets]:
    """Run both rounds of one seed; returns what the certificate says of each target after each of them."""
    values = values | {"run": f"{values['run']}-residual-{seed}", "seed": seed, "retrain": None}
    values["data"] = values["data"] | {"seed": seed}
    results = Path("results") / values["run"]
    own = results / "rounds" / digest_of({"config": values, "audited": audited})
    own.mkdir(parents=True, exist_ok=True)
    written, audit = own / "found.json", own / "audit.csv"
    if written.exists():
        return read_json(written)
    found = {ROUNDS[0]: _certify(values, cores)}
    if not audit.exists():
        answer_by_truth(parse_config(values), results, audited, 1).to_csv(audit, index=False)
    again = values | {"rebalance": values["rebalance"] | {"labels": [str(audit)]}}
    found[ROUNDS[1]] = _certify(again, cores)
    write_json(written, found)
    return found


def _certify(values: dict[str, Any], cores: int) -> Targets:
    found = read_json(run_workflow(values, cores, CERTIFICATE) / CERTIFICATE)
    if found["source"] != "truth":
        raise DataError(f"results/{values['run']}: the truth of edits is unknown; give a config of avatars")
    return found["targets"]


def distances(runs: Sequence[Targets]) -> dict[str, list[float]]:
    """Return by rate, and for the gap of the first two, how far each run is from what was asked for."""
    away = {
        f"{readable(targets[0]['group'])}: {readable(targets[0]['attribute'])}": [
            target["rate"]["value"] - target["target"] for target in targets
        ]
        for targets in zip(*runs, strict=True)
    }
    first, second = list(away.values())[:2]
    return away | {"gap of the first two": [one - other for one, other in zip(first, second, strict=True)]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every seed and print the table; returns 0 if every target is met in every run, else 1."""
    parser = options_of(__doc__, 8, "residual-gaps.json")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--audited", type=int, default=400)
    options = parser.parse_args(arguments)
    values = read_config(options.config)
    runs = [run_seed(values, seed, options.audited, options.cores) for seed in options.seeds]
    table = Table("distance from what was asked for, by truth", "smallest", "largest", "mean and its 95 % interval")
    written: dict[str, Any] = {"seeds": options.seeds, "audited": options.audited}
    missed = 0
    for name in ROUNDS:
        certificates = [run[name] for run in runs]
        edits = sorted(sum(target["edited"] for target in targets) for targets in certificates)
        table.add_row(f"{name}, {edits[0]:,} to {edits[-1]:,} edits")
        found = {title: OverRuns.of(away, 0.95) for title, away in distances(certificates).items()}
        for title, away in found.items():
            mean = f"{away.mean.value:+.4f} [{away.mean.low:+.4f}, {away.mean.high:+.4f}]"
            table.add_row(f"  {title}", f"{min(away.values):+.4f}", f"{max(away.values):+.4f}", mean)
        missed += sum(target["verdict"] != "met" for targets in certificates for target in targets)
        written[name] = {"edits": edits} | {title: away.model_dump(mode="json") for title, away in found.items()}
    Console(width=130).print(table)
    print(f"{missed} of {2 * sum(map(len, certificates))} targets missed")
    write_json(options.output, written | {"missed": missed})
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
