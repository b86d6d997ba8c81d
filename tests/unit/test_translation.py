"""Networks without a pretrained generator: they learn, and keep what is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from pipeline_lib.config import Encoder, MaskSampling
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.studies.methods.training import train_study_encoder, train_translator
from pipeline_lib.studies.methods.translation import (
    LayoutGenerator,
    PatchDiscriminator,
    ResNetTranslator,
    layout_of,
    open_translation,
)
from pipeline_lib.studies.methods.translation_tasks import (
    CycleTask,
    LayoutTask,
    ReconstructionTask,
    hinge_loss,
)

SIDE, COUNT = 32, 24
CPU = torch.device("cpu")
NAMES = ["background", "square"]
OPTIONS = dict(batch=4, kimg=0.24, learning_rate=2e-3, seed=0, device=CPU, name="test")


@pytest.fixture(scope="module")
def faces():
    """Return images of a bright square on a dark ground, uint8 (n, 3, H, W), and the part of each pixel."""
    random = np.random.default_rng(0)
    codes = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    for code, (top, left) in zip(codes, random.integers(4, 14, (COUNT, 2)), strict=True):
        code[top : top + 14, left : left + 14] = 1
    pixels = np.where(codes[:, None] == 1, 220, 30) + random.integers(-10, 10, (COUNT, 3, 1, 1))
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(codes)


def trained(task):
    for index in range(task.total_steps):
        task.step(index)
    task.networks.eval()
    return task


def test_a_layout_has_one_channel_for_each_part_and_one_for_the_unknown():
    codes = torch.tensor([[[0, 1], [2, 1]]])
    known = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    layout = layout_of(codes, known, 3)
    assert layout[0].tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]]
    assert (layout.sum(dim=1) == 1).all()


def test_images_have_the_size_of_what_they_are_made_from():
    assert ResNetTranslator(4, width=4, blocks=1)(torch.zeros(2, 4, 48, 48)).shape == (2, 3, 48, 48)
    layout = layout_of(torch.zeros(2, 64, 64, dtype=torch.int64), torch.ones(2, 1, 64, 64), 2)
    assert LayoutGenerator(NAMES, 64, width=4)(layout).shape == (2, 3, 64, 64)
    scores = PatchDiscriminator(3, 4)(torch.zeros(2, 3, 64, 64))
    assert [features.shape[1] for features in scores] == [4, 8, 16, 1]


def test_the_hinge_loss_ends_where_the_scores_are_apart():
    assert hinge_loss(torch.tensor([1.5]), torch.tensor([-2.0])) == 0
    assert hinge_loss(torch.tensor([0.0]), torch.tensor([0.5])) == 2.5


@pytest.mark.long
def test_a_layout_generator_learns_the_colours_of_parts(faces):
    torch.manual_seed(0)
    images, codes = faces
    task = trained(LayoutTask(LayoutGenerator(NAMES, SIDE, 8), images, codes, MaskSampling(), 8, **OPTIONS))
    made = task.networks(layout_of(codes[:4].long(), torch.ones(4, 1, SIDE, SIDE), 2))
    assert F.l1_loss(made, to_float(images[:4], CPU)) < 0.25  # a constant has 0.6


@pytest.mark.long
def test_an_inpainting_network_learns_to_fill_holes(faces):
    torch.manual_seed(0)
    network = ResNetTranslator(4, 8, 2)
    trained(ReconstructionTask(network, network.fill, faces[0], MaskSampling(), 8, **OPTIONS))
    images, known = to_float(faces[0][:4], CPU), torch.ones(4, 1, SIDE, SIDE)
    known[..., 12:16, 12:16] = 0
    made = network.fill(images * known, known)
    wrong = ((made - images).abs() * (1 - known)).sum() / (1 - known).sum() / 3
    left_grey = (images.abs() * (1 - known)).sum() / (1 - known).sum() / 3
    assert wrong < 0.5 * left_grey


@pytest.mark.long
def test_a_cycle_learns_colours_without_pairs(faces):
    torch.manual_seed(0)
    images = faces[0]
    inverted = 255 - images[torch.randperm(COUNT)]
    task = CycleTask(images, inverted, 8, **OPTIONS | {"kimg": 0.4})
    first = task.step(0)["loss_cycle"].item()
    last = [task.step(index)["loss_cycle"].item() for index in range(1, task.total_steps)][-1]
    assert last < 0.5 * first
    made = task.networks["to_images"](to_float(inverted[:4], CPU))
    assert made.shape == (4, 3, SIDE, SIDE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cycle", "layout", "reconstruction"])
def test_a_resumed_training_ends_alike(kind, faces):
    images, codes = faces

    def new():
        torch.manual_seed(0)
        options = OPTIONS | {"kimg": 0.02}
        if kind == "cycle":
            return CycleTask(images, 255 - images, 4, **options)
        if kind == "layout":
            return LayoutTask(LayoutGenerator(NAMES, SIDE, 4), images, codes, MaskSampling(), 4, **options)
        network = ResNetTranslator(4, 4, 1)
        return ReconstructionTask(network, network.fill, images, MaskSampling(), 4, **options)

    whole, half, rest = new(), new(), new()
    for index in range(4):
        whole.step(index)
    for index in range(2):
        half.step(index)
    rest.load_state_dict(half.state_dict())
    for index in range(2, 4):
        rest.step(index)
    for name, value in whole.networks.state_dict().items():
        torch.testing.assert_close(rest.networks.state_dict()[name], value)


@pytest.fixture
def files(tmp_path):
    """Return untrained weight files for each method, in the order that an editor wants them."""
    torch.manual_seed(0)
    networks = {
        "cyclegan": [ResNetTranslator(3, 4, 1)],
        "inpainting-network": [ResNetTranslator(4, 4, 1)],
        "spade": [LayoutGenerator(NAMES, SIDE, 4), UNetSegmenter(["background", "nose", "square"], 4)],
    }
    made = {}
    for method, parts in networks.items():
        made[method] = [tmp_path / f"{method}-{place}.safetensors" for place in range(len(parts))]
        for path, network in zip(made[method], parts, strict=True):
            save_weights(path, network, {})
    return made


@pytest.mark.parametrize("method", ["cyclegan", "spade", "inpainting-network"])
def test_they_make_images_of_collages_and_one_keeps_what_is_known(method, files, faces):
    reconstruct = open_translation(method, files[method], CPU)
    collage, known = to_float(faces[0][:2], CPU), torch.ones(2, 1, SIDE, SIDE)
    known[..., 6:8, 8:16] = 0
    with torch.no_grad():
        made = reconstruct(collage, known)
        hidden = reconstruct(torch.where(known.bool(), collage, 1.0), known)
    assert made.shape == (2, 3, SIDE, SIDE)
    assert made.abs().max() <= 1
    assert method == "spade" or hidden.equal(made)
    kept = torch.where(known.bool(), made, collage).equal(collage)
    assert kept == (method == "inpainting-network")  # the others draw the whole image anew


@pytest.mark.parametrize("method", ["cyclegan", "spade", "inpainting-network"])
def test_each_is_trained_on_shards_and_parts(method, faces, tmp_path, write_shards):
    images, codes = faces
    ids = [f"image-{number:02d}" for number in range(COUNT)]
    rows = [row for name, code in zip(ids, codes.numpy(), strict=True) for row in part_rows(name, code, NAMES)]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
    train_translator(
        images=write_shards(images.permute(0, 2, 3, 1).numpy(), ids),
        parts=tmp_path / "parts.parquet" if method != "inpainting-network" else None,
        names=NAMES,
        method=method,
        kimg=0.01,
        width=8,
        masks=MaskSampling(),
        seed=0,
        checkpoints=tmp_path / "checkpoints",
        weights=tmp_path / "weights.safetensors",
        device=CPU,
    )
    network = load_weights(tmp_path / "weights.safetensors")
    assert network.arguments.get("inputs") == {"cyclegan": 3, "inpainting-network": 4}.get(method)
    assert network.arguments.get("parts") == (NAMES if method == "spade" else None)


@pytest.mark.long
def test_an_in_domain_encoder_learns_real_images(tmp_path, write_shards):
    torch.manual_seed(0)
    save_weights(tmp_path / "generator.safetensors", StyleGAN2Generator(SIDE, [8] * 4, 8, 2, noise=False), {})
    generator = load_weights(tmp_path / "generator.safetensors", Generator)
    with torch.no_grad():
        made = generator.decode(generator.sample_latents(range(16), 0))
    pixels = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    shards = write_shards(pixels, [f"image-{number:02d}" for number in range(16)])
    errors = []
    for kimg in (0.008, 0.4):
        section = {"width": 8, "training": {"kimg": kimg, "batch": 8, "learning_rate": 2e-3}}
        train_study_encoder(
            images=shards,
            variant="in_domain",
            generator=tmp_path / "generator.safetensors",
            settings=Encoder.model_validate(section),
            width=4,
            seed=0,
            checkpoints=tmp_path / "checkpoints",
            encoder=tmp_path / "encoder.safetensors",
            device=CPU,
        )
        encoder = load_weights(tmp_path / "encoder.safetensors", ResNetEncoder)
        with torch.no_grad():
            rebuilt = generator.decode(encoder(made, torch.ones_like(made[:, :1])))
        errors.append(F.l1_loss(rebuilt, made).item())
    assert errors[1] < 0.8 * errors[0]
