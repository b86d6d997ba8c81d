# The paper's studies over the run's generator, encoder and parts. None of them is part of `all`.

if checked.uses_encoder:

    use rule training as train_study_encoder with:
        input:
            images=lambda wildcards: images("dataset") if wildcards.variant == "in_domain" else [],
            generator=f"{ROOT}/models/source/generator.safetensors",
        output:
            encoder=study_encoder("{variant}"),
        pathvars:
            job="train_study_encoder/{variant}",
        wildcard_constraints:
            variant="|".join(STUDY_ENCODERS),
        params:
            stage=at_revision("train_study_encoder"),
            variant="{variant}",
            settings=lambda wildcards: STUDY_ENCODERS[wildcards.variant],
            width=settings["studies"]["translators"]["width"],
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",


use rule training as train_translator with:
    input:
        images=images("dataset"),
        parts=lambda wildcards: f"{ROOT}/parts/dataset.parquet" if wildcards.method != "inpainting-network" else [],
    output:
        weights=translator("{method}"),
    pathvars:
        job="train_translator/{method}",
    wildcard_constraints:
        method="|".join(get_args(TranslationMethod)),
    params:
        stage=at_revision("train_translator"),
        method="{method}",
        names=list(checked.part_names),
        settings=settings["studies"]["translators"],
        masks=lambda wildcards: (settings["encoder"] or {}).get("mask", {}) if wildcards.method != "cyclegan" else {},
        seed=SEED,
        checkpoints=f"{ROOT}/checkpoints",


use rule timed as reconstruct_collages with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=encoder_of,
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
        model=lambda wildcards: files_of_translation(wildcards.method),
    output:
        made=f"{ROOT}/evaluation/studies/comparison/{{method}}.npz",
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
        settings=settings["studies"],
        edit=FIRST["edit"],
        seed=SEED,


use rule stage as study_comparison with:
    input:
        made=expand(f"{ROOT}/evaluation/studies/comparison/{{method}}.npz", method=COMPARED),
        held_out=images("held_out"),
    output:
        table=f"{ROOT}/evaluation/studies/comparison.parquet",
        pictures=f"{ROOT}/evaluation/studies/comparison.npz",
    pathvars:
        job="study_comparison",
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_comparison"),
        methods=COMPARED,
        names=list(checked.part_names),
        data=settings["data"] if checked.knows_ideal_collages else None,
        of_paper=f"{checked.published.family} {checked.published.domain}" if checked.published else None,
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        cache=f"{ROOT}/cache/features",
        run=RUN,


use rule on_device as study_composition with:
    input:
        samples=images("samples"),
        parts=f"{ROOT}/parts/samples.parquet",
        held_out=images("held_out"),
        encoder=f"{ROOT}/models/encoder.safetensors",
        rgb=study_encoder("rgb"),
        alike=study_encoder("all_losses"),
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/composition.parquet",
        pictures=f"{ROOT}/evaluation/studies/composition.npz",
    pathvars:
        job="study_composition",
    params:
        stage=at_revision("study_composition"),
        names=list(checked.part_names),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["edit"]["precision"],
        cache=f"{ROOT}/cache/features",
        run=RUN,
        seed=SEED,


use rule on_device as study_independence with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        samples=images("samples"),
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/independence.parquet",
        maps=f"{ROOT}/evaluation/studies/independence.npz",
    pathvars:
        job="study_independence",
    params:
        stage=at_revision("study_independence"),
        names=list(checked.part_names),
        faces_of=checked.published.family if checked.published and checked.published.of_faces else None,
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["edit"]["precision"],
        run=RUN,
        seed=SEED,


use rule stage as plot_independence with:
    input:
        maps=f"{ROOT}/evaluation/studies/independence.npz",
    output:
        figure=report(
            f"{ROOT}/report/studies/independence.png",
            caption="../report/independence.rst",
            category="Studies",
            labels={"figure": "what changes with a part"},
        ),
    pathvars:
        job="plot_independence",
    params:
        stage=at_revision("plot_independence"),


use rule on_device as study_interpolation with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/interpolation.parquet",
        pictures=f"{ROOT}/evaluation/studies/interpolation.npz",
    pathvars:
        job="study_interpolation",
    params:
        stage=at_revision("study_interpolation"),
        names=list(checked.part_names),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["edit"]["precision"],
        run=RUN,
        seed=SEED,


