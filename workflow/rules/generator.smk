from pipeline_lib.config.sections import PRETRAINED

if checked.published:
    # URLs of the published files used in the config. Existing files are never downloaded again.
    ADDRESSES = {
        path.name: getattr(checked.published.of_domain(), role)
        for role, path in checked.published.files().items()
        if settings[role] and settings[role]["weights"] == str(path)
    }

    rule fetch_published:
        output:
            file=f"{PRETRAINED}/{{published}}",
        log:
            f"{ROOT}/logs/fetch_published/{{published}}.log",
        wildcard_constraints:
            published="|".join(ADDRESSES),
        retries: 3  # of what the network failed; other bytes than the recorded ones are refused at once
        conda:
            "../../envs/pipeline.yaml"
        resources:
            attempt=this_attempt,
        params:
            stage=at_revision("fetch_published"),
            url=lambda wildcards: ADDRESSES[wildcards.published],
        script:
            "../scripts/stage.py"


if checked.uses_generator:
    # Weights that are used unchanged need no discriminator.
    HAS_DISCRIMINATOR = settings["generator"]["training"] or settings["generator"]["discriminator"]

    rule train_generator:
        input:
            images=images("dataset"),
            selector=[],
            source=given(settings["generator"]["weights"], settings["generator"]["discriminator"]),
        output:
            generator=f"{ROOT}/models/source/generator.safetensors",
            discriminator=f"{ROOT}/models/source/discriminator.safetensors" if HAS_DISCRIMINATOR else [],
        log:
            f"{ROOT}/logs/train_generator.log",
        benchmark:
            f"{ROOT}/benchmarks/train_generator.tsv"
        retries: PREEMPTIONS
        conda:
            "../../envs/pipeline.yaml"
        threads: HALF_OF_CORES
        resources:
            gpu=GPU,
            attempt=this_attempt,
        params:
            stage=at_revision("train_generator"),
            settings=settings["generator"],
            training=settings["generator"]["training"],
            attributes=None,
            init="source" if settings["generator"]["weights"] else "scratch",
            name="train_generator",
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",
        script:
            "../scripts/stage.py"


if checked.uses_encoder:

    rule train_encoder:
        input:
            generator=f"{ROOT}/models/source/generator.safetensors",
            source=given(settings["encoder"]["weights"]),
        output:
            encoder=f"{ROOT}/models/encoder.safetensors",
            report=f"{ROOT}/models/encoder.json",
        log:
            f"{ROOT}/logs/train_encoder.log",
        benchmark:
            f"{ROOT}/benchmarks/train_encoder.tsv"
        retries: PREEMPTIONS
        conda:
            "../../envs/pipeline.yaml"
        threads: HALF_OF_CORES
        resources:
            gpu=GPU,
            attempt=this_attempt,
        params:
            stage=at_revision("train_encoder"),
            settings=settings["encoder"],
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",
        script:
            "../scripts/stage.py"


if checked.retrain:
    # Training data of the retrained GAN and of those that it is compared with, which have the same settings and seeds.
    LEARNS_FROM = {
        "retrained": "dataset_rebalanced",
        "control": "dataset",
        "resampled": "dataset_resampled",
        "sham": "dataset_sham_rebalanced",
    }

    rule resample_dataset:
        input:
            images=images("dataset"),
            table=f"{ROOT}/labels/dataset.parquet",
        output:
            resampled=images("dataset_resampled"),
        log:
            f"{ROOT}/logs/resample_dataset.log",
        conda:
            "../../envs/pipeline.yaml"
        params:
            stage=at_revision("resample_dataset"),
            targets=settings["rebalance"]["targets"],
            run=RUN,
            seed=SEED,
        script:
            "../scripts/stage.py"

    rule retrain_generator:
        input:
            images=lambda wildcards: images(LEARNS_FROM[wildcards.role]),
            selector=f"{ROOT}/models/selector.safetensors" if settings["retrain"]["attributes"] else [],
            source=(
                expand(f"{ROOT}/models/source/{{network}}.safetensors", network=["generator", "discriminator"])
                if settings["retrain"]["init"] == "source"
                else []
            ),
        output:
            generator=f"{ROOT}/models/{{role}}/generator.safetensors",
            discriminator=f"{ROOT}/models/{{role}}/discriminator.safetensors",
        log:
            f"{ROOT}/logs/retrain_generator/{{role}}.log",
        benchmark:
            f"{ROOT}/benchmarks/retrain_generator/{{role}}.tsv"
        wildcard_constraints:
            role="|".join(LEARNS_FROM),
        priority: ON_LONGEST_PATH
        retries: PREEMPTIONS
        conda:
            "../../envs/pipeline.yaml"
        threads: HALF_OF_CORES
        resources:
            gpu=GPU,
            attempt=this_attempt,
        params:
            stage=at_revision("train_generator"),
            settings=settings["generator"],
            training=settings["retrain"]["training"],
            attributes=settings["retrain"]["attributes"],
            init=settings["retrain"]["init"],
            name="retrain_generator",
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",
        script:
            "../scripts/stage.py"
