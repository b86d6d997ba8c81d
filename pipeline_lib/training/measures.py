"""Metrics of detectors and of the segmenter on held-out images."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline_lib.config.columns import column_of
from pipeline_lib.rebalance.groups import group_name


def detector_report(probabilities: np.ndarray, truth: np.ndarray, attributes: list[str]) -> dict[str, Any]:
    """Return a detector's metrics by attribute, from probabilities and ground truth (n, attributes).

    The truth is 0 or 1, and NaN where it is unknown; such images count for nothing.
    """
    report = {}
    for column, attribute in enumerate(attributes):
        known = ~np.isnan(truth[:, column])
        probability, true = probabilities[known, column], truth[known, column] > 0.5
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


def cell_accuracies(
    probabilities: np.ndarray, truth: np.ndarray, attributes: list[str], related: list[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a detector's accuracy for each related attribute in each cell that the related attributes form.

    Args:
        probabilities: (n, attributes).
        truth: 0 or 1, NaN where unknown, (n, attributes); an image is in no cell if a related attribute is unknown.
        attributes: names of the columns.
        related: attributes of the targets and of their conditions.

    Returns:
        {attribute: {cell: {"n", "accuracy"}}}, with cells such as `smiling and not long_hair`; empty ones are left out.
    """
    columns = [attributes.index(name) for name in related]
    right = (probabilities > 0.5) == truth
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in related}
    told = truth[~np.isnan(truth[:, columns]).any(axis=1)]
    for values in np.unique(told[:, columns], axis=0)[::-1].tolist():
        inside = (truth[:, columns] == values).all(axis=1)
        cell = group_name(_without_other_values(dict(zip(related, values, strict=True))))
        for name, column in zip(related, columns, strict=True):
            found[name][cell] = {"n": int(inside.sum()), "accuracy": float(right[inside, column].mean())}
    return found


def _without_other_values(cell: dict[str, bool]) -> dict[str, bool]:
    """Leave out of a cell which values a column has not, where it says which one it has."""
    known = {column_of(name) for name, holds in cell.items() if holds and "=" in name}
    return {name: holds for name, holds in cell.items() if holds or "=" not in name or column_of(name) not in known}


def expected_calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Return the mean absolute difference of confidence and frequency over equal-width bins, weighted by count."""
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
    """Return the intersection over union of each part that both name, given part codes (n, H, W).

    Parts that occur in neither are left out. The background is included only if both name the same parts.
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
