"""Rows of the table of studies, and the table of all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
from pydantic import BaseModel

from pipeline_lib.data.tables import read_tables, write_table
from pipeline_lib.runtime.files import atomic_path, digest_of, digest_of_files
from pipeline_lib.runtime.revisions import stage

GROUPS = 5  # disjoint groups of images, on each of which a distance between sets is measured
OVER = " over "  # between the names of two methods, in a row of their differences


def mean_row(
    study: str, row: str, metric: str, values: np.ndarray, confidence: float, paper: float | None = None
) -> dict[str, object]:
    """Return a row with the mean of independent values (n,) and its interval by Student's t.

    The limits are NaN for fewer than two values. `paper` is what the paper reports, if its domain is the same.
    """
    n, mean = len(values), float(np.mean(values)) if len(values) else float("nan")
    error = float(scipy.stats.sem(values)) if n > 1 else float("nan")
    reach = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * error if n > 1 else float("nan")
    return {
        "study": study,
        "row": row,
        "metric": metric,
        "value": mean,
        "ci_low": mean - reach,
        "ci_high": mean + reach,
        "n": n,
        "paper": paper,
    }


def not_done(study: str, row: str, metric: str) -> dict[str, object]:
    """Return a row without a figure, for what the paper has and this study lacks."""
    return mean_row(study, row, metric, np.empty(0), 0.95)


def groups_of(features: np.ndarray) -> list[np.ndarray]:
    """Return `GROUPS` equal groups of features (n, d); the last n % GROUPS are in none."""
    return np.split(features[: len(features) // GROUPS * GROUPS], GROUPS)


def over(other: str, ours: str) -> str:
    """Name a row of differences, which says how much larger a figure is for another method than for ours."""
    return f"{other}{OVER}{ours}"


def write_rows(
    table: Path, rows: list[dict[str, object]], settings: BaseModel, run: str, models: list[Path], precision: str
) -> None:
    """Write the table of one study.

    Args:
        table: table to write.
        rows: of `mean_row`.
        settings: the study's config section.
        run: name of the run, stored in the file, as are digests of the section and of the models.
        models: weight files of encoder and generator.
        precision: of the inversion.
    """
    metadata = {
        "run": run,
        "config_digest": digest_of(settings.model_dump()),
        "models_digest": digest_of_files(*models),
        "precision": precision,
    }
    write_table(table, "studies", pd.DataFrame(rows), metadata)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write what a figure is drawn from, atomically, as NPZ."""
    with atomic_path(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)


@stage(revision=1)
def collect_studies(*, studies: list[Path], run: str, table: Path) -> None:
    """Write the rows of all studies as one table.

    Args:
        studies: a table for each of them.
        run: name of the run, stored in the file.
        table: table to write.
    """
    write_table(table, "studies", read_tables(studies, "studies"), {"run": run})
