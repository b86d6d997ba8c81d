"""What a plan costs, and what an audit of its edits could show, before anything is edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.dataset import EditedDataset, Stratum
from pipeline_lib.audit.estimate import Estimate, Verdict, assess, decide
from pipeline_lib.audit.labels import count_successes
from pipeline_lib.config import Config, RateRule
from pipeline_lib.config.names import readable
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.rebalance.groups import any_unknown, holds_of
from pipeline_lib.rebalance.plan import Audited, choose_edits, refuse_small_groups, refuse_without_donors
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

FAILING = 0.02  # share of the edits that are taken to fail, if nothing is known


class Forecast(NamedTuple):
    """What is to be expected of one target."""

    target: RateRule
    count: Mapping[str, Any]  # of its images and edits, by `choose_edits`
    after: Estimate  # rate that an audit would find
    verdict: Verdict
    labels: int | None  # audited edits in all that are likely to decide it; None if no number would


def forecast(
    holds: Mapping[str, np.ndarray],
    targets: Sequence[RateRule],
    tolerances: Sequence[float],
    *,
    failing: Sequence[float],
    labels: int,
    confidence: float,
    seed: int,
    audited: Sequence[Audited] | None = None,
) -> list[Forecast]:
    """Forecast each target, if a share of its edits fails by showing the value that the image had.

    An audit is taken to see the share of failures that there is, rounded up to a whole number of images. Every image is
    taken to be editable, since parts are not segmented yet. Spares are not counted.

    Args:
        holds: whether each image has each attribute, by `holds_of`.
        targets: target rates, whose conditions do not overlap.
        tolerances: largest distance from each target that counts as met.
        failing: share of the edits that fail, in [0, 1], for each target.
        labels: number of audited edits in all.
        confidence: level of the intervals, in (0, 1).
        seed: seed of the run.
        audited: earlier edits for each target, by which more are planned; None without.

    Raises:
        DataError: a target cannot be reached.
    """
    everywhere = np.ones(len(next(iter(holds.values()))), bool)
    editable = {target.attribute: everywhere for target in targets}
    chosen, counts = choose_edits(holds, editable, targets, seed, "dataset", audited=audited)
    classes = Classes(targets, any_unknown(holds))
    untouched = np.delete(np.arange(len(everywhere)), chosen["position"])
    kept = classes.count({name: holds[name][untouched] for name in classes.attributes})
    before = {name: holds[name][chosen["position"]] for name in classes.attributes}
    pairs = classes.of_edits(before, chosen["attribute"].to_numpy(), chosen["wanted"].to_numpy(bool))
    sizes = chosen.groupby([chosen["target"].to_numpy(), *pairs]).size()
    strata = [Stratum(*pair, size, assumed=failing[target]) for (target, *pair), size in sizes.items()]
    found = []
    for number, (target, tolerance) in enumerate(zip(targets, tolerances, strict=True)):
        evidence = EditedDataset(classes, kept, strata, np.arange(len(targets)) == number)
        random = seeding.numpy_generator(seed, "forecast", number)
        needed = assess(evidence, target.rate, tolerance, confidence, random).needed
        after = evidence.expected(min(labels, evidence.size)).estimate(confidence, random)
        verdict = decide(after, target.rate, tolerance)
        found.append(Forecast(target, counts[number], after, verdict, needed.labels if needed else 0))
    return found


def print_forecast(config: Config, failing: float | None, labels: int, console: Console | None = None) -> None:
    """Print what each target of a config needs, and what an audit of that many edits could show.

    Args:
        config: the config.
        failing: share of the edits that are taken to fail, in [0, 1]; None: as many as in the audit that the edits are
            planned by (`rebalance.labels`), or without one `FAILING`.
        labels: number of audited edits.
        console: where to print; None: standard output.

    Raises:
        DataError: the labels of the run are not there yet, a group is too small, an edit has no donor, or a target
            cannot be reached.
    """
    path = Path("results") / config.run / "labels/dataset.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no labels yet; make them with `snakemake --cores 8 {path}`, with your --configfile")
    rows, settings = read_table(path, "labels"), config.rebalance
    holds, targets = holds_of(rows, attribute_columns(rows, "labels")), settings.targets
    refuse_small_groups(holds, targets, "dataset")
    refuse_without_donors(holds, settings, "dataset", learnt=config.learns_selector)
    audited = count_successes(settings.labels, rows["image_id"], holds, settings) if settings.labels else None
    failed = [1 - found.succeeded / max(found.edits, 1) for found in audited or ()] or [FAILING] * len(targets)
    if failing is not None:
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
    edits = sum(target.count["edits"] for target in found)
    console.print(
        f"{edits:,} of {len(rows):,} images are to be edited, with {edits * settings.edit.candidates:,} candidates. "
        "Images without the region's part cannot be edited; how many there are is known once parts are segmented."
    )
    for rule, count, *_ in found:
        if unknown := count.get("unknown"):
            console.print(
                f"{readable(count['group'])}: {unknown:,} images may be of this group, but of these a label that the "
                f"target of {readable(rule.attribute)} needs is unknown; they are neither counted nor edited."
            )


def _table(found: list[Forecast], failing: list[float], labels: int) -> Table:
    shares = " and ".join(dict.fromkeys(f"{share:.1%}" for share in failing))
    table = Table(title=f"If {shares} of the edits fail, and {labels} are audited")
    for title in ("target", "images", "rate now", "edits", "rate after", "verdict", "labels"):
        table.add_column(title, justify="left" if title in ("target", "verdict") else "right")
    for rule, count, after, verdict, needed in found:
        table.add_row(
            f"{readable(count['group'])}: {readable(rule.attribute)} {rule.rate:g}",
            *(f"{count['size']:,}", f"{count['rate_before']:.3f}", f"{count['edits']:,}"),
            *(f"{after.low:.3f}–{after.high:.3f}", str(verdict), "none" if needed is None else f"{needed:,}"),
        )
    table.caption = "labels: audited edits in all that are likely to be enough for a verdict"
    return table
