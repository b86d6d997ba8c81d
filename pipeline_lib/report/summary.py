"""The one page that a person reads of a run: is the balance real, what was done, and what did it cost?"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from pipeline_lib.config import Detectors, PartRegion, Rebalance, Retrain
from pipeline_lib.rebalance.estimate import Estimate
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.report import tables
from pipeline_lib.report.tables import as_estimate, gap_text, readable, share_text
from pipeline_lib.runtime.files import atomic_path

#: How far from the wanted gap the whole interval of a balanced dataset may reach.
SMALL_GAP = 0.1

HEADLINES = {
    True: "The balance is real.",
    False: "The balance is not real.",
    None: "Whether the balance is real cannot be told.",
}
CORRECTED_DISAGREES = (
    "Take it with care: by the corrected gaps, whose intervals also hold how little is known of the referee's errors, "
    "the same could not be said."
)
CLASSES = {True: "real", False: "unreal", None: "unknown"}


@dataclass(frozen=True)
class Verdict:
    """Whether the balance is real.

    Args:
        real: None where that cannot be told.
        caution: what a reader must know first: where no gap counts; empty where all do.
        reasons: what the verdict rests on and what the balance cost, a paragraph each.
    """

    real: bool | None
    caution: str
    reasons: list[str]


def write_summary(
    *,
    metrics: Path,
    rates: Path,
    gallery: Path,
    targets: Rebalance,
    detectors: Detectors,
    retrain: Retrain,
    summary: Path,
) -> None:
    """Write one HTML page that needs no other file.

    Args:
        metrics: JSON of `collect_metrics`.
        rates: PNG of `plot_rates`.
        gallery: PNG of `plot_before_after`.
        targets: the config section of the rates wanted.
        detectors: the config section with the least agreement.
        retrain: the config section that says what the retrained GAN and the control were shown.
        summary: page to make.
    """
    found = tables.read_metrics(metrics)
    attribute = targets.targets[0].attribute
    verdict = judge_balance(found, targets, detectors.least_agreement)
    template = Template(resources.files("pipeline_lib.report").joinpath("summary.html").read_text("utf-8"))
    page = template.substitute(
        attribute=escape(readable(attribute)),
        groups=escape(_groups(targets)),
        verdict_class=CLASSES[verdict.real],
        headlines=_paragraphs([verdict.caution] * bool(verdict.caution) + [HEADLINES[verdict.real]]),
        reasons=_paragraphs(verdict.reasons),
        criterion=escape(_criterion(targets)),
        done=_paragraphs(describe_run(found, targets, retrain)),
        gaps=_table(tables.gap_table(found, attribute, detectors.least_agreement)),
        least_agreement=f"{detectors.least_agreement:g}",
        rates=_embed(rates),
        gallery=_embed(gallery),
        quality=_table(tables.quality_table(found)),
        edits=_table(tables.edits_table(found)),
        detectors=_table(tables.detector_table(found)),
        segmenter=escape(_describe_segmenter(found["segmenter"])),
        regions=_table(tables.regions_table(found)),
        extractor=escape(found["regions"].get("extractor", {}).get("perceptual_distance", "none")),
        timing=_table(tables.timing_table(found)),
    )
    with atomic_path(summary) as beside:
        beside.write_text(page, encoding="utf-8")


def judge_balance(metrics: Mapping[str, Any], targets: Rebalance, least_agreement: float) -> Verdict:
    """Judge by the referee whether the dataset is balanced and the GAN retrained on it more so than the control.

    The balance is real if the whole interval of the rebalanced dataset's gap lies within `SMALL_GAP` of the wanted
    gap, and the retrained GAN's gap is at most half of the control's, with intervals that do not overlap. A set on
    which the detectors agree too little proves nothing.

    Args:
        metrics: of the run.
        targets: groups, attribute and wanted rates.
        least_agreement: of the detectors on an image set whose gap counts.
    """
    attribute = targets.targets[0].attribute
    gaps, agreement = metrics["gap"][attribute], metrics["agreement"]
    doubtful = [stage for stage in tables.known_stages(agreement) if agreement[stage][attribute] < least_agreement]
    excess, corrected = (
        {stage: excess_of(as_estimate(judges[judge]), wanted_gap(targets)) for stage, judges in gaps.items()}
        for judge in ("referee", "corrected")
    )
    dataset = None if "dataset_rebalanced" in doubtful else is_small(excess["dataset_rebalanced"])
    is_doubtful = "retrained" in doubtful or "control" in doubtful
    retrained = None if is_doubtful else is_halved(excess["retrained"], excess["control"])
    real = False if False in (dataset, retrained) else None if None in (dataset, retrained) else True

    holds_corrected = is_small(corrected["dataset_rebalanced"]) and is_halved(
        corrected["retrained"], corrected["control"]
    )
    return Verdict(
        real,
        _caution({stage: agreement[stage][attribute] for stage in doubtful}, least_agreement),
        [
            f"The gap in {readable(attribute)} ({_groups(targets)}), by the referee and then corrected for its errors, "
            f"was {_both(gaps['dataset'])} in the dataset and {_both(gaps['samples'])} in the generator's samples. "
            f"After the edits it is {_both(gaps['dataset_rebalanced'])} in the rebalanced dataset and "
            f"{_both(gaps['samples_rebalanced'])} in the rebalanced samples. "
            + _say_dataset(dataset, "dataset_rebalanced" in doubtful),
            f"The GAN retrained on the rebalanced dataset has a gap of {_both(gaps['retrained'])}, the control "
            f"{_both(gaps['control'])}. " + _say_retrained(retrained, is_doubtful, excess["control"]),
            *([CORRECTED_DISAGREES] if real and not holds_corrected else []),
            _cost(metrics["quality"]),
        ],
    )


def wanted_gap(targets: Rebalance) -> float:
    """Return the gap that the wanted rates leave: the first target's rate minus the second's."""
    first, second = targets.targets[:2]
    return first.rate - second.rate


def excess_of(gap: Estimate, wanted: float) -> Estimate:
    """Return how far a gap is from the wanted one, and the nearest and the farthest that its interval reaches."""
    near, far = sorted((abs(gap.low - wanted), abs(gap.high - wanted)))
    return Estimate(abs(gap.value - wanted), 0.0 if gap.low <= wanted <= gap.high else near, far)


def is_small(excess: Estimate) -> bool | None:
    """Return whether a gap is near the wanted one: None if its interval reaches too far to tell."""
    if math.isnan(excess.value):
        return None
    if excess.value > SMALL_GAP:
        return False
    return True if excess.high <= SMALL_GAP else None


def is_halved(retrained: Estimate, control: Estimate) -> bool | None:
    """Return whether a gap is at most half of the control's: None if intervals overlap or the control has none."""
    if math.isnan(retrained.value) or math.isnan(control.value) or control.value <= SMALL_GAP:
        return None
    if retrained.value > control.value / 2:
        return False
    return True if retrained.high < control.low else None


