"""What runs of one recipe, each with seeds of its own, say of a further run of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PlainSerializer
from rich.console import Console
from rich.table import Table
from scipy.stats import t

from pipeline_lib.audit.estimate import UNKNOWN, Estimate, Verdict, decide, estimate_json
from pipeline_lib.config.names import readable
from pipeline_lib.config.reseeding import DATA_SEED, first_difference, value_of
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json

logger = logging.getLogger(__name__)

LEAST_RUNS, MOST_RUNS = 3, 1000
PROVENANCE, METRICS = "provenance.json", "evaluation/metrics.json"
#: Image sets of which there are target rates, and their certificates. Only the first is there in every run.
CERTIFICATES = {
    "dataset_rebalanced": "evaluation/certificate.json",
    "retrained": "evaluation/certificate-samples.json",
}
KNOWN = ("truth", "audit")  # what a rate must be known by to decide a target
EstimateField = Annotated[Estimate, PlainSerializer(estimate_json)]


class OverRuns(BaseModel):
    """A figure of every run (None if unknown), their mean, and the limits between which a further one is expected.

    The runs are taken to be independent, and their figures normal. The limits for a further run are Student's
    prediction interval, which holds the figure of one further run as often as its level says (Hahn and Meeker 1991).
    """

    model_config = ConfigDict(frozen=True)
    values: list[float | None]
    mean: EstimateField = UNKNOWN
    further: EstimateField = UNKNOWN

    @classmethod
    def of(cls, values: Sequence[float | None], confidence: float) -> OverRuns:
        """Return the mean, and what the values say of a further one; unknown for less than two."""
        if len(values) < 2 or None in values:
            return cls(values=values)
        mean, further = (student_interval(values, len(values), confidence, further) for further in (0, 1))
        return cls(values=values, mean=mean, further=further)


class TargetOverRuns(BaseModel):
    """A target rate over the runs.

    `source` is what the rates are known by: truth, audit, or referee, which decides nothing; None if that of a run is
    unknown. `audited_enough` says whether the runs' own intervals are narrow enough to decide by, on average: audits
    that see no failure give the same rate in every run, however small they are. `runs_needed` is the number of runs in
    all that would decide the target if they go on as they did; None if none would, or if it is decided or cannot be.
    """

    model_config = ConfigDict(frozen=True)
    image_set: str
    group: str
    attribute: str
    target: float
    tolerance: float
    source: str | None
    rates: OverRuns
    verdict: Verdict
    audited_enough: bool
    runs_needed: int | None


class Recipe(BaseModel):
    """What the runs say of the target rates, and of the GANs' group gaps by the referee, by attribute and GAN.

    With `same_images` some runs share their images, or the seed of their split, and further ones would differ more.
    """

    model_config = ConfigDict(frozen=True)
    seeds: list[int]
    same_images: bool
    confidence: float
    targets: list[TargetOverRuns]
    gaps: dict[str, dict[str, OverRuns]]


def assess_recipe(folders: Sequence[Path]) -> Recipe:
    """Say between which limits the rates of a further run of a recipe are expected, and whether it meets its targets.

    Args:
        folders: runs, `results/<run>`, of the same config with other seeds; at least as far as their certificate and
            `provenance.json`.

    Raises:
        DataError: there are too few runs, one is not finished, or two differ in more than their seeds or not in these.
    """
    configs = _check_runs(folders)
    sets = list(CERTIFICATES)[: 2 if configs[0]["retrain"] else 1]
    certificates = {name: [read_json(folder / CERTIFICATES[name]) for folder in folders] for name in sets}
    confidence = certificates["dataset_rebalanced"][0]["confidence"]
    data_seeds = [value_of(config, DATA_SEED) for config in configs]
    return Recipe(
        seeds=[config["seed"] for config in configs],
        same_images=configs[0]["data"]["reader"] != "avatars" or len(set(data_seeds)) < len(data_seeds),
        confidence=confidence,
        targets=[
            _decide_target(name, of_runs, _source(name, certificate), confidence)
            for name, certificate in certificates.items()
            for of_runs in zip(*(found["targets"] for found in certificate), strict=True)
        ],
        gaps=_gaps([read_json(folder / METRICS)["gap"] for folder in folders], confidence)
        if "retrained" in certificates
        else {},
    )


def _check_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the configs of runs, which differ in their seeds and in nothing else."""
    if len(folders) < LEAST_RUNS:
        raise DataError(f"{len(folders)} runs; a recipe needs {LEAST_RUNS} or more, each with a seed of its own")
    made = []
    for folder in folders:
        _refuse_missing(folder, PROVENANCE, CERTIFICATES["dataset_rebalanced"])
        made.append(read_json(folder / PROVENANCE))
        if made[-1]["config"]["retrain"]:
            _refuse_missing(folder, CERTIFICATES["retrained"], METRICS)
    configs = [found["config"] for found in made]
    by_seed: dict[int, Path] = {}
    for folder, config in zip(folders, configs, strict=True):
        if key := first_difference(configs[0], config):
            raise DataError(f"{folder}: `{key}` is not as in {folders[0]}, so these are two recipes; name runs of one")
        if bool(config["rebalance"]["labels"]) != bool(configs[0]["rebalance"]["labels"]):
            raise DataError(
                f"{folder}: edits are planned by an audit here or in {folders[0]}, but not in both, so these are two "
                "recipes; name runs of one"
            )
        if other := by_seed.get(config["seed"]):
            raise DataError(f"{folder}: seed {config['seed']} like {other}, so it says nothing new; give it another")
        by_seed[config["seed"]] = folder
    if len({found["installation"]["code"] for found in made}) > 1:
        logger.warning("these runs were made by different versions of the library, and so may be of two recipes")
    return configs


