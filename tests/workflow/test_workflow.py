"""The whole workflow at toy size: what it makes, what it makes again and what it leaves alone."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from subprocess import Popen

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from harness import CONFIG, REPOSITORY, RESULTS, RUN, Run, jobs_of

from pipeline_lib.audit.labels import sealed_name
from pipeline_lib.audit.sheets import Sheet
from pipeline_lib.config import load_config, parse_config
from pipeline_lib.data.tables import read_table
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.release.export import export as export_image_set
from pipeline_lib.release.provenance import reproduce
from pipeline_lib.runtime.files import read_json
from pipeline_lib.stages import STAGES, revision_of
from pipeline_lib.studies.catalogue import STUDIES
from pipeline_lib.studies.comparison import LACKING

pytestmark = pytest.mark.workflow

ENCODER = ("--until", "train_encoder", "--rerun-triggers", "input")  # a short training, of inputs that are there

#: What `rule all` asks for, by the layout that the documentation promises.
WANTED = [
    *("evaluation/metrics.json", "provenance.json", "report.html"),
    *(f"report/{name}" for name in ("datasheet.md", "rates.png")),
    *(f"report/{name}.csv" for name in ("quality", "detectors", "edits", "timing")),
    *(f"report/edits-{name}.png" for name in ("samples", "dataset")),
    "report/utility.png",
]

#: The rules that depend on the rates wanted.
AFTER_THE_PLAN = {
    *("plan_edits", "swap_parts", "assemble_rebalanced", "retrain_generator", "sample_generator", "score_after"),
    *("evaluate_images", "evaluate_edits", "evaluate_counterfactuals", "evaluate_utility", "evaluate_robustness"),
    "certify",
    *("compare_with_renderings", "collect_metrics", "record_provenance"),
    *("plot_before_after", "write_report", "write_datasheet", "all"),
}


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


def test_the_layout_names_every_file_of_a_run_and_what_is_in_it(finished: Run) -> None:
    text = (REPOSITORY / "docs/layout.md").read_text()
    unmet = {"logs/**/*.log.refused"}  # nothing failed
    documented = {}
    for pattern, kind in re.findall(r"^\| `(.+?)` \| (.+?) \|", text, re.MULTILINE):
        parts = re.split(r"[{}]", pattern.replace("{shard}", "[0-9]*"))  # every second one lists names
        for choice in itertools.product(*(part.split(",") for part in parts)):
            found = [path for path in finished.results.glob("".join(choice)) if path.is_file()]
            assert found or pattern in unmet, f"{pattern}: no file {''.join(choice)}"
            documented |= dict.fromkeys(found, kind)
    made = {path for path in finished.results.rglob("*") if path.is_file()}
    assert made == documented.keys()
    for path in made:
        if path.suffix == ".parquet":
            table = pq.read_schema(path).metadata.get(b"kind", b"").decode()
            assert documented[path].startswith(f"table `{table}`" if table else "image shard"), path


@pytest.mark.long
def test_the_studies_are_a_target_of_their_own(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    run.snakemake("studies")
    rows = pq.read_table(run.results / "evaluation/studies.parquet").to_pandas()
    assert set(rows["study"]) == set(STUDIES)
    assert set(rows.loc[rows["value"].isna(), "row"]) >= set(LACKING)  # said to be not done
    assert "## Composition against blends (4.3, Fig. 7)" in (run.results / "report/studies.md").read_text()
    for study in STUDIES:
        assert (run.results / f"report/studies/{study}.png").stat().st_size > 1000


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_a_finished_run_can_be_published(finished: Run, tmp_path: Path, form: str) -> None:
    export = tmp_path / "export"
    image_set = export_image_set(finished.results, "dataset_rebalanced", export, form)
    edited = read_table(finished.results / "labels/dataset_rebalanced.parquet", "assembled")["edited"]
    assert image_set.splits[0].edits == int(edited.sum()) > 0
    assert "## Files" in (export / "README.md").read_text()
    assert "## Certificate of its samples" in (export / "model/README.md").read_text()
    # the toy run took its versions from the same installation, but its code from a copy with the same bytes
    lines, same = reproduce(export, {name: revision_of(name) for name in STAGES})
    assert same, lines
    for name in ("samples_rebalanced", "retrained", "held_out"):
        export_image_set(finished.results, name, tmp_path / name, form)


def test_an_exported_config_is_that_of_the_run(finished: Run, tmp_path: Path) -> None:
    export_image_set(finished.results, "dataset_rebalanced", tmp_path / "export")
    assert load_config(tmp_path / "export/config.yaml") == load_config(REPOSITORY / CONFIG)


def test_a_second_run_has_nothing_to_do(finished: Run) -> None:
    assert "Nothing to be done" in finished.snakemake("--dry-run")


def test_two_heavy_jobs_fit_on_one_machine_and_do_not_wait_for_a_gpu_that_is_not_there(
    sources: Run, tmp_path: Path
) -> None:
    plan = sources.copy(tmp_path / "run").snakemake("--dry-run", "--cores", "8", "--max-threads", "8")
    threads = dict(re.findall(r"^rule (\w+):$.*?^    threads: (\d+)$", plan, re.MULTILINE | re.DOTALL))
    assert {rule: threads[rule] for rule in ("prepare_dataset", "train_detector", "swap_parts")} == {
        "prepare_dataset": "8",
        "train_detector": "4",
        "swap_parts": "4",
    }
    assert set(re.findall(r"^    resources: .*gpu=(\d+)", plan, re.MULTILINE)) == {"0"}


@pytest.mark.parametrize("allowed", [False, True])
def test_a_gpu_that_is_asked_for_on_a_machine_without_one_stops_the_run_unless_the_config_allows_the_cpu(
    sources: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    run = sources.copy(tmp_path / "run")
    config = yaml.safe_load((run.folder / CONFIG).read_text()) | {"allow_cpu": allowed}
    (run.folder / "changed.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    command = [run.python, "-m", "snakemake", "--configfile", "changed.yaml", "--cores", "1", "prepare_dataset"]

    def start(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], cwd=run.folder, capture_output=True, text=True, check=False)

    asked = start("--resources", "gpu=2")
    assert (asked.returncode == 0) == allowed, asked.stderr
    if not allowed:
        assert "--resources gpu=2: no GPU found on this machine" in asked.stderr
        assert not (run.results / "images").exists()
        assert start().returncode == 0


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


def test_the_edits_of_the_dataset_are_planned_again_by_an_audit(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    config = parse_config(yaml.safe_load((REPOSITORY / CONFIG).read_text()))
    before = {name: read_table(run.results / f"plan/{name}.parquet", "plan") for name in ("dataset", "samples")}
    truth = read_table(run.results / "labels/dataset.parquet", "labels").set_index("image_id")
    wanted = before["dataset"].set_index("image_id")["wanted"]
    edited = int(read_table(run.results / "labels/dataset_rebalanced.parquet", "assembled")["edited"].sum())
    drawn = Sheet(config, run.results, "dataset_rebalanced", edited, 1).draw()
    answers = truth.loc[drawn["image_id"], ["long_hair", "smiling"]].reset_index(drop=True)
    failed = np.arange(len(drawn)) % 4 == 0
    answers["smiling"] = wanted.reindex(drawn["image_id"]).where(~failed, answers["smiling"].to_numpy()).to_numpy()
    answers["smiling"] = answers["smiling"].where(
        drawn["edit"] != "", truth.loc[drawn["image_id"], "smiling"].to_numpy()
    )
    drawn.join(answers.astype(int)).to_csv(tmp_path / "audit.csv", index=False)
    again = run.configure({"rebalance": {"labels": [str(tmp_path / "audit.csv")]}})
    run.snakemake(*(f"{RESULTS}/plan/{name}.parquet" for name in before), config=again)
    after = {name: read_table(run.results / f"plan/{name}.parquet", "plan") for name in before}
    pd.testing.assert_frame_equal(after["samples"], before["samples"])  # an audit is of the dataset alone
    assert set(before["dataset"]["image_id"]) < set(after["dataset"]["image_id"])
    for target in read_json(run.results / "plan/dataset.json")["targets"]:
        audited, succeeded = target["audited"]["edits"], target["audited"]["succeeded"]
        needed = round(target["rate_wanted"] * target["size"]) - round(target["rate_before"] * target["size"])
        assert target["edits"] == round(abs(needed) * audited / succeeded) > abs(needed)


def test_labels_of_samples_decide_about_the_retrained_gan_and_hold_for_more_samples(
    finished: Run, tmp_path: Path
) -> None:
    run, count = finished.copy(tmp_path / "run"), 40
    certificate = "evaluation/certificate-samples.json"
    assert read_json(run.results / certificate)["source"] is None
    config = parse_config(yaml.safe_load((REPOSITORY / CONFIG).read_text()))
    drawn = Sheet(config, run.results, "retrained", count, 1).draw()
    tables = [read_table(run.results / f"scores/referee/{name}.parquet", "scores") for name in ("retrained", "control")]
    said = pd.concat(tables).set_index("image_id")[["long_hair", "smiling"]].rename(index=sealed_name) > 0.5
    drawn.join(said.astype(int), on="image_id").to_csv(tmp_path / "audit.csv", index=False)
    labelled = {"certify": {"labels": [str(tmp_path / "audit.csv")]}}
    run.snakemake(f"{RESULTS}/{certificate}", config=run.configure(labelled))
    found = read_json(run.results / certificate)
    assert (found["source"], found["labels"], found["samples"]) == ("audit", count, config.sample.images)
    assert [(target["told"], target["agree"]) for target in found["targets"]] == [(count, count)] * 2
    before = run.digests(["images/samples/*", "models/*/*"])
    again = run.configure(labelled | {"retrain": {"samples": 2 * config.sample.images}})
    run.snakemake(f"{RESULTS}/{certificate}", config=again)
    found = read_json(run.results / certificate)
    assert (found["source"], found["labels"], found["samples"]) == ("audit", count, 2 * config.sample.images)
    assert run.digests(["images/samples/*", "models/*/*"]) == before


@pytest.mark.long
def test_further_gans_are_trained_alike_and_judged_like_the_retrained_one(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    retrain = yaml.safe_load((REPOSITORY / CONFIG).read_text())["retrain"] | {"baselines": ["resampled", "sham"]}
    config = run.configure({"retrain": retrain})
    before = run.digests(["models/*/generator.safetensors"])
    run.snakemake(f"{RESULTS}/report.html", config=config)
    after = run.digests(["models/*/generator.safetensors"])
    assert {path: after[path] for path in before} == before
    assert len(set(after.values())) == len(before) + 2
    assert {"resampled", "sham"} < set(json.loads((run.results / "evaluation/metrics.json").read_text())["agreement"])
    plans = [read_table(run.results / f"plan/{name}.parquet", "plan") for name in ("dataset", "dataset_sham")]
    assert plans[0]["image_id"].equals(plans[1]["image_id"])
    assert (plans[0]["wanted"] != plans[1]["wanted"]).all()
    page = (run.results / "report.html").read_text()
    assert "GAN of resampled originals" in page


def test_the_referee_never_steers(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    chosen = [f"swaps/*/*.{kind}.parquet" for kind in ("candidates", "images")]
    steered = ["plan/*", *chosen, "images/*_rebalanced/*", "models/retrained/*"]
    before = run.digests(steered)
    shutil.rmtree(run.results / "scores/referee")
    shutil.rmtree(run.results / "checkpoints")
    other = load_weights(run.results / "models/referee.safetensors")
    with torch.no_grad():
        other.head[-1].bias -= 1
    save_weights(run.results / "models/referee.safetensors", other, {})
    output = run.snakemake("--forcerun", "plan_edits", "--until", "retrain_generator")
    assert {rule for rule, _ in jobs_of(output)} >= {"plan_edits", "swap_parts", "retrain_generator"}
    assert run.digests(steered) == before
    assert not [*run.results.glob("scores/referee/*")]


def start_encoder_training(run: Run) -> Popen[str]:
    """Start to train the encoder anew, in processes that can be killed, and wait until the training is under way."""
    for path in run.results.glob("models/encoder.*"):
        path.unlink()
    shutil.rmtree(run.results / "checkpoints")
    process = Run(run.folder).start(*ENCODER, program=RUN)
    while not list(run.results.glob("checkpoints/train_encoder-*/log.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    with start_encoder_training(run) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert not list(run.results.glob("models/encoder.*"))
    assert {rule for rule, _ in jobs_of(run.snakemake(*ENCODER, program=RUN))} == {"train_encoder"}
    weights = ["models/encoder.safetensors"]
    assert run.digests(weights) == finished.digests(weights)


def test_a_preempted_training_is_tried_again_and_goes_on_to_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    with start_encoder_training(run) as process:
        for job in psutil.Process(process.pid).children(recursive=True):
            if any("stage.py" in word for word in job.cmdline()):
                job.send_signal(signal.SIGTERM)
        output = process.communicate()[0]
    assert process.returncode == 0, output
    assert "stopped by a signal at step" in output
    assert "train_encoder: resumed from step" in output
    weights = ["models/encoder.safetensors"]
    assert run.digests(weights) == finished.digests(weights)


def test_a_training_that_breaks_down_is_not_tried_again(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "run")
    training = yaml.safe_load((run.folder / CONFIG).read_text())["generator"]["training"] | {"learning_rate": 1e20}
    config = run.configure({"generator": {"training": training}})
    output = run.snakemake("--until", "train_generator", config=config, fails=True)
    (reason,) = lines_with(output, "is not finite at step") - lines_with(output, "not retried")
    assert reason.startswith("DivergenceError: train_generator: ")
    last = (run.results / "logs/train_generator.log").read_text().splitlines()
    assert len(last) == 1
    assert last[0].endswith(f"not retried, because it would fail again: {reason}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rebalance": {"edit": {"candidate": 4}}},
            "unknown key `rebalance.edit.candidate`; did you mean `candidates`?",
        ),
        (
            {"encoder": {"weights": "missing.safetensors"}},
            "`encoder.weights`: no file missing.safetensors; correct the path or remove the key",
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
