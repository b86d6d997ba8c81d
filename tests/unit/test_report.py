from __future__ import annotations

import base64
import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import (
    AttributeLoss,
    AvatarData,
    BoxRegion,
    Detectors,
    FolderData,
    GanTraining,
    Inpainting,
    PartRegion,
    Poisson,
    RateRule,
    Rebalance,
    Retrain,
)
from pipeline_lib.config.names import IMAGE_SETS
from pipeline_lib.config.rebalance import EditorSection
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import SCHEMAS, write_table
from pipeline_lib.evaluation.rates import gap, rate_rows
from pipeline_lib.rebalance.groups import group_name
from pipeline_lib.release.cards import rates_section
from pipeline_lib.report import datasheet, figures, summary, tables
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import write_json

TARGETS = Rebalance(
    targets=[
        RateRule(where={"long_hair": True}, attribute="smiling", rate=0.5),
        RateRule(where={"long_hair": False}, attribute="smiling", rate=0.4),
    ],
    edit={"region": PartRegion(name="mouth", grow=0.0, buffer=0.1)},
)
RETRAIN = Retrain(training=GanTraining(kimg=1))
INPAINTING = Inpainting(kind="inpainting", path="model", present="a smile", absent="no smile")
EVEN = Rebalance(targets=[rule.model_copy(update={"rate": 0.5}) for rule in TARGETS.targets])
GROUPS = ("long_hair", "not long_hair")
RATES = {
    "dataset": (0.80, 0.20),
    "samples": (0.70, 0.30),
    "samples_rebalanced": (0.52, 0.48),
    "dataset_rebalanced": (0.51, 0.49),
    "retrained": (0.55, 0.45),
    "control": (0.72, 0.28),
}
#: The image sets of a run with `retrain: null`, by editor.
WITHOUT_RETRAINING = {
    "latent-regression": {stage: rates for stage, rates in RATES.items() if stage not in ("retrained", "control")},
    "poisson": {stage: RATES[stage] for stage in ("dataset", "dataset_rebalanced")},
}


