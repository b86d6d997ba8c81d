"""The cards of an export: the README of its images, and that of the retrained GAN with a loading example."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

import pandas as pd
import yaml

from pipeline_lib.audit.certificate import DatasetCertificate, SamplesCertificate
from pipeline_lib.audit.pages import say_basis, say_targets
from pipeline_lib.config import Config, Rebalance
from pipeline_lib.config.names import readable
from pipeline_lib.networks.checkpoints import read_header
from pipeline_lib.release.formats import Format
from pipeline_lib.release.image_sets import ATTRIBUTE, COLUMNS, ImageSet
from pipeline_lib.report.datasheet import front_matter
from pipeline_lib.report.nearest import gaps_by_drawing
from pipeline_lib.report.tables import as_estimate, frechet_distances, gap_text, groups_text, rates_table, rates_text
from pipeline_lib.runtime.errors import DataError

DATASHEET = "report/datasheet.md"

IMAGES = Template("""\
## Files

$files
- `provenance.json`, `config.yaml`: config, versions and digests that the run was made with. `python -m pipeline_lib
  reproduce <this folder>` says whether an installation would make the same bytes.

Every PNG file has a text chunk (iTXt) with the key `latent-rebalance`: JSON that says whether the image is synthetic or
edited, of which image, by what, and by which networks.
""")

COLUMNS_TABLE = """
## What is known of each image

| column | what it is |
|---|---|
{rows}
"""

LABELS = """
## Labels of edited images

An edit makes unknown only what its region can show. The other labels are those of the image before the edit, and
`carried_over` names them. The edited attribute is null until somebody has labelled the image by eye or the nearest
drawing tells; `target_value` is what the edit aimed at, and `confirmed_by` says who confirms it. To train on the label,
and where there is none on the value aimed at if it is confirmed (`table` is {table} as pandas reads it):

```python
{line}
```
"""
#: The label, else the value aimed at if it is confirmed, where several attributes are edited for one of them.
LABEL_ELSE_TARGET = 'labels = table["{name}"].fillna(table["target_value"].where(table["confirmed_by"].notna()))'
OF_SEVERAL = LABEL_ELSE_TARGET.replace(".notna()", '.notna() & (table["target_attribute"] == "{name}")')

MODEL = Template("""\
# $title

A $architecture of $resolution by $resolution pixels. It was trained by the run `$run` of Latent Rebalance for $kimg
thousand images on the run's dataset, edited to reach these target rates: $rates.

## Rates of its samples

By the referee, a detector that took no part in edits or training, with $confidence intervals over samples. A detector
can be wrong about generated images.

$rates_by_group

## Certificate of its samples

$samples

## Certificate of the dataset that it was trained on

$dataset

## Quality and leakage

The Fréchet distance of its samples to $reference (extractor $extractor) is $distance. A small classifier tells the
edited images of the training data from unedited ones that show the same with an area under the ROC curve of $leakage
(0.5 is chance), so the GAN may have learnt traces of the edits.

## What not to use it for

- Not as evidence about people: rates in its samples were set by a config.
- Not to train a detector of $attributes: its samples come without labels, and what detectors say of them can be wrong.
- Not as a balanced source where another attribute or group matters: only the rates named above were aimed at.
$truncation
## How to load it

With the library Latent Rebalance ($version) installed, in this folder:

```python
$example
```
""")

TRUNCATION = "- Not with another truncation than {:g}: the rates above hold for it alone.\n"
EXAMPLE = """\
import torch
from PIL import Image
from pipeline_lib.networks.checkpoints import load_weights

generator = load_weights("generator.safetensors")
latents = generator.sample_latents(range(8), seed=0){truncate}
with torch.no_grad():
    images = generator.decode(latents)  # (8, 3, {side}, {side}) in [-1, 1]
