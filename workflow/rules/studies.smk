# The paper's studies over the run's generator, encoder and parts, of a config that has `studies`. None is part of `all`.

from typing import get_args

from pipeline_lib.config import TranslationMethod
from pipeline_lib.studies.catalogue import SCALES, STUDIES, Variant, encoder_section

SIZE = checked.studies.size
CHOSEN = checked.studies.only or list(STUDIES)
VARIANTS = get_args(Variant)
COMPARED = checked.studies.compared(checked.source_family)
PICTURES = f"{ROOT}/evaluation/studies"


def study_encoder(variant):
    """Return the weights of an encoder that is trained for the studies; `variant` may be a wildcard in braces."""
    return f"{ROOT}/models/studies/{variant}.safetensors"


def encoder_of(wildcards):
    """Return the weights of the encoder that a method of the comparison uses."""
    variant = "in_domain" if wildcards.method == "in-domain" else wildcards.method
    return study_encoder(variant) if variant in VARIANTS else f"{ROOT}/models/encoder.safetensors"


def files_of_translation(wildcards):
    """Return what a network without a pretrained generator needs; nothing for other methods."""
    if wildcards.method not in get_args(TranslationMethod):
        return []
    segmenter = [f"{ROOT}/models/segmenter.safetensors"] if wildcards.method == "spade" else []
    return [f"{ROOT}/models/translators/{wildcards.method}.safetensors", *segmenter]


# What a study can need, by the names of the catalogue.
FILES_OF_STUDIES = {
    "images": images("dataset"),
    "held_out": images("held_out"),
    "samples": images("samples"),
    "parts": f"{ROOT}/parts/dataset.parquet",
    "sample_parts": f"{ROOT}/parts/samples.parquet",
    "scores": f"{ROOT}/scores/selector/dataset.parquet",
    "made": expand(f"{PICTURES}/comparison/{{method}}.npz", method=COMPARED),
    "generator": f"{ROOT}/models/source/generator.safetensors",
    "precision": f"{ROOT}/models/encoder.json",
    **{model: f"{ROOT}/models/{model}.safetensors" for model in ("encoder", "referee")},
    **{variant: study_encoder(variant) for variant in VARIANTS},
}


use rule training as train_study_encoder with:
    input:
        images=lambda wildcards: images("dataset") if wildcards.variant == "in_domain" else [],
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        encoder=study_encoder("{variant}"),
    pathvars:
        job="train_study_encoder/{variant}",
    wildcard_constraints:
        variant="|".join(VARIANTS),
    params:
        stage=at_revision("train_study_encoder"),
        variant="{variant}",
        settings=lambda wildcards: encoder_section(checked.encoder, wildcards.variant, SIZE).model_dump(mode="json"),
        width=SCALES[SIZE].translator_width,
        seed=SEED,
        checkpoints=f"{ROOT}/checkpoints",


use rule training as train_translator with:
    input:
        images=images("dataset"),
        parts=lambda wildcards: f"{ROOT}/parts/dataset.parquet" if wildcards.method != "inpainting-network" else [],
    output:
        weights=f"{ROOT}/models/translators/{{method}}.safetensors",
    pathvars:
        job="train_translator/{method}",
    wildcard_constraints:
        method="|".join(get_args(TranslationMethod)),
    params:
        stage=at_revision("train_translator"),
        method="{method}",
        names=list(checked.part_names),
        kimg=SCALES[SIZE].translator_kimg,
        width=SCALES[SIZE].translator_width,
        masks=lambda wildcards: settings["encoder"]["mask"] if wildcards.method != "cyclegan" else {},
        seed=SEED,
        checkpoints=f"{ROOT}/checkpoints",


use rule timed as reconstruct_collages with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=encoder_of,
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
        model=files_of_translation,
    output:
        made=f"{PICTURES}/comparison/{{method}}.npz",
    pathvars:
        job="reconstruct_collages/{method}",
    wildcard_constraints:
        method="|".join(COMPARED),
    threads: ALL_CORES  # its time is compared
    resources:
        gpu=GPU,
    params:
        stage=at_revision("reconstruct_collages"),
        method="{method}",
        names=list(checked.part_names),
        size=SIZE,
        seed=SEED,


use rule on_device as run_study with:
    input:
        unpack(lambda wildcards: {name: FILES_OF_STUDIES[name] for name in STUDIES[wildcards.study].needs}),
    output:
        table=f"{PICTURES}/{{study}}.parquet",
        figure=report(
            f"{ROOT}/report/studies/{{study}}.png",
            caption="../report/study.rst",
            category="Studies",
            labels={"figure": "{study}"},
        ),
    pathvars:
        job="study_{study}",
    wildcard_constraints:
        study="|".join(STUDIES),
    params:
        stage=at_revision("run_study"),
        study="{study}",
        size=SIZE,
        evaluate=evaluation("confidence", "images", "distance"),
        rebalance=FIRST,
        like=settings["encoder"],
        names=list(checked.part_names),
        data=settings["data"] if checked.knows_ideal_collages else None,
        published=f"{checked.published.family} {checked.published.domain}" if checked.published else None,
        run=RUN,
        seed=SEED,
        cache=f"{ROOT}/cache/features",


use rule stage as write_studies with:
    input:
        studies=expand(f"{PICTURES}/{{study}}.parquet", study=CHOSEN),
    output:
        table=f"{ROOT}/evaluation/studies.parquet",
        page=report(
            f"{ROOT}/report/studies.md",
            caption="../report/studies.rst",
            category="Studies",
            labels={"page": "The paper's studies"},
        ),
    pathvars:
        job="write_studies",
    params:
        stage=at_revision("write_studies"),
        run=RUN,


rule studies:
    input:
        rules.write_studies.output,
        expand(f"{ROOT}/report/studies/{{study}}.png", study=CHOSEN),