def bias_of(rates, n=2000):
    """Return the table and the gaps of these rates, the same by every judge."""
    rows, gaps = [], {stage: {} for stage in rates}
    for stage, pair in rates.items():
        in_group = {name: np.arange(2 * n) // n == number for number, name in enumerate(GROUPS)}
        has = np.concatenate([np.arange(n) < round(rate * n) for rate in pair])
        for judge in ("truth", "selector", "referee", "corrected")[stage != "dataset" :]:
            table = rate_rows(stage, judge, "smiling", has, in_group, 0.95)
            first, second = (Estimate(row.rate, row.ci_low, row.ci_high) for row in table.itertuples())
            value, low, high = gap(first, second)
            gaps[stage][judge] = {"value": value, "ci": [low, high]}
            rows.append(table)
    return pd.concat(rows, ignore_index=True), gaps


def as_rates(bias):
    """Return {stage: {judge: {group: rate with its interval}}}."""
    found = {}
    for row in bias.itertuples():
        rate = {"value": row.rate, "ci": [row.ci_low, row.ci_high], "n": row.n}
        found.setdefault(row.stage, {}).setdefault(row.judge, {})[row.group] = rate
    return found


CERTIFIED = {
    "group": "long_hair", "attribute": "smiling", "target": 0.5, "tolerance": 0.03, "edited": 700, "audited": 0,
    "labels_there": 0, "labels_needed": 120, "rate": {"value": 0.5, "ci": [0.41, 0.62]},
    "verdict": "not enough evidence",
}  # fmt: skip


def targets_of(verdicts):
    groups = ("long_hair", "not long_hair")
    return [CERTIFIED | {"group": group, "verdict": verdict} for group, verdict in zip(groups, verdicts, strict=True)]


LEDGER = {
    "group": "long_hair", "attribute": "smiling", "planned": 120, "made": 110, "share_without_success": 10 / 120,
    "share_confirmed": 0.98,
    "share_successful": 0.4, "share_vetoed": 0.25, "donors": 80, "effective_donors": 61.4, "most_uses": 5,
    "changed": {
        "beard": {"share": 0.01, "towards": -0.01}, "hat": {"share": 0.03, "towards": 0.0},
        "long_hair": {"share": 0.0, "towards": 0.0}, "eyeglasses": {"share": 0.0, "towards": 0.0},
    },
}  # fmt: skip


def kappas_of(n, **low):
    """Return Cohen's kappa of the detectors by group, 0.98 but for those that are given."""
    return {group: {"n": n, "agree": n - 1, "kappa": low.get(group, 0.98)} for group in GROUPS}


def metrics_of(rates=RATES, n=2000, agreement=None, certified=("met", "met")):
    bias, gaps = bias_of(rates, n)
    detector = {
        "n": 1000, "accuracy": 0.98765, "positives": 400, "true_positives": 390, "negatives": 600,
        "false_positives": 2, "calibration_error": 0.0123456,
    }  # fmt: skip
    edits = {
        "planned": 120, "candidates": 1920, "candidates_successful": 700, "succeeded_by_selector": 110,
        "succeeded_by_referee": 96, "share_by_selector": 110 / 120, "share_by_referee": 0.8,
        "share_in_their_group_by_referee": 0.9975, "masked_l1": 0.0712345,
        "targets": [{"group": "long_hair", "rate_before": 0.8, "rate_wanted": 0.5}],
        "ledger": [LEDGER],
    }  # fmt: skip
    region = {"n": 96, "masked_l1": 0.07, "perceptual_distance_to_context_outside": 0.05}
    measured = {"extractor": "stlpips-alex", "reference": "held-out real images", "n": 2000, "n_reference": 1500}
    return {
        "rate": {"smiling": as_rates(bias)},
        "gap": {"smiling": gaps},
        "agreement": {stage: {"smiling": 0.99} for stage in rates} | (agreement or {}),
        "kappa": {stage: {"smiling": kappas_of(n)} for stage in rates},
        "quality": {
            stage: {
                "frechet_distance": {"value": 10.123456 + number, **measured},
                "coverage": {"value": 0.91234567, **measured},
            }
            for number, stage in enumerate(rates)
        },
        "edits": {
            name: found
            for name, found in (("samples", edits), ("dataset", {**edits, "planned": 1234, "masked_l1": None}))
            if name in rates
        },
        "robustness": {
            stage: {
                change: {judge: {"value": 0.1, "ci": [0.05, 0.15], "same": 0.98} for judge in ("selector", "referee")}
                for change in ("unchanged", "jpeg")
            }
            for stage in ("control", "retrained")
            if stage in rates
        },
        "certificate": {"source": None, "confidence": 0.95, "targets": targets_of(certified), "unknown": None},
        "regions": {"part": region, "box": region, "extractor": {"perceptual_distance": "stlpips-alex"}},
        "detectors": {"referee": {"smiling": detector}, "selector": {"smiling": {**detector, "positives": 0}}},
        "segmenter": {"n": 1000, "intersection_over_union": {"mouth": 0.93}, "mean": 0.93},
        "timing": {"prepare_dataset": 31.26, "swap_parts/0": 140.5},
    }


# Rates


def texts_by_panel(drawn):
    return {
        " ".join(axes.get_title().split()): " ".join(" ".join(text.get_text().split()) for text in axes.texts)
        for axes in drawn.axes
    }


def draw(rates=RATES, agreement=None, least=0.95, targets=TARGETS, denied=None):
    bias, gaps = bias_of(rates)
    shares = {stage: {"smiling": 0.99} for stage in rates} | (agreement or {})
    return figures.rates_figure(bias, {"smiling": gaps}, shares, targets, least, denied)


def test_the_panels_begin_with_those_of_the_papers_figure_in_its_order():
    titles = list(texts_by_panel(draw()))
    assert titles[:5] == [
        "Original dataset, by the referee", "Original dataset, ground truth", "Samples of the source GAN",
        "Rebalanced samples", "Retrained GAN",
    ]  # fmt: skip
    assert {panel.stage for panel in figures.PANELS} == set(IMAGE_SETS)


def test_the_figure_has_panels_for_the_image_sets_of_the_run_alone():
    for rates, count in zip(WITHOUT_RETRAINING.values(), (5, 3), strict=True):
        drawn = draw(rates)
        assert len(drawn.axes) == count
        assert {axes.get_subplotspec().rowspan.start for axes in drawn.axes} == {0}
        assert list(texts_by_panel(drawn))[-1] == "Rebalanced dataset"
        assert "Lower row" not in drawn.subfigs[0].texts[-1].get_text()
        assert [axes.get_ylabel() for axes in drawn.axes] == ["rate of smiling", *[""] * (count - 1)]


def test_a_panel_is_struck_exactly_where_the_detectors_agree_too_little():
    panels = texts_by_panel(draw(agreement={"retrained": {"smiling": 0.91}, "dataset": {"smiling": 0.949}}))
    struck = {title: text for title, text in panels.items() if "no gap counts" in text}
    assert set(struck) == {"Retrained GAN", "Original dataset, by the referee"}  # ground truth needs no detector
    assert "detectors agree on 0.91: no gap counts" in struck["Retrained GAN"]
    assert "detectors agree on 0.94: no gap" in struck["Original dataset, by the referee"]  # 0.95 would be enough


def test_a_rebalanced_set_is_struck_where_the_referee_denies_the_edits_of_a_group():
    panels = texts_by_panel(draw(denied={"dataset_rebalanced": {("smiling", "long_hair"): 0.91}}))
    struck = {title: text for title, text in panels.items() if "no gap counts" in text}
    assert set(struck) == {"Rebalanced dataset"}
    assert "detectors agree on 0.91 of a group's edits: no gap counts" in struck["Rebalanced dataset"]
    edits = {"ledger": [LEDGER, LEDGER | {"group": "not long_hair", "share_confirmed": 0.9}]}
    assert tables.denied_groups(edits, 0.95) == {("smiling", "not long_hair"): 0.9}
    assert tables.denied_groups({"ledger": [LEDGER | {"made": 0, "share_confirmed": 0.0}]}, 0.95) == {}


def test_bars_marks_and_dashes_stand_at_the_rates_of_the_table():
    drawn = draw()
    for panel, axes in zip(figures.PANELS, drawn.axes, strict=True):
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(RATES[panel.stage])
        marks = [line.get_ydata()[0] for line in axes.lines if line.get_marker() in ("o", "D")]
        both = np.repeat(RATES[panel.stage], 2) if panel.judge == "referee" else []
        assert marks == pytest.approx(both)
        assert [segments.get_segments()[0][0][1] for segments in axes.collections] == [0.5, 0.4]


def test_every_panel_states_its_gap_with_its_interval():
    _, gaps = bias_of(RATES)
    panels = texts_by_panel(draw())
    for panel in figures.PANELS:
        found = gaps[panel.stage][panel.judge]
        numbers = [float(number) for number in re.findall(r"[+-]\d\.\d\d", panels[" ".join(panel.title.split())])]
        assert numbers == pytest.approx([found["value"], *found["ci"]], abs=0.005)


def test_a_group_without_images_is_named_and_has_no_bar():
    bias, gaps = bias_of(RATES)
    empty = (bias["stage"] == "retrained") & (bias["group"] == "long_hair")
    bias.loc[empty, ["rate", "ci_low", "ci_high"]] = np.nan
    gaps["retrained"]["referee"] = {"value": None, "ci": [None, None]}
    agreement = {stage: {"smiling": 0.99} for stage in IMAGE_SETS}
    drawn = figures.rates_figure(bias, {"smiling": gaps}, agreement, TARGETS, 0.95)
    assert texts_by_panel(drawn)["Retrained GAN"] == "no image gap unknown"
    assert [len(axes.patches) for axes in drawn.axes] == [2, 2, 2, 2, 1, 2, 2]


def extents(axes):
    """Return the left and right ends of the names of the groups, in dots, from left to right."""
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    return [(box.x0, box.x1) for box in boxes]


def groups_drawn(*conditions):
    """Return the figure of rates of these groups, each with the rates of the same images."""
    rules = [RateRule(where=where, attribute="smiling", rate=0.5) for where in conditions]
    bias, gaps = bias_of(RATES)
    first = bias[bias["group"] == GROUPS[0]]
    table = pd.concat([first.assign(group=group_name(where)) for where in conditions])
    agreement = {stage: {"smiling": 0.99} for stage in IMAGE_SETS}
    targets = TARGETS.model_copy(update={"targets": rules})
    return figures.rates_figure(table, {"smiling": gaps}, agreement, targets, 0.95)


def test_attributes_stand_below_one_another_and_one_with_a_single_group_has_no_gap():
    metrics = metrics_of_several(retrained=(0.33, 0.17))
    rates, gaps = bias_of(RATES)
    beards, gaps_of_beards = bias_of(RATES | {"retrained": (0.33, 0.17)})
    hats = beards[beards["group"] == "long_hair"].assign(group="beard", attribute="hat")
    table = pd.concat([rates, beards.assign(attribute="beard"), hats])
    gaps = {"smiling": gaps, "beard": gaps_of_beards}
    denied = {"dataset_rebalanced": {("beard", "long_hair"): 0.9, ("beard", "not long_hair"): 0.8}}
    drawn = figures.rates_figure(table, gaps, metrics["agreement"], SEVERAL, 0.95, denied)
    of_smiles, of_beards, of_hats = map(texts_by_panel, drawn.subfigs)
    assert len(of_smiles) == len(of_beards) == len(of_hats) == len(figures.PANELS)
    assert not any("no gap counts" in text for text in of_smiles.values())
    assert "0.80 of a group's edits" in of_beards["Rebalanced dataset"]
    assert of_beards["Retrained GAN"].startswith("gap +0.16")
    assert set(of_hats.values()) == {""}
    named = [text.get_text() for text in drawn.subfigs[2].legends[0].get_texts()]
    assert named[0] == "beard"


def test_names_of_groups_stand_beside_one_another():
    for axes in groups_drawn({"wearing_lipstick": True, "young": True}, {"wearing_lipstick": False}).axes:
        (_, end), (start, _) = extents(axes)
        assert end < start


def test_names_of_many_groups_are_left_to_the_key():
    both = (True, False)
    drawn = groups_drawn(*({"wavy_hair": hair, "young": young} for hair in both for young in both))
    assert all(extents(axes) == [] for axes in drawn.axes)
    named = [text.get_text() for text in drawn.subfigs[0].legends[0].get_texts()]
    assert {"wavy hair and young", "not wavy hair and not young", "target rate"} <= set(named)


def test_the_figure_of_rates_is_written_as_a_png(tmp_path):
    bias, gaps = bias_of(RATES)
    write_table(tmp_path / "bias.parquet", "bias", bias)
    write_json(tmp_path / "gaps.json", {"smiling": gaps})
    write_json(tmp_path / "agreement.json", {stage: {"smiling": 0.99} for stage in IMAGE_SETS})
    write_json(tmp_path / "edits-dataset.json", {"ledger": [LEDGER]})
    figures.plot_rates(
        bias=tmp_path / "bias.parquet",
        gaps=tmp_path / "gaps.json",
        agreement=tmp_path / "agreement.json",
        edits=[tmp_path / "edits-dataset.json"],
        targets=TARGETS,
        detectors=Detectors(),
        figure=tmp_path / "rates.png",
    )
    with Image.open(tmp_path / "rates.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 1800


# Before and after

SIDE = 16
NAMES = [f"face-{number}" for number in range(6)]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
COMPOSITES = {"face-0": 255 - PIXELS[0], "face-3": 255 - PIXELS[3]}


def mouth(rows, columns):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[rows, columns] = True
    return mask


MOUTHS = [mouth(slice(9, 12), slice(6 + number % 2, 10)) for number in range(6)]


@pytest.fixture
def edited(tmp_path):
    """Write an image set with four edits, of which that of `face-1` and that of `face-4` failed."""
    for shard, rows in enumerate((slice(0, 3), slice(3, 6))):
        with shard_writer(tmp_path / f"{shard}.parquet", SIDE) as writer:
            writer.add(NAMES[rows], PIXELS[rows])
    with shard_writer(tmp_path / "composites.parquet", SIDE) as writer:
        writer.add(list(COMPOSITES), np.stack(list(COMPOSITES.values())))
    rows = [
        (name, "mouth", mask.sum(), 0, 0, 0, 0, np.packbits(mask).tobytes())
        for name, mask in zip(NAMES, MOUTHS, strict=True)
    ]
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows, columns=SCHEMAS["parts"].names))
    plan = [(0, True), (1, True), (3, False), (4, False)]
    rows = [(NAMES[number], number, 0, "smiling", wanted) for number, wanted in plan]
    write_table(tmp_path / "plan.parquet", "plan", pd.DataFrame(rows, columns=SCHEMAS["plan"].names[:-1]))
    tried = [
        (name, candidate, donor, 1.0, True, 0.2, chosen, chosen, 0.1)
        for name, donor_chosen in (("face-0", "face-5"), ("face-1", None), ("face-3", "face-2"), ("face-4", None))
        for candidate, (donor, chosen) in enumerate([("face-4", False), (donor_chosen or "face-5", bool(donor_chosen))])
    ]
    write_table(tmp_path / "tried.parquet", "candidates", pd.DataFrame(tried, columns=SCHEMAS["candidates"].names))
    return {
        "images": [tmp_path / "0.parquet", tmp_path / "1.parquet"],
        "parts": tmp_path / "parts.parquet",
        "plan": tmp_path / "plan.parquet",
        "candidates": [tmp_path / "tried.parquet"],
        "composites": [tmp_path / "composites.parquet"],
        "gallery": tmp_path / "gallery.png",
    }


