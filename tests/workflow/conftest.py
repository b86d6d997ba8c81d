from __future__ import annotations

import pytest
from harness import REPOSITORY, SOURCES, Run


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The repository before anything has run."""
    return Run.take(REPOSITORY, SOURCES, tmp_path_factory.mktemp("sources") / "repository")


@pytest.fixture(scope="session")
def finished(sources: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has made everything; tests read it and copy it, and change nothing in it."""
    run = sources.copy(tmp_path_factory.mktemp("finished") / "repository")
    run.snakemake()
    return run
