"""How much rebalancing helps a classifier, by how strong the bias is, on avatars.

`python -m experiments.severity --seeds 0 1 2` runs the pipeline once for each strength of the bias and each seed, with
the classical editor, so that no GAN is needed and detectors see the biased data alone. Held-out images have even rates.
It writes `severity.json`, with the accuracy of the
worst group for each method, and a figure beside it, and checks what README and docs say of them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.runs import Check, at_least, at_most, default_config, failures_of, options_of, run_workflow
from pipeline_lib.report.figures import BOUND, EDITED, PLAIN, save_figure
from pipeline_lib.report.tables import METHODS, in_table_order
from pipeline_lib.runtime.files import read_json, write_json

#: Rate of the more frequent value in each group, by the strength's name. The last leaves about 20 images in each of the
#: two rare cells, since about 2,320 images have long hair and 2,680 have not.
SEVERITIES = {
    "0.80": (0.8, 0.8),
    "0.95": (0.95, 0.95),
    "0.99": (0.99, 0.99),
    "20 images": (1 - 20 / 2320, 1 - 20 / 2680),
}
#: A network that can learn a handful of images by heart, as those that people train can. The small classifiers of the
#: default run cannot, so that cells drawn evenly serve them as well as edits.
CLASSIFIER = {"network": {"name": "resnet18"}, "learning_rate": 1e-3, "steps": 200, "noise": 0.2, "seeds": 1}
SHOWN = ("original", "reweighted", "resampled", "group_dro", "rebalanced", "rebalanced_reweighted", "ideal")
MARKS = dict(zip(SHOWN, "osD^osx", strict=True))


def config_of(name: str, seed: int) -> dict[str, Any]:
    """Return the config of a run: the default one with this bias, without any GAN."""
    run = f"severity-{name.replace(' ', '-')}-seed-{seed}"
    values = default_config(run, seed, without=("preset", "generator", "encoder", "sample"))
    often, seldom = SEVERITIES[name][0], 1 - SEVERITIES[name][1]

    def rates(long_hair: float, short_hair: float) -> list[dict[str, Any]]:
        return [
            {"where": {"long_hair": value}, "attribute": "smiling", "rate": rate}
            for value, rate in ((True, long_hair), (False, short_hair))
        ]

    values["data"] |= {"seed": seed, "rates": rates(often, seldom), "held_out_rates": rates(0.5, 0.5)}
    values["rebalance"]["edit"] |= {"editor": "poisson", "candidates": 4}  # enough, since donors have the value
    values["evaluate"]["utility"] |= CLASSIFIER
    # collages, since a detector that has seen ten such images tells smiles by the hair, and is refused
    return values | {"retrain": None, "detectors": {"collages": 0.75}}


def run_one(name: str, seed: int, cores: int) -> dict[str, Any]:
    """Run the pipeline for one strength and seed as far as the classifiers need it; returns what they found."""
    results = run_workflow(config_of(name, seed), cores, "evaluation/utility.json")
    found = read_json(results / "evaluation/utility.json")
    found["detectors"] = {
        name: min(cell["accuracy"] for cell in read_json(results / f"models/{name}.json")["smiling"]["cells"].values())
        for name in ("selector", "referee")
    }
    return found


def summarise(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return, for each strength: worst-group accuracy by method and worst cell by detector, of every seed."""
    return {
        name: {
            "images_in_rarest_cell": [min(run["methods"]["original"]["images"].values()) for run in runs],
            "detectors": {each: _spread([run["detectors"][each] for run in runs]) for each in runs[0]["detectors"]},
            "worst_group": {
                method: _spread([run["methods"][method]["worst_group"]["value"] for run in runs])
                for method in in_table_order(runs[0]["methods"])
            },
        }
        for name, runs in found.items()
    }


def check_summary(summary: Mapping[str, Any]) -> list[Check]:
    """Check what is said of the curves, by their medians over seeds, for the strengths that were run."""
    middle = {
        name: {method: spread["median"] for method, spread in found["worst_group"].items()}
        for name, found in summary.items()
    }
    checks = []
    if few := middle.get("20 images"):
        gain, peers = few["rebalanced"], {name: few[name] for name in ("reweighted", "resampled", "group_dro")}
        checks += [
            at_least("20 images: worst group of `rebalanced`", gain, 0.8),
            at_least("20 images: worst group of `rebalanced` over that of `reweighted`", gain / few["reweighted"], 2.0),
            at_most("20 images: what `rebalanced` lacks of the ideal edits", few["ideal"] - gain, 0.05),
            at_least(
                "20 images: worst group of `rebalanced` over the best without edits", gain / max(peers.values()), 1.0
            ),
        ]
    if mild := middle.get("0.80"):
        spread = summary["0.80"]["worst_group"]["reweighted"]
        lacks = mild["reweighted"] - mild["rebalanced_reweighted"]
        within = spread["high"] - spread["low"]
        checks.append(at_most("0.80: what weights lose by edits, beyond the range over seeds", lacks - within, 0.0))
    return checks


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "values": list(values)}


def severity_figure(summary: Mapping[str, Any]) -> Figure:
    """Return the curves of worst-group accuracy, a line for each method, with the range over seeds."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for number, method in enumerate(SHOWN):
        color = BOUND if method == "ideal" else EDITED if method.startswith("rebalanced") else PLAIN
        spreads = [found["worst_group"][method] for found in summary.values()]
        places = [place + 0.03 * (number - len(SHOWN) / 2) for place in range(len(spreads))]
        middle = [spread["median"] for spread in spreads]
        around = [
            [spread["median"] - spread["low"] for spread in spreads],
            [spread["high"] - spread["median"] for spread in spreads],
        ]
        axes.errorbar(
            places, middle, around, color=color, marker=MARKS[method], markersize=4, linewidth=1, elinewidth=0.7,
            label=METHODS[method], markerfacecolor="white" if method in ("resampled", "group_dro") else color,
        )  # fmt: skip
    axes.set_xticks(range(len(summary)), list(summary), fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("rate of the frequent value in each group; last, about 20 images of the rare one", fontsize=7)
    axes.set_ylabel("accuracy in the worst group", fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right", fontsize=6.5, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every strength and seed, and write the JSON and the figure; returns 1 if what is said of them is untrue."""
    parser = options_of(__doc__, 3, "severity.json")
    parser.add_argument("--severities", nargs="+", choices=list(SEVERITIES), default=list(SEVERITIES))
    options = parser.parse_args(arguments)
    found = {name: [run_one(name, seed, options.cores) for seed in options.seeds] for name in options.severities}
    summary = summarise(found)
    write_json(options.output, {"seeds": options.seeds, "severities": summary})
    save_figure(severity_figure(summary), options.output.with_suffix(".png"))
    failed = failures_of(check_summary(summary))
    for name, of_name in summary.items():
        print(f"{name}: " + ", ".join(f"{METHODS[m]} {v['median']:.2f}" for m, v in of_name["worst_group"].items()))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
