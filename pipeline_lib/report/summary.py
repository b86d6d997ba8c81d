"""The summary page of a run: whether the rebalancing worked, what was done, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.audit import estimate as certify
from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import Detectors, RateRule, Rebalance, Retrain
from pipeline_lib.config.names import BASELINES, readable
from pipeline_lib.imaging.png import data_url
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.report import tables
from pipeline_lib.report.certificate import describe_certificate, say_certificate
from pipeline_lib.report.certificate_samples import describe_samples, say_samples
from pipeline_lib.report.nearest import confusion_table, describe_judged, gaps_by_drawing, judged_table, say_judged
from pipeline_lib.report.tables import RATE, as_estimate, frechet_distances, share_text, target_gap
from pipeline_lib.report.utility import describe_utility, say_utility, utility_table
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage

#: Distances from the target gap and from a target rate up to which a GAN has almost no bias; rates that are each as far
#: away on opposite sides leave such a gap.
SMALL_GAP, SMALL_DISTANCE = 0.1, 0.05
LEAST_KAPPA = 0.6  # below which agreement beyond chance is at most moderate (Landis and Koch 1977)

OPENINGS = {True: "The rebalancing worked", False: "The rebalancing did not work", None: "No verdict is possible"}
IN_PART = "The rebalancing worked in part"
DATASET_IS = {
    True: "the rebalanced dataset meets every target rate",
    False: "the rebalanced dataset misses a target rate",
    None: "whether the rebalanced dataset meets its target rates cannot be told",
}
TARGETS_ARE = {
    True: "Every target rate is met in the rebalanced dataset, without any detector's opinion.",
    False: "At least one target rate is missed in the rebalanced dataset, without any detector's opinion.",
    None: "Whether the target rates are met cannot be told yet. The section “Are the target rates met?” says why.",
}
RETRAINED_IS = {
    True: "the GAN retrained on it has at most half of the control GAN's bias {of}",
    False: "the GAN retrained on it has more than half of the control GAN's bias {of}",
    None: "there is not enough evidence that retraining halved the GAN's bias {of}",
}
RETRAINED_MISSES = "the GAN retrained on it misses a target rate"
NO_BIAS = "The comparison of the GANs proves nothing, since the control GAN has almost no bias."
NO_SAMPLES = "The GANs cannot be compared, since one of them has no sample in a group, by the referee."
DOUBTFUL = "The comparison of the GANs proves nothing, since the detectors disagree on one of the two."
GAP_IS = {
    True: "The retrained GAN has at most half of the control GAN's bias, and their intervals do not overlap.",
    False: "The retrained GAN has more than half of the control GAN's bias.",
    None: "The intervals of the two GANs are too wide to tell whether retraining made the difference.",
}
#: Where the control GAN has almost no group gap too much, but its rates are away from their targets.
GAP_STAYS = {
    True: "Neither the control GAN nor the retrained GAN is far from the target gap.",
    False: "The control GAN is not far from the target gap, but the retrained GAN is.",
    None: "The group gap of the retrained GAN is unknown.",
}
RATES_ARE = {
    True: "The retrained GAN's rate furthest from its target is at most half as far away as the control GAN's, and "
    "their intervals do not overlap.",
    False: "The retrained GAN's rate furthest from its target is more than half as far away as the control GAN's.",
    None: "Whether the retrained GAN's rate furthest from its target is at most half as far away as the control GAN's "
    "cannot be told.",
}
#: In the order in which one of a target decides about all of them.
NOT_MET = (certify.Verdict.MISSED, certify.Verdict.UNKNOWN)
CORRECTED_DISAGREES = (
    "Read this verdict with care. Biases of the GANs that are corrected for the referee's errors do not meet the same "
    "criterion. Their intervals also account for how well these errors are known."
)
DRAWING_DISAGREES = (
    " The first is more than the referee says. Detectors may misread what lies between two values, as half-smiles do, "
    "so look at samples, or label some of them."
)
REFEREE_IS = "Rates by the referee, a detector that took no part in the edits."
BASELINES_ARE = {
    "resampled": "A GAN trained on resampled original images, without any edit,",
    "sham": "A GAN trained on as many edits, which keep the value that each image has,",
}
#: Said unless a GAN of resampled images has clearly more bias.
NOT_NEEDED = " So edits are not shown to be needed for a fair GAN."
CONTROL_IS = "The control GAN was trained with the same settings and seed on the original dataset."
CLASSES = {True: "real", False: "unreal", None: "unknown"}


@dataclass(frozen=True)
class Verdict:
    """Whether the balance is real.

    Args:
        real: None if undecided.
        headline: the verdict in one sentence.
        caution: image sets whose gaps do not count; empty if all count.
        reasons: the reasons for the verdict, and the cost in image quality.
    """

    real: bool | None
    headline: str
    caution: str
    reasons: list[str]


@stage(revision=10)
def write_summary(
    *,
    metrics: Path,
    rates: Path,
    gallery: Path,
    utility: list[Path],
    targets: Rebalance,
    detectors: Detectors,
    retrain: Retrain | None,
    summary: Path,
) -> None:
    """Write one self-contained HTML page.

    Args:
        metrics: JSON of `collect_metrics`.
        rates: PNG of `plot_rates`.
        gallery: PNG of `plot_before_after` for the dataset.
        utility: PNG of `plot_utility`; empty if no classifiers were trained.
        targets: the config section of the target rates.
        detectors: the config section with the required agreement.
        retrain: the config section of the retraining; None if no GAN was retrained.
        summary: page to write.
    """
    found = tables.read_metrics(metrics)
    verdict = judge_balance(found, targets, detectors.least_agreement)
    template = Template(resources.files("pipeline_lib.report").joinpath("summary.html").read_text("utf-8"))
    quality = tables.quality_table(found)
    page = template.substitute(
        attributes=escape(_attributes(targets)),
        verdict_class=CLASSES[verdict.real],
        question=escape(_question(targets)),
        headline=escape(verdict.headline),
        caution=_elements("p", [verdict.caution] * bool(verdict.caution)),
        rates_by_group=_rates_by_group(found, targets, retrain),
        rates_note=escape(" ".join([REFEREE_IS, *([CONTROL_IS] if retrain else []), *_say_gaps(targets)])),
        gallery=data_url(gallery.read_bytes()),
        gallery_caption=escape(_caption_gallery(targets)),
        gallery_text=escape(_describe_gallery(found["edits"]["dataset"]["planned"], targets)),
        reasons=_elements("li", verdict.reasons),
        criterion=escape(_criterion(targets, retrain)),
        certificate=_elements("li", say_certificate(found["certificate"])),
        certificate_note=escape(describe_certificate(found["certificate"])),
        samples=_say_samples(found.get("certificate_samples")),
        utility=_say_utility(found.get("utility"), utility),
        done=_elements("p", describe_run(found, targets, retrain)),
        rates=data_url(rates.read_bytes()),
        rates_text=escape(_describe_rates(_attributes(targets), retrain)),
        gaps=_gaps(found, targets, detectors.least_agreement),
        least_agreement=f"{detectors.least_agreement:g}",
        quality=_table(quality.drop(columns=tables.MEASURED_WITH)),
        quality_note=escape(_describe_quality(quality)),
        edits=_table(tables.edits_table(found)),
        ledger=_table(tables.ledger_table(found)),
        detectors=_table(tables.detector_table(found)),
        segmenter=escape(_describe_segmenter(found["segmenter"])),
        judged=_say_judged(found.get("judged_samples")),
        robustness=_say_robustness(found, targets),
        regions=_compare_regions(found),
        timing=_table(tables.timing_table(found)),
    )
    with atomic_path(summary) as beside:
        beside.write_text(page, encoding="utf-8")


def judge_balance(metrics: Mapping[str, Any], targets: Rebalance, least_agreement: float) -> Verdict:
    """Decide whether the dataset meets its target rates, and whether the retrained GAN is less biased than the control.

    The balance is real if the certificate says of every target that it is met, and if by the referee the retrained
    GAN's bias in each attribute is at most half of the control GAN's, with intervals that do not overlap. Bias is both
    the distance of the group gap from the target gap, and that of the rate furthest from its target among all groups. A
    target rate that labels of samples say is missed decides against the GAN, and one that the referee says is missed
    leaves it undecided. Without a retrained GAN the dataset alone decides. GANs on whose images the detectors disagree
    too often do not count.

    Args:
        metrics: metrics of the run.
        targets: groups, attributes and target rates.
        least_agreement: agreement of the detectors that a gap needs to count.
    """
    reasons, halved, corrected_halved = [], [], []
    for attribute in targets.edited if "retrained" in metrics["agreement"] else ():
        rules = targets.alone(attribute).targets
        excess, *compared = _compare_gans(metrics, attribute, rules, "referee")
        is_doubtful = _is_doubtful(metrics, attribute, least_agreement)
        halved.append(None if is_doubtful else _all(compared))
        corrected_halved.append(_all(_compare_gans(metrics, attribute, rules, "corrected")[1:]))
        said = [DOUBTFUL] if is_doubtful else _say_compared(excess, *compared)
        if excess:
            said += _say_drawing(
                metrics.get("judged_samples"), attribute, target_gap(rules), excess["retrained"]
            ) + _say_baselines(excess)
        of_attribute = f"Of {readable(attribute)}: " if len(targets.edited) > 1 else ""
        reasons += [f"{of_attribute}{sentence}" for sentence in said]
    found, rates = {"dataset": meets_targets(metrics["certificate"])}, []
    if halved:
        rates = _rates_of_samples(metrics, targets, least_agreement)
        reasons.append(_say_rates(rates))
        missed_by = {rate.by for rate in rates if rate.verdict == certify.Verdict.MISSED}
        found["retrained"] = False if "labels" in missed_by else _all([*halved, *([None] if missed_by else [])])
    real = _all(found.values())
    if real and not all(corrected_halved):
        reasons.append(CORRECTED_DISAGREES)
    return Verdict(
        real,
        _headline(real, _all(halved), "in gap and rates" if targets.compared else "in its rates", rates, **found),
        _caution(metrics, targets, least_agreement),
        [TARGETS_ARE[found["dataset"]], *reasons, *_cost(metrics["quality"])],
    )


def _is_doubtful(metrics: Mapping[str, Any], attribute: str, least_agreement: float) -> bool:
    """Return whether the detectors disagree too often on samples of either GAN for these to be compared."""
    return any(metrics["agreement"][stage][attribute] < least_agreement for stage in ("retrained", "control"))


def _compare_gans(
    metrics: Mapping[str, Any], attribute: str, rules: Sequence[RateRule], judge: str
) -> tuple[dict[str, Estimate], bool | None, bool | None]:
    """Return the distance of each GAN from the target gap, and whether retraining halved it and that of the rates.

    Without a gap of this attribute no distance is returned, and the first answer is True.
    """
    distance = {
        stage: furthest(judges[judge], rules)
        for stage, judges in metrics["rate"][attribute].items()
        if stage in ("retrained", "control")
    }
    of_rates = is_halved(distance["retrained"], distance["control"], SMALL_DISTANCE)
    if attribute not in metrics["gap"]:
        return {}, True, of_rates
    excess = {
        stage: excess_of(as_estimate(judges[judge]), target_gap(rules))
        for stage, judges in metrics["gap"][attribute].items()
    }
    of_gap = is_halved(excess["retrained"], excess["control"], SMALL_GAP)
    if excess["control"].value <= SMALL_GAP and distance["control"].value > SMALL_DISTANCE:
        of_gap = None if math.isnan(excess["retrained"].value) else excess["retrained"].value <= SMALL_GAP
    return excess, of_gap, of_rates


def furthest(rates: Mapping[str, Any], rules: Sequence[RateRule]) -> Estimate:
    """Return the distance of the rate that is furthest from its target; NaN if a rate is unknown.

    Args:
        rates: rates from the metrics by group.
        rules: target rates.
    """
    distances = [excess_of(as_estimate(rates[group_name(rule.where)]), rule.rate) for rule in rules]
    return Estimate(*map(float, np.max(distances, axis=0)))


def meets_targets(certificate: Mapping[str, Any]) -> bool | None:
    """Return whether every target is met by the certificate, or None if none is missed but of one it cannot be told."""
    held = {certify.Verdict.MET: True, certify.Verdict.MISSED: False}
    return _all([held.get(certify.Verdict(target["verdict"])) for target in certificate["targets"]])


def _all(answers: Collection[bool | None]) -> bool | None:
    """Return False if any answer is, None if none is but one is unknown, and True otherwise."""
    return False if False in answers else None if None in answers else True


def excess_of(gap: Estimate, target: float) -> Estimate:
    """Return the distance of a gap from the target gap, with the smallest and largest distance of its interval."""
    near, far = sorted((abs(gap.low - target), abs(gap.high - target)))
    return Estimate(abs(gap.value - target), 0.0 if gap.low <= target <= gap.high else near, far)


def is_halved(retrained: Estimate, control: Estimate, small: float) -> bool | None:
    """Return whether a distance is at most half of the control's; None if intervals overlap or the control's is small.

    Args:
        retrained: distance of the retrained GAN from what was asked for.
        control: that of the control GAN.
        small: up to which distance of the control GAN there is nothing to halve.
    """
    if math.isnan(retrained.value) or math.isnan(control.value) or control.value <= small:
        return None
    if retrained.value > control.value / 2:
        return False
    return True if retrained.high < control.low else None


def describe_run(metrics: Mapping[str, Any], targets: Rebalance, retrain: Retrain | None) -> list[str]:
    """Return what was done, with a paragraph each for edits, swaps and retraining."""
    places = {"dataset": "the original dataset", "samples": "samples of the source GAN"}
    planned = [
        f"{metrics['edits'][name]['planned']:,} in {place}"
        for name, place in places.items()
        if name in metrics["edits"]
    ]
    shown = (
        "Both GANs were also shown the selector's scores of their images. " if retrain and retrain.attributes else ""
    )
    kept = "" if targets.edit.finish == "none" else "Every pixel outside that region kept its value. "
    gans = f"One GAN was retrained on the rebalanced dataset. {CONTROL_IS} {shown}" if retrain else ""
    return [
        f"The target rates are {tables.rates_text(targets.targets)}. The fewest edits that reach them were planned, "
        f"{' and '.join(planned)}.",
        f"{tables.how_edited(targets)} {kept}A first detector, the selector, decided which composites succeeded, and "
        "the best of them was taken. Where none did, the original image was kept.",
        f"{gans}A second detector, the referee, then evaluated every image set. It took no part in the edits.",
    ]


def _headline(
    real: bool | None, is_halved: bool | None, of_bias: str, rates: Sequence[_Rate], **found: bool | None
) -> str:
    if "retrained" not in found:
        return f"{OPENINGS[real]}: {DATASET_IS[found['dataset']]}."
    by_labels = [rate for rate in rates if rate.by == "labels"]
    verdicts = {rate.verdict for rate in by_labels or rates}
    met = next(verdict for verdict in (*NOT_MET, certify.Verdict.MET) if verdict in verdicts)
    by = "labels" if by_labels else "the referee, a detector"
    is_missed = met is certify.Verdict.MISSED
    in_part = found["dataset"] is is_halved is True and is_missed and not by_labels
    said = f"{IN_PART if in_part else OPENINGS[real]}: {DATASET_IS[found['dataset']]}"
    retrained_is = RETRAINED_IS[is_halved].format(of=of_bias)
    if is_missed and (by_labels or is_halved):
        retrained_is = RETRAINED_MISSES
    joined_by = "and" if (found["dataset"] is True) == (found["retrained"] is True) else "but"
    return f"{said}, {joined_by} {retrained_is}. Target rates in its samples: {met}, by {by}."


def _caution(metrics: Mapping[str, Any], targets: Rebalance, least_agreement: float) -> str:
    """Name the image sets, and the groups of edits, on which the detectors disagree too often, with their agreement."""
    several = len(targets.edited) > 1

    def named(attribute: str, which: str) -> str:
        return f"{attribute} of {readable(which)}" if several else which

    agreement = metrics["agreement"]
    doubtful = {
        named(attribute, stage): agreement[stage][attribute]
        for attribute in targets.edited
        for stage in tables.known_stages(agreement)
        if agreement[stage][attribute] < least_agreement
    }
    denied = {
        named(*which): share
        for which, share in tables.denied_groups(metrics["edits"]["dataset"], least_agreement).items()
    }
    low = [
        f"{found['kappa']:.2f} for “{readable(named(attribute, group))}” in “{readable(stage)}” ({found['n']:,} images)"
        for stage, attribute, group, found in tables.low_kappas(metrics["kappa"], LEAST_KAPPA)
        if agreement[stage][attribute] >= least_agreement  # of others it is said that they do not count
    ]
    said = [
        f"Cohen's kappa of the two detectors, their agreement beyond chance, is only {', '.join(low)}. Below "
        f"{LEAST_KAPPA:g} much of their agreement is chance, so these rates are doubtful."
    ] * bool(low)
    for shares, what, which in (
        (doubtful, "images", "rates and gaps of these images do"),
        (denied, "edits of the dataset", "the referee's rate of this group in the rebalanced dataset does"),
    ):
        if shares:
            listed = ", ".join(f"{share_text(share)} for “{readable(name)}”" for name, share in shares.items())
            said.append(
                f"The share of {what} on which the two detectors agree is only {listed}. It must be at least "
                f"{least_agreement:g}, so {which} not count."
            )
    return " ".join(said)


def _say_compared(excess: Mapping[str, Estimate], of_gap: bool | None, of_rates: bool | None) -> list[str]:
    """Say whether retraining halved the distances from the target gap, if there is one, and from the target rates."""
    if any(math.isnan(found.value) for found in excess.values()):
        return [NO_SAMPLES]
    if not excess:
        return [RATES_ARE[of_rates]]
    if excess["control"].value > SMALL_GAP:
        return [GAP_IS[of_gap], RATES_ARE[of_rates]]
    return [NO_BIAS] if of_gap is of_rates is None else [GAP_STAYS[of_gap], RATES_ARE[of_rates]]


@dataclass(frozen=True)
class _Rate:
    """What is known of one target in the samples of the retrained GAN, and whether by labels or by the referee."""

    rule: RateRule
    value: float
    verdict: str
    by: str


def _rates_of_samples(metrics: Mapping[str, Any], targets: Rebalance, least_agreement: float) -> list[_Rate]:
    """Return the rate of every target in the retrained GAN's samples, by labels if there are any."""
    found = []
    labelled = (metrics.get("certificate_samples") or {"targets": [{"rate": None}] * len(targets.targets)})["targets"]
    for rule, certified, by_eye in zip(targets.targets, metrics["certificate"]["targets"], labelled, strict=True):
        if by_eye["rate"] is not None:
            found.append(_Rate(rule, as_estimate(by_eye["rate"]).value, by_eye["verdict"], "labels"))
            continue
        rate = as_estimate(metrics["rate"][rule.attribute]["retrained"]["referee"][group_name(rule.where)])
        verdict = certify.judge(rate, rule.rate, certified["tolerance"])
        if _is_doubtful(metrics, rule.attribute, least_agreement):
            verdict = certify.Verdict.UNKNOWN
        found.append(_Rate(rule, rate.value, verdict, "the referee"))
    return found


