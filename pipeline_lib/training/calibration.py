"""Calibration of a detector's logits by temperature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor


def fit_temperatures(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the temperature of each column that minimises the log loss of logits / temperature (Guo et al. 2017).

    Args:
        logits: (n, attributes).
        truth: 0 or 1, NaN where unknown, which counts for nothing, (n, attributes).
    """
    temperatures = []
    for column in range(logits.shape[1]):
        known = ~truth[:, column].isnan()

        def loss(log_temperature: float, column: int = column, known: Tensor = known) -> float:
            scaled = logits[known, column] / math.exp(log_temperature)
            return float(F.binary_cross_entropy_with_logits(scaled, truth[known, column]))

        temperatures.append(math.exp(minimize_scalar(loss, bounds=(-1.5, 3.0), method="bounded").x))
    return torch.tensor(temperatures)
