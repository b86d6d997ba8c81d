"""In a log, progress is a line now and then that says how far a stage is and how long it takes."""

from __future__ import annotations

import logging

import pytest

from pipeline_lib.runtime import progress as module
from pipeline_lib.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Let time pass only as a test says."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: False, raising=False)

    def wait(seconds):
        now[0] += seconds

    return wait


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="pipeline_lib.progress")
    return lambda: [record.message.strip() for record in caplog.records]


def test_lines_come_by_the_clock_and_not_by_the_image(clock, lines):
    with Progress("score", 6000) as progress:
        for _ in range(60):
            clock(1)
            progress.advance(100)
    assert lines()[:-1] == [
        "score: 2,100 of 6,000 img (35%), 100 img/s, 0:39 left",
        "score: 4,200 of 6,000 img (70%), 100 img/s, 0:18 left",
    ]
    assert lines()[-1] == "score: 6,000 of 6,000 img in 60 s"


def test_a_resumed_stage_counts_what_was_done_before_but_not_in_its_rate(clock, lines):
    with Progress("train", 1000, done=500) as progress:
        clock(25)
        progress.advance(100)
    assert lines()[0] == "train: 600 of 1,000 img (60%), 4 img/s, 1:40 left"


def test_metrics_stand_beside_the_count(clock, lines):
    with Progress("train", 1000) as progress:
        progress.advance(10)
        progress.show({"loss": 0.12345})
        assert lines() == []
        clock(11)
        progress.show({"loss": 0.12345})
    assert lines()[0].endswith("left loss 0.123")


def test_a_stage_without_an_image_ends_in_one_line(clock, lines):
    with Progress("swap", 0, unit="composites"):
        pass
    assert lines() == ["swap: 0 of 0 composites in 0 s"]