def _refuse_missing(folder: Path, *files: str) -> None:
    for file in files:
        if not (folder / file).is_file():
            raise DataError(f"{folder}: {file} is missing, so this run is not finished; finish it, or leave it out")


def _source(image_set: str, certificates: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what the rates of every run are known by."""
    sources = {found["source"] for found in certificates}
    if None in sources:
        return "referee" if image_set == "retrained" else None
    return "audit" if "audit" in sources else "truth"


def _decide_target(
    image_set: str, of_runs: Sequence[Mapping[str, Any]], source: str | None, confidence: float
) -> TargetOverRuns:
    key = "by_referee" if source == "referee" else "rate"
    rates = OverRuns.of([found[key]["value"] if source and found[key] else None for found in of_runs], confidence)
    asked = {name: of_runs[0][name] for name in ("group", "attribute", "target", "tolerance")}
    target, tolerance = asked["target"], asked["tolerance"]
    verdict, enough, needed = Verdict.UNKNOWN, True, None
    if source in KNOWN and math.isfinite(rates.mean.value):
        low, high = np.mean([found["rate"]["ci"] for found in of_runs], axis=0)
        enough = decide(Estimate(rates.mean.value, low, high), target, tolerance) is not Verdict.UNKNOWN
        verdict = decide(rates.further, target, tolerance) if enough else Verdict.UNKNOWN
        if enough and verdict is Verdict.UNKNOWN:
            needed = runs_needed(rates.values, target, tolerance, confidence)
    return TargetOverRuns(
        image_set=image_set,
        source=source,
        rates=rates,
        verdict=verdict,
        audited_enough=enough,
        runs_needed=needed,
        **asked,
    )


def runs_needed(values: Sequence[float], target: float, tolerance: float, confidence: float) -> int | None:
    """Return how many runs in all would decide a target, if they go on as they did; None if no number would."""
    for runs in range(len(values) + 1, MOST_RUNS + 1):
        if decide(student_interval(values, runs, confidence, 1), target, tolerance) is not Verdict.UNKNOWN:
            return runs
    return None


def student_interval(values: Sequence[float], runs: int, confidence: float, further: int) -> Estimate:
    """Return Student's interval of the mean of `runs` runs that vary as these do, or with `further` 1 of one more."""
    middle, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(t.ppf((1 + confidence) / 2, runs - 1)) * spread * math.sqrt(further + 1 / runs)
    return Estimate(middle, middle - reach, middle + reach)


def _gaps(found: Sequence[Mapping[str, Any]], confidence: float) -> dict[str, dict[str, OverRuns]]:
    return {
        attribute: {
            gan: OverRuns.of([gaps[attribute][gan]["referee"]["value"] for gaps in found], confidence)
            for gan in ("retrained", "control")
        }
        for attribute in found[0]
    }


def print_recipe(recipe: Recipe, console: Console | None = None) -> None:
    """Print a line for each target and gap, and what the columns mean."""
    console = console or Console(width=140)
    table = Table(title=f"{len(recipe.seeds)} runs, seeds {', '.join(map(str, recipe.seeds))}")
    for title in ("images", "rate", "target", "of the runs", "mean", "a further run", "known by", "verdict"):
        table.add_column(title)
    for found in recipe.targets:
        name = f"{readable(found.group)}: {readable(found.attribute)}"
        asked = f"{found.target:g} ± {found.tolerance:g}"
        figures = _figures(found.rates)
        table.add_row(readable(found.image_set), name, asked, *figures, found.source or "nothing", _say_verdict(found))
    for attribute, gaps in recipe.gaps.items():
        for gan, gap in gaps.items():
            table.add_row(readable(gan), f"group gap: {readable(attribute)}", "", *_figures(gap), "referee", "")
    console.print(table)
    console.print(
        f"A further run: its rate lies between these limits with {recipe.confidence:.0%} confidence. A target is met "
        "if both are within its tolerance, and missed if both are beyond it on the same side."
    )
    if recipe.same_images:
        console.print(f"Runs share images or `{DATA_SEED}`, so they differ less than runs on other images would.")
    if any(found.source not in KNOWN for found in recipe.targets):
        console.print(
            "What neither truth nor an audit tells needs labels of every run (`python -m pipeline_lib audit`)."
        )


def _figures(figure: OverRuns) -> tuple[str, str, str]:
    mean, further = figure.mean, figure.further
    if not math.isfinite(mean.value):
        return "unknown", "", ""
    return (
        f"{min(figure.values):.3f} to {max(figure.values):.3f}",
        f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]",
        f"{further.low:.3f} to {further.high:.3f}",
    )


def _say_verdict(found: TargetOverRuns) -> str:
    if found.source not in KNOWN or not math.isfinite(found.rates.mean.value):
        return "not decided"
    if found.verdict is not Verdict.UNKNOWN:
        return str(found.verdict)
    if not found.audited_enough:
        return f"{found.verdict}, the audits are too small"
    more = f"{found.runs_needed} runs would do" if found.runs_needed else "and no number of runs would do"
    return f"{found.verdict}, {more}"
