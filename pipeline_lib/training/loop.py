"""The training loop, with exact resume, logs, snapshots, divergence checks and a last checkpoint on a signal.

If several processes train together, each takes the steps and only rank 0 writes.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch

from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.runtime.errors import DivergenceError, WeightsError
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.progress import Progress

logger = logging.getLogger(__name__)


class Task(Protocol):
    """A training task, whose steps depend only on the state and the step's index, so that resuming is exact.

    The global random generators, from which dropout draws, are seeded before each step.
    """

    name: str
    seed: int
    total_steps: int
    images_per_step: int  # in all processes together

    def step(self, index: int) -> dict[str, torch.Tensor]:
        """Take optimiser step number `index`; return scalar metrics on the device."""

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        """Return the problem if the averaged metrics show that training diverged or collapsed, else None."""

    def snapshot(self, path: Path) -> None:
        """Write a picture of the current state of training; may do nothing."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def run(
    task: Task,
    folder: Path,
    *,
    log_every: int = 50,
    snapshots: int = 20,
    checkpoint_seconds: float = 60.0,
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
    totals: dict[str, torch.Tensor] = {}  # since the last log row
    summed = 0  # number of steps in `totals`
    saved_at = time.monotonic()
    with ExitStack() as stack:
        record = stack.enter_context(_Record(task, folder, start)) if ranks.rank() == 0 else None
        stop = stack.enter_context(_StopSignal())
        for index in range(start, task.total_steps):
            torch.manual_seed(seeding.derive(task.seed, task.name, "layers", index, ranks.rank()))
            for name, value in task.step(index).items():
                totals[name] = totals.get(name, 0) + value.detach()
            done, summed, stopping = index + 1, summed + 1, ranks.any_of(stop.requested)
            if record:
                record.advance(task.images_per_step)
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


def _means(totals: dict[str, torch.Tensor], steps: int) -> dict[str, float]:
    """Return the mean of each metric over the steps and all processes."""
    means = torch.tensor([float(total) / steps for total in totals.values()])
    ranks.average([means])
    return dict(zip(totals, means.tolist(), strict=True))


class _Record:
    """Records a training's metrics as progress lines, JSON rows and TensorBoard scalars."""

    def __init__(self, task: Task, folder: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        _drop_rows_after(start, folder / "log.jsonl")
        self._name, self._images = task.name, task.images_per_step
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self._log = (folder / "log.jsonl").open("a")
        self._progress = Progress(task.name, task.total_steps * self._images, start * self._images)

    def __enter__(self) -> _Record:
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()
        self._log.close()
        self._board.close()

    def advance(self, images: int) -> None:
        self._progress.advance(images)

    def write(self, step: int, means: dict[str, float]) -> None:
        self._log.write(json.dumps({"step": step, "images": step * self._images, **means}) + "\n")
        self._log.flush()
        for name, value in means.items():
            self._board.add_scalar(f"{self._name}/{name}", value, step)
        self._progress.show(means)


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


class _StopSignal:
    """Records a SIGTERM or SIGUSR1 (a scheduler's warning) instead of stopping in the middle of a step."""

    def __enter__(self) -> _StopSignal:
        self.requested = False
        self._previous = {}
        for number in ranks.STOPPING:
            try:
                self._previous[number] = signal.signal(number, self._request)
            except ValueError:  # Python allows handlers only in the main thread
                logger.debug("signal %s is not handled outside the main thread", number)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.requested = True