def _say_rates(rates: Sequence[_Rate]) -> str:
    said = [
        f"{readable(rate.rule.attribute)} among “{readable(group_name(rate.rule.where))}” "
        f"{'unknown' if math.isnan(rate.value) else format(rate.value, RATE)}, target {rate.rule.rate:{RATE}} "
        f"({rate.verdict}, by {rate.by})"
        for rate in rates
    ]
    return f"Rates in the retrained GAN's samples: {'; '.join(said)}."


def _say_drawing(judged: Mapping[str, Any] | None, attribute: str, target: float, by_referee: Estimate) -> list[str]:
    """Give the GANs' biases by the nearest drawing, if there is such a judge of this attribute and it counts."""
    gaps = gaps_by_drawing(judged, attribute)
    if gaps is None:
        return []
    retrained, control = (excess_of(gap, target) for gap in gaps)
    return [
        f"By the nearest drawing, without a detector, the retrained GAN's bias is {retrained.value:.2f} "
        f"[{retrained.low:.2f}, {retrained.high:.2f}] and the control GAN's {control.value:.2f} "
        f"[{control.low:.2f}, {control.high:.2f}], in samples of which it can tell."
        f"{DRAWING_DISAGREES if retrained.low > by_referee.value else ''}"
    ]


def _say_baselines(excess: Mapping[str, Estimate]) -> list[str]:
    """Say of each further GAN how biased it is, and whether the retrained one is any better."""
    said, retrained = [], excess["retrained"]
    for name in (name for name in BASELINES if name in excess):
        found = excess[name]
        if found.low > retrained.high:
            compared = "more than the retrained GAN's"
        elif found.high < retrained.low:
            compared = "less than the retrained GAN's"
        else:
            compared = "and whether that is more or less than the retrained GAN's could not be determined"
        end = NOT_NEEDED if name == "resampled" and found.low <= retrained.high else ""
        said.append(
            f"{BASELINES_ARE[name]} has a bias of {found.value:.2f} [{found.low:.2f}, {found.high:.2f}], "
            f"{compared}.{end}"
        )
    return said


