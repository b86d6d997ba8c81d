"""An image and its latent are a function of (seed, index), however they are batched and spread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.config import Sample
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.sampling import sample_generator
from pipeline_lib.imaging.transfer import to_uint8
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.runtime.errors import DataError


def sample(networks, folder, shards=1, batch=64, seed=3, **settings):
    images = [folder / f"{shard}.parquet" for shard in range(shards)]
    sample_generator(
        generator=networks.generator,
        settings=Sample(**({"images": 50} | settings)),
        run="toy",
        seed=seed,
        name="samples",
        images=images,
        latents=folder / "latents.parquet",
        grid=folder / "grid.png",
        device=torch.device("cpu"),
        batch=batch,
    )
    return read_shards(images), np.stack(read_table(folder / "latents.parquet", "latents")["latent"])


@pytest.mark.parametrize("shards", [2, 3, 50])
def test_resharding_changes_no_byte(networks, tmp_path, shards):
    (names, pixels), latents = sample(networks, tmp_path / "whole")
    (names_again, pixels_again), latents_again = sample(networks, tmp_path / "other", shards)
    assert names == names_again
    assert pixels.tobytes() == pixels_again.tobytes()
    assert latents.tobytes() == latents_again.tobytes()


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_batching_changes_nothing_but_the_last_digit(networks, tmp_path, batch):
    (_, pixels), latents = sample(networks, tmp_path / "whole")
    (_, pixels_again), latents_again = sample(networks, tmp_path / "other", batch=batch)
    np.testing.assert_allclose(latents, latents_again, rtol=1e-4, atol=1e-6)
    assert np.abs(pixels.astype(int) - pixels_again).max() <= 1


def test_the_same_call_writes_the_same_files(networks, tmp_path):
    for folder in ("one", "two"):
        sample(networks, tmp_path / folder, shards=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_images_are_the_generators_at_the_latents_beside_them(networks, tmp_path):
    (names, pixels), latents = sample(networks, tmp_path)
    generator = load_weights(networks.generator)
    torch.testing.assert_close(torch.from_numpy(latents), generator.sample_latents(range(50), 3).flatten(1))
    decoded = generator.decode(torch.from_numpy(latents).unflatten(1, generator.latent_shape))
    np.testing.assert_array_equal(to_uint8(decoded).numpy(), pixels)
    assert names == [f"samples-{index:08d}" for index in range(50)]
    assert len(np.unique(pixels, axis=0)) == 50


def test_more_samples_begin_with_the_fewer_and_another_seed_gives_others(networks, tmp_path):
    (_, few), few_latents = sample(networks, tmp_path / "few", images=20)
    (_, many), latents = sample(networks, tmp_path / "many")
    (_, others), _ = sample(networks, tmp_path / "others", seed=4)
    np.testing.assert_array_equal(many[:20], few)
    np.testing.assert_array_equal(latents[:20], few_latents)
    assert (others != many).any(axis=(1, 2, 3)).all()


def test_truncation_moves_latents_towards_the_mean(networks, tmp_path):
    _, whole = sample(networks, tmp_path / "whole")
    _, half = sample(networks, tmp_path / "half", truncation=0.5)
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)  # this generator's mean latent is zero


def test_a_generator_without_truncation_is_refused_where_it_is_asked_for(networks, tmp_path):
    progan = replace(networks, generator=tmp_path / "progan.safetensors")
    save_weights(progan.generator, ProGANGenerator(16, [4] * 3, z_dim=8), {})
    sample(progan, tmp_path / "whole")
    with pytest.raises(DataError, match=r"progan\.safetensors: this generator has no truncation"):
        sample(progan, tmp_path / "truncated", truncation=0.5)
