use rule on_device as train_detector with:
    input:
        lambda wildcards: given(*(DETECTORS[wildcards.detector].get(key) for key in ("path", "weights"))),
        images=images("dataset"),
        labels=f"{ROOT}/labels/dataset.parquet",
        held_out=images("held_out"),
        held_out_labels=f"{ROOT}/labels/held_out.parquet",
        parts=f"{ROOT}/parts/dataset.parquet" if COLLAGES else [],
        other=lambda wildcards: f"{ROOT}/models/selector.safetensors" if wildcards.detector in SUSPECTED else [],
    output:
        weights=f"{ROOT}/models/{{detector}}.safetensors",
        report=f"{ROOT}/models/{{detector}}.json",
    pathvars:
        job="train_detector/{detector}",
    params:
        stage=at_revision("train_detector"),
        role="{detector}",
        seed=SEED,
        network=lambda wildcards: DETECTORS[wildcards.detector],
        settings=settings["detectors"],
        related=checked.rebalance.related,
        regions=REGIONS if COLLAGES else None,
        checkpoints=f"{ROOT}/checkpoints",


use rule on_device as train_segmenter with:
    input:
        given(settings["parts"].get("path")),
        images=images("dataset"),
        masks=f"{ROOT}/true_parts/dataset.parquet",
        held_out=images("held_out"),
        held_out_masks=f"{ROOT}/true_parts/held_out.parquet",
    output:
        weights=f"{ROOT}/models/segmenter.safetensors",
        report=f"{ROOT}/models/segmenter.json",
    pathvars:
        job="train_segmenter",
    params:
        stage=at_revision("train_segmenter"),
        part_names=checked.data.part_names,
        settings=settings["parts"],
        seed=SEED,
        checkpoints=f"{ROOT}/checkpoints",


use rule on_device as extract_parts with:
    input:
        images=images("{name}"),
        weights=f"{ROOT}/models/segmenter.safetensors" if SEGMENTED else [],
    output:
        parts=f"{ROOT}/parts/{{name}}.parquet",
    pathvars:
        job="extract_parts/{name}",
    params:
        stage=at_revision("extract_parts"),
        box=None if SEGMENTED else next(iter(REGIONS.values())),
        run=RUN,


# Each detector scores image sets in two jobs, those that the plan needs and those that depend on it.
SCORED = {
    "before": ["held_out", *checked.edited_sets],
    "after": [name for name in checked.image_sets if name not in checked.edited_sets],
}


use rule on_device as score_before with:
    input:
        images=images_of(SCORED["before"]),
        weights=f"{ROOT}/models/{{detector}}.safetensors",
    output:
        scores=scores("{detector}", SCORED["before"]),
    pathvars:
        job="score_attributes/{detector}-before",
    params:
        stage=at_revision("score_attributes"),
        sets=SCORED["before"],
        run=RUN,


use rule score_before as score_after with:
    input:
        images=images_of(SCORED["after"]),
        weights=f"{ROOT}/models/{{detector}}.safetensors",
    output:
        scores=scores("{detector}", SCORED["after"]),
    pathvars:
        job="score_attributes/{detector}-after",
    params:
        stage=at_revision("score_attributes"),
        sets=SCORED["after"],
        run=RUN,
