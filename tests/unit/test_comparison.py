"""Methods are compared on the same collages, and what is not done is said."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline_lib.config import Studies
from pipeline_lib.studies.comparison import RATIO, TITLES
from pipeline_lib.studies.report import studies_page


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (150, 160, "As in the paper, one pass is at least 100 times as fast as L-BFGS, 155 times"),
        (50, 60, "Unlike in the paper, one pass is less than 100 times as fast as L-BFGS, 55 times"),
        (90, 120, "Whether one pass is 100 times as fast as L-BFGS could not be determined. It is 105 times"),
    ],
)
def test_how_much_faster_one_pass_is_counts_with_its_interval(low, high, sentence):
    row = {"study": "comparison", "row": "L-BFGS", "metric": RATIO, "value": (low + high) / 2, "n": 5, "paper": None}
    assert sentence in studies_page(pd.DataFrame([row | {"ci_low": low, "ci_high": high}]))


def test_a_config_can_name_the_methods():
    every = Studies()
    of_style, of_progan = set(every.compared("stylegan2")), set(every.compared("progan"))
    assert of_style | of_progan == set(TITLES)
    assert of_style - of_progan == {"im2stylegan", "stylegan-projection", "pyramid"}
    assert of_progan - of_style == {"multi-code"}
    assert Studies(methods=["lbfgs", "latent-regression"]).compared("progan") == ["latent-regression", "lbfgs"]
    with pytest.raises(ValueError, match="`methods` lacks latent-regression"):
        Studies(methods=["lbfgs"])
