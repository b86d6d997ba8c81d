rule prepare_dataset:
    input:
        table=given(settings["data"].get("labels")),
    output:
        images=images("dataset"),
        labels=f"{ROOT}/labels/dataset.parquet",
        masks=f"{ROOT}/true_parts/dataset.parquet",
        held_out=images("held_out"),
        held_out_labels=f"{ROOT}/labels/held_out.parquet",
        held_out_masks=f"{ROOT}/true_parts/held_out.parquet",
        quarantine=f"{ROOT}/labels/quarantine.parquet",
    log:
        f"{ROOT}/logs/prepare_dataset.log",
    benchmark:
        f"{ROOT}/benchmarks/prepare_dataset.tsv"
    retries: 0
    conda:
        "../../envs/pipeline.yaml"
    threads: ALL_CORES
    params:
        stage="prepare_dataset",
        settings=settings["data"],
        run=RUN,
        revision=3,
    script:
        "../scripts/stage.py"


# The generator of each sampled image set.
ROLE_OF = {"samples": "source"} | {name: name for name in ("retrained", "control", *BASELINES)}
# How each of these is sampled.
SAMPLED = dict.fromkeys(ROLE_OF, settings["sample"] | {"images": checked.samples_of_gans}) | {
    "samples": settings["sample"]
}


rule sample_generator:
    input:
        generator=lambda wildcards: f"{ROOT}/models/{ROLE_OF[wildcards.name]}/generator.safetensors",
    output:
        images=images("{name}"),
        latents=f"{ROOT}/latents/{{name}}.parquet",
        grid=report(
            f"{ROOT}/report/samples-{{name}}.png",
            caption="../report/samples.rst",
            category="Samples",
            labels={"generator": "{name}"},
        ),
    log:
        f"{ROOT}/logs/sample_generator/{{name}}.log",
    benchmark:
        f"{ROOT}/benchmarks/sample_generator/{{name}}.tsv"
    wildcard_constraints:
        name="|".join(ROLE_OF),
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage="sample_generator",
        settings=lambda wildcards: SAMPLED[wildcards.name],
        run=RUN,
        seed=SEED,
        revision=1,
    script:
        "../scripts/stage.py"
