"""The training loop, with exact resume, logs, snapshots, divergence checks and a last checkpoint on a signal.

If several processes train together, each takes the steps and only rank 0 writes.
"""

from __future__ import annotations

import json
import logging
import math
import time
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.config import EncoderTraining, GanTraining, SupervisedTraining
from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.runtime.devices import precision_on
from pipeline_lib.runtime.errors import DivergenceError, WeightsError
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.progress import Progress

logger = logging.getLogger(__name__)


class Task:
    """A training, whose steps depend only on the state and the step's index, so that resuming is exact.

    The global random generators, from which dropout draws, are seeded before each step.

    Args:
        training: the config section, with the images of a step in all processes together, and of all steps.
        seed: seed of the run; every draw of step i depends only on (seed, name, i).
        device: where to train.
        name: name of the training, for logs and random streams.
    """

    rounds_on_cpu = True  # whether bfloat16 is used on a CPU too

    def __init__(
        self, training: GanTraining | EncoderTraining | SupervisedTraining, seed: int, device: torch.device, name: str
    ):
        self.training, self.seed, self.device, self.name = training, seed, device, name
        self.images_per_step = training.batch
        self.total_steps = max(1, round(training.kimg * 1000 / training.batch))
        self.precision = precision_on(device) if self.rounds_on_cpu or device.type == "cuda" else "float32"
        self.stateful: dict[str, Any] = {}  # networks and optimisers by name, as in a checkpoint

    def step(self, index: int) -> dict[str, Tensor]:
        """Take optimiser step number `index`; return scalar metrics on the device."""
        raise NotImplementedError

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        """Return the problem if the averaged metrics show that training diverged or collapsed, else None."""
        return None

    def snapshot(self, path: Path) -> None:
        """Write a picture of the current state of training; may do nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.stateful.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.stateful.items():
            part.load_state_dict(state[name])

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def falling_rate(self, index: int) -> float:
        """Return the learning rate of a step, which falls to zero by half a cosine."""
        return self.training.learning_rate * 0.5 * (1 + math.cos(math.pi * index / self.total_steps))


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float | None = None) -> None:
    """Take an optimiser's step along the gradient of a loss, averaged over all processes, at a given learning rate."""
    for group in optimiser.param_groups:
        if rate is not None:
            group["lr"] = rate * group.get("factor", 1.0)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    ranks.average(weight.grad for group in optimiser.param_groups for weight in group["params"])
    optimiser.step()


def run(
    task: Task, folder: Path, *, log_every: int = 50, snapshots: int = 20, checkpoint_seconds: float = 60.0
) -> None:
    """Train `task` to its last step, from the checkpoint in `folder` if there is one.

    Args:
        task: the task to train.
        folder: contains `checkpoint.pt`, `log.jsonl`, TensorBoard events and `snapshots/`; its name must depend on
            everything that the result depends on.
        log_every: steps between log rows and divergence checks.
        snapshots: number of pictures over the whole training.
        checkpoint_seconds: least time between two checkpoints.

    Raises:
        DivergenceError: the training diverged or collapsed; the last good checkpoint stays in `folder`.
        SystemExit: on a SIGTERM or SIGUSR1, after saving a checkpoint.
    """
    checkpoint = folder / "checkpoint.pt"
    start = _resume(task, checkpoint)
    if start >= task.total_steps:
        return
    snapshot_every = max(1, task.total_steps // max(1, snapshots))
    totals: dict[str, Tensor] = {}  # since the last log row
    summed = 0  # number of steps in `totals`
    saved_at = time.monotonic()
    with ExitStack() as stack:
        record = stack.enter_context(_Record(task, folder, start)) if ranks.rank() == 0 else None
        stop = stack.enter_context(ranks.stop_signal())
        for index in range(start, task.total_steps):
            torch.manual_seed(seeding.derive(task.seed, task.name, "layers", index, ranks.rank()))
            for name, value in task.step(index).items():
                totals[name] = totals.get(name, 0) + value.detach()
            done, summed, stopping = index + 1, summed + 1, ranks.any_of(stop.is_set())
            if record:
                record.progress.advance(task.images_per_step)
            if done % log_every == 0 or done == task.total_steps or stopping:
                means = _means(totals, summed)
                totals.clear()
                summed = 0
                _check(task, means, done, checkpoint)
                if record:
                    record.write(done, means)
                    if stopping or time.monotonic() - saved_at > checkpoint_seconds:
                        _save(task, checkpoint, done)
                        saved_at = time.monotonic()
            if record and (done % snapshot_every == 0 or done == task.total_steps):
                task.snapshot(folder / "snapshots" / f"{done * task.images_per_step:09d}.png")
            if stopping:
                raise SystemExit(f"{task.name}: stopped by a signal at step {done}; saved in {checkpoint}")
    if record:
        _save(task, checkpoint, task.total_steps)


def _means(totals: dict[str, Tensor], steps: int) -> dict[str, float]:
    """Return the mean of each metric over the steps and all processes."""
    means = torch.tensor([float(total) / steps for total in totals.values()])
    ranks.average([means])
    return dict(zip(totals, means.tolist(), strict=True))


class _Record(ExitStack):
    """Records a training's metrics as progress lines, JSON rows and TensorBoard scalars."""

    def __init__(self, task: Task, folder: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        _drop_rows_after(start, folder / "log.jsonl")
        self._name, self._images = task.name, task.images_per_step
        self._board = self.enter_context(SummaryWriter(str(folder / "tensorboard"), purge_step=start))
        self._log = self.enter_context((folder / "log.jsonl").open("a"))
        self.progress = self.enter_context(Progress(task.name, task.total_steps * self._images, start * self._images))

    def write(self, step: int, means: dict[str, float]) -> None:
        self._log.write(json.dumps({"step": step, "images": step * self._images, **means}) + "\n")
        self._log.flush()
        for name, value in means.items():
            self._board.add_scalar(f"{self._name}/{name}", value, step)
        self.progress.show(means)


def _check(task: Task, means: dict[str, float], step: int, checkpoint: Path) -> None:
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    problem = f"{', '.join(broken)} is not finite" if broken else task.diagnose(means)
    if problem:
        kept = f"the last good state is {checkpoint}" if checkpoint.exists() else "no state had been saved yet"
        raise DivergenceError(f"{task.name}: {problem} at step {step}; {kept}. Lower the learning rate or raise gamma")


def _save(task: Task, checkpoint: Path, step: int) -> None:
    with atomic_path(checkpoint) as beside:
        torch.save({"step": step, "task": task.state_dict()}, beside)


def _resume(task: Task, checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{checkpoint}: damaged ({reason}); delete it to train from the start") from None
    task.load_state_dict(state["task"])
    logger.info("%s: resumed from step %d of %d", task.name, state["step"], task.total_steps)
    return int(state["step"])


def _drop_rows_after(step: int, log: Path) -> None:
    """Remove the rows that a killed run logged after its last checkpoint, since these steps are repeated."""
    if not log.exists():
        return
    lines = log.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with atomic_path(log) as beside:
        beside.write_text("".join(kept))
