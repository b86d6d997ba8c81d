"""The command that checks a GPU loses no section to another one, and goes on where it ended."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks import gpu
from benchmarks.gpu import SECTIONS, main, run_all, run_section
from pipeline_lib.runtime.files import read_json, write_json


@pytest.fixture
def sections(monkeypatch):
    """Replace the processes of the sections by programs that are given, by name of the section."""
    programs = {}
    start = gpu.subprocess.Popen

    def replaced(command, **options):
        name, output = command[command.index("--section") + 1], command[-1]
        return start([sys.executable, "-c", programs[name], output], **options)

    monkeypatch.setattr(gpu.subprocess, "Popen", replaced)
    return programs


def finds(*passed):
    rows = [{"name": "x", "value": "1", "against": "", "passed": each, "number": 1.0} for each in passed]
    return f"import json, sys; open(sys.argv[1], 'w').write(json.dumps({rows!r}))"


def test_a_section_that_raises_is_killed_or_hangs_leaves_the_others_whole(sections, tmp_path):
    sections |= {
        "networks": "raise ValueError('no such kernel')",
        "swaps": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "shards": finds(True, None),
        "leases": finds(True, False),
    }
    report = run_all(["networks", "swaps", "shards", "leases"], tmp_path / "gpu.json", minutes=1)
    found = report["sections"]
    assert [section["status"] for section in found.values()] == ["crashed", "crashed", "passed", "failed"]
    assert found["networks"]["said"].endswith("ValueError: no such kernel\n")
    assert found["swaps"]["exit"] == -9
    assert read_json(tmp_path / "gpu.json") == report


def test_a_section_that_takes_too_long_is_ended_with_its_own_processes(sections, tmp_path):
    sections["networks"] = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    start = time.monotonic()
    assert run_section("networks", 0.5, tmp_path)["status"] == "out of time"
    assert time.monotonic() - start < 20


def test_a_second_call_skips_what_is_done_and_repeats_the_rest_if_asked(sections, tmp_path):
    output = tmp_path / "gpu.json"
    sections |= {"networks": finds(True), "swaps": "raise SystemExit(3)"}
    run_all(["networks", "swaps"], output, minutes=1)
    sections |= {"networks": finds(False), "swaps": finds(True), "leases": finds(True)}
    again = run_all(["networks", "swaps", "leases"], output, minutes=1)["sections"]
    assert [section["status"] for section in again.values()] == ["passed", "crashed", "passed"]
    repeated = run_all(["networks", "swaps"], output, minutes=1, again=True)["sections"]
    assert [section["status"] for section in repeated.values()] == ["passed", "passed", "passed"]


def test_without_time_left_nothing_is_started(sections, tmp_path, capsys):
    assert run_all(["networks"], tmp_path / "gpu.json", minutes=0)["sections"] == {}
    assert "networks: no time left; call again to go on" in capsys.readouterr().out


def test_the_exit_status_says_whether_every_section_passed(sections, tmp_path, capsys):
    sections |= {"networks": finds(True), "leases": finds(False)}
    assert main(["networks", "--output", str(tmp_path / "one.json")]) == 0
    assert main(["networks", "leases", "--output", str(tmp_path / "two.json")]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_an_unknown_section_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["network"])
    assert "no section network; there are networks" in capsys.readouterr().err


@pytest.mark.workflow
@pytest.mark.parametrize("name", ["networks", "swaps", "shards", "compiled training"])
def test_a_section_passes_on_the_cpu_at_tiny_size(name, tmp_path):
    found = run_section(name, 300, tmp_path / "kept")
    assert found["status"] == "passed", found
    write_json(tmp_path / "gpu.json", {"machine": gpu.machine(), "sections": {name: found}})
    assert found["rows"]


def test_every_section_has_a_limit_and_all_fit_into_two_calls():
    assert all(section.seconds > 0 for section in SECTIONS.values())
    assert sum(section.seconds for name, section in SECTIONS.items() if name != "training") <= 2 * 9 * 60
