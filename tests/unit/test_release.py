"""What is published can be opened by the programs that it is meant for, and says what made it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from benchmarks.made_run import VALUES, make_run
from pipeline_lib.cli import main
from pipeline_lib.config import load_config
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.release import provenance
from pipeline_lib.release.export import export
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.stages import STAGES, revision_of
from tests.unit.made_results import metrics_of

NAMES, HELD_OUT = [f"face-{number}" for number in range(5)], ["other-0", "other-1"]
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
EDITED = [1, 3]
AFTER = np.where(np.isin(np.arange(5), EDITED)[:, None, None, None], 255 - PIXELS, PIXELS)
REVISIONS = {name: revision_of(name) for name in STAGES}


@pytest.fixture
def run(tmp_path):
    """Write a run that retrained no GAN."""
    make_run(tmp_path / "run", NAMES, HELD_OUT, PIXELS, edited=EDITED)
    return tmp_path / "run"


@pytest.fixture
def with_gan(tmp_path):
    """Write a run with a retrained GAN of random weights."""
    return write_run_with_gan(
        tmp_path, 0.7, StyleGAN2Generator(32, [8] * 4, style_dim=8, mapping_layers=2, noise=False)
    )


def write_run_with_gan(tmp_path, truncation, generator):
    training = {"kimg": 3, "batch": 16}
    values = copy.deepcopy(VALUES) | {
        "generator": {"channels": [8] * 4, "training": training},
        "retrain": {"init": "source", "training": training},
        "sample": {"truncation": truncation},
    }
    make_run(tmp_path / "run", NAMES, HELD_OUT, PIXELS, values, edited=EDITED)
    weights = tmp_path / "run/models/retrained/generator.safetensors"
    weights.parent.mkdir(parents=True)
    save_weights(weights, generator, {})
    for name, metadata in (("retrained", {"generator_digest": digest_of_files(weights)}),):
        for shard in range(2):
            with shard_writer(tmp_path / f"run/images/{name}/{shard}.parquet", 32, metadata) as writer:
                writer.add([f"{name}-{shard}"], PIXELS[[shard]])
    metrics_of().write(tmp_path / "run/evaluation/metrics.json")
    return tmp_path / "run"


def test_datasets_opens_an_image_folder(run, tmp_path):
    from datasets import load_dataset

    export(run, "dataset_rebalanced", tmp_path / "out")
    for name, options in (("imagefolder", {"data_dir": str(tmp_path / "out")}), (str(tmp_path / "out"), {})):
        loaded = load_dataset(name, cache_dir=str(tmp_path / "cache"), **options)
        assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "test": 2}
        for place, row in enumerate(loaded["train"]):
            assert np.array_equal(np.asarray(row["image"]), AFTER[place])
            assert (row["original_id"], row["edited"]) == (NAMES[place], place in EDITED)
            assert row["smiling"] == (place in EDITED or place % 2 == 0)  # every edit succeeded
        assert loaded["train"][1]["donor_id"] == "face-2"


def test_a_webdataset_loader_reads_the_shards(run, tmp_path):
    import webdataset

    export(run, "dataset_rebalanced", tmp_path / "out", "webdataset")
    files = [str(path) for path in sorted((tmp_path / "out").glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(files, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 5
    for place, sample in enumerate(samples):
        assert np.array_equal(sample["png"], AFTER[place])
        assert (sample["json"]["original_id"], sample["json"]["edited"]) == (NAMES[place], place in EDITED)


def test_croissant_metadata_is_valid_and_leads_to_rows_and_images(run, tmp_path):
    import mlcroissant

    export(run, "dataset_rebalanced", tmp_path / "out")
    described = mlcroissant.Dataset(tmp_path / "out/croissant.json")
    assert not described.metadata.issues.errors
    recommended = {re.search(r'Property "(\S+)"', warning)[1] for warning in described.metadata.issues.warnings}
    # who publishes it adds a date and how it is to be cited
    assert recommended == {"https://schema.org/datePublished", "http://mlcommons.org/croissant/citeAs"}
    table = pd.read_parquet(tmp_path / "out/train/metadata.parquet")
    records = list(described.records("train"))
    assert [record["train/original_id"].decode() for record in records] == NAMES
    assert [record["train/edited"] for record in records] == table["edited"].tolist()
    assert {name.removeprefix("train/") for name in records[0]} == {*table, "image"}
    for place, record in enumerate(records):
        assert np.array_equal(np.asarray(record["train/image"]), AFTER[place])
    assert len(list(described.records("test"))) == 2


def test_without_the_library_an_export_lacks_croissant_metadata_and_says_so(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    export(run, "dataset_rebalanced", tmp_path / "out")
    assert not (tmp_path / "out/croissant.json").exists()
    assert "croissant" not in (tmp_path / "out/README.md").read_text()
    assert "pip install 'latent-rebalance[release]'" in caplog.text


def test_the_card_has_front_matter_and_describes_every_column(run, tmp_path):
    for name in ("dataset_rebalanced", "dataset"):
        out = tmp_path / name
        export(run, name, out)
        text = (out / "README.md").read_text()
        front = yaml.safe_load(text.split("---\n")[1])
        assert front["license"] == "mit" and front["pretty_name"]
        described = set(re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE))
        assert described == set(pd.read_parquet(out / "train/metadata.parquet"))
    assert not (tmp_path / "dataset/model").exists()


def test_the_model_card_has_the_figures_of_the_run(with_gan, tmp_path):
    export(with_gan, "dataset_rebalanced", tmp_path / "out")
    card = (tmp_path / "out/model/README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "unconditional-image-generation"
    for text in (
        "A StyleGAN2 generator of 32 by 32 pixels. It was trained by the run `made-up`",
        "| long hair | smiling | 0.50 | 0.72 [0.70, 0.74] | 0.52 [0.50, 0.54] |",
        "The group gap in smiling (long hair minus not long hair) is +0.04 [+0.01, +0.07], and that of the control",
        "an area under the ROC curve of 0.62 [0.60, 0.65]",
        "Not with another truncation than 0.7",
    ):
        assert " ".join(text.split()) in " ".join(card.split())
    assert "`model/`" in (tmp_path / "out/README.md").read_text()


def test_the_card_of_a_generator_without_truncation_does_not_speak_of_it(tmp_path):
    run = write_run_with_gan(tmp_path, 1.0, ProGANGenerator(32, [8] * 4, z_dim=8))
    export(run, "dataset_rebalanced", tmp_path / "out")
    card = (tmp_path / "out/model/README.md").read_text()
    assert "A ProGAN generator" in card
    assert "truncat" not in card


def test_the_loading_example_is_short_and_draws_a_sample_of_the_retrained_gan(with_gan, tmp_path, monkeypatch):
    export(with_gan, "dataset_rebalanced", tmp_path / "out", "webdataset")
    folder = tmp_path / "out/model"
    (example,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    monkeypatch.chdir(folder)
    exec(compile(example, "example", "exec"), {})
    network = load_weights(with_gan / "models/retrained/generator.safetensors")
    with torch.no_grad():
        latents = network.truncate(network.sample_latents(range(8), seed=0), 0.7)
        expected = (network.decode(latents)[0].permute(1, 2, 0) + 1) * 127.5
    shown = np.asarray(Image.open(folder / "sample.png")).astype(float)
    assert shown.std() > 1
    np.testing.assert_allclose(shown, expected.numpy(), atol=0.51)


def test_a_gan_that_the_samples_are_not_of_is_refused(with_gan, tmp_path):
    weights = with_gan / "models/retrained/generator.safetensors"
    save_weights(weights, load_weights(weights), {"another": "header"})
    with pytest.raises(DataError, match=r"retrained/0.parquet: not drawn by .*, so its rates are of another GAN"):
        export(with_gan, "dataset_rebalanced", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_this_installation_would_make_the_same_bytes(run, tmp_path, capsys):
    export(run, "dataset_rebalanced", tmp_path / "out")
    assert main(["tools", "reproduce", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Made by the run made-up (seed 3) with the config")
    assert f"same: torch {torch.__version__.partition('+')[0]}" in [line.partition("+")[0] for line in lines]
    assert lines[-3] == "This installation would make the same bytes."
    config = load_config(tmp_path / "out/config.yaml")
    assert (config.run, config.seed) == ("made-up", 3)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("python", "3.9.1", "differs: python was 3.9.1, here "),
        ("torch", "1.0", "differs: torch was 1.0, here "),
        ("processor", ["avx2"], "differs: processor was avx2, here "),
        ("gpu", "A Card", "differs: gpu was A Card, here none; can change rounding in networks"),
        ("code", "0123", "differs: code was 0123, here "),
    ],
)
def test_whatever_differs_is_named(run, tmp_path, capsys, key, value, line):
    export(run, "dataset_rebalanced", tmp_path / "out")
    path = tmp_path / "out/provenance.json"
    found = json.loads(path.read_text())
    found["installation"][key] = value
    path.write_text(json.dumps(found))
    assert main(["tools", "reproduce", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [found.startswith(line) for found in lines if found.startswith("differs")] == [True]


@pytest.mark.parametrize(
    ("made_by", "line"),
    [
        ("prepare_dataset@1", f"differs: revision of prepare_dataset was 1, here {REVISIONS['prepare_dataset']}; can"),
        ("a_stage_of_old@1", "differs: revision of a_stage_of_old was 1, here not there; can"),
        (None, "differs: revision of an unknown stage was none, here not there; can"),
    ],
)
def test_a_file_that_older_code_made_is_not_said_to_be_the_same(run, tmp_path, made_by, line):
    """The rest of the provenance is of the code that recorded it."""
    found = json.loads((run / "provenance.json").read_text())
    older = run / "images/older/0.parquet"
    with shard_writer(older, 32, {"made_by": made_by} if made_by else {}) as writer:
        writer.add(["face-0"], PIXELS[[0]])
    provenance.record_provenance(
        settings=found["config"], images=[older], models=[], given=[], provenance=run / "provenance.json"
    )
    export(run, "dataset_rebalanced", tmp_path / "out")
    lines, same = provenance.reproduce(tmp_path / "out", REVISIONS)
    assert not same
    assert [found.startswith(line) for found in lines if found.startswith("differs")] == [True]


def test_a_changed_config_and_a_missing_weight_file_are_named(run, tmp_path, monkeypatch):
    (tmp_path / "weights.bin").write_text("weights")
    found = json.loads((run / "provenance.json").read_text())
    monkeypatch.chdir(tmp_path)
    provenance.record_provenance(
        settings=found["config"], images=[], models=[], given=[Path("weights.bin")], provenance=run / "provenance.json"
    )
    export(run, "dataset_rebalanced", tmp_path / "out")
    digest = digest_of_files("weights.bin")
    assert f"same: weights.bin {digest}" in provenance.reproduce(tmp_path / "out", REVISIONS)[0]
    Path("weights.bin").unlink()
    config = tmp_path / "out/config.yaml"
    config.write_text(config.read_text().replace("seed: 3", "seed: 4", 1))
    lines, same = provenance.reproduce(tmp_path / "out", REVISIONS)
    assert not same
    assert f"differs: weights.bin was {digest}, here none; can change everything that is made from it" in lines
    assert any(line.startswith("differs: config digest was") for line in lines)


def test_a_folder_that_is_no_export_is_refused(tmp_path, capsys):
    assert main(["tools", "reproduce", str(tmp_path)]) == 2
    assert "no provenance.json, so this is no export" in capsys.readouterr().err
    (tmp_path / "provenance.json").write_text('{"form": 9}')
    with pytest.raises(DataError, match="form 9, expected 3"):
        provenance.reproduce(tmp_path, REVISIONS)
