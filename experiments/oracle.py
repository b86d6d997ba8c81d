"""How often certificates are right, on the edits of a run with planted failures.

`python -m experiments.oracle` reads the tables of the default run, which must have its rebalanced dataset.
In each trial every edit shows what was planned, apart from failures at random: edits that kept their value, and edits
that left their group, more for one target than for the other. So the truth is known exactly. Some edits are audited,
and the functions of the certificate judge each target by them. It prints how often the intervals cover the truth, how
wide they are, how often a target is wrongly said to be met, and how far the group gap is from the true one, and exits
with 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments.runs import Check, at_least, at_most
from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.dataset import EditedDataset, edited_strata
from pipeline_lib.audit.estimate import Verdict, decide
from pipeline_lib.config import RateRule, load_config
from pipeline_lib.data.shards import shards_in
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import write_json

Shares = Sequence[tuple[float, float]]
#: For the targets in turn, the share of their edits that keep their value and the share that leave their group.
PLANTED: dict[str, Shares] = {
    "as detectors disagree": ((0.06, 0.002), (0.005, 0.001)),
    "rare": ((0.002, 0.0), (0.002, 0.0)),
    "one target's alone": ((0.10, 0.0), (0.0, 0.0)),
    "many, some leave": ((0.15, 0.02), (0.02, 0.01)),
    "by donor": ((0.10, 0.0), (0.05, 0.0)),
}
BY_DONOR = {"by donor"}  # patterns in which all edits with a donor fail or none
LABELS = (100, 200, 500)  # audited edits, of all targets together
CONFIDENCE = 0.95
LEAST_COVERED, MOST_WIDTH, MOST_FALSE, MOST_ERROR = 0.94, 1.5, 0.05, 0.015  # promised 0.95 and 0.025, and chance
ROUNDING = 1e-12


class Oracle:
    """The edits of a run, in which failures are planted.

    Args:
        results: folder of the run.
        targets: its target rates.
    """

    def __init__(self, results: Path, targets: Sequence[RateRule]):
        self.targets, self.classes = targets, Classes(targets)
        self.labels = read_table(results / "labels/dataset.parquet", "labels").set_index("image_id")
        table = read_table(results / "labels/dataset_rebalanced.parquet", "assembled").set_index("image_id")
        edited = table.index[table["edited"]]
        self.edits = read_table(results / "plan/dataset.parquet", "plan").set_index("image_id").loc[edited]
        tried = read_tables(shards_in(results / "swaps/dataset", "candidates.parquet"), "candidates")
        donor_of = tried[tried["chosen"]].set_index("image_id")["donor_id"]
        self.donors = pd.factorize(donor_of.loc[edited])[0]
        kept = self.labels.loc[table.index[~table["edited"]]]
        self.kept = self._count(kept)

    def plant(self, planted: Shares, random: np.random.Generator, by_donor: bool = False) -> pd.DataFrame:
        """Return what each edit shows, a nullable bool column for each attribute."""
        chance = random.random(1 + self.donors.max())[self.donors] if by_donor else random.random(len(self.edits))
        shown = self.labels.loc[self.edits.index, self.classes.attributes].copy()
        for number, target in enumerate(self.targets):
            own = self.edits["target"].to_numpy() == number
            stays, leaves = planted[number % len(planted)]
            succeeds = own & (chance >= stays)
            shown.loc[succeeds, target.attribute] = self.edits.loc[succeeds, "wanted"]
            gone = own & (random.random(len(own)) < leaves)
            condition = next(iter(target.where))
            shown.loc[gone, condition] = not target.where[condition]
        return shown.astype("boolean")

    def rates(self, shown: pd.DataFrame) -> np.ndarray:
        """Return the true rate of each target, (targets,)."""
        return self.classes.rates(self.kept + self._count(shown))

    def _count(self, rows: pd.DataFrame) -> np.ndarray:
        """Return how many images of each class there are, (classes,)."""
        return self.classes.count({name: rows[name].to_numpy(bool) for name in self.classes.attributes})

    def best_width(self, planted: Shares, labels: int, of: np.ndarray) -> float:
        """Return the width of the interval of one who knows the shares of failures.

        It is the normal one, or that of the rule of three where an audit is likely to see none.
        """
        own = np.bincount(self.edits["target"], minlength=len(self.targets))
        audited = labels * own / own.sum()
        members = self.kept @ self.classes.inside.T + own
        share = np.array([sum(planted[number % len(planted)]) for number in range(len(own))])
        weights = np.abs(of) * own / members
        variance = share * (1 - share) / audited * (1 - audited / own)
        normal = 2 * 1.96 * np.sqrt((weights**2 * variance).sum())
        return float(max(normal, np.linalg.norm(3 * weights / audited)))


@dataclass
class Found:
    """Figures of many audits of the same size, of one pattern of failures."""

    covered: float  # share of the intervals that hold the true rate or gap, for the one that holds it least often
    width: float  # mean width of the group gap's interval, over that of the best possible one
    false_met: float  # share of the targets that are said to be met where they are as far away as is tolerated
    error: float  # mean distance of the group gap from the true one


def run_trials(
    oracle: Oracle, planted: Shares, labels: int, trials: int, tolerance: float, by_donor: bool = False
) -> Found:
    """Audit edits with planted failures `trials` times."""
    random = seeding.numpy_generator(0, "oracle", labels)
    rates = np.eye(len(oracle.targets))
    weights = [*rates, rates[0] - rates[1]]  # each target's rate, and the group gap
    covered, widths, met, errors = [], [], [], []
    for _ in range(trials):
        shown = oracle.plant(planted, random, by_donor)
        audit = shown.iloc[random.choice(len(shown), labels, replace=False)]
        strata = edited_strata(oracle.classes, oracle.labels, oracle.edits, audit)
        truth = [float(oracle.rates(shown) @ of) for of in weights]
        found = [EditedDataset(oracle.classes, oracle.kept, strata, of).estimate(CONFIDENCE, random) for of in weights]
        pairs = list(zip(found, truth, strict=True))
        covered.append([each.low - ROUNDING <= true <= each.high + ROUNDING for each, true in pairs])
        widths.append(found[-1].high - found[-1].low)
        met.append(
            [
                [decide(each, true + away, tolerance) is Verdict.MET for each, true in pairs[:-1]]
                for away in (-tolerance, tolerance)
            ]
        )
        errors.append(abs(found[-1].value - truth[-1]))
    return Found(
        covered=float(np.mean(covered, axis=0).min()),
        width=float(np.mean(widths) / oracle.best_width(planted, labels, weights[-1])),
        false_met=float(np.mean(met, axis=0).max()),
        error=float(np.mean(errors)),
    )


def check_found(found: Found, labels: int) -> list[Check]:
    """Check the figures of one pattern against what is promised of them."""
    checks = [
        at_least("the interval covers the truth", found.covered, LEAST_COVERED),
        at_most("width of the gap over the best possible", found.width, MOST_WIDTH),
        at_most("wrongly said to be met", found.false_met, MOST_FALSE),
    ]
    return checks + [at_most("distance from the true gap", found.error, MOST_ERROR)] * (labels >= 500)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials of every pattern and print the table; returns 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("oracle.json"))
    options = parser.parse_args(arguments)
    config = load_config(options.config)
    if len(config.rebalance.targets) < 2 or not all(target.where for target in config.rebalance.targets):
        parser.error(f"{options.config}: failures are planted in two or more targets, each of a group with a condition")
    if not (Path("results") / config.run / "labels/dataset_rebalanced.parquet").is_file():
        parser.error(f"results/{config.run}: no rebalanced dataset yet; run the workflow first")
    oracle = Oracle(Path("results") / config.run, config.rebalance.targets)
    tolerance = min(config.certify.tolerances(len(oracle.targets)))
    table = Table("failures", "labels", "covered", "width of the gap", "wrongly met", "distance of the gap")
    written, broken = {}, []
    for (name, planted), labels in product(PLANTED.items(), LABELS):
        found = run_trials(oracle, planted, labels, options.trials, tolerance, name in BY_DONOR)
        figures = (found.covered, found.width, found.false_met, found.error)
        table.add_row(name, str(labels), *(f"{figure:.3f}" for figure in figures))
        written[f"{name}, {labels} labels"] = asdict(found)
        broken += [f"{name}, {labels} labels: {c.promise}" for c in check_found(found, labels) if not c.passed]
    Console(width=110).print(table)
    print("\n".join(broken) or "every limit is kept")
    write_json(options.output, {"trials": options.trials, "tolerance": tolerance, "found": written})
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
