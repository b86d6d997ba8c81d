"""A training stopped at any step ends as one that never stopped; one that breaks down keeps its last good state."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from pipeline_lib.imaging.transfer import to_float, to_uint8
from pipeline_lib.runtime.errors import DivergenceError, WeightsError
from pipeline_lib.training.batches import batch_positions
from pipeline_lib.training.loop import run


class Descent:
    """Minimises a noisy parabola with momentum; does what it is told at given steps."""

    name = "descent"
    seed = 0
    images_per_step = 4

    def __init__(self, steps=40, events=None):
        self.total_steps = steps
        self.events = events or {}
        self.weight = torch.nn.Parameter(torch.full((3,), 5.0))
        self.optimiser = torch.optim.Adam([self.weight], lr=0.1)
        self.taken = []
        self.pictures = []

    def step(self, index):
        self.taken.append(index)
        noise = torch.randn(3, generator=torch.Generator().manual_seed(index))
        loss = (self.weight - noise).square().sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        event = self.events.get(index, lambda: None)()
        return {"loss": loss if event is None else event, "index": torch.tensor(float(index))}

    def diagnose(self, metrics):
        return "the loss is far too small" if metrics["loss"] == 0 else None

    def snapshot(self, path):
        self.pictures.append(int(path.stem))

    def state_dict(self):
        return {"weight": self.weight.detach().clone(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state):
        self.weight.data.copy_(state["weight"])
        self.optimiser.load_state_dict(state["optimiser"])


def send(number):
    return lambda: os.kill(os.getpid(), number)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    task = Descent()
    run(task, tmp_path_factory.mktemp("undisturbed"))
    return task.weight.detach()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("step", [0, 12, 38])
def test_a_run_stopped_by_a_signal_and_resumed_ends_with_the_same_weights(tmp_path, undisturbed, number, step):
    stopped = Descent(events={step: send(number)})
    with pytest.raises(SystemExit, match=f"stopped by a signal at step {step + 1}"):
        run(stopped, tmp_path, log_every=5)
    resumed = Descent()
    run(resumed, tmp_path, log_every=5)
    assert stopped.taken + resumed.taken == list(range(40))
    assert resumed.weight.equal(undisturbed)


def test_a_run_killed_between_checkpoints_repeats_the_steps_since_the_last(tmp_path, undisturbed):
    def die():
        raise MemoryError

    with pytest.raises(MemoryError):
        run(Descent(events={23: die}), tmp_path, log_every=10, checkpoint_seconds=0)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 22, "loss": 1.0}\n{"step": 23, "lo')  # of steps that no checkpoint holds
    resumed = Descent()
    run(resumed, tmp_path, log_every=10)
    assert resumed.taken == list(range(20, 40))
    assert resumed.weight.equal(undisturbed)
    assert [row["step"] for row in rows_of(tmp_path)] == [10, 20, 30, 40]


def test_a_finished_training_is_not_trained_again(tmp_path, undisturbed):
    run(Descent(), tmp_path)
    again = Descent()
    run(again, tmp_path)
    assert again.taken == []
    assert again.weight.equal(undisturbed)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_named_and_nothing_is_lost(tmp_path, damage):
    run(Descent(5), tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    damage = checkpoint.read_bytes()[:300] if damage is None else damage
    checkpoint.write_bytes(damage)
    with pytest.raises(WeightsError, match=r"checkpoint.pt: damaged .*; delete it to train from the start"):
        run(Descent(5), tmp_path)
    assert checkpoint.read_bytes() == damage


@pytest.mark.parametrize("stop", [None, 6, 10, 13])
def test_a_log_row_holds_the_means_since_the_row_before(tmp_path, stop):
    if stop is not None:
        with pytest.raises(SystemExit):
            run(Descent(34, {stop - 1: send(signal.SIGTERM)}), tmp_path, log_every=10)
    run(Descent(34), tmp_path, log_every=10)
    rows = rows_of(tmp_path)
    steps = [row["step"] for row in rows]
    assert steps == sorted({10, 20, 30, 34} | ({stop} if stop else set()))
    for begin, row in zip([0, *steps], rows, strict=False):
        assert row["index"] == pytest.approx(sum(range(begin, row["step"])) / (row["step"] - begin))
        assert row["images"] == 4 * row["step"]


def test_snapshots_are_spread_over_the_training_and_the_last_one_is_its_end(tmp_path):
    task = Descent(40)
    run(task, tmp_path, snapshots=4)
    assert task.pictures == [4 * step for step in (10, 20, 30, 40)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training_and_the_last_good_state_stays(tmp_path, value):
    with pytest.raises(DivergenceError) as caught:
        run(Descent(events={25: lambda: torch.tensor(value)}), tmp_path, log_every=10, checkpoint_seconds=0)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("descent: loss is not finite at step 30; the last good state is ")
    assert str(tmp_path / "checkpoint.pt") in message
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 20
    assert [row["step"] for row in rows_of(tmp_path)] == [10, 20]


def test_a_training_that_breaks_down_at_once_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(DivergenceError, match="no state had been saved yet"):
        run(Descent(events={0: lambda: torch.tensor(float("nan"))}), tmp_path, log_every=1)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_signal_saves_no_state_that_has_broken_down(tmp_path):
    def break_down():
        os.kill(os.getpid(), signal.SIGTERM)
        return torch.tensor(float("nan"))

    with pytest.raises(DivergenceError):
        run(Descent(events={14: break_down}), tmp_path, log_every=10, checkpoint_seconds=0)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10


def test_what_the_task_diagnoses_stops_the_training(tmp_path):
    with pytest.raises(DivergenceError, match="the loss is far too small at step 11"):
        run(Descent(events={10: lambda: torch.tensor(0.0)}), tmp_path, log_every=1)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (3, 8), (16, 16)])
def test_every_epoch_shows_each_image_once_in_an_order_of_its_own(count, batch):
    epochs = 4
    stream = torch.cat([batch_positions(step, batch, count, 0, "train") for step in range(epochs * count // batch + 1)])
    orders = stream[: epochs * count].view(epochs, count)
    assert orders.sort(dim=1).values.equal(torch.arange(count).expand(epochs, count))
    assert len(orders.unique(dim=0)) > 1


def test_the_batch_of_a_step_is_a_function_of_seed_name_and_step():
    assert batch_positions(5, 8, 100, 0, "a").equal(batch_positions(5, 8, 100, 0, "a"))
    for other in (batch_positions(5, 8, 100, 1, "a"), batch_positions(5, 8, 100, 0, "b")):
        assert not batch_positions(5, 8, 100, 0, "a").equal(other)


def test_pixels_survive_the_way_to_floats_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    floats = to_float(pixels, "cpu")
    assert (floats.min(), floats.max()) == (-1, 1)
    assert to_uint8(floats).equal(pixels.permute(0, 2, 3, 1))
    assert to_uint8(torch.full((1, 3, 1, 1), 1.7)).unique().tolist() == [255]
