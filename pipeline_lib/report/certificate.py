"""What is said of the certificate of a run: which target rates the rebalanced dataset meets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.audit.estimate import Verdict
from pipeline_lib.config.names import readable
from pipeline_lib.report.tables import percent

BY = {
    "truth": "Unedited images count by their labels, and edited ones by their truth, which is known of avatars.",
    "audit": "Unedited images count by their labels. The labels of the audited edits stand for those of all of them.",
    None: "Unedited images count by their labels. No edited image has been audited, so it can show anything.",
}
UNKNOWN = {
    "unlabelled": "The dataset has no labels of these attributes.",
}
UNCLEAR = "Each limit of an interval counts them as what is worst for it."
DIFFERING = "What an edit shows on which they differ could not be told."
VERDICTS = {
    Verdict.MET: "The target is met.",
    Verdict.MISSED: "The target is missed.",
    Verdict.UNKNOWN: "There is not enough evidence to tell whether the target is met.",
}


def say_certificate(certificate: Mapping[str, Any]) -> list[str]:
    """Return a sentence or two for each target."""
    return [
        _say_target(found, certificate["confidence"], certificate["unknown"]) + _say_uncounted(found)
        for found in certificate["targets"]
    ]


def describe_certificate(certificate: Mapping[str, Any]) -> str:
    """Say what the rates are based on."""
    said = f"No detector takes part in this. {BY[certificate['source']]}"
    if not (labels := certificate.get("labels")):
        return said
    agree, audited = labels["agree"], labels["audited"]
    said += f" In {agree} of {audited} unedited images, the audit agrees with the label in the dataset."
    said += f" Of {labels['unclear']} it could not be told." if labels["unclear"] else ""
    said += say_unclear(certificate["unclear"], "audited edits")
    return " ".join([said, *(f"{say_agreement(pair)} {DIFFERING}" for pair in certificate["agreement"])])


def say_unclear(count: int, images: str) -> str:
    """Say how images count of which it could not be told what they show; empty without any."""
    return f" Of {count} {images} it could not be told what they show. {UNCLEAR}" if count else ""


def say_agreement(found: Mapping[str, Any]) -> str:
    """Say how often two audits agree."""
    kappa = "" if found["kappa"] is None else f" (Cohen's kappa {found['kappa']:.2f})"
    one, other = (Path(file).name for file in found["files"])
    return (
        f"{one} and {other} agree on “{readable(found['attribute'])}” in {found['agree']} of {found['images']} "
        f"images{kappa}."
    )


def _say_target(found: Mapping[str, Any], confidence: float, unknown: str | None) -> str:
    group = "all images" if found["group"] == "all" else f"images with “{readable(found['group'])}”"
    asked = (
        f"Of {group}, {percent(found['target'])} were to have “{readable(found['attribute'])}”, give or take "
        f"{100 * found['tolerance']:g} points."
    )
    verdict = VERDICTS[Verdict(found["verdict"])]
    if found["rate"] is None:
        return f"{asked} {verdict} {UNKNOWN[unknown]}"
    if found["rate"]["value"] is None:
        return f"{asked} {verdict} There are no such images."
    low, high = found["rate"]["ci"]
    if low == high:
        return f"{asked} {percent(found['rate']['value'])} do. {verdict}"
    does = f"With {percent(confidence)} confidence, between {percent(low)} and {percent(high)} do."
    return " ".join([asked, does, verdict, *_say_labels(found)])


def _say_uncounted(found: Mapping[str, Any]) -> str:
    """Say how many images do not count; empty if all do."""
    if not (count := found.get("not_counted")):
        return ""
    return f" {count:,} more images may be of this group, but do not count, since a label of theirs is unknown."


def _say_labels(found: Mapping[str, Any]) -> list[str]:
    """Say how many labels would do, if that is the question."""
    if found["verdict"] != Verdict.UNKNOWN or found["labels_needed"] is None:
        return []
    needed, there = found["labels_needed"], found["labels_there"]
    return [f"About {needed:,} labels of edited images are likely to be enough; there are {there:,}."]
