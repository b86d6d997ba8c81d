"""A direction learned from biased images drags the group along, and composition does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import Evaluate, Rebalance, Studies
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies import direction
from pipeline_lib.studies.direction import ATTRIBUTE, GROUP, L1, LEARNED, METHODS, UNCHANGED, study_direction
from pipeline_lib.studies.interpolation import COMPOSITION, LATENT
from pipeline_lib.studies.report import studies_page

SIDE, COUNT = 32, 80
CODES = np.zeros((SIDE, SIDE), np.int64)
CODES[20:28, 8:24] = 1  # the mouth
HAIR = slice(0, 8)
REBALANCE = Rebalance(
    targets=[{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)],
    edit={"region": {"kind": "part", "name": "mouth", "grow": 0, "buffer": 0}},
)


class Perfect:
    """Its latents are the pixels."""

    precision = "float32"

    def __call__(self, images, known):
        return images

    def encode(self, images, known):
        return images.flatten(1)

    def decode(self, latents):
        return latents.view(-1, 3, SIDE, SIDE).clamp(-1, 1)


class Judge:
    """Sees a smile in a bright mouth, and long hair in a bright top."""

    def index(self, attribute):
        return ["smiling", "long_hair"].index(attribute)

    def logits(self, images):
        mouth = images[:, :, torch.from_numpy(CODES == 1)]
        return torch.stack([mouth.mean(dim=(1, 2)), images[:, :, HAIR].mean(dim=(1, 2, 3))], dim=1)


@pytest.fixture
def study(tmp_path, write_shards, monkeypatch):
    """Return a function that runs the study on images in which nearly every smile has long hair."""
    names = [f"image-{number:02d}" for number in range(COUNT)]
    smiling = np.arange(COUNT) % 2 == 0
    long_hair = smiling ^ (np.arange(COUNT) % 20 == 1)
    pixels = np.full((COUNT, SIDE, SIDE, 3), 110, np.uint8)
    pixels[:, CODES == 1] = np.where(smiling, 200, 60)[:, None, None]
    pixels[:, HAIR] = np.where(long_hair, 180, 90)[:, None, None, None]
    rows = [row for name in names for row in part_rows(name, CODES, ["background", "mouth"])]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    scores = pd.DataFrame({"image_id": names, "smiling": smiling.astype(np.float32), "long_hair": np.float32(0)})
    write_table(tmp_path / "scores.parquet", "scores", scores)
    monkeypatch.setattr(direction, "open_inverter", lambda *_, **__: Perfect())
    monkeypatch.setattr(direction, "load_weights", lambda *_: Judge())
    for file in ("encoder", "generator", "precision", "referee"):
        (tmp_path / file).write_text(file)

    def run(images=20):
        study_direction(
            images=write_shards(pixels, names),
            parts=tmp_path / "parts.parquet",
            scores=tmp_path / "scores.parquet",
            **{file: tmp_path / file for file in ("encoder", "generator", "precision", "referee")},
            rebalance=REBALANCE,
            settings=Studies(direction={"images": images, "fit": COUNT}),
            evaluate=Evaluate(),
            run="toy",
            seed=0,
            table=tmp_path / "table.parquet",
            pictures=tmp_path / "pictures.npz",
            device=torch.device("cpu"),
        )
        return read_table(tmp_path / "table.parquet", "studies")

    return run


def test_the_learned_direction_changes_the_group_with_the_attribute(study, tmp_path):
    table = study()
    values = table.set_index(["row", "metric"])["value"]
    assert (values[UNCHANGED, ATTRIBUTE], values[UNCHANGED, GROUP], values[UNCHANGED, L1]) == (0, 1, 0)
    assert (values[COMPOSITION, ATTRIBUTE], values[COMPOSITION, GROUP], values[COMPOSITION, L1]) == (1, 1, 0)
    assert values[LEARNED, ATTRIBUTE] == 1
    assert values[LEARNED, GROUP] < 0.5  # it has learnt the hair as well
    assert values[LEARNED, L1] > 0
    assert values[LATENT, ATTRIBUTE] == 0
    page = studies_page(table)
    assert f"- Composition has a larger {GROUP} than {LEARNED}" in page
    with np.load(tmp_path / "pictures.npz") as found:
        assert found["pixels"].shape == (6, 2 + len(METHODS), SIDE, SIDE, 3)


def test_too_few_images_without_the_attribute_are_named(study):
    with pytest.raises(DataError, match=r"`studies.direction.images`: 41, but .* 40 lack `smiling` and 40 have it"):
        study(images=41)
