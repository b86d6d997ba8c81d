"""The biased subset of UTKFace on which methods against bias are compared, as a table for the reader `folder`.

The protocol is that of Hong and Yang ("Unbiased classification through bias-contrastive and bias-balanced learning",
NeurIPS 2021). Gender is the target, and race (white or not) or age (20 and over, or 10 and under) goes with it. For
training there is a random 80 % of the files. Of these all men with white or older faces and all women with others stay,
and a tenth as many of the rest. The other 20 % are the test, and keep their own rates. The paper's draws are not known.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.runtime.errors import DataError

NAME = re.compile(r"(\d+)_([01])_([0-4])_\d+\.jpg.*")  # age, gender (1 is female), race (0 is white), date
TRAIN_SHARE, CONFLICTING = 0.8, 0.1  # of the files; images that contradict the bias, over those that follow it


def read_names(folder: Path) -> pd.DataFrame:
    """Return image, female, white and age of every file whose name has all labels; a few published ones lack the race.

    Raises:
        DataError: the folder has no such file.
    """
    found = [(path.name, NAME.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    rows = [(name, match[2] == "1", match[3] == "0", int(match[1])) for name, match in found if match]
    if not rows:
        raise DataError(
            f"{folder}: no files named <age>_<gender>_<race>_<date>.jpg; unpack UTKFace's cropped images here"
        )
    return pd.DataFrame(rows, columns=["image", "female", "white", "age"])


def biased(images: pd.DataFrame, bias: str, seed: int) -> pd.DataFrame:
    """Return image, female, the bias (`white` or `adult`) and split of the images of the protocol.

    Args:
        images: image, female, white and age.
        bias: "race" or "age".
        seed: of the random draws.
    """
    random = np.random.default_rng(seed)
    drawn = images.iloc[random.permutation(len(images))].reset_index(drop=True)
    drawn["split"] = np.where(drawn.index < TRAIN_SHARE * len(drawn), "train", "held_out")
    if bias == "age":
        drawn = drawn[(drawn["age"] >= 20) | (drawn["age"] <= 10)].assign(adult=lambda table: table["age"] >= 20)
    column = "white" if bias == "race" else "adult"
    kept = [drawn[drawn["split"] == "held_out"]]
    for value in (True, False):
        group = drawn[(drawn["split"] == "train") & (drawn[column] == value)]
        follows = group["female"] != value  # men are white or adult, women are neither
        kept += [group[follows], group[~follows].head(int(CONFLICTING * follows.sum()))]
    return pd.concat(kept).astype({"female": int, column: int})[["image", "female", column, "split"]]
