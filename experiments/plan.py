"""What it costs to rebalance 30 thousand to 100 million images, by the rates that `benchmarks.gpu` measured.

`python -m experiments.plan benchmarks/results/NAME.json` prints the table of docs/scaling.md for that GPU.
Without a report it takes the rate of encoder and generator alone that was measured before this code was written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline_lib.runtime.errors import DataError, PipelineError
from pipeline_lib.runtime.files import read_json

IMAGES = (30_000, 1_000_000, 10_000_000, 100_000_000)
EDITED, CANDIDATES = 0.25, 16  # share of the images that are edited, and composites for each of them
IMAGE_BYTES = 177_000  # of 256 pixels in a shard: 0.9 of the uncompressed size, as for avatars
COPIES = 2  # the dataset and the rebalanced one
DOLLARS_AN_HOUR, DOLLARS_A_TERABYTE = 3.0, 23.0  # of a GPU, and of a month of storage
BEFORE = 10_756 / CANDIDATES  # faces a second on one H100 in bfloat16, compiled, encoder and generator alone


class Rate(NamedTuple):
    """Edited faces a second on one GPU, and what bounds them."""

    faces: float
    bound: str


def rate_of(report: Mapping[str, Any]) -> Rate:
    """Return the rate of edits at 256 pixels by a report of `benchmarks.gpu`.

    The device inverts and scores in turns, while the CPU gathers the next donors and writes the last results.

    Raises:
        DataError: the report lacks a speed at 256 pixels, as one of a CPU does.
    """
    rows = [row for section in report["sections"].values() for row in section.get("rows", ())]

    def fastest(beginning: str) -> float:
        found = [row["number"] for row in rows if row["name"].startswith(beginning) and "256 px" in row["name"]]
        if not found:
            raise DataError(f"no row `{beginning}` at 256 px in this report; run `make gpu-check` on a GPU")
        return max(found)

    inverted = fastest("inversion, 256 px, ProGAN") / CANDIDATES
    device = 1 / (1 / inverted + 1 / fastest("candidates scored"))
    rates = {"the device": device, "gathering": fastest("donors gathered"), "writing": fastest("results written")}
    bound = min(rates, key=lambda name: rates[name])
    return Rate(rates[bound], bound)


def table(rate: Rate) -> str:
    """Return the plan as a Markdown table."""
    lines = [
        "| images | composites | GPU hours | storage | shards of 1 GB | GPU and a month of storage |",
        "|---|---|---|---|---|---|",
    ]
    for images in IMAGES:
        hours = images * EDITED / rate.faces / 3600
        terabytes = images * IMAGE_BYTES * COPIES / 1e12
        cells = (
            f"{images:,}",
            f"{round(images * EDITED * CANDIDATES):,}",
            f"{hours:.2g}",
            f"{terabytes:.2g} TB",
            f"{max(1, round(images * IMAGE_BYTES / 1e9)):,}",
            f"{hours * DOLLARS_AN_HOUR + terabytes * DOLLARS_A_TERABYTE:,.0f} dollars",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 0, or 2 if the report does not serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, help="JSON that `benchmarks.gpu` wrote on a GPU")
    options = parser.parse_args(arguments)
    try:
        rate = rate_of(read_json(options.report)) if options.report else Rate(BEFORE, "the device")
    except PipelineError as error:
        print(f"{options.report}: {error}", file=sys.stderr)
        return 2
    print(f"{rate.faces:,.0f} faces a second with {CANDIDATES} candidates each, bounded by {rate.bound}\n")
    print(table(rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