def shown_edits(monkeypatch, edited, settings):
    """Return the figure that `plot_before_after` saves."""
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    figures.plot_before_after(**edited, settings=settings)
    return drawn[0]


def test_a_row_shows_context_chosen_donor_collage_and_composite(monkeypatch, edited):
    pictures = [axes.images[0].get_array() for axes in shown_edits(monkeypatch, edited, TARGETS).axes]
    context, donor, collage, composite, kept = pictures[:5]
    pasted = MOUTHS[5]
    known_context = np.ones((SIDE, SIDE), bool)
    known_context[7:14, 5:12] = False  # the donor's mouth (rows 9 to 11, columns 7 to 9) and 2 pixels round it
    known_context[MOUTHS[0]] = False  # and the old mouth
    assert (context == PIXELS[0]).all()
    assert (donor == PIXELS[5]).all()
    assert (composite == COMPOSITES["face-0"]).all()
    assert (collage[pasted] == PIXELS[5][pasted]).all()
    assert (collage[known_context] == PIXELS[0][known_context]).all()
    assert (collage[~known_context & ~pasted] == 128).all()
    assert (kept == PIXELS[1]).all()


def test_rows_are_labelled_and_kept_images_say_so(monkeypatch, edited):
    texts = [" ".join(text.get_text().split()) for text in shown_edits(monkeypatch, edited, TARGETS).texts]
    assert texts[:4] == ["before", "donor", "collage", "after"]
    kept = "unchanged: no candidate succeeded"
    assert texts[4:] == [
        "target: smiling", "target: smiling", kept, "target: not smiling", "target: not smiling", kept,
    ]  # fmt: skip


def test_a_box_pastes_the_same_rectangle_of_the_donor(monkeypatch, edited):
    box = TARGETS.model_copy(
        update={
            "edit": TARGETS.edit.model_copy(update={"region": BoxRegion(top=0.5, bottom=0.75, left=0.25, right=0.75)})
        }
    )
    collage = shown_edits(monkeypatch, edited, box).axes[2].images[0].get_array()
    expected = PIXELS[0].copy()
    expected[8:12, 4:12] = PIXELS[5][8:12, 4:12]
    assert (collage == expected).all()


def test_every_pixel_is_enlarged_by_the_same_whole_number(edited):
    figures.plot_before_after(**edited, settings=TARGETS)
    with Image.open(edited["gallery"]) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    scale = round(1.15 * figures.DOTS_PER_INCH / SIDE)
    enlarged = PIXELS[0].repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = round(0.25 * figures.DOTS_PER_INCH), round(0.95 * figures.DOTS_PER_INCH)
    assert (sheet[top : top + SIDE * scale, left : left + SIDE * scale] == enlarged).all()


def test_a_missing_composite_is_one_clear_line(edited):
    edited["composites"] = edited["images"][1:]  # holds face-3, but not face-0
    with pytest.raises(DataError, match="no image `face-0`"):
        figures.plot_before_after(**edited, settings=TARGETS)


def test_a_plan_without_edits_makes_a_gallery_that_says_so():
    (text,) = figures.gallery_figure([]).texts
    assert "No edits are planned" in text.get_text()


@pytest.mark.parametrize(
    ("rising", "falling", "count", "expected"),
    [
        (50, 50, 8, (4, 4)),
        (50, 50, 7, (4, 3)),
        (1, 50, 8, (1, 7)),
        (50, 2, 8, (6, 2)),
        (2, 3, 8, (2, 3)),
        (0, 0, 8, (0, 0)),
    ],
)
def test_examples_are_taken_evenly_of_both_directions(rising, falling, count, expected):
    plan = pd.DataFrame({"position": range(rising + falling), "wanted": np.arange(rising + falling) < rising})
    plan["attribute"] = "smiling"
    chosen = figures.choose_examples(plan, count)
    assert (chosen["wanted"].sum(), (~chosen["wanted"]).sum()) == expected
    assert chosen["position"].is_unique
    if expected[0] > 1:
        steps = np.diff(chosen.loc[chosen["wanted"], "position"])
        assert steps.max() - steps.min() <= 1


def test_examples_are_taken_evenly_of_all_attributes():
    names = ["smiling"] * 60 + ["eyeglasses"] * 40
    plan = pd.DataFrame({"position": range(100), "wanted": np.arange(100) % 2 == 0, "attribute": names})
    chosen = figures.choose_examples(plan, 8)
    assert chosen.groupby(["attribute", "wanted"]).size().tolist() == [2, 2, 2, 2]


# Tables


@pytest.fixture
def metrics_file(tmp_path):
    write_json(tmp_path / "metrics.json", metrics_of())
    return tmp_path / "metrics.json"


def test_csv_files_hold_the_values_of_the_metrics(tmp_path, metrics_file):
    paths = {name: tmp_path / f"{name}.csv" for name in ("quality", "detectors", "edits", "timing")}
    tables.write_tables(metrics=metrics_file, **paths)
    metrics, read = metrics_of(), {name: pd.read_csv(path) for name, path in paths.items()}

    quality = read["quality"].set_index("image set")
    assert list(quality.index) == [
        "original dataset", "samples of the source GAN", "rebalanced samples", "rebalanced dataset", "retrained GAN",
        "control GAN",
    ]  # fmt: skip
    for stage in IMAGE_SETS:
        row, measured = quality.loc[tables.readable(stage)], metrics["quality"][stage]
        assert row["Fréchet distance"] == pytest.approx(measured["frechet_distance"]["value"], rel=5e-3)
        assert row["coverage"] == pytest.approx(measured["coverage"]["value"], rel=5e-4)
        assert (row["extractor"], row["reference"]) == ("stlpips-alex", "held-out real images")
        assert (row["images"], row["reference images"]) == (2000, 1500)

    selector, referee = (row for _, row in read["detectors"].iterrows())
    assert (selector["detector"], referee["detector"]) == ("selector", "referee")
    assert referee["sensitivity"] == pytest.approx(390 / 400)
    assert referee["specificity"] == pytest.approx(598 / 600, rel=5e-4)
    assert np.isnan(selector["sensitivity"])  # it was never measured

    edits = read["edits"].set_index("image set")
    samples, dataset = edits.loc["samples of the source GAN"], edits.loc["original dataset"]
    assert samples["share made"] == pytest.approx(110 / 120, rel=5e-4)
    assert samples["share confirmed"] == 0.8
    assert dataset["edits planned"] == 1234
    assert np.isnan(dataset["masked L1"])

    timing = read["timing"].set_index("rule")["seconds"]
    assert timing["total"] == pytest.approx(31.26 + 140.5, abs=0.05)
    assert timing["prepare_dataset"] == pytest.approx(31.26, abs=0.05)


def test_a_run_that_was_not_timed_has_no_total():
    assert tables.timing_table({"timing": {}}).empty


def with_distances(**distances):
    """Return metrics with these Fréchet distances; all others are 1."""
    metrics = metrics_of()
    for stage in IMAGE_SETS:
        metrics["quality"][stage]["frechet_distance"]["value"] = distances.get(stage, 1.0)
    return metrics


def test_small_frechet_distances_are_scaled_and_compared_with_the_original_dataset():
    metrics = with_distances(dataset=2.5e-5, dataset_rebalanced=5e-5, retrained=1.2345e-4)
    quality = tables.quality_table(metrics).set_index("image set")
    scaled, ratio = quality["Fréchet distance, in 10⁻⁵"], quality["Fréchet ratio to the original dataset"]
    assert scaled[["original dataset", "rebalanced dataset", "retrained GAN"]].tolist() == [2.5, 5.0, 12.3]
    assert ratio[["original dataset", "rebalanced dataset", "retrained GAN"]].tolist() == [1.0, 2.0, 4.94]
    text = tables.frechet_distances(metrics["quality"]).text("dataset_rebalanced")
    assert text == "5.00 × 10⁻⁵, 2.00 times that of the original dataset"


def test_larger_frechet_distances_are_written_as_they_are():
    distances = tables.frechet_distances(with_distances(dataset=8.0, retrained=1234.5)["quality"])
    assert distances.unit == ""
    assert distances.text("retrained") == "1234, 154 times that of the original dataset"


def test_there_is_no_ratio_to_a_distance_of_zero():
    metrics = with_distances(dataset=0.0)
    assert tables.quality_table(metrics)["Fréchet ratio to the original dataset"].isna().all()
    assert tables.frechet_distances(metrics["quality"]).text("control") == "1.00"


