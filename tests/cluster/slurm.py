"""A Slurm of one node with two GPUs that are none, for as long as a test needs it. Run as root: it starts daemons."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
SYSTEM = Path("/etc/slurm")  # where Slurm's commands look inside a job, which does not keep SLURM_CONF
CONFIG = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
GresTypes=gpu
ReturnToService=2
KillWait=30
MinJobAge=600
JobRequeue=1
NodeName={host} CPUs=2 RealMemory=8000 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""


def missing() -> list[str]:
    """Return what this machine lacks for a Slurm of its own."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        lacking.append("root's rights")
    if (SYSTEM / "slurm.conf").exists():
        lacking.append(f"room in {SYSTEM}, where a slurm.conf lies already")
    return lacking


@contextmanager
def one_node(folder: Path) -> Iterator[dict[str, str]]:
    """Start munge, the controller and the node; yield the environment in which Slurm's commands reach them."""
    SYSTEM.mkdir(exist_ok=True)
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        (folder / f"gpu{number}").touch()
    ports = dict(zip(("controller", "node"), _free_ports(2), strict=True))
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, **ports))
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    for name in ("slurm.conf", "gres.conf"):
        (SYSTEM / name).symlink_to(folder / name)
    key = folder / "munge.key"
    key.write_bytes(b"k" * 1024)
    key.chmod(0o400)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{kind}-file={folder}/munged.{kind}" for kind in ("log", "pid", "seed")]
    with ExitStack() as running:
        running.callback(lambda: [(SYSTEM / name).unlink() for name in ("slurm.conf", "gres.conf")])
        for command in (munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            running.enter_context(_daemon(command, folder, environment))
        _wait_until_idle(environment, folder)
        yield environment


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        found = subprocess.run(
            ["sinfo", "-h", "-o", "%T %G"], env={**os.environ, **environment}, capture_output=True, text=True
        )
        if found.stdout.startswith("idle"):
            return
        time.sleep(1)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.out"))
    raise RuntimeError(f"no idle node after a minute ({found.stdout}{found.stderr})\n{logs}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("", 0))
        return [found.getsockname()[1] for found in sockets]
