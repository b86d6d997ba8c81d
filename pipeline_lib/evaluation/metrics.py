"""Collection of all figures of a run in one JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from pipeline_lib.evaluation.results import Metrics
from pipeline_lib.runtime.files import read_json
from pipeline_lib.runtime.revisions import stage

SEGMENTER = "segmenter"


@dataclass(frozen=True)
class Sections:
    """JSON files of the evaluations, by the section of the metrics that they fill; None for what was not measured."""

    certificate: Path
    certificate_samples: Path | None
    closest_renderings: Path | None
    counterfactual: Path | None
    robustness: Path | None
    utility: Path | None


@stage(revision=11)
def collect_metrics(
    *, image_sets: Path, edits: list[Path], sections: Sections, reports: list[Path], benchmarks: Path, metrics: Path
) -> None:
    """Collect all figures of a run in one JSON file.

    Args:
        image_sets: JSON of `evaluate_images`.
        edits: that of `evaluate_edits` for each set that was edited, named `edits-` and the set.
        sections: the other evaluations.
        reports: reports of detectors and segmenter, each under its name.
        benchmarks: folder of Snakemake's benchmark files; empty without Snakemake.
        metrics: JSON to write.

    Raises:
        DataError: a file is missing or not of this version.
    """
    values = read_json(image_sets)
    of_sets = {path.stem.removeprefix("edits-"): read_json(path) for path in edits}
    values |= {key: {name: found[key] for name, found in of_sets.items()} for key in ("edits", "leakage")}
    values |= {name: read_json(path) if path else None for name, path in asdict(sections).items()}
    values["robustness"] = values["robustness"] or {}
    values["detectors"] = {path.stem: read_json(path) for path in reports}
    values["segmenter"] = values["detectors"].pop(SEGMENTER, None)
    values["timing"] = {
        path.relative_to(benchmarks).with_suffix("").as_posix(): float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        for path in sorted(benchmarks.rglob("*.tsv"))
    }
    Metrics.of(values, metrics).write(metrics)
