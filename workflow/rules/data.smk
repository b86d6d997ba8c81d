# Changes with names, sizes and times of the user's files, which are too many to be inputs. The process of a single job
# does not compare it with that of the last run, and need not list them.
DATA_PATHS = [value for _, value in checked.data if isinstance(value, Path)]
DATA_FILES = digest_of_listing(*DATA_PATHS, but="results") if workflow.is_main_process else ""


rule prepare_dataset:
    input:
        given(settings["data"].get("labels")),
    output:
        images=images("dataset"),
        labels=f"{ROOT}/labels/dataset.parquet",
        masks=f"{ROOT}/true_parts/dataset.parquet",
        held_out=images("held_out"),
        held_out_labels=f"{ROOT}/labels/held_out.parquet",
        held_out_masks=f"{ROOT}/true_parts/held_out.parquet",
        quarantine=f"{ROOT}/labels/quarantine.parquet",
        notes=f"{ROOT}/labels/notes.parquet",
    log:
        f"{ROOT}/logs/prepare_dataset.log",
    benchmark:
        f"{ROOT}/benchmarks/prepare_dataset.tsv"
    retries: 0
    conda:
        "../../envs/pipeline.yaml"
    threads: ALL_CORES
    params:
        DATA_FILES,  # no value for the stage: a changed file makes the rule run again
        stage=at_revision("prepare_dataset"),
        settings=settings["data"],
        run=RUN,
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
        stage=at_revision("sample_generator"),
        name="{name}",
        settings=lambda wildcards: SAMPLED[wildcards.name],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"