def _cost(quality: Mapping[str, Any]) -> list[str]:
    """Give the cost in image quality, as the Fréchet distances after editing and retraining."""
    distances = frechet_distances(quality)
    reference = quality["dataset"]["frechet_distance"]["reference"]
    edited = f"The rebalanced dataset's Fréchet distance to {reference} is {distances.text('dataset_rebalanced')}."
    if "retrained" not in quality:
        return [f"{edited} Lower is better."]
    gans = f"The retrained GAN's is {distances.text('retrained')}. The control GAN's is {distances.text('control')}."
    others = "".join(
        f" That of the {readable(name)} is {distances.text(name)}." for name in BASELINES if name in quality
    )
    return [edited, f"{gans}{others} Lower is better."]


def _criterion(targets: Rebalance, retrain: Retrain | None) -> str:
    met = "Every target rate is met in the rebalanced dataset, as the section “Are the target rates met?” tells"
    if not retrain:
        return f"The criterion. {met}."
    several = len(targets.compared) > 1
    wanted = ", ".join(
        f"{target_gap(targets.alone(name).targets):+z.2f}{f' of {readable(name)}' * several}"
        for name in targets.compared
    )
    bias = f"of a group gap from the target gap ({wanted}), and that" if wanted else ""
    return (
        f"The criterion has two parts. {met}. By the referee, the retrained GAN's bias is at most half of the control "
        f"GAN's, and their intervals do not overlap. Bias is the distance {bias} of the rate furthest from its target "
        "among all groups. No target rate is missed in the retrained GAN's samples, by labels of them if there are any "
        "and else by the referee. The intervals account for the choice of images, not for another seed of the training."
    )


