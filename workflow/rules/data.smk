# Changes with names, sizes and times of the user's files, which are too many to be inputs. The process of a single job
# does not compare it with that of the last run, and need not list them.
DATA_PATHS = [value for _, value in checked.data if isinstance(value, Path)]
DATA_FILES = digest_of_listing(*DATA_PATHS, but="results") if workflow.is_main_process else ""


use rule timed as prepare_dataset with:
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
    pathvars:
        job="prepare_dataset",
    retries: 0
    threads: ALL_CORES
    params:
        DATA_FILES,  # no value for the stage: a changed file makes the rule run again
        stage=at_revision("prepare_dataset"),
        settings=settings["data"],
        run=RUN,


# The generator of each sampled image set.
ROLE_OF = {"samples": "source"} | {name: name for name in ("retrained", "control", *BASELINES)}
# How each of these is sampled.
SAMPLED = dict.fromkeys(ROLE_OF, settings["sample"] | {"images": checked.samples_of_gans}) | {
    "samples": settings["sample"]
}


use rule on_device as sample_generator with:
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
    pathvars:
        job="sample_generator/{name}",
    wildcard_constraints:
        name="|".join(ROLE_OF),
    params:
        stage=at_revision("sample_generator"),
        name="{name}",
        settings=lambda wildcards: SAMPLED[wildcards.name],
        run=RUN,
        seed=SEED,
