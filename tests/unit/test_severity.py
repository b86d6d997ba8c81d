"""Each strength of the bias is a config of its own without any GAN, and the curves are those of the runs."""

from __future__ import annotations

import pytest

from benchmarks.severity import SEVERITIES, SHOWN, config_of, severity_figure, summarise
from pipeline_lib.config import parse_config


@pytest.mark.parametrize("name", SEVERITIES)
def test_every_strength_is_a_config_that_needs_no_gan(name):
    config = parse_config(config_of(name, 3))
    assert config.seed == 3
    assert not config.uses_encoder
    assert config.retrain is None
    assert [rule.rate for rule in config.data.held_out_rates] == [0.5, 0.5]
    long_hair, short_hair = (rule.rate for rule in config.data.rates)
    assert long_hair == SEVERITIES[name][0]
    assert short_hair == pytest.approx(1 - SEVERITIES[name][1])


def test_the_curve_has_the_median_and_the_range_of_the_seeds():
    def run(value):
        method = {"worst_group": {"value": value}, "images": {"a": 900, "b": 20}}
        return {"methods": dict.fromkeys(SHOWN, method), "detectors": {"selector": value, "referee": 1.0}}

    summary = summarise({"0.80": [run(0.5), run(0.9), run(0.6)], "0.99": [run(0.1), run(0.2), run(0.3)]})
    assert summary["0.80"]["worst_group"]["rebalanced"] == {
        "median": 0.6, "low": 0.5, "high": 0.9, "values": [0.5, 0.9, 0.6],
    }  # fmt: skip
    assert summary["0.99"]["detectors"]["selector"]["median"] == 0.2
    assert summary["0.80"]["images_in_rarest_cell"] == [20, 20, 20]
    axes = severity_figure(summary).axes[0]
    assert len(axes.get_legend_handles_labels()[1]) == len(SHOWN)
