"""A copy of the repository in which a test runs Snakemake."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("Snakefile", "workflow", "pipeline_lib", "profiles", "config", "envs", "tests/workflow")
RUN = ("pipeline_lib", "run")  # Snakemake, with the lock of a killed run cleared first
CONFIG, RESULTS = "tests/workflow/toy.yaml", "results/toy"
# Toy networks gain nothing from a second thread, and most of a job is its start: run two jobs at a time instead.
TWO_JOBS = ("--resources", "gpu=2", "--max-threads", "1", "--cores", "2")


class Run:
    """A copy of the repository in which Snakemake runs the toy config, started by a `python` that is warm or not."""

    def __init__(self, folder: Path, python: Path = Path(sys.executable)):
        self.folder, self.results, self.python = folder, folder / RESULTS, python

    @classmethod
    def take(cls, repository: Path, sources: Iterable[str], folder: Path, python: Path = Path(sys.executable)) -> Run:
        """Copy those files and folders of a repository that a run needs."""
        for name in sources:
            source, target = repository / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        return cls(folder, python)

    def start(
        self, *arguments: str, config: str = CONFIG, program: Sequence[str] = ("snakemake",)
    ) -> subprocess.Popen[str]:
        """Start the workflow as the head of a process group, by Snakemake itself or another module."""
        command = [str(self.python), "-m", *program, "--configfile", config, *TWO_JOBS, *arguments]
        settings = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "LATENT_REBALANCE_DEVICES": ""}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def snakemake(
        self,
        *arguments: str,
        config: str = CONFIG,
        program: Sequence[str] = ("snakemake",),
        fails: bool = False,
    ) -> str:
        """Run the workflow to its end and return what was printed."""
        with self.start(*arguments, config=config, program=program) as process:
            output, _ = process.communicate()
        assert (process.returncode != 0) == fails, output
        return output

    def copy(self, folder: Path) -> Run:
        """Copy the repository with everything that was made in it."""
        shutil.copytree(self.folder, folder)
        return Run(folder, self.python)

    def configure(self, change: dict) -> str:
        """Write the toy config with some sections changed or added beside it; return its name."""
        values = yaml.safe_load((self.folder / CONFIG).read_text())
        for section, keys in change.items():
            values[section] = {**values.get(section, {}), **keys}
        (self.folder / "changed.yaml").write_text(yaml.safe_dump(values))
        return "changed.yaml"

    def digests(self, patterns: Iterable[str] = ("**/*",)) -> dict[str, str]:
        """Return the digest of every file under the results that matches a pattern."""
        paths = [path for pattern in patterns for path in self.results.glob(pattern) if path.is_file()]
        return {str(path.relative_to(self.results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def jobs_of(dry_run: str) -> list[tuple[str, str]]:
    """Return rule and outputs of every job that a dry run names."""
    blocks = re.split(r"^(?:local)?rule (\w+):$", dry_run, flags=re.MULTILINE)[1:]
    outputs = [re.search(r"^ +output: (.*)$", text, flags=re.MULTILINE) for text in blocks[1::2]]
    return [(rule, found[1] if found else "") for rule, found in zip(blocks[::2], outputs, strict=True)]
