"""Collection of all figures of a run in one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.audit.estimate import Estimate, estimate_json
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.results import Metrics
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.revisions import stage

#: Section of each JSON file by its name, and what stands there without the file.
SECTIONS: dict[str, tuple[str, Any]] = {
    "gaps": ("gap", {}),
    "agreement": ("agreement", {}),
    "kappa": ("kappa", {}),
    "robustness": ("robustness", {}),
    "certificate": ("certificate", None),
    "certificate-samples": ("certificate_samples", None),
    "counterfactual": ("counterfactual", None),
    "closest-renderings": ("closest_renderings", None),
    "utility": ("utility", None),
}
BY_IMAGE_SET = ("edits", "leakage")  # sections of files such as `edits-dataset.json`
SEGMENTER = "segmenter"


@stage(revision=10)
def collect_metrics(
    *, bias: Path, quality: Path, results: list[Path], reports: list[Path], benchmarks: Path, metrics: Path
) -> None:
    """Collect all figures of a run in one JSON file.

    Args:
        bias: table of `evaluate_bias`.
        quality: table of `evaluate_quality`.
        results: JSON files of the other evaluations of this run, each under its name.
        reports: reports of detectors and segmenter, likewise.
        benchmarks: folder of Snakemake's benchmark files; empty without Snakemake.
        metrics: JSON to write.

    Raises:
        DataError: a file is missing or not of this version.
    """
    named = {path.stem: path for path in results}
    values = {section: empty for section, empty in SECTIONS.values()}
    values |= {SECTIONS[name][0]: read_json(path) for name, path in named.items() if name in SECTIONS}
    for section in BY_IMAGE_SET:
        of_sets = {name: path for name, path in named.items() if name.startswith(f"{section}-")}
        values[section] = {name.removeprefix(f"{section}-"): read_json(path) for name, path in of_sets.items()}
    models = {path.stem: read_json(path) for path in reports}
    values |= {
        "rate": {name: _rates(rows) for name, rows in read_table(bias, "bias").groupby("attribute", sort=False)},
        "quality": _quality(read_table(quality, "quality")),
        "segmenter": models.pop(SEGMENTER, None),
        "detectors": models,
        "timing": _timing(benchmarks),
    }
    Metrics.of(values, metrics).write(metrics)


def _rates(bias: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    """Return {stage: {judge: {group: {"value", "ci", "n"}}}}."""
    rates: dict[str, dict[str, dict[str, object]]] = {}
    for row in bias.itertuples():
        figures = estimate_json(Estimate(row.rate, row.ci_low, row.ci_high)) | {"n": row.n}
        rates.setdefault(row.stage, {}).setdefault(row.judge, {})[row.group] = figures
    return rates


def _quality(quality: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    """Return {stage: {metric: its value and how it was measured}}."""
    columns = ["value", "extractor", "reference", "n", "n_reference"]
    found: dict[str, dict[str, dict[str, object]]] = {}
    for (name, metric), rows in quality.groupby(["stage", "metric"], sort=False):
        found.setdefault(name, {})[metric] = rows[columns].to_dict("records")[0]
    return found


def _timing(benchmarks: Path) -> dict[str, float]:
    """Read the wall-clock seconds of each job from Snakemake's benchmark files."""
    return {
        path.relative_to(benchmarks).with_suffix("").as_posix(): float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        for path in sorted(benchmarks.rglob("*.tsv"))
    }
