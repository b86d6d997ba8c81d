"""The card of the rebalanced dataset, a short form of Gebru et al., Datasheets for Datasets (2021)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import yaml

from pipeline_lib.config import Data, Rebalance
from pipeline_lib.config.names import readable
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.report.tables import (
    as_estimate,
    frechet_distances,
    gap_text,
    groups_text,
    how_edited,
    rates_text,
    read_metrics,
    share_text,
)
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.revisions import stage

#: Upper limits of the Hugging Face Hub's size categories.
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}

BODY = Template("""\
# $title

## Motivation

Models trained on a dataset learn its imbalances. This dataset is the run's original dataset, edited to reach these
target rates: $rates.$purpose$baselines

## Composition

$images images of $resolution by $resolution pixels, of which $edited ($edited_share) were edited and $kept are
unchanged. $planned edits were planned. Where no candidate succeeded, the image was kept.$audited

| attribute | true | false | null |
|---|--:|--:|--:|
$counts

$unknown The target of an edit is no ground truth. $labelled The detectors' scores are in separate tables.

$gaps

## Collection

$collection

## Processing

$edits A detector, the selector, chose among the composites. $pixels The Fréchet distance to $reference (extractor
$extractor) is $distance_after.

## Uses and cautions

Meant for research on bias in datasets and generative models.

- $artefacts, by which edited images may be told from the others.
- Do not train a classifier of $attributes on values that edits aimed at and that nothing but the selector confirms.
- The referee that measured the balance was right on $accuracies of held-out unedited images. Its accuracy on composites
  was not measured. It never chose an edit.
- Only the rates named above were targeted. Other imbalances remain, or may have been changed by the edits.

## Maintenance

Made by the run `$run` of Latent Rebalance. The config of the run reproduces it. A dataset made with another config
should have another name.
""")

GAP = Template("""\
The group gap in $attribute ($groups) by the referee was $before before the edits and is $after after them. Corrected
for the referee's errors, it was $corrected_before and is $corrected_after. The two detectors agree on $attribute in
$agreement of the rebalanced images.""")

RENDERED = Template("""\
The images are rendered cartoon faces, randomly combined from the parts of `python-avatars` (MIT) (data seed $seed). No
person is depicted, and the ground truth of an unedited image is known without labelling. The bias of the original
dataset was set by the config: $bias.""")

GIVEN = Template("""\
The images were provided by the user as files in `$folder`, centre-cropped and resized to $resolution pixels, with the
attributes $attributes of their labels. The owner of that folder should state here their licence, their origin and the
consent of the persons shown.""")


PURPOSE = " It was made to find out whether such edits also rebalance a GAN trained on the result."
#: What the GANs were trained on that the retrained one is compared with.
TRAINED_ON = {
    "resampled": "resampled original images, without any edit",
    "sham": "as many edited images, which keep the value that each has",
}
UNKNOWN_PIXELS = "Of an edited image every label is unknown at first (null above), since all its pixels are new."
UNKNOWN_REGION = (
    "Of an edited image only what its region can show is unknown at first (null above); its other labels are those of "
    "the image before the edit."
)
#: Who has said what edited images show, by the source of the certificate.
LABELLED = {
    "truth": "What the edited images show is known from the nearest drawing of each face.",
    "audit": "$count of the edited images were labelled by eye.",
    None: "Nobody has labelled what the edited images show.",
}
AUDITED = (
    " Earlier edits were labelled by eye, and each target got as many more edits as make up for those that had failed."
)
GENERATED_PIXELS = "All pixels of an edited image are the generator's output, not only those that were changed."
KEPT_PIXELS = "Outside the pasted region and its rim an edited image keeps its own pixels."


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
    named = " and ".join(map(readable, targets.edited))
    title = f"{subject} with {named} rebalanced ({run})"
    body = BODY.substitute(title=title, run=run, **_facts(read_metrics(metrics), table, data, targets))
    front = front_matter(title, len(table), data.reader, "gan-edited" if _generates(targets) else "edited")
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
            "size_categories": [size_category(images)],
            "tags": [*(["synthetic", "faces"] if rendered else []), "fairness", "rebalanced", edited],
        },
        sort_keys=False,
    )


def size_category(images: int) -> str:
    """Return the Hub's category of a number of images."""
    return next((name for limit, name in SIZES.items() if images < limit), "n>10M")


