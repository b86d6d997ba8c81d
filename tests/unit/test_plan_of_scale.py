"""The plan to 100 million images follows from the rates that a report holds."""

from __future__ import annotations

import pytest

from experiments.plan import Rate, main, rate_of, table
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import write_json


def report(**numbers):
    names = {
        "inverted": "inversion, 256 px, ProGAN and ResNet-18, bfloat16, compiled",
        "scored": "candidates scored, bfloat16, 256 px",
        "gathered": "donors gathered on the device, 256 px",
        "written": "results written, 256 px",
    }
    slow = [{"name": "inversion, 256 px, ProGAN and ResNet-18, float32", "number": 100.0}]
    rows = slow + [{"name": names[key], "number": value} for key, value in numbers.items()]
    return {"sections": {"speed": {"rows": rows}, "leases": {"said": "crashed"}}}


def test_inversion_and_scoring_take_turns_while_the_cpu_gathers_and_writes():
    found = rate_of(report(inverted=16_000.0, scored=1_000.0, gathered=900.0, written=700.0))
    assert found == Rate(pytest.approx(500.0), "the device")  # 1 / (16 / 16000 + 1 / 1000)
    assert rate_of(report(inverted=16_000.0, scored=1_000.0, gathered=450.0, written=700.0)) == Rate(450.0, "gathering")


def test_a_million_images_at_a_thousand_faces_a_second():
    row = table(Rate(1000.0, "the device")).splitlines()[3]
    # 250,000 edits take 250 s; two copies of 177 KB are 0.354 TB; 0.21 + 8.14 dollars
    assert row == "| 1,000,000 | 4,000,000 | 0.069 | 0.35 TB | 177 | 8 dollars |"


def test_a_report_without_speeds_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(DataError, match="no row `candidates scored` at 256 px"):
        rate_of(report(inverted=1.0))
    write_json(tmp_path / "gpu.json", report())
    assert main([str(tmp_path / "gpu.json")]) == 2
    assert "run `make gpu-check` on a GPU" in capsys.readouterr().err
    assert main([str(tmp_path / "none.json")]) == 2


def test_without_a_report_the_older_rate_is_taken(capsys):
    assert main([]) == 0
    assert "672 faces a second" in capsys.readouterr().out
