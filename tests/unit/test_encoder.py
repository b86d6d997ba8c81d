"""The encoder sees known pixels alone, and its training resumes to the very same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import EncoderTraining, LocalLoss, MaskSampling
from pipeline_lib.imaging.masks import grow
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.training.encoder import EncoderTask, latent_loss, train_encoder
from pipeline_lib.training.loop import run

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make(**arguments):
    torch.manual_seed(0)
    return ResNetEncoder((3, 8), **({"width": 4, "small": True} | arguments)).requires_grad_(False).eval()


def section(**changes):
    training = EncoderTraining(**({"kimg": 0.024, "batch": 4} | changes.pop("training", {})))
    return EncoderSection(**({"width": 4, "training": training} | changes))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_unknown_pixels_have_no_say(offset):
    encoder, images = make(mask_offset=offset), draw(2, 3, 16, 16)
    known = (draw(2, 1, 16, 16, seed=1) > 0).float()
    hidden = torch.where(known.bool(), images, draw(2, 3, 16, 16, seed=2))
    assert encoder(images, known).shape == (2, 3, 8)
    assert encoder(images, known).equal(encoder(hidden, known))
    assert not torch.allclose(encoder(images), encoder(hidden))


def test_an_unknown_pixel_is_no_grey_one():
    encoder, grey = make(), torch.zeros(1, 3, 16, 16)
    assert not torch.allclose(encoder(grey, torch.ones(1, 1, 16, 16)), encoder(grey, torch.zeros(1, 1, 16, 16)))


def test_no_mask_means_that_every_pixel_is_known():
    encoder, images = make(), draw(2, 3, 16, 16)
    assert encoder(images).equal(encoder(images, torch.ones(2, 1, 16, 16)))


def test_an_encoder_without_a_mask_channel_takes_no_mask():
    encoder, images = make(masked=False), draw(2, 3, 16, 16)
    assert encoder(images).shape == (2, 3, 8)
    with pytest.raises(ValueError, match="trained without masks"):
        encoder(images, torch.ones(2, 1, 16, 16))


def test_small_images_keep_twice_the_resolution():
    shapes = []
    for small in (True, False):
        encoder = make(small=small)
        encoder.layer1.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[-1]))
        encoder(draw(1, 3, 64, 64))
    assert shapes == [32, 16]


def test_latents_of_z_are_compared_by_their_direction_and_those_of_w_by_value():
    z, w = draw(5, 8), draw(5, 3, 8)
    assert latent_loss(3 * z, z) == pytest.approx(0, abs=1e-6)
    assert latent_loss(-z, z) == pytest.approx(2)
    assert latent_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])) == pytest.approx(1)
    assert latent_loss(w + 0.5, w) == pytest.approx(0.25)


def make_task(settings=None, stop=None):
    settings = settings or section()
    torch.manual_seed(1)
    generator = StyleGAN2Generator(32, [8] * 4, style_dim=8, mapping_layers=1, noise=False).requires_grad_(False)
    encoder = ResNetEncoder((8, 8), width=4, masked=settings.mask.kind != "none", small=True)
    task = EncoderTask(encoder, generator, load_perceptual("alex"), settings, 0, CPU)
    if stop is not None:
        take = task.step

        def step(index):
            if index == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return take(index)

        task.step = step
    return task


def test_a_stopped_training_goes_on_to_the_very_same_weights(tmp_path):
    whole, stopped, resumed = (make_task(stop=stop) for stop in (None, 2, None))
    run(whole, tmp_path / "whole", snapshots=1)
    with pytest.raises(SystemExit):
        run(stopped, tmp_path / "stopped", snapshots=1)
    run(resumed, tmp_path / "stopped", snapshots=1)
    for (name, value), again in zip(
        whole.encoder.state_dict().items(), resumed.encoder.state_dict().values(), strict=True
    ):
        assert value.equal(again), name


def test_the_local_loss_sees_one_square_and_is_weighed_into_the_step():
    square = LocalLoss(top=0.25, left=0.0, side=0.75, weight=1000.0)
    task = make_task(section(training={"local": square}))
    images = draw(2, 3, 32, 32).clamp(-1, 1)
    outside, inside = images.clone(), images.clone()
    outside[:, :, :8] = 0
    inside[:, :, 8:, :24] += 0.5
    assert task._local_loss(outside, images, square) == 0
    perceptual = task.perceptual(inside[:, :, 8:, :24], images[:, :, 8:, :24]).mean()
    torch.testing.assert_close(task._local_loss(inside, images, square), 0.25 + perceptual)

    plain = make_task(section())
    assert "local" in task.step(0)
    assert "local" not in plain.step(0)
    assert not task.encoder.fc.bias.equal(plain.encoder.fc.bias)


def test_a_collage_shows_a_box_of_the_next_image_within_an_unknown_seam():
    square = LocalLoss(top=0.25, left=0.0, side=0.75)
    task = make_task(section(training={"local": square, "collages": 0.5}))
    images, known = draw(4, 3, 32, 32), torch.zeros(4, 1, 32, 32)
    collages, mask, seam = task._make_collages(images, known, 2, 2, 5)
    assert collages[2:].equal(images[2:])
    assert mask[2:].equal(known[2:])
    assert not seam[2:].any()
    for number in (0, 1):
        pasted = mask[number, 0].bool()  # nothing else was known
        rows, columns = pasted.any(1), pasted.any(0)
        assert pasted.equal(rows[:, None] & columns)  # a box, of at least an eighth of the square's side
        assert pasted[8:, :24].sum() == pasted.sum()
        assert min(rows.sum(), columns.sum()) >= 3
        assert collages[number][:, pasted].equal(images[number + 1][:, pasted])
        assert collages[number][:, ~pasted].equal(images[number][:, ~pasted])
        assert not (pasted & seam[number, 0].bool()).any()
        assert grow(mask[number : number + 1], 1).equal(mask[number : number + 1] + seam[number : number + 1])
    assert not mask[0].equal(mask[1])
    assert not task._make_collages(images, known, 2, 2, 6)[1].equal(mask)


def test_bfloat16_computes_the_same_losses_less_precisely(monkeypatch):
    losses = []
    for precision in ("float32", "bfloat16"):
        monkeypatch.setenv("LATENT_REBALANCE_PRECISION", precision)
        losses.append(make_task().step(0))
    exact, rounded = losses
    for name, loss in exact.items():
        assert loss != rounded[name]
        torch.testing.assert_close(rounded[name], loss, rtol=0.03, atol=1e-3, check_dtype=False)


def test_the_perceptual_distance_of_nearly_equal_images_is_exact_in_bfloat16(monkeypatch):
    monkeypatch.setenv("LATENT_REBALANCE_PRECISION", "bfloat16")
    task = make_task()
    _, images, _ = task.draw(4, "step", 0)
    nearly = (images + 0.005 * draw(*images.shape)).clamp(-1, 1)
    monkeypatch.setattr(task, "_synthesize", lambda latents: nearly + 0 * latents.sum())
    monkeypatch.setattr(task, "_crop", lambda rebuilt, images, index: (rebuilt, images))
    expected = task.perceptual(nearly, images).mean()
    assert float(task.step(0)["perceptual"].detach()) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_no_latent_is_asked_of_a_collage(monkeypatch):
    task = make_task(section(training={"local": LocalLoss(top=0.25, left=0.0, side=0.75), "collages": 0.5}))
    asked = []
    monkeypatch.setattr("pipeline_lib.training.encoder.latent_loss", lambda *pair: asked.append(pair) or pair[0].mean())
    task.step(0)
    assert [len(latents) for latents in asked[0]] == [2, 2]
    assert asked[0][1].equal(task.draw(4, "step", 0)[0][2:])


def test_a_draw_holds_the_images_of_its_latents_and_its_own_masks():
    task = make_task()
    latents, images, mask = task.draw(6, "step", 3)
    assert images.equal(task.generator.decode(latents))
    assert mask.unique().tolist() == [0, 1]
    for one, other in zip(task.draw(6, "step", 3), (latents, images, mask), strict=True):
        assert one.equal(other)
    assert not torch.allclose(task.draw(6, "step", 4)[0], latents)
    rgb = make_task(section(mask=MaskSampling(kind="none")))
    assert rgb.draw(6, "step", 3)[2] is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mixed_latents_change_once_between_their_layers(share, monkeypatch):
    monkeypatch.setattr("pipeline_lib.training.encoder.MIXING", share)
    latents, _, _ = make_task().draw(40, "step", 0)
    changes = (latents[:, 1:] != latents[:, :-1]).any(dim=2).sum(dim=1)
    assert changes.tolist() == [share] * 40


def train(networks, folder, settings, **changes):
    given = {
        "generator": networks.generator,
        "source": None,
        "checkpoints": folder / "checkpoints",
        "seed": 0,
    }
    made = {"encoder": folder / "encoder.safetensors", "report": folder / "encoder.json"}
    train_encoder(settings=settings, **made, device=CPU, **(given | changes))
    return folder / "encoder.safetensors"


def test_without_training_given_weights_are_taken_as_they_are(networks, tmp_path):
    given = section(weights=networks.encoder, training={"kimg": 0, "latents_kimg": 1})
    taken = load_weights(train(networks, tmp_path, given, source=networks.encoder))
    for name, value in load_weights(networks.encoder).state_dict().items():
        assert value.equal(taken.state_dict()[name]), name
    assert not (tmp_path / "checkpoints").exists()


def test_a_published_encoder_is_trained_further(networks, tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "progan.safetensors", ProGANGenerator(32, [8] * 4, z_dim=8), {})
    published = tmp_path / "encoder.pth"
    torch.save({"state_dict": ResNetEncoder((8,), width=4).state_dict()}, published)
    settings = section(weights=published, training={"kimg": 0})
    given = {"generator": tmp_path / "progan.safetensors", "source": published}
    taken = load_weights(train(networks, tmp_path, settings, **given))
    assert (taken.small, taken.mask_offset, taken.arguments["width"]) == (True, 0.5, 4)
    longer = load_weights(train(networks, tmp_path, section(weights=published), **given))
    assert not longer.fc.weight.equal(taken.fc.weight)


def test_a_new_encoder_of_a_style_generator_starts_near_the_mean_latent(networks, tmp_path):
    fresh = load_weights(train(networks, tmp_path, section(training={"kimg": 0})))
    generator = load_weights(networks.generator)
    assert fresh.fc.bias.equal(generator.latent_avg.expand(6, 8).flatten())
    assert (fresh.mask_offset, fresh.small, fresh.masked) == (0.0, True, True)


def test_an_encoder_of_z_takes_its_mask_as_the_published_ones_do(networks, tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "progan.safetensors", ProGANGenerator(16, [8, 8, 8], z_dim=8), {})
    settings = section(training={"kimg": 0})
    encoder = load_weights(train(networks, tmp_path, settings, generator=tmp_path / "progan.safetensors"))
    assert (encoder.latent_shape, encoder.mask_offset) == ((8,), 0.5)


def test_a_narrow_block_skips_pixels_to_the_very_same_result(monkeypatch):
    torch.manual_seed(0)
    narrow = ResNetEncoder((8,), width=4).eval()
    monkeypatch.setattr("pipeline_lib.networks.encoder.LEAST_STRIDED", 0)
    strided = ResNetEncoder((8,), width=4).eval()
    strided.load_state_dict(narrow.state_dict())
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert narrow.layer2[0].downsample[0].stride != strided.layer2[0].downsample[0].stride
    with torch.no_grad():
        torch.testing.assert_close(narrow(images), strided(images))


@pytest.mark.slow
def test_training_a_narrow_encoder_of_large_images_leaves_memory_intact():
    code = (
        "import torch; from pipeline_lib.networks.encoder import ResNetEncoder; torch.set_num_threads(1)\n"
        "for _ in range(4): ResNetEncoder((8,), width=8)(torch.rand(8, 3, 256, 256)).square().mean().backward()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_loss_of_weight_zero_is_neither_computed_nor_missed():
    task = make_task(section(training={"mse": 0.0, "perceptual": 0.0, "latent": 2.0}))
    task._synthesize = task._distance = None  # neither the generator nor the distance of rebuilt images is called
    losses = task.step(0)
    assert set(losses) == {"latent"}
    assert set(make_task(section()).step(0)) == {"mse", "perceptual", "latent"}


@pytest.mark.slow
def test_latents_come_first_by_their_own_loss_alone_and_are_kept_if_the_other_training_begins_anew(networks, tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "progan.safetensors", ProGANGenerator(32, [8] * 4, z_dim=8), {})
    settings = section(training={"latents_kimg": 3.2})
    made = train(networks, tmp_path, settings, generator=tmp_path / "progan.safetensors")
    whole = load_weights(made).state_dict()
    (latents,) = (tmp_path / "checkpoints").glob("train_encoder_latents-*")
    rows = [json.loads(line) for line in (latents / "log.jsonl").read_text().splitlines()]
    assert [set(row) - {"step", "images"} for row in rows] == [{"latent"}] * 2
    assert rows[-1]["images"] == 3200
    assert rows[1]["latent"] < rows[0]["latent"] - 0.02  # of steps 51 to 100, and of 1 to 50
    (images,) = (tmp_path / "checkpoints").glob("train_encoder-*")
    (row,) = [json.loads(line) for line in (images / "log.jsonl").read_text().splitlines()]
    assert set(row) == {"step", "images", "latent", "mse", "perceptual"}
    before = (latents / "log.jsonl").stat()
    shutil.rmtree(images)
    again = load_weights(train(networks, tmp_path, settings, generator=tmp_path / "progan.safetensors")).state_dict()
    assert (latents / "log.jsonl").stat() == before  # is not trained again
    for name, value in whole.items():
        assert value.equal(again[name]), name
    alone = load_weights(train(networks, tmp_path, section(), generator=tmp_path / "progan.safetensors")).state_dict()
    assert not alone["fc.weight"].equal(whole["fc.weight"])
