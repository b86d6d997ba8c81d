"""Correctness, speed and training on a GPU in one command, which loses nothing when a part of it fails.

    python -m benchmarks.gpu --output gpu.json --minutes 9

Each section runs in a process and a time limit of its own. If it crashes or is killed, its traceback is kept in the
JSON and the others go on. Sections that are already in the JSON are skipped, so that a second call goes on where the
first ended; `--again` repeats those that did not pass. Only the library's own dependencies are needed, no Snakemake.
Without a GPU every section runs on the CPU at tiny sizes, which checks the command itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import gpu_checks, gpu_speeds, gpu_training
from benchmarks.gpu_sizes import Found, Setting
from pipeline_lib.runtime.devices import tune_cpu
from pipeline_lib.runtime.files import read_json, write_json

ROOT = Path(__file__).parents[1]
ENDING = 5  # seconds that a section has to end after a SIGTERM


@dataclass(frozen=True)
class Section:
    """A part of the command: what it runs, and its time limit in seconds on a GPU."""

    run: Callable[[Setting], list[Found]]
    seconds: int


SECTIONS = {
    "networks": Section(gpu_checks.networks, 60),
    "swaps": Section(gpu_checks.swaps, 40),
    "shards": Section(gpu_checks.shards, 40),
    "compiled training": Section(gpu_checks.compiled_training, 100),
    "resumed training": Section(gpu_checks.resumed_training, 60),
    "several processes": Section(gpu_checks.several_processes, 60),
    "leases": Section(gpu_checks.leases, 20),
    "inversion speed": Section(gpu_speeds.inversion, 150),
    "swap speed": Section(gpu_speeds.swaps, 60),
    "training speed": Section(gpu_speeds.training, 240),
    "detector speed": Section(gpu_speeds.supervised, 60),
    "metrics speed": Section(gpu_speeds.metrics, 90),
    "cold start": Section(gpu_speeds.compiling, 90),
    "training": Section(gpu_training.training, 540),  # in what time is left; three calls finish it
}


def run_section(name: str, seconds: float, kept: Path) -> dict[str, Any]:
    """Run a section in a process of its own and return what it found, or how it ended.

    Args:
        name: of the section.
        seconds: its time limit.
        kept: folder for what a later call needs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "found.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--kept", str(kept)]
        command += ["--seconds", str(seconds), "--output", str(found)]
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            said, _ = process.communicate(timeout=seconds)
            status = "crashed"
        except subprocess.TimeoutExpired:
            said, status = _stop(process), "out of time"
        taken = time.monotonic() - start
        if process.returncode == 0 and found.exists():
            rows = read_json(found)
            status = "passed" if all(row["passed"] is not False for row in rows) else "failed"
            return {"status": status, "seconds": taken, "rows": rows}
        return {"status": status, "seconds": taken, "exit": process.returncode, "said": said[-4000:]}


def _stop(process: subprocess.Popen[str]) -> str:
    """End a section and every process that it started; returns what it printed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            return process.communicate(timeout=ENDING)[0]
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    return process.communicate()[0]


def run_all(chosen: Sequence[str], output: Path, minutes: float, again: bool = False) -> dict[str, Any]:
    """Run the sections that are not in `output` yet, and write it after each of them."""
    end = time.monotonic() + 60 * minutes
    report = read_json(output) if output.exists() else {"machine": machine(), "sections": {}}
    for name in chosen:
        known = report["sections"].get(name)
        if known and (known["status"] == "passed" or not (again or name == "training")):
            continue
        left = end - time.monotonic()
        if left < ENDING:
            print(f"{name}: no time left; call again to go on", flush=True)
            continue
        report["sections"][name] = run_section(name, min(SECTIONS[name].seconds, left), _kept(output))
        print(f"{name}: {report['sections'][name]['status']}", flush=True)
        write_json(output, report)
    return report


def _kept(output: Path) -> Path:
    """Return the folder beside a report for what a later call needs."""
    return output.resolve().with_suffix("")


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def show(report: dict[str, Any]) -> None:
    """Print a table of every row, and the last lines of the sections that did not end."""
    table = Table("section", "measurement", "value", "required or compared", "")
    for name, section in report["sections"].items():
        for row in section.get("rows", ()):
            mark = {None: "", True: "pass", False: "FAIL"}[row["passed"]]
            table.add_row(name, row["name"], row["value"], row["against"], mark)
        if "rows" not in section:
            last = section["said"].strip().splitlines()[-1:] or ["printed nothing"]
            table.add_row(name, section["status"], f"{section['seconds']:.0f} s", last[0], "FAIL")
    Console(width=150).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write; returns 0 if every section passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=9.0, help="time for this call; another call goes on")
    parser.add_argument("--again", action="store_true", help="repeat sections that did not pass")
    for name, kind in (("--section", str), ("--kept", Path), ("--seconds", float)):  # for the process of a section
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.section:
        return _run_here(options.section, options.output, options.kept, options.seconds)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    report = run_all(options.sections or list(SECTIONS), options.output, options.minutes, options.again)
    show(report)
    missing = set(options.sections or SECTIONS) - set(report["sections"])
    return int(bool(missing) or any(section["status"] != "passed" for section in report["sections"].values()))


def _run_here(name: str, output: Path, kept: Path, seconds: float) -> int:
    """Run a section in this process, which another one started."""
    tune_cpu(os.cpu_count() or 1)
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            rows = SECTIONS[name].run(Setting.here(Path(scratch), kept, seconds))
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**20
            rows.append(Found("most memory on the device", f"{peak:,.0f} MiB", number=peak))
        write_json(output, [asdict(row) for row in rows])
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
