from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from harness import REPOSITORY, SOURCES, Run
from warm import warm_python


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """A Python that has imported everything already."""
    with tempfile.TemporaryDirectory() as folder, warm_python(Path(folder), REPOSITORY) as python:
        yield python


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Run:
    """The repository before anything has run; tests copy it and run in the copy."""
    return Run.take(REPOSITORY, SOURCES, tmp_path_factory.mktemp("sources") / "repository", python)


@pytest.fixture(scope="session")
def finished(sources: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has made everything; tests read it and copy it, and change nothing in it.

    Where pytest-xdist spreads the tests over processes, the first that needs the run makes it for all.
    """
    own = tmp_path_factory.getbasetemp()
    shared: Path = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    run, done = Run(shared / "finished", sources.python), shared / "finished.done"
    with FileLock(shared / "finished.lock"):
        if not done.exists():
            sources.copy(run.folder).snakemake()
            done.touch()
    return run