def describe_run(metrics: Mapping[str, Any], targets: Rebalance, retrain: Retrain) -> list[str]:
    """Return what was done in three sentences."""
    region = targets.region
    pasted = f"the {readable(region.name)} of each" if isinstance(region, PartRegion) else "the same rectangle of each"
    edits = metrics["edits"]
    seen = "each was also shown what the selector sees of its dataset; " if retrain.attributes else ""
    return [
        f"To reach the rates wanted, {tables.rates_text(targets.targets)}, the fewest edits that would do so were "
        f"planned: {edits['dataset']['planned']:,} in the dataset and {edits['samples']['planned']:,} in samples of "
        "the generator.",
        f"For each edit {targets.candidates} random donors were tried: {pasted} was pasted in, the collage went once "
        "through the masked encoder and the frozen generator, and of the composites that the selector accepted the "
        "strongest took the image's place; where it accepted none, the image was kept as it was.",
        "One GAN was retrained on the rebalanced dataset and another, the control, with the same seed and steps on the "
        f"dataset as it was; {seen}the referee, a detector of another architecture, seed and training half than the "
        "selector, then judged every image set and steered none of it.",
    ]


def _caution(doubtful: Mapping[str, float], least_agreement: float) -> str:
    """Say on which image sets the detectors agree too little, given their agreement there."""
    if not doubtful:
        return ""
    shares = ", ".join(f"{share_text(share)} of “{readable(stage)}”" for stage, share in doubtful.items())
    return (
        f"No gap counts where the detectors disagree: they agree on only {shares}, less than the {least_agreement:g} "
        "asked for."
    )


