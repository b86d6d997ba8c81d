"""Runs of the workflow: Snakemake is started, a killed run resumed, and one recipe run with several seeds."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml

from pipeline_lib.config import load_config, read_config
from pipeline_lib.config.reseeding import LABELS, first_difference, reseed, value_of
from pipeline_lib.runtime.errors import PipelineError
from pipeline_lib.runtime.files import SHIPPED, atomic_path

CONFIG = Path("config/config.yaml")  # what Snakemake reads in a folder where none is named


def run_workflow(arguments: Sequence[str]) -> int:
    """Run Snakemake, once its config files are known to hold no code and the lock of a killed run is cleared.

    Snakemake's own lock outlives a kill. Another one, which the kernel frees, is held for as long as Snakemake lives,
    and its file is not empty until Snakemake has ended by itself.

    Args:
        arguments: a config file (.yaml), which may be left out, and the options of Snakemake. Without `--cores` and
            its like all cores are used, without `--snakefile` the workflow that comes with this library.

    Returns:
        Exit status of Snakemake.
    """
    arguments, given = _parse(arguments)
    folder = given.directory or Path()
    for path in given.configfile or filter(Path.exists, [folder / CONFIG]):
        read_config(path)
    command = [sys.executable, "-m", "snakemake", *arguments]
    own = folder / ".snakemake"
    own.mkdir(parents=True, exist_ok=True)
    with (own / "latent-rebalance.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(
                f"the workflow is already running in {folder.resolve()}; wait for it or stop it"
            ) from None
        lock.seek(0)
        if lock.read() and any((own / "locks").glob("*.lock")) and not _runs_snakemake(folder):
            logging.info("an earlier run was killed; resuming it")
            # what keeps it from unlocking keeps it from running, and is said then
            subprocess.run([*command, "--unlock"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lock.truncate(0)
        lock.write("running\n")
        lock.flush()
        status = subprocess.run(command, check=False, pass_fds=[lock.fileno()]).returncode
        if status >= 0:
            lock.truncate(0)
        return status


def run_seeds(arguments: Sequence[str], count: int) -> int:
    """Run the workflow `count` times with other seeds, each under a name of its own; a run that fails is the last.

    Raises:
        ConfigError: a config cannot be read, or names labels, which are of one run's images.
        PipelineError: several configs are given, or an earlier run of that name had another.
    """
    if count < 1:
        raise PipelineError("`--seeds` is a number of runs from 1; correct it")
    arguments, given = _parse(arguments)
    folder = given.directory or Path()
    paths = given.configfile or [folder / CONFIG]
    if len(paths) > 1 or given.config:
        raise PipelineError("`--seeds` takes one config file and no --config; write all keys in that file")
    configs = _write_configs(paths[0], folder, count)
    end = arguments.index("--") if "--" in arguments else len(arguments)  # of the options; the last config counts
    for config in configs:
        if status := run_workflow([*arguments[:end], "--configfile", str(config.resolve()), *arguments[end:]]):
            return status
    if len(configs) >= 3 and not given.dryrun:
        folders = " ".join(str(config.parent) for config in configs)
        print(f"What they tell of a further run: latent-rebalance tools recipe {folders}")
    return 0


def run_demo(arguments: Sequence[str]) -> int:
    """Run the default config, and print where its report lies."""
    config = SHIPPED / CONFIG
    report = Path("results") / load_config(config).run / "report.html"
    status = run_workflow([str(config), *arguments])
    if status == 0 and report.is_file():  # not after a dry run
        print(f"Report: {report}")
    return status


def _parse(arguments: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Return complete arguments for Snakemake, and the options that it reads in them and in profiles."""
    arguments = list(arguments)
    if arguments and re.fullmatch(r"[^-].*\.ya?ml", arguments[0]):
        arguments[0] = f"--configfile={arguments[0]}"
    names_snakefile = any(word == "-s" or word.startswith("--snakefile") for word in arguments)
    if not names_snakefile and not SHIPPED.samefile("."):  # there it is found, with relative paths
        arguments = ["--snakefile", str(SHIPPED / "Snakefile"), *arguments]
    given = _read_options(arguments)
    if given.cores is None and given.jobs is None and given.report is None:
        arguments = ["--cores", "all", *arguments]
    return arguments, given


def _read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read options as Snakemake does itself."""
    from snakemake.cli import parse_args
    from snakemake.exceptions import CliException, WorkflowError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse_args(list(arguments))[1]
    except SystemExit:
        sys.stderr.write(said.getvalue())
        raise
    except (CliException, WorkflowError) as error:
        raise PipelineError(" ".join(str(error).split())) from None


def _runs_snakemake(folder: Path) -> bool:
    """Tell whether a Snakemake lives in a folder, or may live there: of another user's it cannot be seen where.

    It is known by its name, or, within another program, by its log in the folder.
    """
    folder = folder.resolve()
    for process in psutil.process_iter(["cwd", "cmdline", "open_files"]):
        found = process.info
        named = "snakemake" in {Path(word).name for word in found["cmdline"] or []}
        if named and found["cwd"] in (str(folder), None):
            return True
        if any(Path(file.path).parent == folder / ".snakemake/log" for file in found["open_files"] or []):
            return True
    return False


def _write_configs(path: Path, folder: Path, count: int) -> list[Path]:
    """Write the config of each of several runs of a recipe; one that is there stays, with the labels that it names."""
    path = path.resolve()
    with contextlib.chdir(folder):
        config = load_config(path)
    given = config.model_dump()
    for key in LABELS:
        if value_of(given, key):
            raise PipelineError(
                f"{path}: `{key}` are labels of one run's images; leave it out, and name them in the config of that run"
            )
    written = []
    for seed in range(1, count + 1):
        values = reseed(config, seed)
        own = folder / "results" / values["run"] / "config.yaml"
        if own.is_file():
            if key := first_difference(values, read_config(own)):
                raise PipelineError(
                    f"{own}: `{key}` is not as in {path}; remove that folder, or give `run` another name"
                )
        else:
            with atomic_path(own) as beside:
                beside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        written.append(own)
    return written
