"""Calibration of a detector's logits by temperature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor


def fit_temperatures(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the temperature of each column that minimises the log loss of logits / temperature (Guo et al. 2017)."""
    temperatures = []
    for column in range(logits.shape[1]):

        def loss(log_temperature: float, column: int = column) -> float:
            scaled = logits[:, column] / math.exp(log_temperature)
            return float(F.binary_cross_entropy_with_logits(scaled, truth[:, column]))

        temperatures.append(math.exp(minimize_scalar(loss, bounds=(-1.5, 3.0), method="bounded").x))
    return torch.tensor(temperatures)
