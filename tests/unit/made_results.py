"""Results of a run, made up: every section of `metrics.json` with the rates that a test asks for."""

from __future__ import annotations

from pipeline_lib.audit.estimate import wilson_rate
from pipeline_lib.evaluation.rates import gap
from pipeline_lib.evaluation.results import Metrics

GROUPS = ("long_hair", "not long_hair")
RATES = {
    "dataset": (0.80, 0.20),
    "samples": (0.70, 0.30),
    "samples_rebalanced": (0.52, 0.48),
    "dataset_rebalanced": (0.51, 0.49),
    "retrained": (0.52, 0.48),
    "control": (0.72, 0.28),
}
#: Those of a run without a retrained GAN, and of one whose editor needs no network.
NOT_RETRAINED = {name: rates for name, rates in RATES.items() if name not in ("retrained", "control")}
NO_NETWORK = {name: RATES[name] for name in ("dataset", "dataset_rebalanced")}
MEASURED = {"extractor": "stlpips-alex", "reference": "held-out real images", "n": 2000, "n_reference": 1500}
DETECTOR = {
    "n": 1000, "accuracy": 0.98765, "positives": 400, "true_positives": 390, "negatives": 600,
    "false_positives": 2, "calibration_error": 0.0123456, "cells": {},
}  # fmt: skip
ENTRY = {
    "attribute": "smiling", "planned": 60, "share_successful": 0.4, "share_vetoed": 0.25, "donors": 80,
    "effective_donors": 61.4, "most_uses": 5, "share_confirmed": 0.98,
    "changed": {"beard": {"share": 0.01, "towards": -0.01}, "hat": {"share": 0.03, "towards": 0.0}},
}  # fmt: skip
EDITS = {
    "planned": 120, "candidates": 1920, "candidates_successful": 700, "succeeded_by_selector": 110, "replaced": 5,
    "succeeded_by_referee": 96, "share_by_selector": 110 / 120, "share_by_referee": 0.8,
    "share_in_their_group_by_referee": 0.9975, "masked_l1": 0.0712345,
    "targets": [
        {"group": group, "attribute": "smiling", "rate_before": 0.8, "rate_wanted": 0.5, "edits": 60, "size": 400}
        for group in GROUPS
    ],
    "ledger": [
        ENTRY | {"group": "long_hair", "made": 60, "share_without_success": 0.0},
        ENTRY | {"group": "not long_hair", "made": 55, "share_without_success": 10 / 60},
    ],
}  # fmt: skip
CERTIFIED = {
    "attribute": "smiling", "target": 0.5, "tolerance": 0.03, "edited": 60, "audited": 0, "labels_there": 0,
    "labels_needed": 120, "rate": {"value": 0.5, "ci": [0.41, 0.62]},
}  # fmt: skip
CERTIFIED_SAMPLES = {
    "attribute": "smiling", "target": 0.5, "tolerance": 0.03, "by_referee": {"value": 0.52, "ci": [0.49, 0.55]},
    "told": 0, "agree": 0, "errors": {name: {"n": 0, "wrong": 0} for name in ("with", "without")}, "rate": None,
    "labels_needed": 450, "samples_needed": 20000, "verdict": "not enough evidence",
}  # fmt: skip


def rates_of(rates, n=2000):
    """Return rates by group, and the gaps, of each image set, the same by every source of labels."""
    by_group, gaps = {}, {}
    for stage, pair in rates.items():
        estimates = [wilson_rate(round(rate * n), n, 0.95) for rate in pair]
        sources = ("truth", "selector", "referee", "corrected")[stage != "dataset" :]
        value, *ci = gap(*estimates)
        gaps[stage] = {source: {"value": value, "ci": ci} for source in sources}
        of_groups = {
            name: {"value": rate, "ci": [low, high], "n": n}
            for name, (rate, low, high) in zip(GROUPS, estimates, strict=True)
        }
        by_group[stage] = dict.fromkeys(sources, of_groups)
    return by_group, gaps