def test_the_table_of_rates_has_a_row_for_each_group_and_one_for_the_gap():
    table = tables.rates_table(metrics_of(), TARGETS.targets, "dataset", "dataset_rebalanced")
    assert list(table.columns) == ["group", "target rate", "original dataset", "rebalanced dataset", "interval"]
    rows = [row[:4] for row in table.itertuples(index=False, name=None)]
    assert rows == [
        ("long hair", "0.50", "0.80", "0.51"),
        ("not long hair", "0.40", "0.20", "0.49"),
        ("group gap", "+0.10", "+0.60", "+0.02"),
    ]
    for text, (_, _, _, rate, _) in zip(table["interval"], table.itertuples(index=False), strict=True):
        low, high = (float(number) for number in text.strip("[]").split(", "))
        assert low < float(rate) < high


def test_a_rate_of_no_images_is_unknown():
    metrics = metrics_of()
    nothing = {"value": None, "ci": [None, None], "n": 0}
    metrics["rate"]["smiling"]["retrained"]["referee"]["long_hair"] = nothing
    metrics["gap"]["smiling"]["retrained"]["referee"] = nothing
    table = tables.rates_table(metrics, TARGETS.targets, "control", "retrained")
    assert table["retrained GAN"].tolist() == ["unknown", "0.45", "unknown"]
    assert table["interval"].tolist()[::2] == ["", ""]


def test_metrics_without_a_section_are_refused_by_name(tmp_path):
    metrics = metrics_of()
    del metrics["regions"]
    write_json(tmp_path / "metrics.json", metrics)
    with pytest.raises(DataError, match=r"metrics\.json: no section regions"):
        tables.read_metrics(tmp_path / "metrics.json")


def test_gaps_that_round_to_nothing_have_no_minus_sign():
    assert tables.gap_text(Estimate(-0.001, -0.02, 0.018)) == "+0.00 [-0.02, +0.02]"


# Verdict


MISSED, UNTOLD = ("met", "missed"), ("met", "not enough evidence")


SEVERAL = EVEN.model_copy(
    update={
        "targets": [
            *EVEN.targets,
            *(
                rule.model_copy(update={"attribute": "beard", "rate": rate})
                for rule, rate in zip(EVEN.targets, (0.3, 0.2), strict=True)
            ),
            RateRule(where={"beard": True}, attribute="hat", rate=0.1),
        ]
    }
)


def metrics_of_several(**beards):
    """Return metrics of a run with three attributes: beards with rates of their own, hats in one group alone."""
    metrics, others = metrics_of(), metrics_of(RATES | beards)
    metrics["rate"]["beard"], metrics["gap"]["beard"] = others["rate"]["smiling"], others["gap"]["smiling"]
    metrics["rate"]["hat"] = {
        stage: {judge: {"beard": found["long_hair"]} for judge, found in judges.items()}
        for stage, judges in others["rate"]["smiling"].items()
    }
    for judge in metrics["rate"]["hat"]["retrained"]:
        metrics["rate"]["hat"]["retrained"][judge] = {"beard": {"value": 0.1, "ci": [0.08, 0.12], "n": 900}}
    metrics["agreement"] = {stage: dict.fromkeys(("smiling", "beard", "hat"), 0.99) for stage in RATES}
    metrics["kappa"] = {stage: dict.fromkeys(("smiling", "beard", "hat"), kappas_of(2000)) for stage in RATES}
    metrics["certificate"]["targets"] = [CERTIFIED | {"verdict": "met"}] * len(SEVERAL.targets)
    accuracy = metrics["detectors"]["referee"]["smiling"]
    metrics["detectors"] = {
        name: dict.fromkeys(("smiling", "beard", "hat"), accuracy) for name in ("referee", "selector")
    }
    return metrics


def judged(rates=RATES, n=2000, agreement=None, targets=EVEN, certified=("met", "met")):
    return summary.judge_balance(metrics_of(rates, n, agreement, certified), targets, 0.95)


def test_balance_is_real_where_the_dataset_is_balanced_and_the_control_is_not():
    verdict = judged()
    assert verdict.real is True
    assert not verdict.caution


@pytest.mark.parametrize(
    ("resampled", "compared"),
    [
        ((0.65, 0.35), "a bias of 0.30 [0.27, 0.33], more than the retrained GAN's."),
        ((0.56, 0.44), "whether that is more or less than the retrained GAN's could not be determined"),
        ((0.50, 0.50), "less than the retrained GAN's"),
    ],
)
def test_a_gan_of_resampled_images_that_is_as_fair_shows_that_edits_are_not_needed(resampled, compared):
    verdict = judged({**RATES, "resampled": resampled})
    assert "That of the GAN of resampled originals is 16.1, 1.59 times" in verdict.reasons[-1]
    said = next(reason for reason in verdict.reasons if "resampled original images, without any edit" in reason)
    assert compared in said
    assert ("edits are not shown to be needed for a fair GAN" in said) == ("more than" not in said)
    assert verdict.real is True  # it is no part of the criterion
    assert not any("resampled" in reason for reason in judged().reasons)


@pytest.mark.parametrize(("gap", "low", "more"), [(0.30, 0.25, True), (0.12, 0.05, False)])
def test_the_bias_by_the_nearest_drawing_is_said_and_that_it_is_more_than_the_referees(gap, low, more):
    found = {"retrained": (gap, low, gap + 0.05), "control": (0.62, 0.6, 0.64)}
    sets = {stage: {"gap": {"value": value, "ci": ends}} for stage, (value, *ends) in found.items()}
    by_drawing = {"attribute": "smiling", "check": {"counts": True}, "sets": sets}
    metrics = metrics_of() | {"judged_samples": by_drawing}
    (said,) = [reason for reason in summary.judge_balance(metrics, EVEN, 0.95).reasons if "nearest drawing" in reason]
    assert f"bias is {gap:.2f} [{low:.2f}, {gap + 0.05:.2f}] and the control GAN's 0.62 [0.60, 0.64]" in said
    assert ("more than the referee says" in said) == more
    assert " and +0.62 [+0.60, +0.64], where that can tell." in rates_section(metrics, EVEN)
    by_drawing["check"]["counts"] = False
    assert "drawing" not in rates_section(metrics, EVEN)
    assert summary.judge_balance(metrics, EVEN, 0.95).reasons == judged().reasons


def test_gaps_of_slightly_changed_samples_are_a_row_for_each_gan_and_change():
    table = tables.robustness_table(metrics_of(), EVEN)
    assert table["samples"].tolist() == ["retrained GAN", "retrained GAN", "control GAN", "control GAN"]
    assert table["change"].tolist() == ["none", "JPEG"] * 2
    assert table.iloc[0, 2:].tolist() == ["+0.10 [+0.05, +0.15]"] * 2 + [tables.share_text(0.98)] * 2
    assert tables.robustness_table(metrics_of(WITHOUT_RETRAINING["poisson"]), EVEN).empty


def test_gaps_between_groups_of_which_one_is_empty_are_unknown_and_not_left_out():
    metrics = metrics_of()
    for changes in metrics["robustness"].values():
        for judges in changes.values():
            for found in judges.values():
                found |= {"value": None, "ci": [None, None]}
    table = tables.robustness_table(metrics, EVEN)
    assert (table[["selector", "referee"]] == "unknown").all(axis=None)
    single = EVEN.model_copy(update={"targets": EVEN.targets[:1]})
    assert set(table) - set(tables.robustness_table(metrics, single)) == {"selector", "referee"}


def test_a_gan_without_the_loss_on_attributes_is_one_more_row_and_reason():
    rates = {**RATES, "images_only": (0.66, 0.34)}
    assert any("without the loss on attributes has a bias of 0.32" in reason for reason in judged(rates).reasons)
    names = tables.gap_table(metrics_of(rates), "smiling", 0.95)["image set"].tolist()
    assert names[-2:] == ["control GAN", "GAN retrained without the loss on attributes"]


@pytest.mark.parametrize(
    ("changed", "certified", "real", "reason"),
    [
        ({}, MISSED, False, "At least one target rate is missed"),
        ({}, UNTOLD, None, "cannot be told yet"),
        ({}, ("missed", "not enough evidence"), False, "At least one target rate is missed"),
        ({"retrained": (0.65, 0.35)}, ("met", "met"), False, "more than half of the control GAN's bias"),
        ({"control": (0.52, 0.48)}, ("met", "met"), None, "almost no bias"),
        (
            {"dataset_rebalanced": (0.6, 0.4)},
            ("met", "met"),
            True,
            "Every target rate is met",
        ),  # whatever detectors see
    ],
)
def test_the_verdict_flips_with_the_numbers(changed, certified, real, reason):
    verdict = judged(RATES | changed, certified=certified)
    assert verdict.real is real
    assert any(reason in sentence for sentence in verdict.reasons)


