"""Data-parallel training in several processes, each with a device and a share of every batch, started by torchrun.

`torchrun --nnodes 2 --nproc-per-node 8 -m pipeline_lib tools stage train_generator ...` trains on two nodes. Every
process makes the same draws as a single process and keeps its own rows, so the result is the same up to rounding.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline_lib.runtime import errors
from pipeline_lib.runtime.errors import ConfigError, PipelineError
from pipeline_lib.runtime.files import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGUSR1)  # a scheduler's warnings


def launched() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return the rank of this process; 0 for a single process."""
    return int(os.environ["RANK"]) if launched() else 0


def count() -> int:
    """Return the number of processes (the world size)."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the other processes; yields the device of this one, or the CPU if torch finds no GPU.

    An error is recorded for the process that started them.
    """
    import torch
    from torch import distributed
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    on_gpu = torch.cuda.is_available()
    device = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield device
    except PipelineError as error:
        get_error_handler().record_exception(error)
        raise
    finally:
        distributed.destroy_process_group()


def own_rows(rows: Tensor) -> Tensor:
    """Return this process's share of a batch, every `count()`-th row, which keeps groups of a batch together.

    Raises:
        ConfigError: the batch cannot be split evenly.
    """
    if len(rows) % count():
        raise ConfigError(
            f"a batch of {len(rows)} cannot be split evenly over {count()} processes; change `batch` or their number"
        )
    return rows[rank() :: count()]


def all_rows(rows: Tensor) -> Tensor:
    """Return a whole batch from the shares of all processes, in its order; the inverse of `own_rows`."""
    if count() == 1:
        return rows
    import torch
    from torch import distributed

    shares = [torch.empty_like(rows) for _ in range(count())]
    distributed.all_gather(shares, rows.contiguous())
    return torch.stack(shares, dim=1).flatten(0, 1)


def average(tensors: Iterable[Tensor | None]) -> None:
    """Replace tensors of one dtype and device, in place, by their mean over all processes."""
    if count() == 1:
        return
    import torch
    from torch import distributed

    present = [tensor for tensor in tensors if tensor is not None]
    flat = torch.cat([tensor.flatten() for tensor in present])
    distributed.all_reduce(flat)
    flat /= count()
    for tensor, mean in zip(present, flat.split([tensor.numel() for tensor in present]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any of the processes."""
    if count() == 1:
        return flag
    import torch
    from torch import distributed

    total = torch.tensor([float(flag)])
    distributed.all_reduce(total)
    return bool(total)


@contextmanager
def scratch_file(fill: Callable[[BinaryIO], None]) -> Iterator[BinaryIO]:
    """Open an unnamed file in the temporary folder that one process of this node has filled, for reading and writing.

    It is freed with the last reference to it or to its mapping.
    """
    if count() == 1:
        with tempfile.TemporaryFile() as file:
            fill(file)
            yield file
        return
    from torch import distributed

    fills = os.environ["LOCAL_RANK"] == "0"
    names = [""] * count()
    with tempfile.NamedTemporaryFile() if fills else nullcontext() as own:
        if fills:
            fill(own)
        distributed.all_gather_object(names, own.name if fills else "")
        # the processes of a node have consecutive ranks, and the first of them has filled the file
        path = next(name for name in reversed(names[: rank() + 1]) if name)
        with Path(path).open("r+b") as file:
            distributed.barrier()  # it keeps its name until all have opened it
            yield file


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Yield an event that is set on a SIGTERM or SIGUSR1, which then does not end the process."""
    requested = threading.Event()
    with _on_signal(requested.set):
        yield requested


@contextmanager
def _on_signal(act: Callable[[], None]) -> Iterator[None]:
    previous = {}
    with suppress(ValueError):  # Python allows handlers only in the main thread
        previous = {number: signal.signal(number, lambda *_: act()) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def launch(stage: str, values: Mapping[str, Any], processes: int, threads: int) -> None:
    """Run a stage in several processes on this node and wait for them.

    A SIGTERM or SIGUSR1 is forwarded to them as a SIGTERM; they save their state and end within 30 seconds.

    Args:
        stage: name of the stage.
        values: its values, as in `call_stage`.
        processes: number of processes, each of which uses the visible GPU of its rank.
        threads: total number of CPU threads.

    Raises:
        PipelineError: the error of the one that failed first.
        SystemExit: they were stopped by a signal, or failed otherwise.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "pipeline_lib", "tools", "stage", f"--threads={max(1, threads // processes)}", stage]
    command += [f"{name}={json.dumps(value, default=os.fspath)}" for name, value in values.items()]
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "error.json"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHELASTIC_ERROR_FILE": str(recorded)}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        with _on_signal(process.terminate):
            for line in process.stderr or ():
                logger.info("%s", line.rstrip())
            status = process.wait()
        if recorded.exists():
            kind, _, message = read_json(recorded)["message"]["message"].partition(": ")
            raise getattr(errors, kind, PipelineError)(message)
    if status:
        raise SystemExit(f"{stage}: stopped or failed in one of {processes} processes; see above")
