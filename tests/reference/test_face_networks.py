"""The face detector and the face mesh give what the model files gave that they were made from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline_lib.faces.networks import FaceDetector, FaceMesh, load_network

#: Every so many of the outputs that ai-edge-litert 2.3.0 computed from mediapipe 0.10.21 on `pattern`.
LOGITS = [-5.5535, -4.0908, -4.6185, -3.9848, -3.3985, -5.2315]
PLACES = [0.3067, -10.0528, -1.926, 0.1092, -5.3125, 5.5069]
LANDMARKS = [110.3043, 83.0622, 46.9328, 31.9785, 114.2944, 137.4276]
PRESENCE = -7.383


def pattern(side: int) -> torch.Tensor:
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(11 * x * y)])
    return torch.from_numpy(waves.astype(np.float32))[None]


def every(values: torch.Tensor, count: int = 6) -> list[float]:
    flat = values.flatten()
    return flat[:: len(flat) // count][:count].tolist()


def test_the_detector_is_the_published_one():
    logits, places = load_network(FaceDetector, torch.device("cpu"))(pattern(FaceDetector.side))
    assert logits.shape == (1, 896) and places.shape == (1, 896, 16)
    assert every(logits) == pytest.approx(LOGITS, abs=1e-3)
    assert every(places) == pytest.approx(PLACES, abs=1e-3)


def test_the_mesh_is_the_published_one():
    landmarks, presence = load_network(FaceMesh, torch.device("cpu"))((pattern(FaceMesh.side) + 1) / 2)
    assert landmarks.shape == (1, 468, 3)
    assert every(landmarks) == pytest.approx(LANDMARKS, abs=1e-3)
    assert float(presence) == pytest.approx(PRESENCE, abs=1e-3)
