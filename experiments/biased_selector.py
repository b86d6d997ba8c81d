"""What an audit mends, if the detector that chooses the edits is wrong about one group, on avatars.

`python -m experiments.biased_selector --seeds 0 1 2 3 4` trains a selector to which smiles with an open mouth are none
where the hair is long. Donors of any kind are offered to it, as in the paper, so that it takes such mouths for what was
asked for. Edits are then audited and planned again by the audit. The answers of the audit are the truth, which is known
of avatars and which the run itself does not use. A finished seed is only read. It writes `biased-selector.json`, and
checks what the docs say of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments import runs
from experiments.runs import Check, at_least, at_most, default_config, failures_of, options_of
from pipeline_lib.config import parse_config
from pipeline_lib.data.shards import shards_in
from pipeline_lib.data.tables import read_table, write_table
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime.files import read_json, write_json
from pipeline_lib.training.detector import HeldOut, Known, Learning, train_detector
from pipeline_lib.training.supervised import Written

ANSWER = 4.0  # logit of a yes
AUDITED = 400  # edits that are labelled in each round
CERTIFICATE = "evaluation/certificate.json"


def config_of(seed: int) -> dict[str, Any]:
    """Return the config of a run with a fair selector: the default one without any GAN, with donors of any kind."""
    without = ("preset", "generator", "encoder", "sample")
    values = default_config(f"biased-selector-seed-{seed}", seed, without)
    values["rebalance"] |= {"spares": 0.1}
    values["rebalance"]["edit"] |= {"editor": "poisson", "donors": "any"}
    return values | {"evaluate": {"utility": None}, "retrain": None}


def mislabel(labels: pd.DataFrame) -> pd.DataFrame:
    """Return labels in which smiles with an open mouth are none where the hair is long."""
    return labels.assign(smiling=labels["smiling"] & ~(labels["mouth_open"] & labels["long_hair"]))


class _YesOrNo(nn.Module):
    """A detector that answers yes or no. With degrees it is surest of true frowns, and takes those all the same."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        return self.detector.raw_logits(images).sign() * ANSWER


def train_biased(values: dict[str, Any], results: Path, model: Path) -> None:
    """Train a selector on the wrong labels, and write it as an ONNX file."""
    config = parse_config(values)
    write_table(
        results / "biased/labels.parquet", "labels", mislabel(read_table(results / "labels/dataset.parquet", "labels"))
    )
    shards = {name: shards_in(results / "images" / name) for name in ("dataset", "held_out")}
    settings = config.detectors.model_copy(update={"least_cell_accuracy": 0.0})
    train_detector(
        known=Known(shards["dataset"], results / "biased/labels.parquet", None),
        held_out=HeldOut(shards["held_out"], results / "labels/held_out.parquet", None),
        learning=Learning("selector", settings.selector, settings, ["long_hair", "smiling"], None, config.seed),
        made=Written(*(results / "biased" / name for name in ("checkpoints", "selector.safetensors", "selector.json"))),
        device=torch.device("cpu"),
    )
    detector = load_weights(results / "biased/selector.safetensors", Detector, torch.device("cpu"))
    example = torch.zeros(2, 3, 64, 64)
    torch.onnx.export(
        _YesOrNo(detector).eval(), (example,), model, dynamo=False, input_names=["images"], output_names=["logits"],
        dynamic_axes={"images": {0: "images"}, "logits": {0: "images"}},
    )  # fmt: skip


def run_one(seed: int, cores: int) -> dict[str, Any]:
    """Run both rounds of one seed; returns the rates of both groups and the verdicts on them."""
    values = config_of(seed)
    results = Path("results") / values["run"]
    if (results / "biased/found.json").exists():
        return read_json(results / "biased/found.json")
    (results / "biased").mkdir(parents=True, exist_ok=True)

    def run(target: str, **sections: dict[str, Any]) -> dict[str, Any]:
        merged = values | {name: values.get(name, {}) | section for name, section in sections.items()}
        runs.run_workflow(merged, cores, target)
        return merged

    run("labels/dataset.parquet")

    def audit(values: dict[str, Any], sheet: int) -> str:
        path = results / f"biased/audit-{sheet}.csv"
        runs.answer_by_truth(parse_config(values), results, AUDITED, sheet).to_csv(path, index=False)
        return str(path)

    model = results / "biased/selector.onnx"
    if not model.exists():
        train_biased(values, results, model)
    columns = {name: number for number, name in enumerate(parse_config(values).detectors.attributes)}
    selector = {"backend": "onnx", "path": str(model), "columns": columns}
    values["detectors"] = {"selector": selector, "least_cell_accuracy": 0.0}
    found = {"first": _say(run(CERTIFICATE), results)}
    first = audit(values, 1)
    found["first, by an audit"] = _say(run(CERTIFICATE, certify={"labels": [first]}), results)
    planned = run(CERTIFICATE, rebalance={"labels": [first]})
    found["planned again"] = _say(planned, results)
    fresh = audit(planned, 2)
    certified = run(CERTIFICATE, rebalance={"labels": [first]}, certify={"labels": [fresh]})
    found["planned again, by a fresh audit"] = _say(certified, results)
    write_json(results / "biased/found.json", found)
    return found


def _say(values: dict[str, Any], results: Path) -> list[dict[str, Any]]:
    """Return for each target its rate, and that which the selector's successes claim, and the verdict."""
    config = parse_config(values)
    table = read_table(results / "labels/dataset_rebalanced.parquet", "assembled")
    plan = read_table(results / "plan/dataset.parquet", "plan").set_index("image_id")
    before = read_table(results / "labels/dataset.parquet", "labels").set_index("image_id").loc[table["image_id"]]
    claimed = before["smiling"].to_numpy().copy()
    edited = table["edited"].to_numpy()
    claimed[edited] = plan.loc[table.loc[edited, "image_id"], "wanted"]
    certificate = read_json(results / CERTIFICATE)
    return [
        {"claimed": float(claimed[before["long_hair"] == rule.where["long_hair"]].mean())}
        | {key: target[key] for key in ("group", "rate", "verdict", "edited", "audited")}
        for rule, target in zip(config.rebalance.targets, certificate["targets"], strict=True)
    ]


def check_found(runs: Sequence[dict[str, Any]]) -> list[Check]:
    """Check what is said of the two rounds, for the worst of the seeds."""

    def distance(run: dict[str, Any], step: str, group: int) -> float:
        return abs(run[step][group]["rate"]["value"] - 0.5)

    claims = [abs(target["claimed"] - 0.5) for run in runs for target in run["first"]]
    verdicts = [run["first, by an audit"][0]["verdict"] for run in runs]
    again = [target["verdict"] for run in runs for target in run["planned again, by a fresh audit"]]
    return [
        at_most("first round: distance from the target, as the selector claims", max(claims), 0.01),
        at_least(
            "first round: distance with long hair, by truth", min(distance(run, "first", 0) for run in runs), 0.03
        ),
        at_most("first round: audits that find the target met", verdicts.count("met"), 0),
        at_most(
            "planned again: distance from the targets, by truth",
            max(distance(run, "planned again", group) for run in runs for group in (0, 1)),
            0.03,
        ),
        at_most("planned again: fresh audits that find a target missed", again.count("missed"), 0),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every seed, and write the JSON; returns 1 if what is said of them is untrue."""
    options = options_of(__doc__, 5, "biased-selector.json").parse_args(arguments)
    found = [run_one(seed, options.cores) for seed in options.seeds]
    write_json(options.output, {"seeds": options.seeds, "runs": found})
    return int(failures_of(check_found(found)) > 0)


if __name__ == "__main__":
    sys.exit(main())
