"""Encoders are compared on real images of which some pixels are unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline_lib.config import Encoder
from pipeline_lib.studies.catalogue import encoder_section
from pipeline_lib.studies.study import GROUPS, groups_of


def test_groups_are_equal_and_disjoint():
    groups = groups_of(np.arange(23.0)[:, None])
    assert [len(group) for group in groups] == [4] * GROUPS
    assert len(np.unique(np.concatenate(groups))) == 20


@pytest.mark.parametrize(
    ("variant", "weights", "kind"),
    [
        ("all_losses", (1, 1, 1), "random"),
        ("no_latent", (1, 1, 0), "random"),
        ("no_perceptual", (1, 0, 1), "random"),
        ("rgb", (1, 1, 1), "none"),
    ],
)
def test_encoders_of_the_studies_differ_in_one_thing_alone(variant, weights, kind):
    square = {"top": 0.25, "left": 0.25, "side": 0.5}
    own = Encoder(
        weights="given.pth", mask={"least": 0.5}, training={"kimg": 2, "mse": 3, "local": square, "collages": 0.5}
    )
    section = encoder_section(own, variant, "quick")
    training = section.training
    assert (training.mse, training.perceptual, training.latent, section.mask.kind) == (*weights, kind)
    assert (section.weights, section.mask.least, training.kimg, training.local, training.collages) == (
        None, 0.5, 10, None, 0,
    )  # fmt: skip
    assert math.isclose(own.training.mse, 3)  # the run's own is left as it is
