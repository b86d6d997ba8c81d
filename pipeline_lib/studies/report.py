"""The page of the paper's studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.names import readable
from pipeline_lib.data.tables import read_tables, write_table
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.catalogue import STUDIES
from pipeline_lib.studies.comparison import RATIO
from pipeline_lib.studies.study import OVER

FASTER = 100  # times that one pass is faster than optimisation, by the orders of magnitude in Table 4
MORE_IS_BETTER = (
    "density", "coverage", "attribute by the referee", "group kept, by the referee",
    "area under the curve for the part of the superpixel",
)  # fmt: skip


@stage(revision=3)
def write_studies(*, studies: list[Path], run: str, table: Path, page: Path) -> None:
    """Write the rows of all studies as one table, and a page that says which of the paper's orderings hold here.

    Args:
        studies: a table for each of them.
        run: name of the run, stored in the file.
        table: table to write.
        page: Markdown to write.
    """
    rows = read_tables(studies, "studies")
    write_table(table, "studies", rows, {"run": run})
    with atomic_path(page) as beside:
        beside.write_text(studies_page(rows), encoding="utf-8")


def studies_page(rows: pd.DataFrame) -> str:
    """Return the page for the rows of a table of studies."""
    blocks = ["# The paper's studies"]
    for study, found in rows.groupby("study", sort=True):
        entry, differences = STUDIES[str(study)], found["row"].str.contains(OVER)
        blocks.append(f"## {entry.title}")
        if found["n"].max() < (most := entry.count("paper")):
            blocks.append(f"With at most {found['n'].max():,}; at `size: paper` up to {most:,}.")
        blocks.append(_markdown(found[~differences]))
        said = [say_ordering(row) for row in found[differences].itertuples()]
        said += [say_speed(row) for row in found[found["metric"] == RATIO].itertuples()]
        blocks += ["\n".join(f"- {sentence}" for sentence in said)] * bool(said)
    return "\n\n".join(blocks) + "\n"


def say_ordering(row: Any) -> str:
    """Say whether one method is better than another, given a row of how much larger the other's figure is."""
    other, ours = row.row.split(OVER)
    better, worse, sign = ("larger", "smaller", -1) if row.metric in MORE_IS_BETTER else ("smaller", "larger", 1)
    low, high = sorted((sign * row.ci_low, sign * row.ci_high))
    least, most = sorted((abs(low), abs(high))) if low * high > 0 else (low + 0.0, high + 0.0)  # no -0
    by = f"by {abs(round(row.value, 12)):.3g} (interval {least:.3g} to {most:.3g}, n = {row.n})."
    if low <= 0 <= high or low != low:
        return f"Whether {ours} or {other} has a {better} {row.metric} could not be determined. They differ {by}"
    than = f"{ours} has a {better if low > 0 else worse} {row.metric} than {other}, {by}"
    if not STUDIES[row.study].in_paper:
        return than[0].upper() + than[1:]
    return f"{'As' if low > 0 else 'Unlike'} in the paper, {than}"


def say_speed(row: Any) -> str:
    """Say whether one pass through the encoder is at least 100 times as fast as an optimisation, as the paper finds."""
    by = f"{row.value:.3g} times (interval {row.ci_low:.3g} to {row.ci_high:.3g}, n = {row.n})."
    if row.ci_low >= FASTER:
        return f"As in the paper, one pass is at least {FASTER} times as fast as {row.row}, {by}"
    if row.ci_high < FASTER:
        return f"Unlike in the paper, one pass is less than {FASTER} times as fast as {row.row}, {by}"
    return f"Whether one pass is {FASTER} times as fast as {row.row} could not be determined. It is {by}"


def _markdown(rows: pd.DataFrame) -> str:
    """Return a table with a line for each row of the study and a column for each metric, and the paper's figures."""
    quoted = set(rows.loc[rows["paper"].notna(), "metric"])
    columns = [
        (metric, of) for metric in dict.fromkeys(rows["metric"]) for of in ("", "paper")[: 1 + (metric in quoted)]
    ]
    titles = ["", *(f"{metric}, {of}" if of else metric for metric, of in columns), "n"]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|--:" * (len(titles) - 1) + "|"]
    for name, found in rows.groupby("row", sort=False):
        of_metric = found.set_index("metric").to_dict("index")
        cells = [_figure(of_metric.get(metric), of) for metric, of in columns]
        counts = ", ".join(str(n) for n in found["n"].unique())
        lines.append(f"| {readable(str(name))} | " + " | ".join([*cells, counts]) + " |")
    return "\n".join(lines)


def _figure(row: dict[str, Any] | None, of: str) -> str:
    """Return a figure with its interval, if it has one, or that of the paper."""
    if row is None or (of and pd.isna(row["paper"])):
        return ""
    if of:
        return f"{row['paper']:.3g}"
    if pd.isna(row["value"]):
        return "not done"
    interval = "" if pd.isna(row["ci_low"]) else " [{ci_low:.3g}, {ci_high:.3g}]"
    return ("{value:.3g}" + interval).format_map(row)
