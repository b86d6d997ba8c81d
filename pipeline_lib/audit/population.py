"""What a certificate is of: images of which some are labelled, and the files that say what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline_lib.audit.estimate import Evidence, Finding


@dataclass(frozen=True)
class Files:
    """Files of a population: those of a rebalanced dataset, or those of a retrained GAN's samples.

    Attributes:
        images: shards, which an audit must be of.
        labels: label table of the dataset before it was edited.
        assembled: label table of the rebalanced dataset.
        plan: table of its edits.
        truth: label table with the truth of edited images too; None if it is unknown.
        checked: JSON of `evaluate_counterfactuals`, which says whether that truth counts; likewise.
        retrained: the referee's scores of the samples.
        control: those of the control GAN's samples, of which some are among those of an audit.
    """

    images: list[Path]
    labels: Path | None = None
    assembled: Path | None = None
    plan: Path | None = None
    truth: Path | None = None
    checked: Path | None = None
    retrained: Path | None = None
    control: Path | None = None


class Population(Protocol):
    """The rebalanced dataset, or all samples that the retrained GAN could make.

    It is opened with its `Files`, the CSVs of an audit (of which those of other images are left out), and the config
    section of the target rates, and has the random streams of a name of its own.
    """

    stream: str

    def evidence(self, number: int) -> Evidence:
        """Return what is known of the rate of a target, by its number."""

    def details(self, number: int, evidence: Evidence, found: Finding, confidence: float) -> dict[str, object]:
        """Return the fields of a target's certificate that this population alone has."""

    def summary(self) -> dict[str, object]:
        """Return likewise those of the whole certificate, and by what the rates are known (`source`)."""
