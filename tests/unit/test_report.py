"""The page of a run, its verdicts, figures and tables, and the card of its dataset."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import BoxRegion, PartRegion, RateRule, Rebalance
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.readers.folder import FolderData
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import SCHEMAS, write_table
from pipeline_lib.editing.editors.poisson import Poisson
from pipeline_lib.release import cards
from pipeline_lib.report import figures, page, tables, verdicts, words
from pipeline_lib.runtime.errors import DataError
from tests.unit.made_results import (
    CERTIFIED,
    CERTIFIED_SAMPLES,
    GROUPS,
    MEASURED,
    NO_NETWORK,
    NOT_RETRAINED,
    RATES,
    kappas_of,
    metrics_of,
    results_of,
    utility_of,
)

TARGETS = Rebalance(
    targets=[
        RateRule(where={"long_hair": True}, attribute="smiling", rate=0.5),
        RateRule(where={"long_hair": False}, attribute="smiling", rate=0.5),
    ],
    edit={"region": PartRegion(name="mouth", grow=0.0, buffer=0.1)},
)
UNTOLD = "not enough evidence"


def samples_of(*by_labels):
    """Return the certificate of samples that somebody has labelled, with these verdicts."""
    found = [
        CERTIFIED_SAMPLES | {"group": group, "verdict": verdict, "rate": {"value": 0.5, "ci": [0.48, 0.52]}}
        for group, verdict in zip(GROUPS, by_labels, strict=True)
    ]
    return results_of()["certificate_samples"] | {"source": "audit", "labels": 600, "targets": found}


BOTH_MET = samples_of("met", "met")


def several(**beards):
    """Return a section and the metrics of a run with three attributes: beards with rates of their own, and hats in one
    group alone."""
    rules = [rule.model_copy(update={"attribute": "beard"}) for rule in TARGETS.targets]
    hats = RateRule(where={"beard": True}, attribute="hat", rate=0.1)
    targets = TARGETS.model_copy(update={"targets": [*TARGETS.targets, *rules, hats]})
    values, others = results_of(), results_of(RATES | beards)
    for section in ("rate", "gap"):
        values[section]["beard"] = others[section]["smiling"]
    values["rate"]["hat"] = {
        stage: {source: {"beard": found["long_hair"]} for source, found in sources.items()}
        for stage, sources in others["rate"]["smiling"].items()
    }
    for section, of_one in (("agreement", 0.99), ("kappa", kappas_of())):
        values[section] = {stage: dict.fromkeys(("smiling", "beard", "hat"), of_one) for stage in RATES}
    values["certificate"]["targets"] = [CERTIFIED | {"group": "all", "verdict": "met"}] * 5
    detector = values["detectors"]["referee"]["smiling"]
    values["detectors"] = {name: dict.fromkeys(("smiling", "beard", "hat"), detector) for name in values["detectors"]}
    return targets, metrics_of(**values)


def with_groups(names):
    """Return the metrics of a run whose groups have these names, each with the rates of the first group."""
    values = results_of()
    values["rate"]["smiling"] = {
        stage: {source: dict.fromkeys(names, found[GROUPS[0]]) for source, found in sources.items()}
        for stage, sources in values["rate"]["smiling"].items()
    }
    values["certificate"]["targets"] = [CERTIFIED | {"group": name, "verdict": "met"} for name in names]
    return metrics_of(**values)


# Verdicts


def concluded(changed=None, certified=("met", "met"), targets=TARGETS, n=2000, **sections):
    return verdicts.conclude(metrics_of(RATES | (changed or {}), n, certified, **sections), targets, 0.95)


@pytest.mark.parametrize(
    ("certified", "met"), [(("met", "met"), True), (("met", "missed"), False), (("met", UNTOLD), None)]
)
def test_the_verdict_on_the_dataset_is_that_of_its_certificate(certified, met):
    assert concluded(certified=certified).dataset is met


@pytest.mark.parametrize(
    ("changed", "by_labels", "met"),
    [
        ({}, ("met", "met"), True),
        ({}, ("met", "missed"), False),
        ({}, ("met", UNTOLD), None),
        ({"retrained": (0.65, 0.35)}, ("met", "met"), False),  # more than half of the control's bias
        ({"control": (0.53, 0.47)}, ("met", "met"), None),  # the control has hardly any
        ({"retrained": (0.8, 0.78)}, ("met", "met"), False),  # no gap, but rates that are as far away
    ],
)
def test_the_gan_must_meet_the_targets_by_labels_and_have_half_of_the_controls_bias(changed, by_labels, met):
    assert concluded(changed, certificate_samples=samples_of(*by_labels)).gan is met


def test_a_gan_whose_samples_nobody_labelled_is_never_said_to_meet_the_targets():
    assert concluded().gan is None
    assert concluded({"retrained": (0.65, 0.35)}).gan is False


@pytest.mark.parametrize("stage", ["retrained", "control"])
def test_gans_on_which_the_detectors_disagree_are_not_compared(stage):
    agreement = {name: {"smiling": 0.9 if name == stage else 0.99} for name in RATES}
    found = concluded(agreement=agreement, certificate_samples=BOTH_MET)
    assert (found.gan, found.biases[0].doubtful) == (None, True)


def test_too_few_images_of_a_gan_leave_the_verdict_open():
    assert concluded(n=20, certificate_samples=BOTH_MET).gan is None


def test_every_attribute_counts():
    targets, metrics = several(retrained=(0.65, 0.35))
    assert [bias.halved for bias in verdicts.conclude(metrics, targets, 0.95).biases[:2]] == [True, False]
    assert verdicts.conclude(metrics, targets, 0.95).gan is False


def test_a_wanted_gap_is_no_bias():
    rules = [rule.model_copy(update={"rate": rate}) for rule, rate in zip(TARGETS.targets, (0.7, 0.3), strict=True)]
    targets = TARGETS.model_copy(update={"targets": rules})
    (bias,) = concluded({"retrained": (0.7, 0.3)}, targets=targets).biases
    assert bias.gap["retrained"].value == pytest.approx(0)
    assert bias.is_small


@pytest.mark.parametrize(
    ("verdict", "met"),
    [
        ("better", True),
        ("worse", False),
        ("equivalent", False),
        ("not enough test images", None),
        ("could not be determined", None),
    ],
)
def test_edits_help_only_if_they_are_better_than_every_baseline(verdict, met):
    found = concluded(utility=utility_of(verdict))
    assert found.classifier is met


def test_edits_that_the_referee_denies_and_agreement_by_chance_are_found():
    metrics = metrics_of(kappa={stage: {"smiling": kappas_of(long_hair=0.41)} for stage in RATES})
    assert {(attribute, group) for _, attribute, group, _ in verdicts.low_kappas(metrics)} == {("smiling", "long_hair")}
    assert (
        verdicts.low_kappas(metrics_of(kappa={stage: {"smiling": kappas_of(20, long_hair=0.4)} for stage in RATES}))
        == []
    )
    assert set(verdicts.denied_edits(metrics.edits["dataset"], 0.99)) == {("smiling", group) for group in GROUPS}


# Rates


def texts_by_panel(axes):
    return {
        " ".join(panel.get_title().split()): " ".join(" ".join(text.get_text().split()) for text in panel.texts)
        for panel in axes
        if panel.get_title()
    }


def draw(metrics=None, targets=TARGETS, least=0.95):
    return figures.rates_figure(metrics or metrics_of(), targets, least)


def test_the_figure_has_panels_for_the_image_sets_of_the_run_alone():
    assert len(texts_by_panel(draw().axes)) == 7
    assert len(texts_by_panel(draw(metrics_of(NOT_RETRAINED)).axes)) == 5
    assert len(texts_by_panel(draw(metrics_of(NO_NETWORK)).axes)) == 3


def test_a_panel_is_struck_exactly_where_the_detectors_agree_too_little():
    agreement = {name: {"smiling": 0.99} for name in RATES}
    agreement |= {"retrained": {"smiling": 0.91}, "dataset": {"smiling": 0.949}}
    panels = texts_by_panel(draw(metrics_of(agreement=agreement)).axes)
    struck = {title: text for title, text in panels.items() if "no gap counts" in text}
    assert set(struck) == {"Retrained GAN", "Original dataset, by the referee"}  # ground truth needs no detector
    assert "detectors agree on 0.94: no gap" in struck["Original dataset, by the referee"]  # 0.95 would be enough


def test_bars_marks_and_dashes_stand_at_the_rates_of_the_metrics():
    drawn = draw()
    for panel, axes in zip(figures.PANELS, (axes for axes in drawn.axes if axes.get_title()), strict=True):
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(RATES[panel.name])
        marks = [line.get_ydata()[0] for line in axes.lines if line.get_marker() in ("o", "D")]
        assert marks == pytest.approx(np.repeat(RATES[panel.name], 2) if panel.source == "referee" else [])
        gap = float(re.findall(r"[+-]\d\.\d\d", axes.texts[0].get_text())[0])
        assert gap == pytest.approx(RATES[panel.name][0] - RATES[panel.name][1], abs=0.006)


def test_attributes_stand_below_one_another_and_one_with_a_single_group_has_no_gap():
    targets, metrics = several(retrained=(0.33, 0.17))
    of_smiles, of_beards, of_hats = (texts_by_panel(block.axes) for block in draw(metrics, targets).subfigs)
    assert len(of_smiles) == len(of_beards) == len(of_hats) == 7
    assert of_beards["Retrained GAN"].startswith("gap +0.16")
    assert set(of_hats.values()) == {""}


def test_the_figure_of_classifiers_has_a_row_for_each():
    utility = metrics_of(utility=utility_of()).utility
    assert len(figures.utility_figure(utility).axes[0].get_yticklabels()) == 3
    assert tables.utility_table(utility)["worst-group accuracy"].tolist() == ["0.60", "0.70", "0.80"]


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
    drawn = shown_edits(monkeypatch, edited, TARGETS)
    pictures = [axes.images[0].get_array() for axes in drawn.axes if axes.images]
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


def test_a_missing_composite_is_one_clear_line(edited):
    edited["composites"] = edited["images"][1:]  # holds face-3, but not face-0
    with pytest.raises(DataError, match="no image `face-0`"):
        figures.plot_before_after(**edited, settings=TARGETS)


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


# The page


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
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text


def written(tmp_path, metrics, targets=TARGETS):
    """Return the page of a run."""
    metrics.write(tmp_path / "metrics.json")
    Image.fromarray(PIXELS[0]).save(tmp_path / "gallery.png")
    names = ["rates", *(["utility"] if metrics.utility else [])]
    page.write_report(
        metrics=tmp_path / "metrics.json",
        gallery=tmp_path / "gallery.png",
        targets=targets,
        retrain=None,
        page=tmp_path / "report.html",
        figures=[tmp_path / f"{name}.png" for name in names],
        csv=[tmp_path / f"{name}.csv" for name in page.TABLES],
    )
    return Page((tmp_path / "report.html").read_text())


@pytest.mark.parametrize("rates", [RATES, NOT_RETRAINED, NO_NETWORK])
@pytest.mark.parametrize("verdict", ["better", "not enough test images", None])
def test_the_report_is_one_well_formed_page_that_holds_its_pictures(tmp_path, rates, verdict):
    utility = utility_of(verdict, needed=4884 if verdict == "not enough test images" else None) if verdict else None
    found = written(tmp_path, metrics_of(rates, utility=utility))
    assert all(source.startswith("data:image/png;base64,") for source in found.images)
    assert len(found.images) == 2 + bool(utility)
    assert not re.search(r"None|nan\b|Undefined|\de-\d", found.text)
    assert ("control GAN" in found.text) == (rates is RATES)
    assert ("Does it help?" in found.text) == bool(utility)


def test_the_page_says_the_number_of_edits_once_and_the_same_everywhere(tmp_path):
    found = " ".join(written(tmp_path, metrics_of()).text.split())
    assert "120 edits of the dataset were planned, and 110 succeeded. 5 spare edits took the place" in found
    entries = metrics_of().edits["dataset"].ledger
    assert sum(entry.succeeded for entry in entries) == 110
    assert sum(entry.made for entry in entries) == 115


def test_verdicts_stand_apart_and_are_not_said_to_be_met_where_they_cannot_be_decided(tmp_path):
    text = " ".join(written(tmp_path, metrics_of(utility=utility_of("worse", -0.1))).text.split())
    assert "Rebalanced dataset: met" in text
    assert "Retrained GAN: cannot be decided" in text
    assert "Classifier trained on it: edits do not help" in text


def test_a_run_of_several_attributes_or_of_one_target_is_reported(tmp_path):
    targets, metrics = several()
    assert "Group gap in beard" in written(tmp_path, metrics, targets).text
    values = with_groups(["all"]).model_dump(mode="json", exclude_unset=True) | {"gap": {}}
    only = TARGETS.model_copy(update={"targets": [RateRule(attribute="smiling", rate=0.5)]})
    assert "group gap:" not in written(tmp_path, metrics_of(**values), only).text.lower()


def test_names_are_escaped(tmp_path):
    names = ["hair=<b>&", "not hair=<b>&"]
    rules = [RateRule(where={"hair=<b>&": value}, attribute="smiling", rate=0.5) for value in (True, False)]
    assert "hair <b>&" in written(tmp_path, with_groups(names), TARGETS.model_copy(update={"targets": rules})).text


# Tables and words


def test_csv_files_hold_the_values_of_the_metrics(tmp_path):
    written(tmp_path, metrics_of())
    quality = pd.read_csv(tmp_path / "quality.csv")
    assert quality["image set"].tolist()[:2] == ["original dataset", "samples of the source GAN"]
    assert quality["coverage"].tolist()[0] == 0.9123
    assert quality["extractor"].unique().tolist() == [MEASURED["extractor"]]
    detectors = pd.read_csv(tmp_path / "detectors.csv").set_index("detector")
    assert np.isnan(detectors.loc["selector", "sensitivity"])
    assert detectors.loc["referee", "sensitivity"] == 0.975
    assert pd.read_csv(tmp_path / "edits.csv").set_index("figure").loc["planned", "original dataset"] == "120"
    assert pd.read_csv(tmp_path / "timing.csv")["seconds"].tolist() == [31.3, 140.5, 171.8]


def test_figures_are_written_without_exponents_and_without_a_minus_before_nothing():
    measured = metrics_of().quality["dataset"]["frechet_distance"].model_copy(update={"value": 3.79e-5})
    assert words.distance_text(measured).replace("\N{NO-BREAK SPACE}", " ") == "3.79 × 10⁻⁵"
    assert words.distance_text(measured.model_copy(update={"value": 12.345})) == "12.3"
    assert words.gap_text(Estimate(-0.001, -0.02, 0.02)) == "+0.00 [-0.02, +0.02]"
    assert words.rate_text(Estimate(0.5, 0.5, 0.5)) == "0.50"
    assert words.cell_text(0.00001234) == "0.00001234"
    assert words.cell_text(float("nan")) == "–"


# Cards


def card_of(tmp_path, rates=RATES, targets=TARGETS, data=None, **sections):
    """Return front matter and text of the card of a dataset of ten images, of which three were edited."""
    metrics_of(rates, **sections).write(tmp_path / "metrics.json")
    smiling = pd.array([None, None, None, True, True, False, False, False, False, False], "boolean")
    labels = pd.DataFrame({"image_id": list("abcdefghij"), "edited": [True] * 3 + [False] * 7, "smiling": smiling})
    write_table(tmp_path / "labels.parquet", "assembled", labels)
    cards.write_datasheet(
        metrics=tmp_path / "metrics.json",
        labels=tmp_path / "labels.parquet",
        run="tiny",
        data=data or AvatarData(),
        targets=targets,
        card=tmp_path / "card.md",
    )
    _, front, body = (tmp_path / "card.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_counts_what_the_labels_hold(tmp_path):
    front, body = card_of(tmp_path)
    assert (front["size_categories"], front["license"]) == (["n<1K"], "mit")
    assert "| smiling | 2 | 5 | 3 |" in body
    assert "10 images of 64 by 64 pixels, of which 3 (30.0 %) were edited" in body
    for heading in ("Motivation", "Composition", "Collection", "Processing", "Uses and cautions", "Maintenance"):
        assert f"\n## {heading}\n" in body


def test_the_card_of_a_run_without_networks_claims_no_gan(tmp_path):
    poisson = TARGETS.model_copy(update={"edit": TARGETS.edit.model_copy(update={"editor": Poisson()})})
    front, body = card_of(tmp_path, NO_NETWORK, poisson)
    assert "gan-edited" not in front["tags"]
    assert not re.search(r"\bGAN|encoder|generated", body)
    assert "Poisson blending" in body


def test_the_card_of_given_images_claims_nothing_of_their_origin(tmp_path):
    data = FolderData(reader="folder", folder="faces", labels="faces.csv", attributes=["smiling", "long_hair"])
    front, body = card_of(tmp_path, data=data)
    assert front["license"] == "unknown"
    assert "synthetic" not in front["tags"]
    assert "avatars" not in body
    assert "files in `faces`, centre-cropped and resized to 256 pixels" in body


@pytest.mark.slow
def test_reports_are_made_without_torch():
    modules = ", ".join(module.__name__ for module in (figures, tables, page))
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
