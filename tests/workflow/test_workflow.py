"""The whole workflow at toy size: what it makes, what it makes again and what it leaves alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import read_table

pytestmark = pytest.mark.workflow

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("Snakefile", "workflow", "pipeline_lib", "profiles", "config", "envs", "tests/workflow")
CONFIG, RESULTS = "tests/workflow/toy.yaml", "results/toy"

#: What `rule all` asks for, by the layout that the documentation promises.
WANTED = [
    "evaluation/metrics.json",
    *(f"report/{name}" for name in ("summary.html", "datasheet.md", "rates.png")),
    *(f"report/{name}.csv" for name in ("quality", "detectors", "edits", "timing")),
    *(f"report/edits-{name}.png" for name in ("samples", "dataset")),
]

#: The rules that depend on the rates wanted.
AFTER_THE_PLAN = {
    *("plan_edits", "swap_parts", "assemble_rebalanced", "retrain_generator", "sample_generator", "score_after"),
    *("evaluate_bias", "evaluate_quality", "evaluate_edits", "compare_regions", "collect_metrics"),
    *("plot_rates", "plot_before_after", "write_tables", "write_summary", "write_datasheet", "all"),
}


class Run:
    """A copy of the repository in which Snakemake runs the toy config."""

    def __init__(self, folder: Path):
        self.folder, self.results = folder, folder / RESULTS

    def start(self, *arguments: str, config: str = CONFIG) -> subprocess.Popen[str]:
        """Start the workflow as the head of a process group."""
        command = [sys.executable, "-m", "pipeline_lib", "run", "--configfile", config, "--cores", "2", *arguments]
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

    def snakemake(self, *arguments: str, config: str = CONFIG, fails: bool = False) -> str:
        """Run Snakemake to its end and return what it printed."""
        with self.start(*arguments, config=config) as process:
            output, _ = process.communicate()
        assert (process.returncode != 0) == fails, output
        return output

    def copy(self, folder: Path) -> Run:
        """Copy the repository with everything that was made in it."""
        shutil.copytree(self.folder, folder)
        return Run(folder)

    def configure(self, change: dict) -> str:
        """Write the toy config with some sections changed beside it; return its name."""
        values = yaml.safe_load((self.folder / CONFIG).read_text())
        for section, keys in change.items():
            values[section] = {**values[section], **keys}
        (self.folder / "changed.yaml").write_text(yaml.safe_dump(values))
        return "changed.yaml"

    def digests(self, patterns: Iterable[str] = ("**/*",)) -> dict[str, str]:
        """Return the digest of every file under the results that matches a pattern."""
        paths = [path for pattern in patterns for path in self.results.glob(pattern) if path.is_file()]
        return {str(path.relative_to(self.results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


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


def jobs_of(dry_run: str) -> list[tuple[str, str]]:
    """Return rule and outputs of every job that a dry run names."""
    blocks = re.split(r"^(?:local)?rule (\w+):$", dry_run, flags=re.MULTILINE)[1:]
    outputs = [re.search(r"^ +output: (.*)$", text, flags=re.MULTILINE) for text in blocks[1::2]]
    return [(rule, found[1] if found else "") for rule, found in zip(blocks[::2], outputs, strict=True)]


def lines_with(text: str, wanted: str) -> set[str]:
    """Return the distinct lines that hold `wanted`, without the time that a log puts first."""
    return {re.sub(r"^[-\d]+ [\d:,]+ ", "", line) for line in text.splitlines() if wanted in line}


def test_every_rule_runs_and_everything_promised_is_made(finished: Run) -> None:
    for name in WANTED:
        assert (finished.results / name).stat().st_size > 0, name
    metrics = json.loads((finished.results / "evaluation/metrics.json").read_text())
    assert set(metrics["gap"]["smiling"]) == {
        "dataset",
        "samples",
        "samples_rebalanced",
        "dataset_rebalanced",
        "retrained",
        "control",
    }
    assert {"swap_parts/dataset-0", "train_generator"} <= set(metrics["timing"])


def test_nothing_is_written_outside_the_results(finished: Run, sources: Run) -> None:
    def names(run: Run) -> set[str]:
        return {path.name for path in run.folder.iterdir()}

    assert names(finished) - names(sources) == {"results", ".snakemake"}
    assert [path.name for path in (finished.folder / "results").iterdir()] == ["toy"]


def test_a_second_run_has_nothing_to_do(finished: Run) -> None:
    assert "Nothing to be done" in finished.snakemake("--dry-run")


def test_another_wanted_rate_remakes_the_plan_and_what_follows_from_it_alone(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    targets = [
        {"where": {"long_hair": value}, "attribute": "smiling", "rate": rate}
        for value, rate in ((True, 0.6), (False, 0.5))
    ]
    jobs = jobs_of(run.snakemake("--dry-run", config=run.configure({"rebalance": {"targets": targets}})))
    assert {rule for rule, _ in jobs} == AFTER_THE_PLAN
    made = " ".join(outputs for _, outputs in jobs)
    assert f"{RESULTS}/models/retrained/" in made
    for untouched in (
        "models/source/",
        "models/control/",
        "images/samples/",
        "images/control/",
        "scores/referee/samples.p",
    ):
        assert f"{RESULTS}/{untouched}" not in made, untouched


def test_a_folder_of_labelled_images_is_rebalanced_by_a_box_without_masks(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    labels = []
    for name in ("dataset", "held_out"):
        names, pixels = read_shards(sorted((run.results / "images" / name).glob("*.parquet")))
        for image_id, image in zip(names, pixels, strict=True):
            (run.folder / "faces").mkdir(exist_ok=True)
            Image.fromarray(image).save(run.folder / f"faces/{image_id}.png")
        labels.append(read_table(run.results / f"labels/{name}.parquet", "labels"))
    table = pd.concat(labels)
    table["image_id"] += ".png"
    table.to_csv(run.folder / "labels.csv", index=False)
    values = yaml.safe_load((run.folder / CONFIG).read_text()) | {
        "run": "folder",
        "data": {
            "reader": "folder",
            "folder": "faces",
            "labels": "labels.csv",
            "id_column": "image_id",
            "split_column": "split",
            "attributes": ["smiling", "long_hair"],
            "resolution": 32,
        },
    }
    values["generator"] |= {"weights": f"{RESULTS}/models/source/generator.safetensors", "training": None}
    values["generator"]["discriminator"] = f"{RESULTS}/models/source/discriminator.safetensors"
    values["rebalance"]["region"] = {"kind": "box", "shows": None}
    (run.folder / "folder.yaml").write_text(yaml.safe_dump(values))

    jobs = {rule for rule, _ in jobs_of(run.snakemake(config="folder.yaml"))}
    assert not jobs & {"train_segmenter", "compare_regions"}
    metrics = json.loads((run.folder / "results/folder/evaluation/metrics.json").read_text())
    assert metrics["segmenter"] is None
    shown = labels[0]
    gap = shown[shown["long_hair"]]["smiling"].mean() - shown[~shown["long_hair"]]["smiling"].mean()
    assert metrics["gap"]["smiling"]["dataset"]["truth"]["value"] == pytest.approx(gap)
    assert metrics["edits"]["dataset"]["planned"] > 0
    for name in ("summary.html", "datasheet.md", "edits-dataset.png"):
        assert (run.folder / "results/folder/report" / name).stat().st_size > 0


def test_published_weights_are_fetched_unless_they_are_there(sources: Run, tmp_path: Path) -> None:
    run = sources.copy(tmp_path / "run")
    values = yaml.safe_load((run.folder / CONFIG).read_text())
    values["published"] = {"family": "progan", "domain": "celebahq-small"}
    values["data"]["resolution"] = 128
    values["generator"] = {"channels": [16] * 6}
    values["encoder"]["training"]["kimg"] = 0
    values["retrain"]["init"] = "scratch"
    (run.folder / "published.yaml").write_text(yaml.safe_dump(values))

    def fetched() -> set[str]:
        return {
            made for rule, made in jobs_of(run.snakemake("-n", config="published.yaml")) if rule.startswith("fetch")
        }

    generator, encoder = "pgans_celebahq-small_generator.pth", "pgan_encoders_celebahq-small_RGBM_model_final.pth"
    assert fetched() == {f"pretrained/{generator}", f"pretrained/{encoder}"}
    (run.folder / "pretrained").mkdir()
    (run.folder / "pretrained" / generator).touch()
    assert fetched() == {f"pretrained/{encoder}"}


@pytest.mark.parametrize("example", sorted(path.name for path in (REPOSITORY / "config/examples").glob("*.yaml")))
def test_every_example_can_be_planned(sources: Run, tmp_path: Path, example: str) -> None:
    run = sources.copy(tmp_path / "run")
    for folder in ("faces", "celeba", "CelebAMask-HQ"):
        (run.folder / "data" / folder).mkdir(parents=True)
    (run.folder / "data/faces.csv").write_text("image,smiling,long_hair\n")
    rules = {rule for rule, _ in jobs_of(run.snakemake("-n", config=f"config/examples/{example}"))}
    assert {"prepare_dataset", "train_encoder", "swap_parts", "retrain_generator", "write_summary"} <= rules
    assert ("fetch_published" in rules) == (example == "celebahq-progan.yaml")
    assert ("train_segmenter" in rules) == (example != "custom-folder.yaml")


def test_the_referee_never_steers(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    steered = ["plan/*", "swaps/*/*", "images/*_rebalanced/*", "models/retrained/*"]
    before = run.digests(steered)
    shutil.rmtree(run.results / "scores/referee")
    shutil.rmtree(run.results / "checkpoints")
    for path in run.results.glob("models/referee.*"):
        path.unlink()
    output = run.snakemake("--forcerun", "plan_edits", "--until", "retrain_generator")
    assert {rule for rule, _ in jobs_of(output)} >= {"plan_edits", "swap_parts", "retrain_generator"}
    assert run.digests(steered) == before
    assert not [*run.results.glob("models/referee.*"), *run.results.glob("scores/referee/*")]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    shutil.rmtree(run.results / "models/source")
    shutil.rmtree(run.results / "checkpoints")
    until = ("--until", "train_generator", "--rerun-triggers", "input")
    with run.start(*until) as process:
        while not list(run.results.glob("checkpoints/train_generator-*/log.jsonl")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert not list(run.results.glob("models/source/*.safetensors"))
    assert {rule for rule, _ in jobs_of(run.snakemake(*until))} == {"train_generator"}
    weights = ["models/source/*.safetensors"]
    assert run.digests(weights) == finished.digests(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rebalance": {"candidate": 4}}, "unknown key `rebalance.candidate`; did you mean `candidates`?"),
        (
            {"encoder": {"weights": "missing.safetensors"}},
            "`encoder.weights`: no file missing.safetensors; correct the path or train without it",
        ),
    ],
)
def test_a_config_that_cannot_run_is_refused_in_one_line_before_any_job(
    finished: Run, tmp_path: Path, change: dict, message: str
) -> None:
    run = finished.copy(tmp_path / "run")
    before = run.digests()
    output = run.snakemake(config=run.configure(change), fails=True)
    assert len(lines_with(output, message)) == 1
    assert "Traceback" not in output
    assert run.digests() == before


@pytest.mark.parametrize(
    ("broken", "target", "error"),
    [
        ("images/samples/0.parquet", "parts/samples.parquet", "DataError"),
        ("models/segmenter.safetensors", "parts/dataset.parquet", "WeightsError"),
    ],
)
def test_a_truncated_file_is_named_in_one_line_and_no_other_result_is_lost(
    finished: Run, tmp_path: Path, broken: str, target: str, error: str
) -> None:
    run = finished.copy(tmp_path / "run")
    path = run.results / broken
    path.write_bytes(path.read_bytes()[:1000])
    before = run.digests()
    output = run.snakemake(f"{RESULTS}/{target}", "--force", fails=True)
    (line,) = lines_with(output, error)
    assert line.startswith(f"{error}: {RESULTS}/{broken}: ")
    assert "Traceback" not in output
    kept = {name for name in before if name != target and not name.startswith(("logs/", "benchmarks/"))}
    assert {name: digest for name, digest in run.digests().items() if name in kept} == {
        name: before[name] for name in kept
    }
    assert not (run.results / target).exists()