def _question(targets: Rebalance) -> str:
    if len(targets.edited) > 1:
        return f"Are {' and '.join(f'“{readable(attribute)}”' for attribute in targets.edited)} at their target rates?"
    *names, last = (f"“{readable(group_name(target.where))}”" for target in targets.targets)
    if not names:
        return f"Is {readable(targets.targets[0].attribute)} at its target rate in {last}?"
    return f"Is {readable(targets.targets[0].attribute)} balanced between {', '.join(names)} and {last}?"


def _describe_gallery(planned: int, targets: Rebalance) -> str:
    """Say what to look for in the gallery."""
    if not planned:
        return "No edits of the original dataset are planned."
    return (
        "Each row is an edit: the image before, the donor, the collage and the image after. Compare the first picture "
        f"of a row with the last. The {tables.regions_text(targets)} should have changed, and the rest should not."
    )


def _caption_gallery(targets: Rebalance) -> str:
    grey = " The encoder does not see grey pixels." if targets.edit.editor.kind == "latent-regression" else ""
    return f"A row is an edit.{grey}"


def _rates_by_group(metrics: Mapping[str, Any], targets: Rebalance, retrain: Retrain | None) -> str:
    """Return tables of the rates of each attribute before and after the edits and the retraining."""
    pairs = [("dataset", "dataset_rebalanced"), *([("control", "retrained")] if retrain else [])]
    sections = []
    for attribute in targets.edited:
        rules = targets.alone(attribute).targets
        rows = [_table(tables.rates_table(metrics, rules, *pair)) for pair in pairs]
        sections += [f"<h2>Rate of {escape(readable(attribute))} by group</h2>", *rows]
    return "\n".join(sections)


