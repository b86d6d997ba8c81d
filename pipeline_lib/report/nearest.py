"""What is said of samples by the nearest drawing, and of how detectors compare with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config.names import readable
from pipeline_lib.evaluation.results import Interval, in_order
from pipeline_lib.report.words import RATE, gap_text, percent, rate_text

DETECTORS = ("selector", "referee")
SAID = {"retrained": "samples of the retrained GAN", "samples": "samples of the source GAN"}
OPEN = (
    "Samples of this run were not labelled for this, so that nothing checks it on samples themselves. Where samples of "
    "one value are ambiguous more often, its rate is found too low, and only the bounds hold. The referee tells the "
    "group of a sample."
)


def say_judged(found: Mapping[str, Any]) -> list[str]:
    """Return sentences on whether samples show what the selector says, of the retrained GAN first."""
    said = [] if found["check"]["counts"] else [_say_refused(found["check"])]
    stages = [stage for stage in SAID if stage in found["sets"]]
    return said + [_say_stage(SAID[stage], found["sets"][stage], found["attribute"]) for stage in stages]


def gaps_by_drawing(found: Mapping[str, Any] | None, attribute: str) -> tuple[Estimate, Estimate] | None:
    """Return the group gaps of retrained and control GAN by the nearest drawing; None if that does not tell them.

    Args:
        found: JSON of `judge_samples`; None if samples were not compared with drawings.
        attribute: the attribute.
    """
    if found is None or found["attribute"] != attribute or not found["check"]["counts"]:
        return None
    retrained, control = (as_estimate(found["sets"][stage]["gap"]) for stage in ("retrained", "control"))
    return None if math.isnan(retrained.value) or math.isnan(control.value) else (retrained, control)


def describe_judged(found: Mapping[str, Any]) -> str:
    """Say how samples were judged, and how well that was checked."""
    check, bank = found["check"], found["bank"]
    cells = [cell for cell in check["cells"] if cell["accuracy"] is not None]
    drawn, kept = (sum(cell[name] for cell in check["cells"]) for name in ("drawn", "kept"))
    told, n = (sum(cell[name] for cell in check["cells"]) for name in ("told", "n"))
    right = percent(min(cell["accuracy"] for cell in cells)) if cells else "none"
    return (
        f"A sample is compared with {bank['renders']:,} drawings, of {bank['faces']:,} faces that the dataset lacks, "
        "where such drawings differ. The answer is ambiguous if the nearest drawing of the other value is about as "
        "near. No network is trained for this. It was checked on drawings that were passed through encoder and "
        f"generator, of which only {percent(kept / drawn if drawn else None)} still show what was drawn, so that "
        f"drawings of the same face tell what they show. Of {n:,} that surely show one value, drawings of other faces "
        f"tell {percent(told / n if n else None)}. In the group and for the value where they do worst, {right} of what "
        f"they tell is right. {OPEN}"
    )


def judged_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return rates by the nearest drawing and by the detectors, a row for each image set and group."""
    return pd.DataFrame(
        [
            {
                "image set": readable(stage),
                "group": readable(group),
                "samples": row["n"],
                "nearest drawing": rate_text(as_estimate(row["rate"])),
                "whatever the ambiguous show": _range_text(row["bounds"]),
                **{f"by the {name}": rate_text(as_estimate(row[name]["rate"])) for name in reversed(DETECTORS)},
                "ambiguous": percent(row["share_ambiguous"]),
            }
            for stage, group, row in _groups(found)
        ]
    )


def confusion_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return counts of samples by what a detector says and the nearest drawing shows, by image set and group."""
    rows = []
    for stage, group, row in _groups(found):
        for detector in DETECTORS:
            yes, no = (row[detector]["confusion"][said] for said in ("yes", "no"))
            rows.append(
                {
                    "image set": readable(stage),
                    "group": readable(group),
                    "detector": detector,
                    "both": yes["shows"],
                    "detector alone": yes["shows not"],
                    "drawing alone": no["shows"],
                    "neither": no["shows not"],
                    "detector, ambiguous": yes["ambiguous"],
                    "not detector, ambiguous": no["ambiguous"],
                }
            )
    return pd.DataFrame(rows)


def _groups(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for stage in in_order(found["sets"]):
        for group, row in found["sets"][stage]["groups"].items():
            yield stage, group, row


def _say_stage(name: str, of_set: Mapping[str, Any], attribute: str) -> str:
    yes, no = (_told(of_set, said) for said in ("yes", "no"))
    if not (sum(yes.values()) and sum(no.values())):
        return f"Of {name} the judge can tell none with, or none without “{readable(attribute)}” by the selector."
    gap, (low, high) = of_set["gap"], of_set["gap"]["bounds"]
    if len(of_set["groups"]) == 1:
        by_gap = ""
    elif gap["value"] is None:
        by_gap = " Of one group it can tell none."
    else:
        by_gap = (
            f" By the nearest drawing the group gap is {gap_text(as_estimate(gap))}, and between {low:+z.2f} and "
            f"{high:+z.2f} whatever the ambiguous ones show."
        )
    return (
        f"Among {name} that the judge can tell, {percent(yes['shows'] / sum(yes.values()))} of those with "
        f"“{readable(attribute)}” by the selector show it by the nearest drawing, and "
        f"{percent(no['shows not'] / sum(no.values()))} of those without it do not.{by_gap}"
    )


def _told(of_set: Mapping[str, Any], said: str) -> dict[str, int]:
    """Count samples of which the selector says yes, or no, by what the nearest drawing shows where that is clear."""
    confusions = [row["selector"]["confusion"][said] for row in of_set["groups"].values()]
    return {answer: sum(found[answer] for found in confusions) for answer in ("shows", "shows not")}


def _say_refused(check: Mapping[str, Any]) -> str:
    return (
        "This judge does not count here. On drawings passed through encoder and generator it is right about less than "
        f"{percent(check['least_accuracy'])} of what it tells in some group, or it tells nothing there."
    )


def _range_text(limits: list[float | None]) -> str:
    if None in limits:
        return ""
    return "[" + ", ".join(format(limit, RATE) for limit in limits) + "]"


def as_estimate(found: Mapping[str, Any]) -> Estimate:
    """Return a rate or a gap of plain values, of which more may be known."""
    return Interval(value=found["value"], ci=found["ci"]).estimate
