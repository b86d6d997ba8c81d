from pipeline_lib.config.sections import PRETRAINED

if checked.published:
    # URLs of the published files used in the config. Existing files are never downloaded again.
    ADDRESSES = {
        path.name: getattr(checked.published.of_domain(), role)
        for role, path in checked.published.files().items()
        if settings[role] and settings[role]["weights"] == str(path)
    }

    use rule stage as fetch_published with:
        output:
            file=f"{PRETRAINED}/{{published}}",
        pathvars:
            job="fetch_published/{published}",
        wildcard_constraints:
            published="|".join(ADDRESSES),
        retries: 3  # of what the network failed; other bytes than the recorded ones are refused at once
        resources:
            attempt=this_attempt,
        params:
            stage=at_revision("fetch_published"),
            url=lambda wildcards: ADDRESSES[wildcards.published],


if checked.uses_generator:
    # Weights that are used unchanged need no discriminator.
    HAS_DISCRIMINATOR = settings["generator"]["training"] or settings["generator"]["discriminator"]

    use rule training as train_generator with:
        input:
            images=images("dataset"),
            selector=[],
            source=given(settings["generator"]["weights"], settings["generator"]["discriminator"]),
        output:
            generator=f"{ROOT}/models/source/generator.safetensors",
            discriminator=f"{ROOT}/models/source/discriminator.safetensors" if HAS_DISCRIMINATOR else [],
        pathvars:
            job="train_generator",
        params:
            stage=at_revision("train_generator"),
            settings=settings["generator"],
            training=settings["generator"]["training"],
            attributes=None,
            init="source" if settings["generator"]["weights"] else "scratch",
            name="train_generator",
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",


if checked.uses_encoder:

    use rule training as train_encoder with:
        input:
            generator=f"{ROOT}/models/source/generator.safetensors",
            source=given(settings["encoder"]["weights"]),
        output:
            encoder=f"{ROOT}/models/encoder.safetensors",
            report=f"{ROOT}/models/encoder.json",
        pathvars:
            job="train_encoder",
        params:
            stage=at_revision("train_encoder"),
            settings=settings["encoder"],
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",


if checked.retrain:
    # Training data of the retrained GAN and of those that it is compared with, which have the same settings and seeds.
    LEARNS_FROM = {
        "retrained": "dataset_rebalanced",
        "control": "dataset",
        "resampled": "dataset_resampled",
        "sham": "dataset_sham_rebalanced",
    }

    use rule stage as resample_dataset with:
        input:
            images=images("dataset"),
            table=f"{ROOT}/labels/dataset.parquet",
        output:
            resampled=images("dataset_resampled"),
        pathvars:
            job="resample_dataset",
        params:
            stage=at_revision("resample_dataset"),
            targets=settings["rebalance"]["targets"],
            run=RUN,
            seed=SEED,

    use rule training as retrain_generator with:
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
        pathvars:
            job="retrain_generator/{role}",
        wildcard_constraints:
            role="|".join(LEARNS_FROM),
        priority: ON_LONGEST_PATH
        params:
            stage=at_revision("train_generator"),
            settings=settings["generator"],
            training=settings["retrain"]["training"],
            attributes=settings["retrain"]["attributes"],
            init=settings["retrain"]["init"],
            name="retrain_generator",
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",