use rule on_device as study_ablation with:
    input:
        images=images("held_out"),
        encoders=[study_encoder(variant) for variant in ("all_losses", "no_latent", "no_perceptual")],
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        table=f"{ROOT}/evaluation/studies/ablation.parquet",
        pictures=f"{ROOT}/evaluation/studies/ablation.npz",
    pathvars:
        job="study_ablation",
    params:
        stage=at_revision("study_ablation"),
        like=settings["encoder"],
        of_paper=bool(checked.published)
        and (checked.published.family, checked.published.domain) == ("progan", "church"),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


use rule on_device as study_completion with:
    input:
        images=images("dataset"),
        held_out=images("held_out"),
        rgb=study_encoder("rgb"),
        rgbm=study_encoder("all_losses"),
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        table=f"{ROOT}/evaluation/studies/completion.parquet",
        pictures=f"{ROOT}/evaluation/studies/completion.npz",
    pathvars:
        job="study_completion",
    params:
        stage=at_revision("study_completion"),
        like=settings["encoder"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        cache=f"{ROOT}/cache/features",
        run=RUN,
        seed=SEED,


use rule on_device as study_direction with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        scores=f"{ROOT}/scores/selector/dataset.parquet",
        referee=f"{ROOT}/models/referee.safetensors",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/direction.parquet",
        pictures=f"{ROOT}/evaluation/studies/direction.npz",
    pathvars:
        job="study_direction",
    params:
        stage=at_revision("study_direction"),
        rebalance=FIRST,
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


use rule on_device as study_adaptation with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        table=f"{ROOT}/evaluation/studies/adaptation.parquet",
        pictures=f"{ROOT}/evaluation/studies/adaptation.npz",
    pathvars:
        job="study_adaptation",
    params:
        stage=at_revision("study_adaptation"),
        like=settings["encoder"],
        edit=FIRST["edit"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


use rule on_device as study_illumination with:
    input:
        images=images("dataset"),
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/illumination.parquet",
        pictures=f"{ROOT}/evaluation/studies/illumination.npz",
    pathvars:
        job="study_illumination",
    params:
        stage=at_revision("study_illumination"),
        inversion=settings["rebalance"]["edit"]["precision"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


use rule study_illumination as study_discovery with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        samples=images("samples"),
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/discovery.parquet",
        pictures=f"{ROOT}/evaluation/studies/discovery.npz",
    pathvars:
        job="study_discovery",
    params:
        stage=at_revision("study_discovery"),
        names=list(checked.part_names),
        inversion=settings["rebalance"]["edit"]["precision"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


use rule on_device as study_multimodal with:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/multimodal.parquet",
        pictures=f"{ROOT}/evaluation/studies/multimodal.npz",
    pathvars:
        job="study_multimodal",
    params:
        stage=at_revision("study_multimodal"),
        edit=FIRST["edit"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


for study, shows in PICTURED.items():

    rule:
        name:
            f"plot_{study}"
        input:
            pictures=f"{ROOT}/evaluation/studies/{study}.npz",
        output:
            figure=report(
                f"{ROOT}/report/studies/{study}.png",
                caption=f"../report/{study}.rst",
                category="Studies",
                labels={"figure": shows},
            ),
        log:
            f"{ROOT}/logs/plot_{study}.log",
        conda:
            "../../envs/pipeline.yaml"
        params:
            stage=at_revision("plot_pictures"),
        script:
            "../scripts/stage.py"


use rule stage as collect_studies with:
    input:
        studies=lambda wildcards: study_tables(),
    output:
        table=f"{ROOT}/evaluation/studies.parquet",
    pathvars:
        job="collect_studies",
    params:
        stage=at_revision("collect_studies"),
        run=RUN,


use rule stage as write_studies with:
    input:
        table=f"{ROOT}/evaluation/studies.parquet",
    output:
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


rule studies:
    input:
        lambda wildcards: study_tables(),
        rules.write_studies.output,
        lambda wildcards: [f"{ROOT}/report/studies/{study}.png" for study in STUDIES],
