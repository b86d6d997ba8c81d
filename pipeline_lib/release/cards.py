"""The cards of a release: of the rebalanced dataset, of an export, and of the retrained GAN."""

from __future__ import annotations

from pathlib import Path

import yaml

from pipeline_lib.audit.pages import say_basis, say_targets
from pipeline_lib.config import Data, Rebalance
from pipeline_lib.config.names import readable
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.evaluation.results import Metrics
from pipeline_lib.networks.checkpoints import read_header
from pipeline_lib.release.image_sets import ATTRIBUTE, COLUMNS, ImageSet
from pipeline_lib.report.words import groups_text, render
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage

#: Upper limits of the Hugging Face Hub's size categories.
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


@stage(revision=5)
def write_datasheet(*, metrics: Path, labels: Path, run: str, data: Data, targets: Rebalance, card: Path) -> None:
    """Write the card of the rebalanced dataset as Markdown, with the Hugging Face Hub's front matter.

    Args:
        metrics: JSON of `collect_metrics`.
        labels: labels of the rebalanced dataset.
        run: name of the run.
        data: the config section of the images.
        targets: the config section of the target rates.
        card: Markdown file to write.
    """
    table = read_table(labels, "assembled")
    subject = "Avatars" if data.reader == "avatars" else "Images"
    title = f"{subject} with {' and '.join(map(readable, targets.edited))} rebalanced ({run})"
    generates = targets.edit.editor.generates
    counts = {}
    for name in attribute_columns(table, "assembled"):
        known = table[name].dropna().astype(bool)
        counts[name] = int(known.sum()), int((~known).sum()), len(table) - len(known)
    body = render(
        "datasheet.md.j2",
        title=title,
        run=run,
        data=data,
        targets=targets,
        metrics=Metrics.read(metrics),
        images=len(table),
        edited=int(table["edited"].sum()),
        counts=counts,
        generates=generates,
        gaps_between={name: groups_text(targets.alone(name)) for name in targets.compared},
    )
    front = front_matter(title, len(table), data.reader, "gan-edited" if generates else "edited")
    with atomic_path(card) as beside:
        beside.write_text(f"---\n{front}---\n\n{body}", encoding="utf-8")


def front_matter(title: str, images: int, reader: str, edited: str) -> str:
    """Return the YAML that the Hugging Face Hub reads: https://huggingface.co/docs/hub/datasets-cards."""
    rendered = reader == "avatars"
    return yaml.safe_dump(
        {
            "pretty_name": title,
            "license": "mit" if rendered else "unknown",
            "task_categories": ["unconditional-image-generation", "image-classification"],
            "size_categories": [next((name for limit, name in SIZES.items() if images < limit), "n>10M")],
            "tags": [*(["synthetic", "faces"] if rendered else []), "fairness", "rebalanced", edited],
        },
        sort_keys=False,
    )


def dataset_card(image_set: ImageSet, form: str, has_croissant: bool) -> str:
    """Return the README of an export as Markdown, with the Hugging Face Hub's front matter.

    For the rebalanced dataset it begins with the datasheet of the run.

    Raises:
        DataError: the run has no datasheet, so it is not finished.
    """
    edited = image_set.config.rebalance.edited
    has_edits = bool(image_set.splits[0].edits)
    if image_set.name == "dataset_rebalanced":
        head = image_set.run.need(image_set.run.datasheet).read_text(encoding="utf-8")
    else:
        title = f"{readable(image_set.name).capitalize()} ({image_set.config.run})"
        count, kind = sum(map(len, image_set.splits)), "edited" if has_edits else "unedited"
        front = front_matter(title, count, image_set.config.data.reader, kind)
        head = f"---\n{front}---\n\n# {title}\n\nThe image set `{image_set.name}` of a run of Latent Rebalance.\n"
    body = render(
        "dataset.md.j2",
        form=form,
        has_croissant=has_croissant,
        has_model=bool(image_set.retrained),
        edited=edited if has_edits and edited[0] in image_set.attributes else (),
        columns={name: COLUMNS.get(name, ATTRIBUTE) for name in image_set.schema.names},
    )
    return f"{head}\n{body}"


def model_card(image_set: ImageSet, metrics: Metrics) -> str:
    """Return the card of the retrained GAN as Markdown, with the Hugging Face Hub's front matter.

    Args:
        image_set: the rebalanced dataset of a run that retrained a GAN.
        metrics: metrics of the run.
    """
    config, targets = image_set.config, image_set.config.rebalance
    body = render(
        "model.md.j2",
        title=f"GAN with {' and '.join(map(readable, targets.edited))} rebalanced ({config.run})",
        architecture=read_header(image_set.retrained)["architecture"],
        side=image_set.resolution,
        config=config,
        targets=targets,
        metrics=metrics,
        gaps_between={name: groups_text(targets.alone(name)) for name in targets.compared},
        samples=say_targets(metrics.certificate_samples),
        samples_note=say_basis(metrics.certificate_samples),
        dataset=say_targets(metrics.certificate),
        dataset_note=say_basis(metrics.certificate),
        version=image_set.provenance["installation"]["latent-rebalance"],
    )
    front = {
        "license": "mit" if config.data.reader == "avatars" else "unknown",
        "library_name": "pytorch",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "fairness", "rebalanced"],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{body}"