def kappas_of(n=2000, **low):
    """Return Cohen's kappa of the detectors by group, 0.98 but for those that are given."""
    return {group: {"n": n, "agree": n - 1, "kappa": low.get(group, 0.98)} for group in GROUPS}


def method_of(worst):
    """Return what was found of a classifier whose worst group has this accuracy."""
    near = {"value": worst, "ci": [worst - 0.05, worst + 0.05]}
    names = ("worst_group", "balanced_accuracy", "parity_gap", "equalized_odds")
    cells = {"long_hair, smiling": worst, "long_hair, not smiling": 0.95}
    return {"images": {"long_hair, smiling": 40}, "label_error": 0.01, "cells": cells} | dict.fromkeys(names, near)


def utility_of(verdict="better", value=0.1, needed=None):
    """Return what was found of classifiers, with a verdict on the gain by edits."""
    gain = {"value": value, "ci": [value - 0.05, value + 0.05], "margin": 0.02, "verdict": verdict}
    return {
        "attribute": "smiling", "seeds": 3, "held_out": {"long_hair, smiling": 200}, "left_out": [], "untrained": [],
        "methods": {"original": method_of(0.6), "group_dro": method_of(0.7), "rebalanced": method_of(0.7 + value)},
        "gain": gain | {"with_edits": "rebalanced", "without": "group_dro", "held_out_needed": needed},
    }  # fmt: skip


def results_of(rates=RATES, n=2000, certified=("met", "met")):
    """Return plain values of every section of `metrics.json`."""
    by_group, gaps = rates_of(rates, n)
    gans = [name for name in ("control", "retrained") if name in rates]
    gap_of_change = {"value": 0.1, "ci": [0.05, 0.15], "same": 0.98}
    pooled = {"auc": {"value": 0.62, "ci": [0.6, 0.65]}, "frechet_distance": 0.1, "frechet_distance_of_halves": 0.05}
    leakage = {"cells": {}, "left_out": {}, "pooled": pooled, "extractor": "stlpips-alex"}
    return {
        "rate": {"smiling": by_group},
        "gap": {"smiling": gaps},
        "agreement": {stage: {"smiling": 0.99} for stage in rates},
        "kappa": {stage: {"smiling": kappas_of(n)} for stage in rates},
        "quality": {
            stage: {
                "frechet_distance": {"value": 1e-5 * (1 + number), **MEASURED},
                "coverage": {"value": 0.91234567, **MEASURED},
            }
            for number, stage in enumerate(rates)
        },
        "edits": {name: EDITS for name in ("samples", "dataset") if name in rates},
        "counterfactual": None,
        "leakage": {
            name: leakage | {"crop": {"top": 4, "bottom": 9, "left": 2, "right": 7}}
            for name in ("samples", "dataset")
            if name in rates
        },
        "utility": None,
        "robustness": {
            name: {
                change: {detector: gap_of_change for detector in ("selector", "referee")}
                for change in ("unchanged", "jpeg")
            }
            for name in gans
        },
        "certificate": {
            "source": None,
            "confidence": 0.95,
            "targets": [
                CERTIFIED | {"group": group, "verdict": verdict}
                for group, verdict in zip(GROUPS, certified, strict=True)
            ],
        },
        "certificate_samples": {
            "source": None, "confidence": 0.95, "samples": 2000, "labels": 0, "unclear": 0, "assumed_errors": 0.02,
            "agreement": [], "targets": [CERTIFIED_SAMPLES | {"group": group} for group in GROUPS],
        } if gans else None,
        "detectors": {"referee": {"smiling": DETECTOR}, "selector": {"smiling": DETECTOR | {"positives": 0}}},
        "segmenter": {"n": 1000, "intersection_over_union": {"mouth": 0.93}, "mean": 0.93},
        "timing": {"prepare_dataset": 31.26, "swap_parts/0": 140.5},
        "closest_renderings": None,
    }  # fmt: skip


def metrics_of(rates=RATES, n=2000, certified=("met", "met"), **sections):
    """Return the metrics of a run, some of whose sections are given."""
    return Metrics.model_validate(results_of(rates, n, certified) | sections)
