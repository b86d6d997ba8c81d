"""The page of a run: its three verdicts, what they rest on, and what was done."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.audit.pages import say_basis
from pipeline_lib.config import Detectors, Rebalance, Retrain
from pipeline_lib.evaluation.results import Metrics
from pipeline_lib.imaging.png import data_url
from pipeline_lib.rebalance.groups import target_gap
from pipeline_lib.report import tables
from pipeline_lib.report.figures import rates_figure, save_figure, utility_figure
from pipeline_lib.report.verdicts import conclude, denied_edits, low_kappas
from pipeline_lib.report.words import groups_text, render
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage

TABLES = {
    "quality": tables.quality_table,
    "detectors": tables.detector_table,
    "edits": tables.edits_table,
    "timing": tables.timing_table,
}


@stage(revision=1)
def write_report(
    *,
    metrics: Path,
    gallery: Path,
    targets: Rebalance,
    retrain: Retrain | None,
    page: Path,
    figures: list[Path],
    csv: list[Path],
) -> None:
    """Write the page of a run, which holds its pictures and can be passed on by itself, with figures and tables.

    Args:
        metrics: JSON of `collect_metrics`.
        gallery: PNG of `plot_before_after` for the dataset.
        targets: the config section of the target rates.
        retrain: the config section of the retraining; None if no GAN was retrained.
        page: HTML to write.
        figures: PNG to write of the rates, and of the classifiers where some were trained, each under its name.
        csv: tables to write, each under its name.
    """
    found, least_agreement = Metrics.read(metrics), Detectors.least_agreement
    for path in figures:
        drawn = (
            utility_figure(found.utility) if path.stem == "utility" else rates_figure(found, targets, least_agreement)
        )
        save_figure(drawn, path)
    for path in csv:
        with atomic_path(path) as beside:
            TABLES[path.stem](found).to_csv(beside, index=False)
    pictures = {path.stem: data_url(path.read_bytes()) for path in figures}
    text = render_page(found, targets, least_agreement, data_url(gallery.read_bytes()), pictures, retrain)
    with atomic_path(page) as beside:
        beside.write_text(text, encoding="utf-8")


def render_page(
    metrics: Metrics,
    targets: Rebalance,
    least_agreement: float,
    gallery: str,
    figures: dict[str, str],
    retrain: Retrain | None,
) -> str:
    """Return the page as HTML, with pictures given as data URLs."""

    def doubtful(attribute: str) -> list[str]:
        return [name for name in metrics.image_sets if metrics.agreement[name][attribute] < least_agreement]

    samples = metrics.certificate_samples
    return render(
        "report.html.j2",
        metrics=metrics,
        targets=targets,
        least_agreement=least_agreement,
        shown_scores=bool(retrain and retrain.attributes),
        gallery=gallery,
        figures=figures,
        verdicts=conclude(metrics, targets, least_agreement),
        doubtful={attribute: names for attribute in targets.edited if (names := doubtful(attribute))},
        denied=denied_edits(metrics.edits["dataset"], least_agreement),
        kappas=[
            low
            for low in low_kappas(metrics)
            if metrics.agreement[low[0]][low[1]] >= least_agreement  # of others it is said that they do not count
        ],
        gaps_between={name: groups_text(targets.alone(name)) for name in targets.compared},
        wanted_gaps={name: target_gap(targets.alone(name).targets) for name in targets.compared},
        gaps={name: tables.gap_table(metrics, name, least_agreement) for name in targets.compared},
        certificate_note=say_basis(metrics.certificate),
        samples_note=samples and say_basis(samples),
        robustness=tables.robustness_table(metrics),
        utility=metrics.utility and tables.utility_table(metrics.utility),
        METHODS=tables.METHODS,
        **{name: of(metrics) for name, of in TABLES.items()},
    )  # fmt: skip
