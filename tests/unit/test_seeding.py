"""Random draws depend on run seed, stage and index, and on nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch

from pipeline_lib.runtime.seeding import derive, indexed_normal, numpy_generator, torch_generator


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_rows_are_the_same_whatever_the_batch(batch: int) -> None:
    whole = indexed_normal(3, "sample", range(64), size=33)
    batches = [indexed_normal(3, "sample", range(first, min(64, first + batch)), 33) for first in range(0, 64, batch)]
    np.testing.assert_array_equal(np.concatenate(batches), whole)


def test_rows_follow_their_index_in_any_order() -> None:
    whole = indexed_normal(3, "sample", range(50), size=8)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(indexed_normal(3, "sample", order, 8), whole[order])


def test_a_longer_row_begins_like_a_shorter_one() -> None:
    np.testing.assert_array_equal(indexed_normal(3, "s", [5], 40)[:, :8], indexed_normal(3, "s", [5], 8))


def test_no_rows_keep_their_width() -> None:
    assert indexed_normal(0, "sample", [], 8).shape == (0, 8)


def test_rows_are_standard_normal_and_independent() -> None:
    rows, size = 2000, 64
    draws = indexed_normal(0, "sample", range(rows), size)
    assert draws.dtype == np.float32
    assert scipy.stats.kstest(draws.ravel(), "norm").pvalue > 1e-4

    # The correlation of n independent pairs is normal with a deviation of 1/sqrt(n): five of them bound each check.
    neighbours = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    columns = np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]
    assert max(abs(neighbours), abs(columns)) < 5 / np.sqrt(rows * (size - 1))


@pytest.mark.parametrize("other", [(1, "sample"), (0, "retrained")])
def test_seeds_and_stages_give_unrelated_rows(other: tuple[int, str]) -> None:
    here, there = indexed_normal(0, "sample", range(500), 64), indexed_normal(*other, range(500), 64)
    assert abs(np.corrcoef(here.ravel(), there.ravel())[0, 1]) < 5 / np.sqrt(here.size)


def test_every_name_counts_and_so_does_where_it_ends() -> None:
    streams = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "b", "a"), (0, "a", 1), (0, "a1"), (-1,)]
    for one, other in itertools.combinations(streams, 2):
        assert derive(*one) != derive(*other)
        assert numpy_generator(*one).random() != numpy_generator(*other).random()


def test_a_derived_seed_fits_a_signed_64_bit_integer() -> None:
    seeds = [derive(seed, "stage") for seed in range(1000)]
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


def test_streams_are_the_same_in_every_process() -> None:
    script = "from pipeline_lib.runtime.seeding import derive; print(derive(7, 'plan', 3))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(result.stdout) == derive(7, "plan", 3)


def test_torch_generators_repeat_and_differ_by_name() -> None:
    def draw(*names: str | int) -> torch.Tensor:
        return torch.rand(8, generator=torch_generator(0, *names))

    assert torch.equal(draw("train", 1), draw("train", 1))
    assert not torch.equal(draw("train", 1), draw("train", 2))