@pytest.mark.parametrize(
    ("changed", "certified", "headline"),
    [
        ({}, ("met", "met"), "The rebalancing worked: the rebalanced dataset meets every target rate, and the GAN"),
        (
            {"retrained": (0.65, 0.35)},
            ("met", "met"),
            "The rebalancing did not work: the rebalanced dataset meets every",
        ),
        (
            {"retrained": (0.26, 0.26), "control": (0.98, 0.02)},
            ("met", "met"),
            "The rebalancing worked in part: the rebalanced dataset meets every target rate, but the GAN retrained on "
            "it misses a target rate. Target rates in its samples: missed, by the referee",
        ),
        ({}, MISSED, "The rebalancing did not work: the rebalanced dataset misses a target rate, but the GAN"),
        (
            {},
            UNTOLD,
            "No verdict is possible: whether the rebalanced dataset meets its target rates cannot be told, but",
        ),
        (
            {"control": (0.52, 0.48)},
            ("met", "met"),
            "No verdict is possible: the rebalanced dataset meets every target",
        ),
    ],
)
def test_the_headline_says_what_became_of_the_dataset_and_of_the_gan(changed, certified, headline):
    assert judged(RATES | changed, certified=certified).headline.startswith(headline)


@pytest.mark.parametrize("editor", WITHOUT_RETRAINING)
def test_without_a_retrained_gan_the_dataset_alone_decides(editor):
    rates = WITHOUT_RETRAINING[editor]
    verdict = judged(rates)
    headline = "The rebalancing worked: the rebalanced dataset meets every target rate."
    assert (verdict.real, verdict.headline) == (True, headline)
    assert not re.search("retrained|control", " ".join(verdict.reasons))
    assert judged(rates, certified=MISSED).real is False
    assert judged(rates, certified=UNTOLD).real is None


def test_a_real_balance_that_the_corrected_gaps_do_not_bear_out_is_said_with_care():
    metrics = metrics_of()
    metrics["gap"]["smiling"]["retrained"]["corrected"] = {"value": 0.4, "ci": [0.3, 0.5]}
    verdict = summary.judge_balance(metrics, EVEN, 0.95)
    assert verdict.real is True
    assert summary.CORRECTED_DISAGREES in verdict.reasons
    assert summary.CORRECTED_DISAGREES not in judged().reasons


def test_too_few_images_of_a_gan_leave_the_verdict_open():
    assert judged(n=20).real is None


def test_every_attribute_that_has_a_gap_counts_in_the_verdict():
    beards = {"retrained": (0.31, 0.19), "control": (0.7, 0.2)}  # a gap of 0.1 is wanted
    verdict = summary.judge_balance(metrics_of_several(**beards), SEVERAL, 0.95)
    assert verdict.real is True
    of_attributes = [reason.split(":")[0] for reason in verdict.reasons if reason.startswith("Of ")]
    assert of_attributes == ["Of smiling"] * 2 + ["Of beard"] * 2 + ["Of hat"]
    verdict = summary.judge_balance(metrics_of_several(retrained=(0.6, 0.1), control=(0.7, 0.2)), SEVERAL, 0.95)
    assert verdict.real is False
    assert "Of beard: The retrained GAN has more than half of the control GAN's bias." in verdict.reasons
    metrics = metrics_of_several(**beards)
    metrics["agreement"]["retrained"]["beard"] = 0.9
    verdict = summary.judge_balance(metrics, SEVERAL, 0.95)
    assert verdict.real is None
    assert "agree is only 0.90 for “beard of retrained GAN”" in verdict.caution


OFF_TARGET = {"retrained": (0.02, 0.02)}


@pytest.mark.parametrize(
    ("changed", "real"),
    [
        (OFF_TARGET, False),  # no gap, but no smiles either
        ({"retrained": (0.60, 0.57)}, None),  # half as far as the control's, and still missed
        ({"retrained": (0.62, 0.58)}, False),  # the rate is 0.12 away, and the control's 0.22
        (OFF_TARGET | {"control": (0.04, 0.02)}, False),  # as far away as the control
        ({"retrained": (0.52, 0.49), "control": (0.2, 0.2)}, True),  # the control has no gap, but is far from the rates
        ({"retrained": (0.58, 0.42), "control": (0.2, 0.2)}, False),  # retraining made a gap
        ({"retrained": (0.53, 0.50), "control": (0.56, 0.53)}, None),  # neither is far, and the intervals meet
    ],
)
def test_the_rates_of_a_retrained_gan_count_and_not_only_its_gap(changed, real):
    verdict = judged(RATES | changed, n=600)
    assert verdict.real is real
    first, second = (RATES | changed)["retrained"]
    (said,) = [reason for reason in verdict.reasons if reason.startswith("Rates in the retrained GAN's samples")]
    assert f"smiling among “long hair” {first:.2f}, target 0.50 (" in said
    assert f"smiling among “not long hair” {second:.2f}, target 0.50 (" in said
    is_missed = max(abs(first - 0.5), abs(second - 0.5)) > 0.08
    assert ("missed, by the referee" in said) == is_missed
    assert ("Target rates in its samples: missed, by the referee" in verdict.headline) == is_missed


def test_the_rate_of_every_group_counts_and_not_only_those_of_the_first_two():
    third = RateRule(where={"hat": True}, attribute="smiling", rate=0.5)
    targets = EVEN.model_copy(update={"targets": [*EVEN.targets, third]})

    def judge(rate):
        metrics = metrics_of(certified=("met", "met"))
        metrics["certificate"]["targets"].append(CERTIFIED | {"group": "hat", "verdict": "met"})
        for stage, value in (("control", 0.72), ("retrained", rate)):
            found = metrics["rate"]["smiling"][stage]
            for judge in ("referee", "corrected"):
                found[judge]["hat"] = {"value": value, "ci": [value - 0.03, value + 0.03], "n": 900}
        return summary.judge_balance(metrics, targets, 0.95).real

    assert [judge(rate) for rate in (0.52, 0.72)] == [True, False]


def test_a_single_target_has_no_gap_and_is_judged_by_its_rate():
    single = EVEN.model_copy(update={"targets": EVEN.targets[:1]})
    verdicts = []
    for rate in (0.55, 0.7):
        metrics = metrics_of(RATES | {"retrained": (rate, 0.9)})
        metrics["gap"], metrics["certificate"]["targets"] = {}, targets_of(("met", "met"))[:1]
        verdicts.append(summary.judge_balance(metrics, single, 0.95))
    assert [verdict.real for verdict in verdicts] == [True, False]
    assert "at most half of the control GAN's bias in its rates." in verdicts[0].headline


@pytest.mark.parametrize(("by_labels", "real"), [("missed", False), ("not enough evidence", True), ("met", True)])
def test_a_rate_that_labels_of_samples_say_is_missed_counts_more_than_the_referees_opinion(by_labels, real):
    targets = [{"rate": {"value": 0.6, "ci": [0.55, 0.64]}, "verdict": verdict} for verdict in ("met", by_labels)]
    verdict = summary.judge_balance(metrics_of() | {"certificate_samples": {"targets": targets}}, EVEN, 0.95)
    assert verdict.real is real
    assert ("misses a target rate." in verdict.headline) == (by_labels == "missed")
    assert verdict.headline.endswith(f"Target rates in its samples: {by_labels}, by labels.")
    assert any(f"target 0.50 ({by_labels}, by labels)" in reason for reason in verdict.reasons)


def test_a_group_in_which_the_detectors_agree_by_chance_is_named_with_its_number(tmp_path):
    metrics = metrics_of()
    metrics["kappa"]["retrained"]["smiling"] = kappas_of(912, **{"not long_hair": 0.31})
    verdict = summary.judge_balance(metrics, EVEN, 0.95)
    assert "kappa" in verdict.caution
    assert "only 0.31 for “not long hair” in “retrained GAN” (912 images)." in verdict.caution
    assert not summary.judge_balance(metrics_of(), EVEN, 0.95).caution
    rows = tables.gap_table(metrics, "smiling", 0.95).set_index("image set")["lowest kappa of a group"]
    assert rows["retrained GAN"] == "0.31 (not long hair, 912 images)"
    metrics["kappa"]["retrained"]["smiling"]["long_hair"] = {"n": 5, "agree": 4, "kappa": 0.0}  # too few to tell
    assert summary.judge_balance(metrics, EVEN, 0.95).caution == verdict.caution
    assert tables.gap_table(metrics, "smiling", 0.95)["lowest kappa of a group"].tolist() == rows.tolist()
    unknown = {group: {"n": 0, "agree": 0, "kappa": None} for group in GROUPS}
    metrics["kappa"]["control"]["smiling"] = unknown
    assert tables.gap_table(metrics, "smiling", 0.95).set_index("image set").iloc[-1, -1] == "unknown"


