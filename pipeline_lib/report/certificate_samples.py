"""What is said of the samples of the retrained GAN: which target rates it meets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.audit.estimate import Verdict
from pipeline_lib.config.names import readable
from pipeline_lib.report.certificate import VERDICTS, say_agreement, say_unclear
from pipeline_lib.report.words import percent

THIS_GAN = (
    "This holds for the GAN of this run and all samples that it could make, not for the recipe. The same training with "
    "another seed makes another GAN, with other rates; `run --seeds 5` and `recipe` tell how far they differ."
)
OPINIONS = (
    "Nobody has labelled any samples, so only detectors' opinions of them are known, and a detector can be wrong about "
    "generated images."
)
BY_LABELS = (
    "The labels decide. The referee's opinion of all samples makes fewer of them do, and where it is wrong, the labels "
    "correct it."
)
EMPTY = "No samples of this kind were found."


def say_samples(certificate: Mapping[str, Any]) -> list[str]:
    """Return a sentence or more for each target."""
    return [_say_target(found, certificate) for found in certificate["targets"]]


def describe_samples(certificate: Mapping[str, Any]) -> str:
    """Say what the rates are based on, and without labels how to come by some."""
    if certificate["source"] is None:
        return " ".join([OPINIONS, *_say_how(certificate), THIS_GAN])
    said = [
        f"{certificate['labels']:,} of {certificate['samples']:,} samples were labelled by eye. {BY_LABELS}"
        f"{say_unclear(certificate['unclear'], 'samples')}"
    ]
    return " ".join([*said, *map(say_agreement, certificate["agreement"]), THIS_GAN])


def _say_target(found: Mapping[str, Any], certificate: Mapping[str, Any]) -> str:
    group = "samples" if found["group"] == "all" else f"samples with “{readable(found['group'])}”"
    asked = (
        f"Of the retrained GAN's {group}, {percent(found['target'])} were to have "
        f"“{readable(found['attribute'])}”, give or take {100 * found['tolerance']:g} points."
    )
    verdict = VERDICTS[Verdict(found["verdict"])]
    needed = _say_needed(found, certificate)
    if found["rate"] is None:
        opinion = found["by_referee"]["value"]
        believed = EMPTY if opinion is None else f"The referee, a detector, believes that {percent(opinion)} do."
        return " ".join([asked, believed, verdict, *needed])
    if found["rate"]["value"] is None:
        return " ".join([asked, EMPTY, verdict])
    low, high = found["rate"]["ci"]
    does = f"With {percent(certificate['confidence'])} confidence, between {percent(low)} and {percent(high)} do."
    agree = f"The referee was right about {found['agree']:,} of {found['told']:,} labelled samples."
    return " ".join([asked, does, verdict, *needed, agree, *_say_errors(found)])


def _say_errors(found: Mapping[str, Any]) -> list[str]:
    """Say to which side the referee errs in the group, if samples of both values were labelled."""
    there, absent = found["errors"]["with"], found["errors"]["without"]
    if not (there["n"] and absent["n"]):
        return []
    return [
        f"In this group it saw no “{readable(found['attribute'])}” in {there['wrong']:,} of {there['n']:,} that show "
        f"it, and saw it in {absent['wrong']:,} of {absent['n']:,} that do not."
    ]


def _say_needed(found: Mapping[str, Any], certificate: Mapping[str, Any]) -> list[str]:
    """Say how many labels would do, if that is the question."""
    samples, needed = found["samples_needed"], found["labels_needed"]
    if samples is None:
        return []
    if needed is None:
        return [f"Not even labels of all of {samples:,} samples are likely to be enough."]
    there = f"; there are {certificate['labels']:,}" if certificate["labels"] else ""
    drawn = (
        f", if the GAN makes {samples:,} samples instead of {certificate['samples']:,} (`retrain.samples`)"
        if samples > certificate["samples"]
        else ""
    )
    return [f"About {needed:,} labels of samples are likely to be enough{drawn}{there}."]


def _say_how(certificate: Mapping[str, Any]) -> list[str]:
    """Say what the number of labels is based on, and which command draws that many samples."""
    needed = [found["labels_needed"] for found in certificate["targets"] if found["labels_needed"] is not None]
    if not needed:
        return []
    return [
        "The number of labels is a guess, since it takes the referee to be wrong about "
        f"{percent(certificate['assumed_errors'])} of the samples. To draw them, run `python -m pipeline_lib audit "
        f"sheets --config YOUR_CONFIG.yaml --set retrained --count {max(needed)}`."
    ]