def _gaps(metrics: Mapping[str, Any], targets: Rebalance, least_agreement: float) -> str:
    """Return a table of the gaps of each attribute that has one."""
    sections = []
    for attribute in targets.compared:
        of_what = f"gap in {readable(attribute)}" if len(targets.edited) > 1 else "gap"
        heading = f"Group {of_what} in every image set: {tables.groups_text(targets.alone(attribute))}"
        rows = _table(tables.gap_table(metrics, attribute, least_agreement))
        sections.append(f"<h2>{escape(heading)}</h2>\n{rows}")
    return "\n".join(sections)


def _say_gaps(targets: Rebalance) -> list[str]:
    """Say of each attribute between which groups its gap is."""
    if len(targets.edited) == 1 == len(targets.compared):
        return [f"Group gap: {tables.groups_text(targets)}."]
    return [f"Group gap in {readable(name)}: {tables.groups_text(targets.alone(name))}." for name in targets.compared]


def _attributes(targets: Rebalance) -> str:
    return " and ".join(map(readable, targets.edited))


def _describe_rates(attributes: str, retrain: Retrain | None) -> str:
    """Say what to look for in the figure of rates."""
    good, bad = "in the rebalanced dataset", "in the original dataset"
    if retrain:
        good, bad = f"{good} and in the retrained GAN", f"{bad} or in the control GAN"
    return (
        f"Bars of the rate of {attributes} by group, a panel for each image set. Compare the bars with the "
        f"dashed target rates. They should meet {good}, but not {bad}."
    )


