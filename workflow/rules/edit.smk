# Source of labels for the plan: ground truth for the dataset, the selector for samples.
KNOWN_BY = {
    "dataset": {"kind": "labels", "table": f"{ROOT}/labels/dataset.parquet"},
    "samples": {"kind": "scores", "table": f"{ROOT}/scores/selector/samples.parquet"},
}
KNOWN_BY["dataset_sham"] = KNOWN_BY["dataset"]


use rule timed as plan_edits with:
    input:
        table=lambda wildcards: KNOWN_BY[wildcards.name]["table"],
        editable=f"{ROOT}/parts/{{name}}.parquet",
        audit=lambda wildcards: given(*(settings["rebalance"]["labels"] or [])) if wildcards.name == "dataset" else [],
    output:
        plan=f"{ROOT}/plan/{{name}}.parquet",
        summary=f"{ROOT}/plan/{{name}}.json",
    pathvars:
        job="plan_edits/{name}",
    wildcard_constraints:
        name="dataset|samples",
    priority: ON_LONGEST_PATH
    params:
        stage=at_revision("plan_edits"),
        learnt=checked.learns_selector,
        name="{name}",
        kind=lambda wildcards: KNOWN_BY[wildcards.name]["kind"],
        settings=rebalance(*HOW) | {key: settings["rebalance"][key] for key in ("spares", "labels")},
        run=RUN,
        seed=SEED,


use rule stage as plan_sham with:
    input:
        plan=f"{ROOT}/plan/dataset.parquet",
    output:
        sham=f"{ROOT}/plan/dataset_sham.parquet",
    pathvars:
        job="plan_sham",
    params:
        stage=at_revision("plan_sham"),
        run=RUN,


use rule on_device as swap_parts with:
    input:
        images=lambda wildcards: images(original(wildcards)),
        parts=lambda wildcards: f"{ROOT}/parts/{original(wildcards)}.parquet",
        plan=f"{ROOT}/plan/{{name}}.parquet",
        table=lambda wildcards: KNOWN_BY[wildcards.name]["table"],
        encoder=of_inverter("encoder.safetensors"),
        generator=of_inverter("source/generator.safetensors"),
        precision=of_inverter("encoder.json"),
        model=files_of_editor(),
        selector=f"{ROOT}/models/selector.safetensors",
    output:
        candidates=f"{ROOT}/swaps/{{name}}/{{shard}}.candidates.parquet",
        composites=f"{ROOT}/swaps/{{name}}/{{shard}}.images.parquet",
    pathvars:
        job="swap_parts/{name}-{shard}",
    priority: ON_LONGEST_PATH
    params:
        stage=at_revision("swap_parts"),
        name="{name}",
        shard="{shard}",
        kind=lambda wildcards: KNOWN_BY[wildcards.name]["kind"],
        settings=rebalance(*HOW),
        shards=settings["jobs"],
        run=RUN,
        seed=SEED,


# What an edit makes unknown is derived from the regions where the config does not say it.
ASSEMBLED = rebalance("finish")
ASSEMBLED["edit"]["alters"] = checked.alters


use rule timed as assemble_rebalanced with:
    input:
        images=lambda wildcards: images(original(wildcards)),
        composites=swaps("images"),
        plan=f"{ROOT}/plan/{{name}}.parquet",
        truth=lambda wildcards: [KNOWN_BY[wildcards.name]["table"]] if wildcards.name == "dataset" else [],
    output:
        rebalanced=images("{name}_rebalanced"),
        labels=f"{ROOT}/labels/{{name}}_rebalanced.parquet",
    pathvars:
        job="assemble_rebalanced/{name}",
    wildcard_constraints:
        name="|".join(KNOWN_BY),
    priority: ON_LONGEST_PATH
    params:
        stage=at_revision("assemble_rebalanced"),
        settings=ASSEMBLED,
        run=RUN,
