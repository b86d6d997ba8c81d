"""Adversarial training resumes exactly, grows as it is told, and shows both networks' images alike."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import signal

import numpy as np
import pytest
import torch

from pipeline_lib.config import GanTraining, GrowthPhase, LocalDiscriminator
from pipeline_lib.config import Generator as GeneratorSection
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.networks.checkpoints import load_weights, read_header, save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.devices import compiled
from pipeline_lib.runtime.errors import DivergenceError, WeightsError
from pipeline_lib.stages import call_stage
from pipeline_lib.training import gan, schedule
from pipeline_lib.training.attributes import AttributeDiscriminator
from pipeline_lib.training.gan import GanTask, Networks
from pipeline_lib.training.loop import run

CPU = torch.device("cpu")
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8))
LOCAL = LocalDiscriminator(top=0.5, left=0.25, side=0.5, channels=[4])
GROWING = GanTraining(
    kimg=0.048,
    batch=4,
    growth=[GrowthPhase(resolution=4, kimg=0.016)],
    penalty_every=2,
    ema_kimg=0.01,
)  # twelve steps: four at 4 pixels, two that fade to 8, six at 8


def make_task(settings=GROWING, kind="stylegan2", local=None, attributes=False, fresh=True):
    torch.manual_seed(0)
    if kind == "progan":
        generator = ProGANGenerator(8, [6, 4], z_dim=6)
    else:
        generator = StyleGAN2Generator(8, [6, 4], style_dim=6, mapping_layers=1, noise=False)
    discriminator = Discriminator(8, [6, 4], local)
    seen = AttributeDiscriminator(PlainClassifier(["smiling", "long_hair"], 4), 3.0, 0, CPU)
    networks = Networks(generator, discriminator, fresh)
    return GanTask(networks, IMAGES, settings, 0, CPU, "train", seen if attributes else None)


def weights_of(task):
    return {
        name: value
        for network in ("generator", "discriminator", "average")
        for name, value in ((f"{network}.{key}", value) for key, value in getattr(task, network).state_dict().items())
    }


def stop_at(task, step):
    """Let the process get a SIGTERM in the middle of `step`."""
    take = task.step

    def step_and_signal(index):
        if index == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(index)

    task.step = step_and_signal


@pytest.mark.slow
def test_attributes_are_matched_at_full_resolution_alone():
    task = make_task(attributes=True)
    assert ["loss_attributes" in task.step(index) for index in (0, 3, 4, 11)] == [False, False, True, True]
    plain, matched = make_task(), make_task(attributes=True)
    assert plain.step(8) == {name: loss for name, loss in matched.step(8).items() if name != "loss_attributes"}
    assert weights_of(plain).keys() == weights_of(matched).keys()
    moved = [name for name, value in weights_of(plain).items() if not value.equal(weights_of(matched)[name])]
    assert moved  # the generator feels it,
    assert not [name for name in moved if name.startswith("discriminator")]  # the other discriminator does not


@pytest.mark.parametrize("local", [None, LOCAL.model_dump()])
def test_bfloat16_takes_nearly_the_same_steps(local, monkeypatch):
    tasks = []
    for precision in ("float32", "bfloat16"):
        monkeypatch.setenv("LATENT_REBALANCE_PRECISION", precision)
        tasks.append(make_task(GROWING.model_copy(update={"growth": []}), local=local))
    exact, rounded = tasks
    for index in range(3):
        losses, near = exact.step(index), rounded.step(index)
        for name, loss in losses.items():
            assert loss != near[name]
            torch.testing.assert_close(near[name], loss, rtol=0.03, atol=0.01)


@pytest.mark.long
def test_compiled_networks_take_the_same_steps(monkeypatch):
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend="aot_eager"))  # no C++ compiler
    monkeypatch.setenv("LATENT_REBALANCE_PRECISION", "float32")
    eager = make_task()
    monkeypatch.setattr(gan, "compiled", functools.partial(compiled, wanted=True))
    compiled_one = make_task()
    assert compiled_one._synthesize != compiled_one.generator.synthesize
    for index in (0, 1, 5, 9):  # coarse with and without a penalty, fading, fine
        expected, found = eager.step(index), compiled_one.step(index)
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss, rtol=1e-3, atol=1e-4)
    for name, value in weights_of(eager).items():
        torch.testing.assert_close(weights_of(compiled_one)[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["stylegan2", "progan"])
@pytest.mark.parametrize("step", [2, 5, 9])  # coarse, fading, fine
def test_a_stopped_training_goes_on_to_the_very_same_weights(tmp_path, kind, step):
    whole, stopped, resumed = (make_task(kind=kind, attributes=True) for _ in range(3))
    run(whole, tmp_path / "whole", snapshots=1)
    stop_at(stopped, step)
    with pytest.raises(SystemExit):
        run(stopped, tmp_path / "stopped", snapshots=1)
    run(resumed, tmp_path / "stopped", snapshots=1)
    start = weights_of(make_task(kind=kind))
    for name, value in weights_of(whole).items():
        assert value.equal(weights_of(resumed)[name]), name
    assert any(not value.equal(start[name]) for name, value in weights_of(whole).items())


def test_the_discriminator_sees_growing_images_that_fade_in():
    task, seen = make_task(), []
    task.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].shape[-1], inputs[1])))
    schedule = []
    for index in range(task.total_steps):
        seen.clear()
        task.step(index)
        assert len(set(seen)) == 1  # real or fake, every image of a step is alike
        schedule.append(seen[0])
    assert schedule == [(4, 1.0)] * 4 + [(8, fade) for fade in (0.0, 0.5)] + [(8, 1.0)] * 6


def test_a_real_image_fades_as_the_generated_one_does():
    task = make_task()
    whole, blocky = task._batch(0, 8, 1.0), task._batch(0, 8, 0.0)
    means = whole.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(task._batch(0, 4, 1.0), means)
    torch.testing.assert_close(blocky, means.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(task._batch(0, 8, 0.25), 0.25 * whole + 0.75 * blocky)


def test_both_scores_are_trained_and_logged():
    task = make_task(GROWING.model_copy(update={"growth": []}), local=LOCAL.model_dump())
    before = {name: value.clone() for name, value in task.discriminator.named_parameters() if name.endswith("weight")}
    metrics = task.step(0)
    losses = {f"loss_{network}{square}" for network in ("discriminator", "generator") for square in ("", "_local")}
    assert set(metrics) == losses
    after = dict(task.discriminator.named_parameters())
    moved = {name for name, value in before.items() if not value.equal(after[name])}
    assert {"score.weight", "local.score.weight"} <= moved


def test_the_learning_rate_rises_and_then_falls_once(monkeypatch):
    monkeypatch.setattr(schedule, "WARMUP", 3)
    rates = [schedule.learning_rate(GROWING, index, 12, fresh=True) / GROWING.learning_rate for index in range(12)]
    assert rates == pytest.approx([1 / 3, 2 / 3] + [1] * 7 + [0.3] * 3)


def test_the_average_has_the_half_life_asked_for():
    settings = GROWING.model_copy(update={"ema_kimg": 0.008})  # two steps of four images
    task = make_task(settings, fresh=False)
    before = copy.deepcopy(task.average.state_dict())
    with torch.no_grad():
        for parameter in task.generator.parameters():
            parameter.add_(1)
    for index in range(2):
        task._average_weights(index)
    for name, parameter in task.average.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.5)


def test_a_discriminator_that_has_won_for_good_is_diagnosed():
    task = make_task()
    lost, won = {"loss_discriminator": 0.5}, {"loss_discriminator": 0.01}
    assert [task.diagnose(won) for _ in range(9)] == [None] * 9
    assert task.diagnose(lost) is None
    assert [task.diagnose(won) for _ in range(9)] == [None] * 9
    assert "training collapsed (discriminator loss" in task.diagnose(won)


def test_a_won_game_ends_the_training_with_its_last_good_state(tmp_path, monkeypatch):
    monkeypatch.setattr(gan, "COLLAPSED", 1e9)
    task = make_task()
    with pytest.raises(DivergenceError, match=r"training collapsed .* at step 10; the last good state is .*\.pt"):
        run(task, tmp_path, log_every=1, snapshots=1, checkpoint_seconds=0)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 9


def test_weights_that_are_not_finite_end_the_training(tmp_path):
    task = make_task()
    task.generator.input.input.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(DivergenceError, match="not finite at step 1; no state had been saved"):
        run(task, tmp_path, log_every=1, snapshots=1)


def test_blur_keeps_the_mean_and_spreads_by_its_sigma():
    spot = torch.zeros(1, 2, 41, 41)
    spot[..., 20, 20] = 1
    blurred = gaussian_blur(spot, 3.0)
    place = torch.arange(41.0) - 20
    torch.testing.assert_close(blurred.sum(dim=(2, 3)), torch.ones(1, 2))
    variance = (blurred.sum(dim=2) * place**2).sum(dim=2)
    assert variance.flatten().tolist() == pytest.approx([9, 9], rel=0.05)  # a little less: cut off at three sigma
    torch.testing.assert_close(gaussian_blur(torch.full((1, 3, 8, 8), 0.3), 2.0), torch.full((1, 3, 8, 8), 0.3))


def test_an_augmentation_treats_real_and_fake_alike_and_ends_when_it_is_told(monkeypatch):
    calm = GROWING.model_copy(update={"augment_until": 0.5})
    task, views = make_task(calm), []
    kept = task.discriminator.forward

    def forward(images, fade=1.0):
        views.append(images.detach())
        return kept(images, fade)

    monkeypatch.setattr(task.discriminator, "forward", forward)
    task.step(1)  # no penalty: real, fake, then real and fake again for the generator
    assert len(views) == 4
    assert views[0].equal(views[2])
    assert views[1].equal(views[3])
    assert not torch.allclose(views[0], task._batch(1, 4, 1.0))
    views.clear()
    task.step(9)
    torch.testing.assert_close(views[0], task._batch(9, 8, 1.0))


def train(folder, write_shards, **changes):
    pixels = IMAGES.permute(0, 2, 3, 1).numpy()
    names = [f"image-{number}" for number in range(20)]
    training = GROWING.model_copy(update={"kimg": 0.008, "growth": []})
    given = {
        "images": write_shards(pixels, names, "dataset"),
        "settings": GeneratorSection(channels=[6, 4], z_dim=6, mapping_layers=1, training=training),
        "training": training,
        "attributes": None,
        "selector": [],
        "init": "scratch",
        "source": [],
        "name": "train_generator",
        "seed": 0,
        "checkpoints": folder / "checkpoints",
        "generator": folder / "generator.safetensors",
        "discriminator": [folder / "discriminator.safetensors"],
    }
    call_stage("train_generator", given | changes)
    return [folder / "generator.safetensors", folder / "discriminator.safetensors"]


def digests(paths):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


@pytest.mark.slow
def test_the_stage_makes_the_same_files_each_time_and_others_with_another_seed(tmp_path, write_shards):
    one, two = (train(tmp_path / name, write_shards) for name in ("one", "two"))
    other = train(tmp_path / "other", write_shards, seed=1)
    assert digests(one) == digests(two)
    assert not set(digests(one)) & set(digests(other))
    generator = load_weights(one[0])
    mean = generator.sample_latents(range(2000), 99)[:, 0].mean(dim=0)
    assert (generator.latent_avg - mean).norm() < 0.2 * mean.norm() + 0.1


def test_another_dataset_never_resumes_the_training_of_the_first(tmp_path, write_shards):
    train(tmp_path, write_shards)
    before = read_header(tmp_path / "generator.safetensors")["key"]
    pixels, names = 255 - IMAGES.permute(0, 2, 3, 1).numpy(), [f"image-{number}" for number in range(20)]
    train(tmp_path, write_shards, images=write_shards(pixels, names, "negative"))
    assert read_header(tmp_path / "generator.safetensors")["key"] != before
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_given_weights_come_into_the_run_as_they_are(tmp_path, write_shards):
    source = train(tmp_path / "source", write_shards)
    section = GeneratorSection(channels=[6, 4], z_dim=6, mapping_layers=1, weights=source[0], discriminator=source[1])
    brought = train(tmp_path / "run", write_shards, settings=section, training=None, source=source)
    assert digests(brought) == digests(source)
    save_weights(source[0], StyleGAN2Generator(16, [6, 4, 4], 6, 1), {})
    with pytest.raises(WeightsError, match=r"a generator of 16 pixels, but `data.resolution` is 8"):
        train(tmp_path / "wrong", write_shards, settings=section, training=None, source=source)


def test_published_weights_come_into_the_run_without_a_discriminator(tmp_path, write_shards):
    published = tmp_path / "published.pth"
    torch.save(ProGANGenerator(8, [6, 4], 5, heads=[8]).state_dict(), published)
    section = GeneratorSection(weights=published)
    made = train(tmp_path, write_shards, settings=section, training=None, source=[published], discriminator=[])
    generator = load_weights(made[0])
    assert (generator.resolution, generator.z_dim) == (8, 5)
    assert read_header(made[0])["imported_from"] == "published.pth"
    assert not made[1].exists()


def test_retraining_starts_from_the_source_weights(tmp_path, write_shards):
    source = train(tmp_path / "source", write_shards)
    still = GROWING.model_copy(update={"kimg": 0.004, "growth": [], "learning_rate": 1e-12})
    retrained = train(tmp_path / "retrained", write_shards, training=still, init="source", source=source)
    for before, after in zip(source, retrained, strict=True):
        for name, value in load_weights(before).named_parameters():
            torch.testing.assert_close(load_weights(after).get_parameter(name), value)


def test_given_weights_are_trained_further_and_a_local_discriminator_is_added(tmp_path, write_shards):
    source = train(tmp_path / "source", write_shards)
    further = GROWING.model_copy(update={"kimg": 0.004, "growth": [], "learning_rate": 1e-12, "local": LOCAL})
    made = train(tmp_path / "further", write_shards, training=further, init="source", source=source)
    grown = load_weights(made[1])
    assert grown.arguments["local"] == LOCAL.model_dump()
    torch.testing.assert_close(grown.score.weight, load_weights(source[1]).score.weight)

    plain = further.model_copy(update={"local": None})
    kept = train(tmp_path / "kept", write_shards, training=plain, init="source", source=made)
    torch.testing.assert_close(load_weights(kept[1]).local.score.weight, grown.local.score.weight)

    elsewhere = further.model_copy(update={"local": LOCAL.model_copy(update={"top": 0.25})})
    with pytest.raises(WeightsError, match=r"discriminator.*: has a local discriminator at .* remove `local`"):
        train(tmp_path / "elsewhere", write_shards, training=elsewhere, init="source", source=made)


def test_weights_of_another_architecture_are_not_trained_further(tmp_path, write_shards):
    source = train(tmp_path / "source", write_shards)
    wider = GeneratorSection(channels=[8, 4], z_dim=6, mapping_layers=1, training=GROWING)
    with pytest.raises(WeightsError, match=r"stylegan2 with channels \[6, 4\]"):
        train(tmp_path / "wrong", write_shards, settings=wider, init="source", source=source)
