"""Collages for detectors have the region of a donor, its value of the attribute, and nothing else of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import BoxRegion, Detectors, PartRegion, SupervisedTraining
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.training import detector
from pipeline_lib.training.region_collages import RegionCollages, SwappedRegion

SIDE = 16
MOUTH = np.zeros((SIDE, SIDE), bool)
MOUTH[10:14, 5:11] = True
REGION = PartRegion(name="mouth", grow=0.0, buffer=0.0)


def collages(share, images, truth, packed=None, positions=None):
    packed = torch.from_numpy(np.packbits(MOUTH)).expand(len(images), -1) if packed is None else packed
    positions = torch.arange(len(images)) if positions is None else positions
    return RegionCollages(images, truth, [SwappedRegion(REGION, packed, 0)], positions, [0, 1], share)


def test_a_collage_has_the_donors_region_and_its_value_and_unknown_attributes_weigh_nothing():
    values = torch.arange(40, dtype=torch.uint8)
    images = values.view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    truth = torch.stack([values % 2, values // 20, values % 3 // 2], dim=1).float()
    chosen, weights = torch.arange(0, 40, 2), torch.full((20, 3), 7.0)
    made, found, weighed = collages(1.0, images, truth)(chosen, weights, torch.Generator().manual_seed(0))
    mouth = torch.from_numpy(MOUTH)
    donor = made[:, 0, mouth]
    assert (donor == donor[:, :1]).all()
    assert (made[:, :, ~mouth] == chosen.view(-1, 1, 1)).all()
    assert found[:, 0].equal((donor[:, 0] % 2).float())  # by the donor
    assert found[:, 1:].equal(truth[chosen, 1:])  # by the image
    assert 0 < found[:, 0].mean() < 1
    assert weighed.equal(torch.tensor([1.0, 1.0, 0.0]).expand(20, -1))


def test_without_a_share_or_without_the_part_images_stay_as_they_are():
    images = torch.randint(0, 256, (12, 3, SIDE, SIDE), dtype=torch.uint8)
    truth, weights = torch.zeros(12, 3), torch.full((12, 3), 2.0)
    packed = torch.from_numpy(np.packbits(MOUTH)).expand(12, -1).clone()
    packed[:6] = 0
    for share, unchanged in ((0.0, slice(None)), (1.0, slice(6))):
        made, _, weighed = collages(share, images, truth, packed)(
            torch.arange(12), weights, torch.Generator().manual_seed(0)
        )
        assert made[unchanged].equal(images[unchanged])
        assert weighed[:6].equal(weights[:6])  # nothing to take from a collage
    weighed = collages(0.0, images, truth, packed)(torch.arange(12), weights, torch.Generator().manual_seed(0))[2]
    assert weighed[6:].equal(torch.tensor([0.0, 0.0, 2.0]).expand(6, -1))  # the related ones only from collages


def test_regions_come_from_the_detectors_own_half_alone():
    values = torch.arange(20, dtype=torch.uint8)
    images = values.view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    own = torch.arange(0, 20, 2)
    made = collages(1.0, images, torch.zeros(20, 2), positions=own)(own, torch.ones(10, 2), torch.Generator())[0]
    assert (made % 2 == 0).all()


def test_of_several_regions_each_collage_has_one_with_what_that_shows():
    values = torch.arange(60, dtype=torch.uint8)
    images = values.view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    truth = torch.stack([values % 2, values // 20 % 2], dim=1).float()
    packed = torch.from_numpy(np.packbits(MOUTH)).expand(60, -1)
    top = BoxRegion(top=0.0, bottom=0.25, left=0.0, right=1.0)
    swapped = [SwappedRegion(REGION, packed, 0), SwappedRegion(top, packed, 1)]
    made, found, _ = RegionCollages(images, truth, swapped, values.long(), [0, 1], 1.0)(
        values.long(), torch.ones(60, 2), torch.Generator().manual_seed(0)
    )
    donors = [made[:, 0, 11, 7].long(), made[:, 0, 0, 0].long()]
    own = values.long()
    for attribute, donor in enumerate(donors):
        assert (donor != own).sum() > 15
        assert found[:, attribute].equal(truth[donor, attribute])
    assert not ((donors[0] != own) & (donors[1] != own)).any()


@pytest.fixture
def accuracy(tmp_path, write_shards, train_small_detector, monkeypatch):
    """Return a function that trains a detector where brightness goes with smiles, and tests it where it does not."""

    for constant, value in {"BLUR": 0.3, "NOISE": 0.0, "COLOR": 0.0}.items():
        monkeypatch.setattr(detector, constant, value)

    def train(share, region=REGION, part="mouth"):
        random = np.random.default_rng(0)
        count = 240
        names = [f"image-{number:03d}" for number in range(count)]

        def drawn(smiling, bright):
            pixels = random.integers(0, 40, (count, SIDE, SIDE, 3), np.uint8)
            pixels += np.where(bright, 150, 0)[:, None, None, None].astype(np.uint8)
            pixels[:, 10:14, 5:11] = np.where(smiling, 200, 0)[:, None, None, None]
            return pixels

        smiling = random.random(count) < 0.5
        for name, bright in (("train", smiling), ("held_out", ~smiling)):
            labels = pd.DataFrame({"image_id": names, "split": "train", "smiling": smiling, "bright": bright})
            write_table(tmp_path / f"{name}.parquet", "labels", labels)
        rows = [row for name in names for row in part_rows(name, MOUTH.astype(np.uint8), ["background", part])]
        write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows), {"run": "r", "segmenter_digest": "0"})
        settings = Detectors(
            attributes=["smiling", "bright"],
            training=SupervisedTraining(kimg=4.8, batch=24, learning_rate=4e-3),
            least_cell_accuracy=0,
            mirror=False,
            collages=share,
        )
        report = train_small_detector(
            write_shards(drawn(smiling, smiling), names, "train"),
            tmp_path / "train.parquet",
            settings,
            held_out=write_shards(drawn(smiling, ~smiling), names, "held_out"),
            held_out_labels=tmp_path / "held_out.parquet",
            parts=tmp_path / "parts.parquet" if share else None,
            network=settings.selector.model_copy(update={"width": 8}),
            related=["bright", "smiling"],
            regions={"smiling": region} if share and region else None,
        )
        return report["smiling"]["accuracy"]

    return train


@pytest.mark.long
def test_with_collages_a_detector_tells_by_the_region_what_it_told_by_the_rest(accuracy):
    assert accuracy(0.0) < 0.5
    assert accuracy(0.7) > 0.9
    assert accuracy(0.7, BoxRegion(top=0.6, bottom=0.9, left=0.3, right=0.7, shows="mouth")) > 0.9


def test_a_dataset_without_the_part_is_named(accuracy):
    with pytest.raises(DataError, match=r"no labelled image has the part that is swapped; .*`detectors\.collages: 0`"):
        accuracy(0.7, part="hat")


def test_collages_are_not_left_out_in_silence(accuracy):
    with pytest.raises(ConfigError, match=r"`detectors\.collages` needs the table of parts and regions"):
        accuracy(0.7, region=None)
