"""Each strength of the bias is a config of its own without any GAN, and the curves are those of the runs."""

from __future__ import annotations

import pytest

from experiments.severity import SEVERITIES, SHOWN, check_summary, config_of, severity_figure, summarise
from pipeline_lib.config import parse_config


@pytest.mark.parametrize("name", SEVERITIES)
def test_every_strength_is_a_config_that_needs_no_gan(name):
    config = parse_config(config_of(name, 3))
    assert (config.seed, config.data.seed) == (3, 3)
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


def summary_of(**worst):
    found = {
        "worst_group": {
            name: {"median": value, "low": value - 0.02, "high": value + 0.02} for name, value in worst.items()
        }
    }
    return {"20 images": found, "0.80": found}


KEPT = {
    "original": 0.1, "reweighted": 0.3, "resampled": 0.8, "group_dro": 0.5, "rebalanced": 0.9,
    "rebalanced_reweighted": 0.9, "ideal": 0.93,
}  # fmt: skip


def failures(**changes):
    return {
        check.promise.split(" is at ")[0] for check in check_summary(summary_of(**KEPT | changes)) if not check.passed
    }


def test_what_is_said_of_the_curves_is_checked():
    assert failures() == set()
    assert failures(rebalanced=0.79, ideal=0.8, resampled=0.7) == {"20 images: worst group of `rebalanced`"}
    assert failures(reweighted=0.5) == {"20 images: worst group of `rebalanced` over that of `reweighted`"}
    assert failures(ideal=0.96) == {"20 images: what `rebalanced` lacks of the ideal edits"}
    assert failures(resampled=0.92) == {"20 images: worst group of `rebalanced` over the best without edits"}
    assert failures(rebalanced_reweighted=0.2) == {"0.80: what weights lose by edits, beyond the range over seeds"}
    assert check_summary({}) == []
