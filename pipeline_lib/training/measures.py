"""How well detectors and the segmenter do on held-out images."""

from __future__ import annotations

from typing import Any

import numpy as np


def detector_report(probabilities: np.ndarray, truth: np.ndarray, attributes: list[str]) -> dict[str, Any]:
    """Measure a detector: probabilities and truth are (n, attributes); returns figures by attribute."""
    report = {}
    for column, attribute in enumerate(attributes):
        probability, true = probabilities[:, column], truth[:, column]
        said = probability > 0.5
        report[attribute] = {
            "n": len(true),
            "accuracy": float((said == true).mean()),
            "positives": int(true.sum()),
            "true_positives": int((said & true).sum()),
            "negatives": int((~true).sum()),
            "false_positives": int((said & ~true).sum()),
            "calibration_error": expected_calibration_error(probability, true),
        }
    return report


def expected_calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Return the mean distance of confidence and frequency over equal-width bins, weighted by their counts."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for bin_number in range(bins):
        inside = which == bin_number
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    return float(error)


def intersection_over_union(
    found: np.ndarray, found_names: list[str], truth: np.ndarray, true_names: list[str]
) -> dict[str, Any]:
    """Measure the parts that both know, by name, in part codes (n, H, W); one that is in neither has no figure.

    The background, which is what no part is, counts only where both know the same parts.
    """
    shared = [name for name in found_names if name in true_names]
    if set(found_names) != set(true_names):
        shared.remove("background")
    by_part = {}
    for name in shared:
        here, there = found == found_names.index(name), truth == true_names.index(name)
        union = int((here | there).sum())
        if union:
            by_part[name] = float((here & there).sum() / union)
    mean = float(np.mean(list(by_part.values()))) if by_part else None
    return {"n": len(truth), "intersection_over_union": by_part, "mean": mean}