def _describe_quality(quality: pd.DataFrame) -> str:
    """Say what the values of the quality table were measured with."""
    measured = quality[tables.MEASURED_WITH].drop_duplicates().itertuples(index=False)
    with_what = " ".join(f"Reference: {n:,} {name}. Extractor of the features: {net}." for net, name, n in measured)
    return f"{with_what} Lower distances, higher coverage and higher density are better."


def _say_samples(found: Mapping[str, Any] | None) -> str:
    """Return the section about the rates of the retrained GAN; empty if there is none."""
    if found is None:
        return ""
    return (
        f"<h2>Does the retrained GAN meet the target rates?</h2>\n<ul>\n{_elements('li', say_samples(found))}\n</ul>\n"
        f'<p class="note">{escape(describe_samples(found))}</p>'
    )


def _say_utility(found: Mapping[str, Any] | None, figure: list[Path]) -> str:
    """Return the section about classifiers; empty if none were trained."""
    if found is None:
        return ""
    said = say_utility(found)
    picture = f'<img class="wide" src="{data_url(figure[0].read_bytes())}" alt="{escape(said)}">'
    table, note = _table(utility_table(found)), escape(describe_utility(found))
    return (
        f'<h2>Does it help?</h2>\n<p>{escape(said)}</p>\n<div class="scroll" tabindex="0">{picture}</div>\n{table}\n'
        f'<p class="note">{note}</p>'
    )


