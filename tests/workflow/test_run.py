"""`run` goes on after a kill, and never takes the lock of a Snakemake that lives."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.workflow

RUN, PLAIN = ["pipeline_lib", "run", "--snakefile", "Snakefile"], ["snakemake"]


class Folder:
    """A workflow of one rule, which waits for a file before it makes another."""

    def __init__(self, path: Path):
        self.path, self.processes = path, []
        (path / "Snakefile").write_text(
            "rule all:\n    output: 'made'\n    shell: 'while [ ! -e go ]; do sleep 0.05; done; touch {output}'\n"
        )

    def start(self, command: list[str], cwd: Path | None = None) -> subprocess.Popen[str]:
        program = command if command[0] == "-c" else ["-m", *command]
        process = subprocess.Popen(
            [sys.executable, *program, "--cores", "1", "--rerun-incomplete"],
            cwd=cwd or self.path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def finish(self, command: list[str]) -> tuple[int, str]:
        process = self.start(command)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output

    def locks(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.path.glob(".snakemake/locks/*.lock")}

    def started(self, command: list[str], cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start it, and wait until it holds Snakemake's lock."""
        process = self.start(command, cwd)
        while len(self.locks()) < 1 or not list(self.path.glob(".snakemake/log/*")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        return process

    def release(self) -> None:
        (self.path / "go").touch()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    for process in folder.processes:  # a failed test may leave some running
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_run_goes_on(folder: Folder) -> None:
    kill(folder.started(RUN))
    assert folder.locks()
    folder.release()
    status, output = folder.finish(RUN)
    assert status == 0, output
    assert "an earlier run was killed; resuming it" in output
    assert not folder.locks()


def test_a_live_run_keeps_its_lock(folder: Folder) -> None:
    live = folder.started(RUN)
    before = folder.locks()
    status, output = folder.finish(RUN)
    assert status == 2
    assert "already running" in output
    assert folder.locks() == before
    folder.release()
    assert live.wait(timeout=60) == 0


@pytest.mark.long
def test_a_run_whose_parent_alone_was_killed_keeps_its_lock(folder: Folder) -> None:
    parent = folder.started(RUN)
    (snakemake,) = psutil.Process(parent.pid).children()
    parent.kill()
    before = folder.locks()
    status, output = folder.finish(RUN)
    assert status == 2
    assert "already running" in output
    assert folder.locks() == before
    folder.release()
    psutil.wait_procs([snakemake], timeout=60)
    assert (folder.path / "made").exists()


@pytest.mark.parametrize("killed_before", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_live_snakemake_that_was_started_without_run_keeps_its_lock(folder: Folder, killed_before: bool) -> None:
    if killed_before:
        kill(folder.started(RUN))
        assert folder.finish([*PLAIN, "--unlock"])[0] == 0
    live = folder.started(PLAIN)
    before = folder.locks()
    status, output = folder.finish(RUN)
    assert status == 1
    assert "Directory cannot be locked" in output
    assert folder.locks() == before
    folder.release()
    assert live.wait(timeout=60) == 0


@pytest.mark.long
@pytest.mark.parametrize("program", [PLAIN, ["-c", "from snakemake.cli import main; main()"]])
def test_a_live_snakemake_that_was_started_elsewhere_keeps_its_lock(
    folder: Folder, program: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kill(folder.started(RUN))
    assert folder.finish([*PLAIN, "--unlock"])[0] == 0
    where = ["--snakefile", str(folder.path / "Snakefile"), "--directory", str(folder.path)]
    live = folder.started([*program, *where], cwd=tmp_path_factory.mktemp("elsewhere"))
    before = folder.locks()
    status, output = folder.finish(RUN)
    assert status == 1
    assert "Directory cannot be locked" in output
    assert folder.locks() == before
    folder.release()
    assert live.wait(timeout=60) == 0


@pytest.mark.long
def test_after_a_killed_plain_snakemake_unlock_helps_as_the_readme_says(folder: Folder) -> None:
    kill(folder.started(PLAIN))
    folder.release()
    status, output = folder.finish(PLAIN)
    assert status == 1
    assert "--unlock" in output
    assert folder.finish([*PLAIN, "--unlock"])[0] == 0
    assert folder.finish(PLAIN)[0] == 0