def test_a_wanted_gap_is_no_imbalance():
    # Rates of 0.8 and 0.2 are what is wanted here, so only a dataset that keeps them is balanced.
    first, second = EVEN.targets
    uneven = EVEN.model_copy(
        update={"targets": [first.model_copy(update={"rate": 0.8}), second.model_copy(update={"rate": 0.2})]}
    )
    reached = RATES | {"retrained": (0.78, 0.22), "control": (0.6, 0.4)}
    assert judged(reached, targets=uneven).real is True
    assert judged(RATES, targets=uneven).real is False


@pytest.mark.parametrize("stage", ["retrained", "control"])
def test_disagreeing_detectors_are_named_first_and_void_what_rests_on_them(stage):
    verdict = judged(agreement={stage: {"smiling": 0.91}})
    assert verdict.real is None
    assert f"agree is only 0.91 for “{tables.readable(stage)}”" in verdict.caution


def test_disagreement_on_a_tenth_of_the_edits_of_one_group_is_said_at_the_top():
    metrics = metrics_of(
        certified=UNTOLD
    )  # on the whole dataset, of which few images are edited, the detectors agree on 0.99
    metrics["edits"]["dataset"]["ledger"] = [LEDGER, LEDGER | {"group": "not long_hair", "share_confirmed": 0.9}]
    verdict = summary.judge_balance(metrics, EVEN, 0.95)
    assert verdict.real is None
    assert "edits of the dataset on which the two detectors agree is only 0.90 for “not long hair”" in verdict.caution


def test_excess_is_zero_at_its_nearest_where_the_interval_holds_the_wanted_gap():
    assert summary.excess_of(Estimate(0.1, -0.1, 0.3), 0.0) == pytest.approx((0.1, 0.0, 0.3))
    assert summary.excess_of(Estimate(-0.4, -0.5, -0.3), 0.2) == pytest.approx((0.6, 0.5, 0.7))


# Pages


