"""What runs on a GPU, seen without one: fake tensors refuse to be read back, so code that would wait for them fails."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline_lib.config import BoxRegion, Edit
from pipeline_lib.editing.choice import choose_best, score_edits
from pipeline_lib.editing.donors import ImageBatch, _closest_donors, seam_width, select_donors
from pipeline_lib.editing.swap import swap
from pipeline_lib.imaging.distances import seam
from pipeline_lib.imaging.transfer import batch_for
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.onnx_model import OnnxModel
from pipeline_lib.networks.preprocess import Preprocess

CPU = torch.device("cpu")
TARGETS = [{"where": {"hat": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]
SETTINGS = Edit(candidates=4, pool=6, seam_tolerance=0.1)
FACES, SIDE = 5, 32


def looked(count, device=CPU):
    pixels = torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    masks = np.zeros((SIDE, SIDE), np.uint8)
    masks[20:28, 8:24] = 1
    return ImageBatch(pixels, torch.from_numpy(np.packbits(masks)).to(device).expand(count, -1))


@pytest.mark.slow
@pytest.mark.parametrize("finish", ["none", "region", "detail"])
def test_an_edit_is_started_without_waiting_for_the_device(finish):
    settings = SETTINGS.model_copy(update={"finish": finish})
    packed = np.packbits(np.zeros((SIDE, SIDE), np.uint8))
    with FakeTensorMode(), torch.no_grad():
        device = torch.device("cuda:0")
        contexts, donors = (
            ImageBatch(
                torch.empty(count, SIDE, SIDE, 3, dtype=torch.uint8, device=device),
                torch.empty(count, len(packed), dtype=torch.uint8, device=device),
            )
            for count in (FACES, FACES * settings.pool)
        )
        with device:
            detector = PlainClassifier(["smiling", "hat"], 4).eval()
        tried = select_donors(contexts, donors, settings, device)
        assert tried.shape == (FACES, settings.candidates)
        rows = tried + torch.arange(FACES, device=device)[:, None] * settings.pool
        swaps = swap(contexts, donors.take(rows.flatten()), settings, lambda context, *_: context, device)
        count = FACES * settings.candidates
        wanted = torch.empty(count, dtype=torch.bool, device=device)
        held = torch.empty(count, dtype=torch.int64, device=device)
        scored = score_edits(detector, "smiling", [target["where"] for target in TARGETS], swaps.finished, wanted, held)
        differs = seam(swaps.context, swaps.donor, swaps.masks.region, seam_width(swaps.context))
        of_face = (FACES, settings.candidates)
        assert choose_best(scored.strength.view(of_face), differs.view(of_face), settings).shape == (FACES, 1)
        with pytest.raises(Exception, match=r"(?i)data.?dependent|_local_scalar_dense"):
            scored.logit.tolist()


@pytest.mark.parametrize("region", [SETTINGS.region, BoxRegion(shows=None)])
def test_donors_of_several_faces_together_are_those_of_each(region):
    settings = SETTINGS.model_copy(update={"region": region, "seam_tolerance": 0.0})
    torch.manual_seed(0)
    contexts, donors = looked(FACES), looked(FACES * settings.pool)
    together = _closest_donors(contexts, donors, settings.pool, settings, CPU)
    assert together.equal(select_donors(contexts, donors, settings, CPU))
    assert (together.diff(dim=1) > 0).all()


def test_a_batch_of_large_images_takes_no_more_memory_than_one_of_256_pixels():
    assert [batch_for(side, 64) for side in (32, 64, 256, 512, 1024)] == [64, 64, 64, 16, 4]
    assert batch_for(1024, 8) == 1


@pytest.mark.parametrize(("provider", "warned"), [("CPUExecutionProvider", True), ("CUDAExecutionProvider", False)])
def test_a_model_that_runs_on_the_cpu_beside_a_gpu_says_so_once(caplog, provider, warned):
    class OnGpu(torch.Tensor):
        is_cuda = True

    model = OnnxModel(0, Preprocess(None, (0.5,) * 3, (0.5,) * 3))
    model._session = SimpleNamespace(
        get_providers=lambda: [provider],
        get_inputs=lambda: [SimpleNamespace(name="images")],
        run=lambda _, inputs: [inputs["images"].mean(axis=(1, 2, 3))],
    )
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            model(torch.zeros(2, 3, 4, 4).as_subclass(OnGpu))
    assert len(caplog.records) == warned
    assert all("onnxruntime-gpu" in record.getMessage() for record in caplog.records)
