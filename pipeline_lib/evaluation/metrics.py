"""Collection of all metrics of a run in one JSON file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline_lib.audit.estimate import Estimate, estimate_json
from pipeline_lib.data.tables import read_table
from pipeline_lib.runtime.files import read_json, write_json
from pipeline_lib.runtime.revisions import stage


@stage(revision=8)
def collect_metrics(
    *,
    bias: Path,
    gaps: Path,
    agreement: Path,
    kappa: Path,
    quality: Path,
    regions: list[Path],
    edits: list[Path],
    counterfactual: list[Path],
    leakage: list[Path],
    utility: list[Path],
    robustness: list[Path],
    judged: list[Path],
    certificate: Path,
    samples: list[Path],
    detectors: list[Path],
    segmenter: list[Path],
    benchmarks: Path,
    metrics: Path,
) -> None:
    """Collect all metrics of a run in one JSON file.

    Args:
        bias: table of `evaluate_bias`.
        gaps: JSON of `evaluate_bias`.
        agreement: JSON of `evaluate_bias`.
        kappa: JSON of `evaluate_bias`.
        quality: table of `evaluate_quality`.
        regions: JSON of `compare_regions`; empty if there are no parts to compare with a box.
        edits: JSON of `evaluate_edits` for each edited image set, named `edits-<image set>`.
        counterfactual: JSON of `evaluate_counterfactuals`; empty if the truth of edits is unknown.
        leakage: JSON of `evaluate_leakage` for each edited image set, named `leakage-<image set>`.
        utility: JSON of `evaluate_utility`; empty if no classifiers were trained.
        robustness: JSON of `evaluate_robustness`; empty if no GAN was retrained.
        judged: JSON of `judge_samples`; empty if samples cannot be compared with drawings.
        certificate: JSON of `certify_targets`.
        samples: JSON of `certify_samples`; empty if no GAN was retrained.
        detectors: reports of selector and referee.
        segmenter: report of the segmenter; empty if there is none.
        benchmarks: folder of Snakemake's benchmark files; empty without Snakemake.
        metrics: JSON to write.
    """
    table = read_table(quality, "quality")
    by_stage = {
        stage: {
            row.metric: {
                "value": row.value, "extractor": row.extractor, "reference": row.reference,
                "n": row.n, "n_reference": row.n_reference,
            }
            for row in rows.itertuples()
        }
        for stage, rows in table.groupby("stage", sort=False)
    }  # fmt: skip
    write_json(
        metrics,
        {
            "rate": {
                attribute: _rates(rows) for attribute, rows in read_table(bias, "bias").groupby("attribute", sort=False)
            },
            "gap": read_json(gaps),
            "agreement": read_json(agreement),
            "kappa": read_json(kappa),
            "quality": by_stage,
            "edits": {path.stem.removeprefix("edits-"): read_json(path) for path in edits},
            "counterfactual": read_json(*counterfactual) if counterfactual else None,
            "leakage": {path.stem.removeprefix("leakage-"): read_json(path) for path in leakage},
            "utility": read_json(*utility) if utility else None,
            "robustness": read_json(*robustness) if robustness else {},
            "judged_samples": read_json(*judged) if judged else None,
            "certificate": read_json(certificate),
            "certificate_samples": read_json(*samples) if samples else None,
            "regions": read_json(*regions) if regions else {},
            "detectors": {path.stem: read_json(path) for path in detectors},
            "segmenter": read_json(*segmenter) if segmenter else None,
            "timing": _timing(benchmarks),
        },
    )


def _rates(bias: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    """Return {stage: {judge: {group: {"value", "ci", "n"}}}}."""
    rates: dict[str, dict[str, dict[str, object]]] = {}
    for row in bias.itertuples():
        figures = estimate_json(Estimate(row.rate, row.ci_low, row.ci_high)) | {"n": row.n}
        rates.setdefault(row.stage, {}).setdefault(row.judge, {})[row.group] = figures
    return rates


def _timing(benchmarks: Path) -> dict[str, float]:
    """Read the wall-clock seconds of each job from Snakemake's benchmark files."""
    return {
        path.relative_to(benchmarks).with_suffix("").as_posix(): float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        for path in sorted(benchmarks.rglob("*.tsv"))
    }
