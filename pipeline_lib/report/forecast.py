"""A run's plan as a table on the terminal, before anything is edited."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline_lib.config import Config
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.rebalance.forecast import Forecast, forecast
from pipeline_lib.rebalance.groups import holds_of
from pipeline_lib.rebalance.plan import audit_edits, refuse_small_groups, refuse_without_donors
from pipeline_lib.report.tables import readable
from pipeline_lib.runtime.errors import DataError

FAILING = 0.02  # share of the edits that are taken to fail, if nothing is known


def print_forecast(config: Config, failing: float | None, labels: int, console: Console | None = None) -> None:
    """Print what each target of a config needs, and what an audit of that many edits of each could show.

    Args:
        config: the config.
        failing: share of the edits that are taken to fail, in [0, 1]; None: as many as in the audit that the edits are
            planned by (`rebalance.labels`), or without one `FAILING`.
        labels: number of audited edits of each target.
        console: where to print; None: standard output.

    Raises:
        DataError: the labels of the run are not there yet, a group is too small, an edit has no donor, or a target
            cannot be reached.
    """
    path = Path("results") / config.run / "labels/dataset.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no labels yet; make them with `snakemake --cores 8 {path}`, with your --configfile")
    rows = read_table(path, "labels")
    holds = holds_of(rows, attribute_columns(rows, "labels"))
    targets = config.rebalance.targets
    refuse_small_groups(holds, targets, "dataset")
    settings = config.rebalance
    refuse_without_donors(holds, settings, "dataset", learnt=config.learns_selector)
    audited = audit_edits(settings.labels, rows["image_id"], holds, settings) if settings.labels else None
    if failing is None:
        failed = [1 - found.succeeded / max(found.edits, 1) for found in audited or ()] or [FAILING] * len(targets)
    else:
        failed = [failing] * len(targets)
    found = forecast(
        holds,
        targets,
        config.certify.tolerances(len(targets)),
        failing=failed,
        labels=labels,
        confidence=config.evaluate.confidence,
        seed=config.seed,
        audited=audited,
    )
    console = console or Console(markup=False)
    console.print(_table(found, failed, labels))
    edits, each = sum(target.edits for target in found), config.rebalance.edit.candidates
    console.print(
        f"{edits:,} of {len(rows):,} images are to be edited, with {edits * each:,} candidates. "
        "Images without the region's part cannot be edited; how many there are is known once parts are segmented."
    )
    for target in found:
        if target.unknown:
            console.print(
                f"{readable(target.group)}: {target.unknown:,} images may be of this group, but of these a label that "
                f"the target of {readable(target.attribute)} needs is unknown; they are neither counted nor edited."
            )


def _table(found: list[Forecast], failing: list[float], labels: int) -> Table:
    shares = " and ".join(dict.fromkeys(f"{share:.1%}" for share in failing))
    table = Table(title=f"If {shares} of the edits fail, and {labels} of each target are audited")
    for title in ("target", "images", "rate now", "edits", "rate after", "verdict", "labels"):
        table.add_column(title, justify="left" if title in ("target", "verdict") else "right")
    for target in found:
        low, high = target.after.low, target.after.high
        table.add_row(
            f"{readable(target.group)}: {readable(target.attribute)} {target.target:g}",
            *(f"{target.size:,}", f"{target.before:.3f}", f"{target.edits:,}", f"{low:.3f}–{high:.3f}"),
            *(str(target.verdict), "none" if target.labels is None else f"{target.labels:,}"),
        )
    table.caption = "labels: audited edits of each target that are likely to be enough for “met”"
    return table