def _say_dataset(balanced: bool | None, is_doubtful: bool) -> str:
    if is_doubtful:
        return "Whether the rebalanced dataset is balanced cannot be told, since the detectors disagree on it."
    return {
        True: "By the referee the rebalanced dataset is balanced.",
        False: f"By the referee the rebalanced dataset is not balanced: more than {SMALL_GAP:g} from the gap wanted.",
        None: "Whether the rebalanced dataset is balanced cannot be told: too few images for so wide an interval.",
    }[balanced]


def _say_retrained(halved: bool | None, is_doubtful: bool, control: Estimate) -> str:
    if is_doubtful:
        return "The comparison proves nothing, since the detectors disagree on one of the two."
    if halved is None and control.value <= SMALL_GAP:
        return "The comparison proves nothing, since the control hardly has a gap itself."
    return {
        True: "The retrained GAN's gap is at most half of the control's, so the GAN took up the balance.",
        False: "The retrained GAN's gap is more than half of the control's: retraining did not halve it.",
        None: "The two intervals are too wide to tell whether retraining made the difference.",
    }[halved]


def _cost(quality: Mapping[str, Any]) -> str:
    """Say what it cost: the Fréchet distances that retraining and editing are answerable for."""

    def distance(stage: str) -> str:
        return f"{quality[stage]['frechet_distance']['value']:.4g}"

    measured = quality["dataset"]["frechet_distance"]
    return (
        f"The cost in image quality, as Fréchet distance to {measured['reference']} (extractor "
        f"{measured['extractor']}; less is better): {distance('dataset_rebalanced')} for the rebalanced dataset "
        f"against {distance('dataset')} for the dataset, {distance('retrained')} for the retrained GAN against "
        f"{distance('control')} for the control."
    )


def _criterion(targets: Rebalance) -> str:
    return (
        f"Real means, by the referee: the whole interval of the rebalanced dataset's gap lies within {SMALL_GAP:g} of "
        f"the gap wanted ({wanted_gap(targets):+z.2f}), and the retrained GAN's gap is at most half as far from it as "
        "the control's, with intervals that do not overlap. In brackets: confidence intervals, which know of the "
        "choice of images but not of another seed of the training."
    )


def _both(judges: Mapping[str, Any]) -> str:
    """Write a gap by the referee and corrected for its errors."""
    referee, corrected = (gap_text(as_estimate(judges[judge])) for judge in ("referee", "corrected"))
    return f"{referee} (corrected {corrected})"


def _groups(targets: Rebalance) -> str:
    return " minus ".join(readable(group_name(target.where)) for target in targets.targets[:2])


def _describe_segmenter(segmenter: Mapping[str, Any] | None) -> str:
    if segmenter is None:
        return "No segmenter: the same box is swapped in every image."
    by_part = segmenter["intersection_over_union"]
    if not by_part:
        return "How well the segmenter finds parts is unknown: the dataset has no masks of them."
    parts = ", ".join(f"{readable(part)} {share:.2f}" for part, share in by_part.items())
    return f"Intersection over union of the segmenter on {segmenter['n']:,} held-out images: {parts}."


def _paragraphs(sentences: list[str]) -> str:
    return "\n".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _table(rows: pd.DataFrame) -> str:
    """Return a table as HTML, every cell escaped."""
    if rows.empty:
        return "<p>Not measured in this run.</p>"
    counts = {name: "{:,}".format for name in rows.columns if pd.api.types.is_integer_dtype(rows[name])}
    return rows.to_html(index=False, border=0, na_rep="–", formatters=counts, float_format="{:.4g}".format)


def _embed(picture: Path) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