pixels = images.permute(0, 2, 3, 1).add(1).mul(127.5).round().byte().numpy()
Image.fromarray(pixels[0]).save("sample.png")"""
NAMES = {"stylegan2": "StyleGAN2 generator", "progan": "ProGAN generator"}


def dataset_card(image_set: ImageSet, form: Format) -> str:
    """Return the README of an export as Markdown, with the Hugging Face Hub's front matter.

    For the rebalanced dataset it begins with the datasheet of the run.

    Raises:
        DataError: the run has no datasheet, so it is not finished.
    """
    if image_set.name == "dataset_rebalanced":
        path = image_set.run / DATASHEET
        if not path.is_file():
            raise DataError(f"{image_set.run}: the run is not finished, it lacks {DATASHEET}; run the workflow")
        head = path.read_text(encoding="utf-8")
    else:
        title = f"{readable(image_set.name).capitalize()} ({image_set.config.run})"
        count = sum(map(len, image_set.splits))
        edited = "edited" if image_set.splits[0].edits else "unedited"
        front = front_matter(title, count, image_set.config.data.reader, edited)
        head = f"---\n{front}---\n\n# {title}\n\nThe image set `{image_set.name}` of a run of Latent Rebalance.\n"
    model = ["- `model/`: the GAN retrained on these images, with its card."] * bool(image_set.retrained)
    files = "\n".join([form.files, *model])
    text = f"{head}\n{IMAGES.substitute(files=files)}"
    edited = image_set.config.rebalance.edited
    if image_set.splits[0].edits and edited[0] in image_set.attributes:
        line = (LABEL_ELSE_TARGET if len(edited) == 1 else OF_SEVERAL).format(name=edited[0])
        text += LABELS.format(table=form.table, line=line)
    if form.plain:
        return text
    rows = "\n".join(f"| `{name}` | {COLUMNS.get(name, ATTRIBUTE)} |" for name in image_set.schema.names)
    return text + COLUMNS_TABLE.format(rows=rows)


def model_card(image_set: ImageSet, metrics: Mapping[str, Any]) -> str:
    """Return the card of the retrained GAN as Markdown, with the Hugging Face Hub's front matter.

    Args:
        image_set: the rebalanced dataset of a run that retrained a GAN.
        metrics: metrics of the run.
    """
    config, header, settings = image_set.config, read_header(image_set.retrained), image_set.config.rebalance
    title = f"GAN with {' and '.join(map(readable, settings.edited))} rebalanced ({config.run})"
    measured = metrics["quality"]["retrained"]["frechet_distance"]
    side, is_truncatable = image_set.resolution, header["architecture"] == "stylegan2"
    samples, dataset = (
        "\n".join([*(f"- {line}" for line in say_targets(certificate)), "", say_basis(certificate)])
        for certificate in (
            SamplesCertificate.model_validate(metrics["certificate_samples"]),
            DatasetCertificate.model_validate(metrics["certificate"]),
        )
    )
    body = MODEL.substitute(
        title=title,
        architecture=NAMES.get(header["architecture"], header["architecture"]),
        resolution=side,
        run=config.run,
        kimg=f"{config.retrain.training.kimg:g}",
        rates=rates_text(settings.targets),
        confidence=f"{100 * config.evaluate.confidence:g} %",
        rates_by_group="\n\n".join(rates_section(metrics, settings.alone(attribute)) for attribute in settings.edited),
        attributes=" or ".join(map(readable, settings.edited)),
        samples=samples,
        dataset=dataset,
        reference=measured["reference"],
        extractor=measured["extractor"],
        distance=frechet_distances(metrics["quality"]).text("retrained"),
        leakage=_area(metrics["leakage"]["dataset"]["pooled"]["auc"]),
        truncation=TRUNCATION.format(config.sample.truncation) * is_truncatable,
        version=image_set.provenance["installation"]["latent-rebalance"],
        example=_example(config, side),
    )
    front = {
        "license": "mit" if config.data.reader == "avatars" else "unknown",
        "library_name": "pytorch",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "fairness", "rebalanced"],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{body}"


def rates_section(metrics: Mapping[str, Any], targets: Rebalance) -> str:
    """Return the rates of the samples, and their gap, for a section with one attribute."""
    (attribute,) = targets.edited
    table = markdown_table(rates_table(metrics, targets.targets, "control", "retrained"))
    if attribute not in metrics["gap"]:
        return f"Rates of {readable(attribute)}. The control is a GAN trained alike on the original images.\n\n{table}"
    retrained, control = (
        gap_text(as_estimate(metrics["gap"][attribute][stage]["referee"])) for stage in ("retrained", "control")
    )
    return (
        f"{table}\n\nThe group gap in {readable(attribute)} ({groups_text(targets)}) is {retrained}. That of a GAN "
        f"trained alike on the original images, the control, is {control}.{_by_drawing(metrics, attribute)}"
    )


def _by_drawing(metrics: Mapping[str, Any], attribute: str) -> str:
    """Give the gaps by the nearest drawing as well, where there is such a judge."""
    gaps = gaps_by_drawing(metrics.get("judged_samples"), attribute)
    if gaps is None:
        return ""
    retrained, control = map(gap_text, gaps)
    return f" By the nearest drawing, without a detector, they are {retrained} and {control}, where that can tell."


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as Markdown."""
    lines = [list(table), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _example(config: Config, side: int) -> str:
    truncated = config.sample.truncation < 1
    truncate = f"\nlatents = generator.truncate(latents, {config.sample.truncation:g})" * truncated
    return EXAMPLE.format(truncate=truncate, side=side)


def _area(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "unknown size"
    low, high = found["ci"]
    return f"{found['value']:.2f} [{low:.2f}, {high:.2f}]"
