"""Leases of GPUs, so that jobs on one node never share a device, and settings for faster computation."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import quote

from pipeline_lib.runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.5  # between two attempts to lock a free device

_own: list[str] = []  # the devices that this process leased first; CUDA cannot see others once initialised

# Parameters of glibc's mallopt, from its malloc.h, and the largest value they take.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST_INT = -1, -3, 2**31 - 1


@contextmanager
def lease_device(requested: int | None = None, allow_cpu: bool = False) -> Iterator[str]:
    """Hold `requested` GPUs of this node for the duration of the `with` block, waiting while others hold them.

    Snakemake's `gpu` resource limits the number of jobs but assigns no devices. In the block CUDA_VISIBLE_DEVICES
    names only the leased devices, so the first of them is `cuda:0`. CUDA reads this variable only on initialisation,
    so lease before the first tensor is put on a GPU. A process that leases again gets the same devices, and waits for
    them if necessary. Leases must not be nested.

    The pool is LATENT_REBALANCE_DEVICES if set (used without further checks; empty for the CPU), else
    CUDA_VISIBLE_DEVICES, else every device of the node. Lock files are in LATENT_REBALANCE_LOCKS, by default a folder
    of this user in the temporary folder.

    Args:
        requested: number of GPUs; 0 for the CPU, None for one if there is one.
        allow_cpu: whether the CPU serves where GPUs are requested and there are none.

    Yields:
        a `torch.device` string, `cuda:0`, or `cpu` if none is requested, or there is none and that is allowed.

    Raises:
        ConfigError: more GPUs are requested than the pool holds, or the lock files cannot be written.
    """
    pool = (_own or device_pool()) if requested != 0 else []
    if not pool:
        if requested and not (allow_cpu or cpu_chosen()):
            raise ConfigError(
                f"torch finds no GPU on {socket.gethostname()}, where a job was to have {requested}; mend the driver, "
                "install torch for it, or set `allow_cpu: true` in the config"
            )
        if requested != 0:
            logger.warning("no GPU found on this node; using the CPU")
        yield "cpu"
        return
    with acquire(pool, requested or 1) as devices, _visible(devices):
        _own[:] = devices
        logger.info("leased GPU %s", ", ".join(devices))
        yield "cuda:0"


def device_pool() -> list[str]:
    """Return the names of the devices that this process may lease, in the notation of CUDA_VISIBLE_DEVICES.

    Physical devices are counted with the driver's management library (NVML), which opens no CUDA context.
    """
    if (given := _devices_in("LATENT_REBALANCE_DEVICES")) is not None:
        return given

    import torch

    count = torch.cuda.device_count()
    visible = _devices_in("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(count)] if visible is None else visible
    return names[:count]  # CUDA ignores everything from the first invalid name on


def cpu_chosen() -> bool:
    """Return whether LATENT_REBALANCE_DEVICES is set and names no device, which asks for the CPU."""
    return _devices_in("LATENT_REBALANCE_DEVICES") == []


def gpu_in_sight(drivers: Path = Path("/dev")) -> bool:
    """Return whether this node has a GPU for jobs, by its device files, which takes no import of torch.

    It serves for planning only. A job that is planned for a GPU which torch does not see is refused, unless the config
    allows the CPU. Those that are planned for the CPU still share devices by leases.
    """
    for variable in ("LATENT_REBALANCE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        if (named := _devices_in(variable)) is not None:
            return bool(named)
    return any(any(drivers.glob(name)) for name in ("nvidia[0-9]*", "kfd", "dxg"))  # CUDA, ROCm, and CUDA in Windows


@contextmanager
def acquire(pool: Sequence[str], count: int = 1) -> Iterator[list[str]]:
    """Hold `count` devices of `pool` for the duration of the `with` block, waiting while too few are free.

    A device is held by an exclusive `flock` on a file named after node and device, in one folder for all runs of this
    user on this node. The kernel releases it when the holder ends, even if it crashes. Either all `count` devices are
    locked or none, so two waiting processes never block each other.

    Raises:
        ConfigError: `count` exceeds the pool, or the folder cannot be written to.
    """
    if count > len(pool):
        raise ConfigError(f"{count} GPUs requested, but only {', '.join(pool)} found; request at most {len(pool)}")
    default = Path(tempfile.gettempdir()) / f"latent-rebalance-gpu-{os.getuid()}"
    folder = Path(os.environ.get("LATENT_REBALANCE_LOCKS") or default)
    waiting = False
    while (locks := _try_locks(pool, folder, count)) is None:
        if not waiting:
            logger.info("waiting for %d of GPU %s; too few are free by the locks in %s", count, ", ".join(pool), folder)
            waiting = True
        time.sleep(POLL_SECONDS)
    with ExitStack() as held:
        for lock in locks.values():
            held.enter_context(lock)
        yield list(locks)


def tune_cpu(threads: int) -> None:
    """Set up this process for computing on `threads` CPU threads, and in float32 wherever float32 is asked for.

    A GPU may otherwise round the factors of convolutions to the ten bits of TF32, so that a result in float32 would be
    off by as much as one in bfloat16 rounding. bfloat16 is asked for by autocast.

    Denormal numbers are flushed to zero, and glibc keeps freed memory instead of returning it to the kernel, which
    would have to clear each page again for the next step's tensors. This makes training 1.25 times faster. Other C
    libraries are not changed.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    with suppress(AttributeError):  # of a C library without mallopt
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, LARGEST_INT)


