from __future__ import annotations

import shutil

import pytest
from harness import REPOSITORY, SOURCES, Run


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The repository before anything has run."""
    folder = tmp_path_factory.mktemp("sources") / "repository"
    for name in SOURCES:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return Run(folder)


@pytest.fixture(scope="session")
def finished(sources: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has made everything; tests read it and copy it, and change nothing in it."""
    run = sources.copy(tmp_path_factory.mktemp("finished") / "repository")
    run.snakemake()
    return run
