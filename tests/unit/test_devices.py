"""Leases hold between real processes, also when a holder is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline_lib.runtime import devices
from pipeline_lib.runtime.devices import acquire, device_pool, gpu_in_sight, lease_device
from pipeline_lib.runtime.errors import ConfigError

HOLD_UNTIL_TOLD = """
import os, sys
from pipeline_lib.runtime.devices import lease_device
with lease_device(int(sys.argv[1])) as device:
    print(device, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""

# Making the marker fails where another process that holds the same device has made it and not yet removed it.
HOLD_ALONE = """
import os, sys, time
from pathlib import Path
from pipeline_lib.runtime.devices import lease_device
for _ in range(3):
    with lease_device():
        marker = Path(sys.argv[1]) / os.environ["CUDA_VISIBLE_DEVICES"]
        marker.touch(exist_ok=False)
        time.sleep(0.03)
        marker.unlink()
"""

TUNE = """
import torch
from pathlib import Path
from pipeline_lib.runtime.devices import tune_cpu

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])

def pages_kept() -> int:
    before = resident()
    block = torch.ones(16 * 2**20)
    del block
    return resident() - before

untuned = pages_kept()
tune_cpu(1)
smallest = torch.tensor([1e-38]) * torch.tensor([1e-3])
rounded = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
print(torch.get_num_threads(), smallest.item(), untuned, pages_kept(), rounded)
"""

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Python processes that share a folder of locks; kill those still running at the end."""
    processes = []

    def start_process(script: str, *arguments: str, pool: str) -> subprocess.Popen:
        settings = {"LATENT_REBALANCE_LOCKS": str(tmp_path / "locks"), "LATENT_REBALANCE_DEVICES": pool}
        command, environment = [sys.executable, "-c", script, *arguments], {**os.environ, **settings}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment))
        return processes[-1]

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def _first_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test be its process's first to lease."""
    monkeypatch.setattr(devices, "_own", [])


def free_devices(pool: list[str], folder: Path) -> set[str]:
    """Return the devices of `pool` that nobody holds."""
    locks = {device: devices._try_locks([device], folder, 1) for device in pool}
    for held in locks.values():
        for lock in (held or {}).values():
            lock.close()
    return {device for device, held in locks.items() if held}


def test_two_processes_hold_two_devices_and_a_third_waits_for_one(start: Start) -> None:
    first, second = (start(HOLD_UNTIL_TOLD, "1", pool="4,7") for _ in range(2))
    leases = [process.stdout.readline().split() for process in (first, second)]
    assert sorted(leases) == [["cuda:0", "4"], ["cuda:0", "7"]]

    third = start(HOLD_UNTIL_TOLD, "1", pool="4,7")
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(timeout=1)
    first.communicate("\n", timeout=20)
    assert third.stdout.readline().split() == leases[0]


def test_many_processes_never_share_a_device(start: Start, tmp_path: Path) -> None:
    processes = [start(HOLD_ALONE, str(tmp_path), pool="0,1") for _ in range(5)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def test_a_killed_holder_frees_its_device(start: Start, tmp_path: Path) -> None:
    holder = start(HOLD_UNTIL_TOLD, "1", pool="0")
    holder.stdout.readline()
    assert free_devices(["0"], tmp_path / "locks") == set()
    holder.kill()
    holder.wait()
    assert free_devices(["0"], tmp_path / "locks") == {"0"}


def test_a_process_that_needs_two_devices_blocks_none_while_it_waits(start: Start, tmp_path: Path) -> None:
    holder = start(HOLD_UNTIL_TOLD, "1", pool="0,1")
    holder.stdout.readline()
    greedy = start(HOLD_UNTIL_TOLD, "2", pool="0,1")
    with pytest.raises(subprocess.TimeoutExpired):
        greedy.wait(timeout=1)
    assert free_devices(["0", "1"], tmp_path / "locks") == {"1"}
    holder.communicate("\n", timeout=20)
    assert greedy.stdout.readline().split() == ["cuda:0", "0,1"]


def test_a_lease_ends_with_its_block_and_restores_what_cuda_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENT_REBALANCE_LOCKS", str(tmp_path))
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(KeyError), lease_device() as device:
        assert (device, os.environ["CUDA_VISIBLE_DEVICES"]) == ("cuda:0", "5")
        raise KeyError
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert free_devices(["5"], tmp_path) == {"5"}


def test_a_second_lease_of_a_process_gets_the_device_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENT_REBALANCE_LOCKS", str(tmp_path))
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", "0,1")
    with acquire(["0"]), lease_device():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    with lease_device():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_names_of_devices_may_hold_any_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENT_REBALANCE_LOCKS", str(tmp_path))
    with acquire(["MIG-GPU-8f/1/0"]) as held:
        assert held == ["MIG-GPU-8f/1/0"]
        assert free_devices(["MIG-GPU-8f/1/0", "MIG-GPU-8f/1/1"], tmp_path) == {"MIG-GPU-8f/1/1"}


@pytest.mark.parametrize("pool", ["", "-1"])
def test_without_a_gpu_one_line_says_that_the_cpu_is_used(
    pool: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", pool)
    with lease_device() as device:
        assert device == "cpu"
    assert [record.message for record in caplog.records] == ["no GPU found on this node; using the CPU"]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error_unless_the_cpu_is_allowed(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATENT_REBALANCE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "device_pool", list)
    if not allowed:
        with pytest.raises(ConfigError, match=r"torch finds no GPU on .*allow_cpu: true"):
            lease_device(1).__enter__()
        return
    with lease_device(1, allow_cpu=True) as device:
        assert device == "cpu"


def test_the_cpu_asked_for_needs_no_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", "0")
    with lease_device(0) as device:
        assert device == "cpu"
    assert not caplog.records


@pytest.mark.parametrize(
    ("visible", "count", "pool"),
    [
        (None, 3, ["0", "1", "2"]),
        ("2,5", 2, ["2", "5"]),
        ("GPU-8f, GPU-9a", 2, ["GPU-8f", "GPU-9a"]),
        ("0,-1,1", 1, ["0"]),
        ("", 0, []),
        ("0", 0, []),
    ],
)
def test_the_pool_is_what_cuda_would_see(
    visible: str | None, count: int, pool: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATENT_REBALANCE_DEVICES", raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert device_pool() == pool


def test_more_devices_than_there_are_is_an_error_and_no_wait() -> None:
    with pytest.raises(ConfigError, match="3 GPUs requested, but only 0, 1 found"), acquire(["0", "1"], 3):
        pass


def test_a_folder_that_takes_no_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LATENT_REBALANCE_LOCKS", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"file.*LATENT_REBALANCE_LOCKS"), acquire(["0"]):
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and tunes glibc")
def test_a_tuned_process_keeps_freed_memory_flushes_denormals_and_computes_in_float32() -> None:
    result = subprocess.run([sys.executable, "-c", TUNE], capture_output=True, text=True, check=True)
    threads, smallest, untuned, tuned, rounded = result.stdout.split()
    block_pages = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert (threads, smallest, rounded) == ("1", "0.0", "False")
    assert int(untuned) < block_pages / 2 < int(tuned)


def test_a_gpu_is_seen_by_its_device_file_or_by_what_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.delenv("LATENT_REBALANCE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidiactl").touch()
    assert not gpu_in_sight(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert gpu_in_sight(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not gpu_in_sight(tmp_path)
    monkeypatch.setenv("LATENT_REBALANCE_DEVICES", "2,3")
    assert gpu_in_sight(tmp_path)