def _generates(targets: Rebalance) -> bool:
    return targets.edit.editor.kind != "poisson"


def _collection(data: Data) -> str:
    if data.reader == "avatars":
        return RENDERED.substitute(seed=data.seed, bias=rates_text(data.rates) or "none")
    attributes = ", ".join(map(readable, data.attributes))
    return GIVEN.substitute(folder=data.folder.name, resolution=data.resolution, attributes=attributes)


def _facts(metrics: Mapping[str, Any], labels: pd.DataFrame, data: Data, targets: Rebalance) -> dict[str, object]:
    edited, generates = int(labels["edited"].sum()), _generates(targets)
    gans = metrics["agreement"]
    measured = metrics["quality"]["dataset_rebalanced"]["frechet_distance"]
    return {
        "attributes": " or ".join(map(readable, targets.edited)),
        "rates": rates_text(targets.targets),
        "purpose": PURPOSE if "retrained" in gans else "",
        "baselines": _say_baselines(gans),
        "audited": AUDITED if targets.labels else "",
        "unknown": UNKNOWN_PIXELS if targets.edit.finish == "none" else UNKNOWN_REGION,
        "labelled": _say_labelled(metrics["certificate"]),
        "gaps": "\n\n".join(_gap(metrics, targets.alone(attribute)) for attribute in targets.compared),
        "images": f"{len(labels):,}",
        "edited": f"{edited:,}",
        "edited_share": f"{edited / max(1, len(labels)):.1%}",
        "kept": f"{len(labels) - edited:,}",
        "planned": f"{metrics['edits']['dataset']['planned']:,}",
        "counts": "\n".join(_count_row(name, labels[name]) for name in attribute_columns(labels, "assembled")),
        "accuracies": " and ".join(
            f"{readable(attribute)} in {share_text(metrics['detectors']['referee'][attribute]['accuracy'])}"
            for attribute in targets.edited
        ),
        "resolution": data.resolution,
        "collection": _collection(data),
        "edits": how_edited(targets),
        "pixels": GENERATED_PIXELS if generates and targets.edit.finish == "none" else KEPT_PIXELS,
        "artefacts": (
            "Composites are generated. They have the generator's artefacts"
            if generates
            else "Composites have the artefacts of blending"
        ),
        "reference": measured["reference"],
        "extractor": measured["extractor"],
        "distance_after": frechet_distances(metrics["quality"]).text("dataset_rebalanced"),
    }


def _say_labelled(certificate: Mapping[str, Any]) -> str:
    """Say who has labelled the edited images."""
    count = max((found["labels_there"] for found in certificate["targets"]), default=0)
    return Template(LABELLED[certificate["source"]]).substitute(count=f"{count:,}")


def _gap(metrics: Mapping[str, Any], targets: Rebalance) -> str:
    """Say what the group gap of a section with one attribute was and is."""
    (attribute,) = targets.edited
    before, after = (metrics["gap"][attribute][stage] for stage in ("dataset", "dataset_rebalanced"))
    return GAP.substitute(
        attribute=readable(attribute),
        groups=groups_text(targets),
        before=gap_text(as_estimate(before["referee"])),
        after=gap_text(as_estimate(after["referee"])),
        corrected_before=gap_text(as_estimate(before["corrected"])),
        corrected_after=gap_text(as_estimate(after["corrected"])),
        agreement=share_text(metrics["agreement"]["dataset_rebalanced"][attribute]),
    )


def _say_baselines(gans: Collection[str]) -> str:
    """Name the further GANs that show whether the edits are what helps; empty without any."""
    trained_on = [text for name, text in TRAINED_ON.items() if name in gans]
    return f" To tell what the edits are good for, a GAN each was trained on {'; on '.join(trained_on)}." * bool(
        trained_on
    )


def _count_row(attribute: str, column: pd.Series) -> str:
    known = column.dropna().astype(bool)
    return f"| {readable(attribute)} | {int(known.sum()):,} | {int((~known).sum()):,} | {len(column) - len(known):,} |"
