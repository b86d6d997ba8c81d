"""Gaps of samples are measured again after changes that no person would call another face."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline_lib.audit.estimate import wilson_rate
from pipeline_lib.config import Evaluate, Rebalance
from pipeline_lib.evaluation.rates import gap
from pipeline_lib.evaluation.robustness import CHANGES, evaluate_robustness
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.classifier import PlainClassifier, ResidualClassifier
from pipeline_lib.runtime.files import read_json

ATTRIBUTES = ["smiling", "long_hair"]
TARGETS = Rebalance(
    targets=[{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]
)


class TopPixel(PlainClassifier):
    """Sees a smile where the first pixel is light, and long hair where the last one is."""

    def view_logits(self, images):
        return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, -1]], dim=1)


@pytest.fixture
def evaluate(tmp_path, write_shards, monkeypatch):
    """Return a function that measures the samples of one GAN by two detectors."""
    detectors = {"selector": TopPixel(ATTRIBUTES, 4, mirror=False), "referee": ResidualClassifier(ATTRIBUTES, 4).eval()}
    for name, detector in detectors.items():
        save_weights(tmp_path / f"{name}.safetensors", detector, {})

    def load(path, kind, device):
        return detectors[path.stem].to(device)

    monkeypatch.setattr("pipeline_lib.evaluation.robustness.load_weights", load)

    def run(pixels, targets=TARGETS):
        names = [f"{number}" for number in range(len(pixels))]
        shards = write_shards(pixels, names, "retrained", 2)
        evaluate_robustness(
            images=shards,
            selector=tmp_path / "selector.safetensors",
            referee=tmp_path / "referee.safetensors",
            targets=targets,
            settings=Evaluate(),
            robustness=tmp_path / "robustness.json",
            device=torch.device("cpu"),
            batch=32,
        )
        return read_json(tmp_path / "robustness.json")["retrained"]

    return run


def test_the_gap_of_unchanged_samples_is_that_of_the_detectors_opinions(evaluate):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), np.uint8)
    found = evaluate(pixels)
    assert set(found) == set(CHANGES)
    smiling, long_hair = pixels[:, 0, 0, 0] > 127, pixels[:, -1, -1, 0] > 127
    rates = [wilson_rate(int(smiling[group].sum()), int(group.sum()), 0.95) for group in (long_hair, ~long_hair)]
    expected = gap(*rates)
    assert found["unchanged"]["selector"]["value"] == pytest.approx(expected.value, abs=1e-6)
    assert found["unchanged"]["selector"]["ci"] == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert found["unchanged"]["selector"]["same"] == found["unchanged"]["referee"]["same"] == 1


def test_a_single_target_has_no_gap_in_changed_samples(evaluate):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    found = evaluate(pixels, TARGETS.model_copy(update={"targets": TARGETS.targets[:1]}))
    for detectors in found.values():
        assert {name: (gap["value"], gap["ci"]) for name, gap in detectors.items()} == dict.fromkeys(
            ("selector", "referee"), (None, [None, None])
        )


def test_a_smile_for_one_detector_in_one_pixel_does_not_outlive_the_changes(evaluate):
    pixels = np.full((60, 32, 32, 3), 90, np.uint8)
    pixels[30:, 16:, 16:] = 160  # long hair, for the selector
    pixels[:, 0, 0] = 130  # a smile, for it
    found = evaluate(pixels)
    assert found["unchanged"]["selector"]["same"] == 1
    for change in ("blur", "resampling", "jpeg"):
        assert found[change]["selector"]["same"] < 0.1, change


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_all_of_one_colour_stays_what_it_is(change):
    pixels = torch.full((2, 64, 64, 3), 200, dtype=torch.uint8)
    images = to_float(pixels.permute(0, 3, 1, 2), torch.device("cpu"))
    changed = CHANGES[change](images)
    assert changed.shape == images.shape
    assert (changed - images).abs().max() < 0.02  # two steps of 255