class Page(HTMLParser):
    """Parses HTML and fails where a tag is not closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.alternatives, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes)["src"])
            self.alternatives.append(dict(attributes)["alt"])
        assert not {"href", "onclick"} & set(dict(attributes))
        assert tag not in ("script", "link")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text


def written_page(tmp_path, metrics, retrain=RETRAIN, targets=EVEN):
    write_json(tmp_path / "metrics.json", metrics)
    for name in ("rates", "gallery"):
        Image.fromarray(PIXELS[0]).save(tmp_path / f"{name}.png")
    summary.write_summary(
        metrics=tmp_path / "metrics.json",
        rates=tmp_path / "rates.png",
        gallery=tmp_path / "gallery.png",
        utility=[tmp_path / "gallery.png"] if metrics.get("utility") else [],
        frontier=[tmp_path / "gallery.png"] if metrics.get("frontier") else [],
        targets=targets,
        detectors=Detectors(),
        retrain=retrain,
        summary=tmp_path / "summary.html",
    )
    return Page((tmp_path / "summary.html").read_text())


ONLY = EVEN.model_copy(update={"targets": [RateRule(attribute="smiling", rate=0.5)]})


def with_groups(names):
    """Return the metrics of a run whose groups have these names, each with the rates of the first group."""
    metrics = metrics_of()
    metrics["rate"]["smiling"] = {
        stage: {judge: dict.fromkeys(names, found[GROUPS[0]]) for judge, found in judges.items()}
        for stage, judges in metrics["rate"]["smiling"].items()
    }
    certified = [CERTIFIED | {"group": name, "verdict": "met"} for name in names]
    return metrics | {"certificate": metrics["certificate"] | {"targets": certified}}


def metrics_of_one():
    """Return the metrics of a run with one target, of every image."""
    metrics = with_groups(["all"])
    for judges in (judges for changes in metrics["robustness"].values() for judges in changes.values()):
        for found in judges.values():
            found |= {"value": None, "ci": [None, None]}
    return metrics | {"gap": {}}


def test_a_run_with_one_target_is_reported_without_a_gap(tmp_path):
    text = " ".join(written_page(tmp_path, metrics_of_one(), targets=ONLY).text.split())
    assert "Is smiling at its target rate in “all”?" in text
    assert "Rate of smiling by group" in text
    for word in ("roup gap", "None", "nan"):
        assert word not in text, word
    write_table(tmp_path / "labels.parquet", "assembled", pd.DataFrame({"image_id": ["a"], "edited": [True]}))
    files = {"metrics": tmp_path / "metrics.json", "labels": tmp_path / "labels.parquet", "card": tmp_path / "card.md"}
    datasheet.write_datasheet(**files, run="one", data=AvatarData(), targets=ONLY)
    card = (tmp_path / "card.md").read_text()
    assert "smiling 0.5 among “all” images" in card
    assert "gap" not in card
    assert "gap" not in rates_section(metrics_of_one(), ONLY)


VALUES = ["Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast/Asian", "Weiß & $1, $2"]
EVERY = EVEN.model_copy(
    update={"targets": [RateRule(where={f"race={value}": True}, attribute="smiling", rate=0.5) for value in VALUES]}
)


def test_groups_by_a_column_are_named_readably_and_their_gap_is_that_of_the_farthest(tmp_path):
    metrics = with_groups([f"race={value}" for value in VALUES])
    text = " ".join(written_page(tmp_path, metrics, targets=EVERY).text.split())
    for name in ("race East Asian", "race Latino Hispanic", "race Southeast/Asian", "race Weiß & $1, $2"):
        assert name in text
    assert "race=" not in text
    assert "Group gap: the rate farthest above its target minus the one farthest below." in text


def test_bars_of_many_groups_are_told_apart_and_the_figure_holds_its_key():
    drawn = groups_drawn(*(rule.where for rule in EVERY.targets))
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in drawn.axes[0].patches}) == len(VALUES)
    drawn.draw_without_rendering()
    (block,) = drawn.subfigs
    named = {text.get_text(): text for text in block.legends[0].get_texts()}
    assert not named["race Weiß & $1, $2"].get_parse_math()  # a name with dollar signs is no formula
    note, key = block.texts[-1].get_window_extent(), block.legends[0].get_window_extent()
    assert 0 <= note.y0 < note.y1 <= key.y0 + 3


def test_the_page_shows_the_rates_and_gaps_of_every_attribute(tmp_path):
    page = written_page(tmp_path, metrics_of_several(retrained=(0.33, 0.17)), targets=SEVERAL)
    headings = [f"Rate of {name} by group" for name in ("smiling", "beard", "hat")]
    assert [heading for heading in headings if heading in page.text] == headings
    assert "Group gap in beard in every image set: long hair minus not long hair" in page.text
    assert "gap in hat" not in page.text
    assert "(+0.00 of smiling, +0.10 of beard)" in page.text
    assert page.alternatives[-1].startswith("Bars of the rate of smiling and beard and hat by group")


def test_the_second_section_says_whether_edits_help(tmp_path):
    assert "Does it help?" not in written_page(tmp_path, metrics_of()).text
    found = {"value": 0.8, "ci": [0.7, 0.9]}
    method = {"cells": {"long_hair, smiling": 0.8}, "label_error": None, "worst_group": found}
    method |= {"balanced_accuracy": found, "parity_gap": found, "equalized_odds": found}
    utility = {
        "attribute": "smiling",
        "seeds": 3,
        "held_out": {"long_hair, smiling": 40},
        "left_out": [],
        "untrained": [],
        "methods": {"resampled": method, "rebalanced": method},
        "gain": {"with_edits": "rebalanced", "without": "resampled", "value": 0.2, "ci": [0.1, 0.3]}
        | {"margin": 0.02, "verdict": "better", "held_out_needed": None},
    }
    page = written_page(tmp_path, metrics_of() | {"utility": utility})
    assert page.text.index("Does it help?") < page.text.index("What was done")
    assert "Edits help: the worst-group accuracy of a classifier of smiling is 0.80" in page.text
    assert "original, cells drawn evenly" in page.text


def test_the_page_has_a_section_about_the_rates_of_the_retrained_gan(tmp_path):
    heading = "Does the retrained GAN meet the target rates?"
    assert heading not in written_page(tmp_path, metrics_of()).text
    target = CERTIFIED | {
        "rate": None, "by_referee": {"value": 0.49, "ci": [0.46, 0.52]}, "told": 0, "agree": 0, "labels_needed": 640,
        "samples_needed": 2000,
    }  # fmt: skip
    certificate = {"source": None, "confidence": 0.95, "samples": 2000, "labels": 0, "unclear": 0, "agreement": []}
    certificate |= {"assumed_errors": 0.02, "targets": [target] * 2}
    page = written_page(tmp_path, metrics_of() | {"certificate_samples": certificate})
    assert page.text.index("Are the target rates met?\n") < page.text.index(heading) < page.text.index("What was done")
    assert "The referee, a detector, believes that 49.0 % do." in page.text
    assert "--set retrained --count 640" in page.text


def test_the_page_says_whether_samples_show_what_the_detectors_say_where_they_were_compared_with_drawings(tmp_path):
    heading = "Do the samples show what the detectors say?"
    assert heading not in written_page(tmp_path, metrics_of()).text
    confusion = {
        "yes": {"shows": 90, "shows not": 10, "ambiguous": 3},
        "no": {"shows": 4, "shows not": 76, "ambiguous": 7},
    }
    rate = {"value": 0.52, "ci": [0.45, 0.59]}
    group = {"n": 190, "ambiguous": 10, "share_ambiguous": 10 / 190, "rate": rate, "bounds": [0.43, 0.61]}
    group |= {judge: {"rate": rate, "confusion": confusion} for judge in ("selector", "referee")}
    gap = {"value": 0.0, "ci": [-0.1, 0.1], "bounds": [-0.2, 0.2]}
    cell = {"group": "long_hair", "value": True, "n": 200, "told": 190, "right": 188, "drawn": 250, "kept": 200}
    judged = {
        "attribute": "smiling",
        "bank": {"renders": 1500, "faces": 150},
        "check": {"cells": [cell | {"accuracy": 188 / 190}], "counts": True, "least_accuracy": 0.97},
        "sets": {stage: {"groups": dict.fromkeys(GROUPS, group), "gap": gap} for stage in ("retrained", "control")},
    }
    page = written_page(tmp_path, metrics_of() | {"judged_samples": judged})
    text = " ".join(page.text[page.text.index(heading) : page.text.index("Image quality")].split())
    assert (
        "Among samples of the retrained GAN that the judge can tell, 90.0 % of those with “smiling” by the selector "
        "show it by the nearest drawing, and 95.0 % of those without it do not."
    ) in text
    assert "+0.00 [-0.10, +0.10], and between -0.20 and +0.20 whatever the ambiguous ones show." in text
    assert "retrained GAN long hair 190 0.52 [0.45, 0.59] [0.43, 0.61]" in text
    assert "retrained GAN not long hair selector 90 10 4 76 3 7" in text
    assert "of which only 80.0 % still show what was drawn" in text
    assert "drawings of other faces tell 95.0 %" in text
    assert "they do worst, 98.9 % of what they tell is right." in text
    assert "does not count here" not in text
    judged["check"]["counts"] = False
    assert "This judge does not count here." in written_page(tmp_path, metrics_of() | {"judged_samples": judged}).text


def test_the_summary_shows_other_choices_by_the_referee_where_it_scored_candidates(tmp_path):
    heading = "Would another choice among the candidates have been better?"
    assert heading not in written_page(tmp_path, metrics_of()).text
    choice = {"rule": "own", "value": None, "edits": 8, "made": 6, "confirmed": 3, "gap": 0.125, "distance": 0.125}
    choice |= {"seam": 0.25, "masked_l1": 0.0625}
    frontier = {"target_gap": 0.0, "choices": [choice], "refused": {"candidates": "no pool", "veto": "no pool"}}
    page = written_page(tmp_path, metrics_of() | {"frontier": frontier})
    text = " ".join(page.text[page.text.index(heading) : page.text.index("Detectors")].split())
    assert "the run's own choice 6 0.75 0.50 +0.125 0.25 0.062" in text
    assert "said by the referee, never by the selector" in text
    assert "cannot answer every other choice (no pool)" in text
    assert any("the distance from the target, by the referee" in said for said in page.alternatives)


def test_the_summary_says_whether_the_selector_had_a_part_in_retraining(tmp_path):
    said = "Both GANs were also shown the selector's scores of their images."
    assert said not in written_page(tmp_path, metrics_of()).text
    shown = RETRAIN.model_copy(update={"attributes": AttributeLoss()})
    assert said in written_page(tmp_path, metrics_of(), shown).text


#: What a page says of GANs only where there are any.
OF_GANS = ("GAN", "retrain", "control", "generat", "encoder", "samples")


def test_the_summary_of_a_run_without_networks_speaks_of_the_dataset_alone(tmp_path):
    metrics = metrics_of(WITHOUT_RETRAINING["poisson"]) | {"regions": {}, "segmenter": None}
    targets = EVEN.model_copy(
        update={"edit": EVEN.edit.model_copy(update={"editor": Poisson(), "region": BoxRegion(shows=None)})}
    )
    page = written_page(tmp_path, metrics, retrain=None, targets=targets)
    assert "The rebalancing worked: the rebalanced dataset meets every target rate." in page.text
    assert "1,234 in the original dataset." in page.text
    assert "Poisson blending" in page.text
    said = [*page.alternatives, page.text.replace("Generated images have none.", "")]
    assert [(word, text) for text in said for word in OF_GANS if word in text] == []
    assert "Not measured" not in page.text
    assert "None" not in page.text


def test_the_summary_of_a_run_without_retraining_speaks_of_the_samples_but_not_of_other_gans(tmp_path):
    text = written_page(tmp_path, metrics_of(WITHOUT_RETRAINING["latent-regression"]), retrain=None).text
    assert "and 120 in samples of the source GAN." in text
    assert "The encoder does not see grey pixels." in text
    assert not re.search("retrained|control GAN", text)


def test_the_summary_is_one_well_formed_page_that_holds_its_images(tmp_path):
    page = written_page(tmp_path, metrics_of())
    assert len(page.images) == 2
    for source, name in zip(page.images, ("gallery", "rates"), strict=True):
        embedded = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        assert embedded == (tmp_path / f"{name}.png").read_bytes()
    for heading in ("Image quality", "Edits", "Detectors", "Run times", "paper's box"):
        assert heading in page.text


def test_the_summary_begins_with_verdict_rates_and_gallery(tmp_path):
    text = written_page(tmp_path, metrics_of()).text
    parts = ("The rebalancing worked", "rebalanced dataset", "retrained GAN", "Edits, before and after", "Reasons")
    places = [text.index(part) for part in (*parts, "Rates in every image set", "Image quality")]
    assert places == sorted(places)


def test_the_ledger_names_what_changed_most(tmp_path):
    row = tables.ledger_table(metrics_of()).iloc[0].to_dict()
    assert row["edits made"] == "110 of 120"
    assert row["no candidate succeeded"] == "8.3 %"
    assert row["donors, effective"] == "80, 61"
    assert row["other attributes that changed most (referee)"].startswith("hat 3.0 %, beard 1.0 %, ")
    text = written_page(tmp_path, metrics_of()).text
    assert text.index("Number of edits") < text.index("What else the edits changed") < text.index("25.0 %")


def test_the_verdict_holds_no_interval(tmp_path):
    text = written_page(tmp_path, metrics_of()).text
    reasons = text[text.index("Reasons") : text.index("What was done")]
    assert "[" not in text[: text.index("target rate")] + reasons


def test_pictures_are_described_by_what_to_look_for(tmp_path):
    gallery, rates = written_page(tmp_path, metrics_of()).alternatives
    assert "The mouth should have changed" in gallery
    assert "Compare the bars with the dashed target rates." in rates
    metrics = metrics_of()
    metrics["edits"]["dataset"]["planned"] = 0
    assert written_page(tmp_path, metrics).alternatives[0] == "No edits of the original dataset are planned."


def test_no_figure_of_the_page_is_written_with_an_exponent(tmp_path):
    page = written_page(tmp_path, with_distances(dataset=2.5e-5, dataset_rebalanced=5e-5, retrained=1.2345e-4))
    assert not re.search(r"\de[-+]\d", page.text)
    assert "Extractor of the features: stlpips-alex." in page.text


def test_the_summary_names_the_disagreement_of_the_detectors_before_any_rate(tmp_path):
    text = written_page(tmp_path, metrics_of(agreement={"retrained": {"smiling": 0.5}})).text
    assert text.index("No verdict is possible") < text.index("agree is only 0.50 for “retrained GAN”")
    assert text.index("agree is only 0.50") < text.index("Rates by the referee")


def test_names_are_escaped(tmp_path):
    metrics = metrics_of()
    metrics["timing"]["<b>rule</b>"] = 1.0
    metrics["quality"]["dataset"]["frechet_distance"]["extractor"] = "<i>net"
    page = written_page(tmp_path, metrics)  # parsing would fail at an <i> that nobody closes
    assert "<b>rule</b>" in page.text
    assert "<i>net" in page.text


def test_the_summary_says_so_where_nothing_was_timed(tmp_path):
    metrics = metrics_of() | {"timing": {}}
    assert written_page(tmp_path, metrics).text.count("Not measured in this run.") == 1


def test_the_summary_of_a_run_without_edits_or_segmenter_names_nothing_unknown_none(tmp_path):
    metrics = metrics_of() | {"segmenter": None}
    for edits in metrics["edits"].values():
        edits.update(planned=0, masked_l1=None)
    text = written_page(tmp_path, metrics).text
    assert "0 in the original dataset and 0 in samples of the source GAN" in text
    assert "No segmenter" in text
    assert "None" not in text


def test_the_card_counts_what_the_labels_hold(tmp_path, metrics_file):
    labels = pd.DataFrame(
        {
            "image_id": [f"face-{number}" for number in range(10)],
            "edited": [True, True, True] + [False] * 7,
            "smiling": pd.array([None, None, None, True, True, False, False, False, False, False], "boolean"),
        }
    )
    write_table(tmp_path / "labels.parquet", "assembled", labels)
    datasheet.write_datasheet(
        metrics=metrics_file,
        labels=tmp_path / "labels.parquet",
        run="tiny",
        data=AvatarData(),
        targets=EVEN,
        card=tmp_path / "card.md",
    )
    _, front, body = (tmp_path / "card.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["size_categories"] == ["n<1K"]
    assert yaml.safe_load(front)["license"] == "mit"
    assert "| smiling | 2 | 5 | 3 |" in body
    assert "10 images of 64 by 64 pixels, of which 3 (30.0%) were edited" in body
    assert "$" not in body
    for heading in ("Motivation", "Composition", "Collection", "Processing", "Uses and cautions", "Maintenance"):
        assert f"\n## {heading}\n" in body


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "Nobody has labelled what the edited images show."),
        ("audit", "1,200 of the edited images were labelled by eye."),
        ("truth", "What the edited images show is known from the nearest drawing of each face."),
    ],
)
def test_the_card_says_who_has_labelled_the_edited_images(tmp_path, source, said):
    metrics = metrics_of()
    certificate = metrics["certificate"] | {"source": source}
    certificate["targets"] = [found | {"labels_there": 1200} for found in certificate["targets"]]
    write_json(tmp_path / "metrics.json", metrics | {"certificate": certificate})
    write_table(tmp_path / "labels.parquet", "assembled", pd.DataFrame({"image_id": ["a"], "edited": [True]}))
    files = {"metrics": tmp_path / "metrics.json", "labels": tmp_path / "labels.parquet", "card": tmp_path / "card.md"}
    datasheet.write_datasheet(**files, run="tiny", data=AvatarData(), targets=EVEN)
    text = (tmp_path / "card.md").read_text()
    assert said in text
    assert text.count("labelled") == said.count("labelled")  # and nothing else of who labelled what


def test_the_card_says_of_edits_that_an_audit_planned_and_of_the_gans_compared(tmp_path, metrics_file):
    write_table(tmp_path / "labels.parquet", "assembled", pd.DataFrame({"image_id": ["a"], "edited": [True]}))

    def card(metrics, labels=None):
        write_json(tmp_path / "metrics.json", metrics)
        datasheet.write_datasheet(
            metrics=tmp_path / "metrics.json",
            labels=tmp_path / "labels.parquet",
            run="tiny",
            data=AvatarData(),
            targets=EVEN.model_copy(update={"labels": labels}),
            card=tmp_path / "card.md",
        )
        return (tmp_path / "card.md").read_text()

    plain = card(metrics_of())
    assert "labelled by eye" not in plain
    assert "a GAN each was trained" not in plain
    more = card(metrics_of(RATES | {"resampled": RATES["control"], "sham": RATES["control"]}), labels=["audit.csv"])
    assert "each target got as many more edits as make up for those that had failed." in more
    said = "a GAN each was trained on resampled original images, without any edit; on as many edited images, which keep"
    assert said in more


def test_the_card_has_the_gap_and_the_accuracy_of_every_attribute(tmp_path):
    write_json(tmp_path / "metrics.json", metrics_of_several())
    rows = pd.DataFrame({"image_id": ["a"], "edited": [False], "smiling": [True], "beard": [False]})
    write_table(tmp_path / "labels.parquet", "assembled", rows)
    files = {"metrics": tmp_path / "metrics.json", "labels": tmp_path / "labels.parquet", "card": tmp_path / "card.md"}
    datasheet.write_datasheet(**files, run="several", data=AvatarData(), targets=SEVERAL)
    text = " ".join((tmp_path / "card.md").read_text().split())
    assert text.count("The group gap in ") == 2
    assert "The group gap in beard (long hair minus not long hair) by the referee was +0.60" in text
    assert "was right on smiling in 0.98 and beard in 0.98 and hat in 0.98 of held-out" in text


def test_the_card_of_a_run_without_networks_claims_no_gan(tmp_path):
    write_json(tmp_path / "metrics.json", metrics_of(WITHOUT_RETRAINING["poisson"]))
    write_table(tmp_path / "labels.parquet", "assembled", pd.DataFrame({"image_id": ["a"], "edited": [True]}))
    datasheet.write_datasheet(
        metrics=tmp_path / "metrics.json",
        labels=tmp_path / "labels.parquet",
        run="tiny",
        data=AvatarData(),
        targets=EVEN.model_copy(update={"edit": EVEN.edit.model_copy(update={"editor": Poisson()})}),
        card=tmp_path / "card.md",
    )
    text = (tmp_path / "card.md").read_text()
    assert "gan-edited" not in text
    assert not re.search(r"\bGAN|encoder|generated", text)
    assert "Poisson blending" in text


def test_the_card_of_given_images_claims_nothing_of_their_origin(tmp_path, metrics_file):
    write_table(tmp_path / "labels.parquet", "assembled", pd.DataFrame({"image_id": ["a"], "edited": [False]}))
    datasheet.write_datasheet(
        metrics=metrics_file,
        labels=tmp_path / "labels.parquet",
        run="tiny",
        data=FolderData(reader="folder", folder="faces", labels="faces.csv", attributes=["smiling", "long_hair"]),
        targets=EVEN,
        card=tmp_path / "card.md",
    )
    _, front, body = (tmp_path / "card.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown"
    assert "synthetic" not in yaml.safe_load(front)["tags"]
    assert "avatars" not in body
    assert "files in `faces`, centre-cropped and resized to 256 pixels" in body
    assert "$" not in body


@pytest.mark.parametrize(
    ("images", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (30_000, "10K<n<100K")]
)
def test_sizes_are_named_as_the_hub_names_them(images, category):
    assert datasheet.size_category(images) == category


def test_reports_are_made_without_torch():
    modules = ", ".join(module.__name__ for module in (figures, tables, summary, datasheet))
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_stage_of_the_report_is_registered():
    from pipeline_lib.stages import STAGES

    for name in ("plot_rates", "plot_before_after", "write_tables", "write_summary", "write_datasheet"):
        assert callable(getattr(importlib.import_module(STAGES[name]), name))


def test_the_table_of_edits_says_what_they_change_where_that_was_measured():
    metrics = metrics_of()
    assert not [column for column in tables.edits_table(metrics) if "AUC" in column or "dB" in column]
    metrics["leakage"] = {
        stage: {"pooled": {"auc": {"value": area, "ci": [0.4, 0.8]}}}
        for stage, area in (("dataset", 0.61), ("samples", None))
    }
    metrics["counterfactual"] = {
        "check": {"smiling": {"value": 0.985, "ci": [0.97, 0.993], "n": 500, "right": 492, "softness": 0.0}},
        "counts": True,
        "share_by_truth": 0.98,
        "share_identical_outside": 1.0,
        "median_psnr_ideal": 44.0,
        "median_psnr_inside": 33.5,
    }
    table = tables.edits_table(metrics).set_index("image set")
    dataset = next(row for name, row in table.iterrows() if "dataset" in name.lower())
    assert dataset["told from unedited images (AUC)"] == 0.61
    assert dataset["share true by the nearest drawing"] == 0.98
    assert dataset["nearest drawing right about known edits"] == "0.985 [0.970, 0.993] of 500"
    metrics["counterfactual"]["counts"] = False
    assert "share true by the nearest drawing" not in tables.edits_table(metrics)
    assert dataset[["unchanged outside the region", "dB to the ideal edit", "dB inside the region"]].tolist() == [
        1,
        44,
        33.5,
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "For each edit 16 random donors were tried. The donor's mouth was pasted into the image"),
        ({"pool": 128}, "128 random donors were drawn, and the 16 of them were tried that differ least"),
        ({"region": BoxRegion()}, "The donor's rectangle was pasted into the image"),
        (
            {"editor": INPAINTING},
            "a diffusion model drew the mouth anew 16 times, as a prompt",
        ),
    ],
)
def test_what_was_tried_for_an_edit_is_said_as_it_was(changes, said):
    assert said in tables.how_edited(TARGETS.model_copy(update={"edit": TARGETS.edit.model_copy(update=changes)}))


def test_every_kind_of_editor_has_its_sentence():
    kinds = {get_args(section.model_fields["kind"].annotation)[0] for section in get_args(get_args(EditorSection)[0])}
    assert {"latent-regression"} < kinds
    assert kinds - {"inpainting"} == set(tables.EDITORS)  # inpainting is said in other words