def compiled(function: Callable[..., T], device: torch.device, wanted: bool | None = None) -> Callable[..., T]:
    """Return the function, compiled for inputs of fixed shape if `wanted`.

    Compilation fuses the operations between convolutions (scaling, noise, bias, activation), which take most of a GPU's
    time in a generator. Its results are cached in TORCHINDUCTOR_CACHE_DIR, by default a folder of this user in the
    temporary folder, so that of all jobs on a node only the first waits for it.

    Args:
        function: a function of tensors.
        device: where it computes.
        wanted: whether to compile; None compiles only on a GPU. On a CPU it takes longer than it saves.
    """
    if not (device.type == "cuda" if wanted is None else wanted):
        return function

    import torch

    # a growing network has one program per resolution, with and without gradients, and torch stops at the limit
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    logger.info("%s is compiled at its first call", getattr(function, "__qualname__", type(function).__name__))
    return torch.compile(function, dynamic=False)


def precision_on(device: torch.device) -> str:
    """Return the precision of a training: bfloat16 if the device supports it natively, else float32.

    On other devices bfloat16 is emulated and several times slower than float32. The environment variable
    LATENT_REBALANCE_PRECISION, float32 or bfloat16, overrides it.
    """
    if wanted := os.environ.get("LATENT_REBALANCE_PRECISION"):
        return wanted

    import torch

    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # not before torch 2.11
        able = any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    chosen = "bfloat16" if able else "float32"
    logger.info("training in %s, the faster precision on this %s", chosen, "GPU" if device.type == "cuda" else "CPU")
    return chosen


def _devices_in(variable: str) -> list[str] | None:
    """Return the devices that an environment variable names; None if it is not set."""
    if variable not in os.environ:
        return None
    names = [name.strip() for name in os.environ[variable].split(",")]
    return [name for name in names if name and name != "-1"]


def _try_locks(pool: Sequence[str], folder: Path, count: int) -> dict[str, IO[bytes]] | None:
    """Lock the first `count` free devices of `pool`, or none of them."""
    with ExitStack() as opened:
        locks: dict[str, IO[bytes]] = {}
        for device in pool:
            lock = _try_lock(folder / f"{socket.gethostname()}-{quote(device, safe='')}.lock")
            if lock is not None:
                locks[device] = opened.enter_context(lock)
            if len(locks) == count:
                opened.pop_all()  # the files stay open and locked
                return locks
    return None


def _try_lock(path: Path) -> IO[bytes] | None:
    """Open and lock a file, or return None where another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; set LATENT_REBALANCE_LOCKS to a writable folder") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def _visible(devices: Sequence[str]) -> Iterator[None]:
    """Make only `devices` visible to CUDA, and restore the previous setting afterwards."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