def _say_judged(found: Mapping[str, Any] | None) -> str:
    """Return the section about samples and drawings; empty if they were not compared."""
    if found is None:
        return ""
    return (
        f"<h2>Do the samples show what the detectors say?</h2>\n<ul>\n{_elements('li', say_judged(found))}\n</ul>\n"
        f"{_table(judged_table(found))}\n{_table(confusion_table(found))}\n"
        f'<p class="note">{escape(describe_judged(found))}</p>'
    )


def _say_robustness(metrics: Mapping[str, Any], targets: Rebalance) -> str:
    """Return the section about slightly changed samples; empty without a retrained GAN."""
    rows = tables.robustness_table(metrics, targets)
    if rows.empty:
        return ""
    return (
        f"<h2>The GANs in slightly changed samples</h2>\n{_table(rows)}\n"
        '<p class="note">A GAN that has learnt to deceive a detector instead of balancing what it draws is biased '
        "again when its samples are changed a little. Same is the share of samples of which the detector says the same "
        "as before.</p>"
    )


def _compare_regions(metrics: Mapping[str, Any]) -> str:
    """Return the section about part and box; empty if they were not compared."""
    rows = tables.regions_table(metrics)
    if rows.empty:
        return ""
    extractor = escape(metrics["regions"]["extractor"]["perceptual_distance"])
    return (
        f'<h2>Swapping the part compared with the paper\'s box</h2>\n{_table(rows)}\n<p class="note">Both use the '
        f"same donors in the same images. Extractor of the perceptual distance: {extractor}.</p>"
    )


def _describe_segmenter(segmenter: Mapping[str, Any] | None) -> str:
    if segmenter is None:
        return "No segmenter: the same box is swapped in every image."
    by_part = segmenter["intersection_over_union"]
    if not by_part:
        return "How well the segmenter finds parts is unknown: the dataset has no masks of them."
    parts = ", ".join(f"{readable(part)} {share:.2f}" for part, share in by_part.items())
    return f"Intersection over union of the segmenter on {segmenter['n']:,} held-out images: {parts}."


def _elements(tag: str, texts: list[str]) -> str:
    return "\n".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _table(rows: pd.DataFrame) -> str:
    """Return a table as HTML that scrolls where it is too wide, every cell escaped."""
    if rows.empty:
        return "<p>Not measured in this run.</p>"
    counts = {name: "{:,}".format for name in rows.columns if pd.api.types.is_integer_dtype(rows[name])}
    table = rows.to_html(index=False, border=0, na_rep="–", formatters=counts, float_format=_four_digits)
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _four_digits(value: float) -> str:
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")
