"""The command line checks a config, runs a stage and ships weights; bad input ends in one line and status 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline_lib.cli import main
from pipeline_lib.data.shards import count_images
from pipeline_lib.data.tables import write_table
from pipeline_lib.networks.checkpoints import read_header
from pipeline_lib.networks.encoder import ResNetEncoder

TOY = Path(__file__).parents[1] / "workflow" / "toy.yaml"
TARGETS = [{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]


def refusal(capsys, *arguments):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_check_prints_the_config_with_every_default_if_asked(capsys):
    assert main(["check", str(TOY), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run"], printed["rebalance"]["edit"]["candidates"]) == ("toy", 4)
    assert printed["evaluate"]["confidence"] == 0.95


def test_check_refuses_a_wrong_key_in_one_line(capsys, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(TOY.read_text().replace("candidates:", "candidate:"))
    message = refusal(capsys, "check", str(wrong))
    said = "unknown key `rebalance.edit.candidate`; did you mean `candidates`?"
    assert message.startswith(f"ConfigError: {wrong}: {said}")


def test_a_stage_without_values_says_what_it_takes(capsys):
    assert main(["tools", "stage", "sample_generator"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Sample a generator")
    assert "generator: 'Path'" in printed or "generator: Path" in printed


def test_import_makes_a_weight_file_of_published_weights(capsys, tmp_path):
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"state_dict": ResNetEncoder((4,), width=2).state_dict()}, source)
    assert "whose first strides depend on the resolution" in refusal(
        capsys, "tools", "import", str(source), str(target)
    )
    assert main(["tools", "import", str(source), str(target), "--resolution", "64"]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: resnet-encoder")
    header = read_header(target)
    assert header["imported_from"] == "a.pth"
    assert header["arguments"]["small"]


def test_import_names_a_damaged_file_in_one_line(capsys, tmp_path):
    source = tmp_path / "a.safetensors"
    source.write_bytes(b"\xff" * 64)
    message = refusal(capsys, "tools", "import", str(source), str(tmp_path / "b.safetensors"))
    assert message.startswith(f"WeightsError: {source}: not a readable weight file")


STAGE = ("tools", "stage", "resample_dataset")


def test_stage_runs_with_values_of_the_command_line(tmp_path, write_shards):
    names = [f"image-{number}" for number in range(8)]
    shards = write_shards(np.zeros((8, 32, 32, 3), np.uint8), names, "dataset", 1)
    labels = pd.DataFrame({"image_id": names, "split": "train", "long_hair": True, "smiling": np.arange(8) < 4})
    write_table(tmp_path / "labels.parquet", "labels", labels.assign(long_hair=np.arange(8) % 2 == 0))
    arguments = [
        f'images=["{shards[0]}"]',
        f"table={tmp_path / 'labels.parquet'}",
        f"targets={json.dumps(TARGETS)}",
        *("run=toy", "seed=0"),
        f'resampled=["{tmp_path / "resampled.parquet"}"]',
    ]
    assert main([*STAGE, *arguments]) == 0
    assert count_images([tmp_path / "resampled.parquet"]) == 8


def test_a_stage_names_the_value_that_is_missing_or_misspelt(capsys):
    assert "no value for `table`" in refusal(capsys, *STAGE, "images=a.parquet")
    assert "takes no `tables`; did you mean `table`?" in refusal(capsys, *STAGE, "tables=a.parquet")
    assert "`images`: write every value as NAME=VALUE" in refusal(capsys, *STAGE, "images")


def test_a_stage_that_fails_ends_in_one_line(capsys, tmp_path):
    values = [f"{name}={tmp_path / name}" for name in ("images", "table", "resampled")]
    message = refusal(capsys, *STAGE, *values, f"targets={json.dumps(TARGETS)}", "run=toy", "seed=0")
    assert message.startswith(f"DataError: {tmp_path / 'table'}: no such table")


def test_what_a_run_has_trained_so_far_is_shipped_in_half_precision(capsys, tmp_path, networks):
    models = tmp_path / "results/models"
    (models / "source").mkdir(parents=True)
    shutil.copy(networks.generator, models / "source/generator.safetensors")
    assert main(["tools", "ship", str(tmp_path / "results"), str(tmp_path / "shipped")]) == 0
    assert "encoder.safetensors: not in this run, so left out" in capsys.readouterr().out
    shipped = tmp_path / "shipped/generator.safetensors"
    assert [path.name for path in (tmp_path / "shipped").iterdir()] == ["generator.safetensors"]
    assert shipped.stat().st_size < 0.6 * networks.generator.stat().st_size
    assert read_header(shipped)["arguments"] == read_header(networks.generator)["arguments"]
    assert "none of the source weights is there" in refusal(
        capsys, "tools", "ship", str(tmp_path), str(tmp_path / "shipped")
    )
