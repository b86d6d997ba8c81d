# The paper's studies over the run's generator, encoder and parts. None of them is part of `all`.

if checked.uses_encoder:

    rule train_study_encoder:
        input:
            generator=f"{ROOT}/models/source/generator.safetensors",
        output:
            encoder=study_encoder("{variant}"),
            report=f"{ROOT}/models/studies/{{variant}}.json",
        log:
            f"{ROOT}/logs/train_study_encoder/{{variant}}.log",
        benchmark:
            f"{ROOT}/benchmarks/train_study_encoder/{{variant}}.tsv"
        wildcard_constraints:
            variant="|".join(variant for variant in STUDY_ENCODERS if variant != "in_domain"),
        retries: PREEMPTIONS
        conda:
            "../../envs/pipeline.yaml"
        threads: HALF_OF_CORES
        resources:
            gpu=GPU,
            attempt=this_attempt,
        params:
            stage=at_revision("train_encoder"),
            settings=lambda wildcards: STUDY_ENCODERS[wildcards.variant],
            source=[],
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",
        script:
            "../scripts/stage.py"

    rule train_in_domain_encoder:
        input:
            images=images("dataset"),
            generator=f"{ROOT}/models/source/generator.safetensors",
        output:
            encoder=study_encoder("in_domain"),
        log:
            f"{ROOT}/logs/train_in_domain_encoder.log",
        benchmark:
            f"{ROOT}/benchmarks/train_in_domain_encoder.tsv"
        retries: PREEMPTIONS
        conda:
            "../../envs/pipeline.yaml"
        threads: HALF_OF_CORES
        resources:
            gpu=GPU,
            attempt=this_attempt,
        params:
            stage=at_revision("train_in_domain_encoder"),
            settings=STUDY_ENCODERS["in_domain"],
            width=settings["studies"]["translators"]["width"],
            seed=SEED,
            checkpoints=f"{ROOT}/checkpoints",
        script:
            "../scripts/stage.py"


rule train_translator:
    input:
        images=images("dataset"),
        parts=lambda wildcards: f"{ROOT}/parts/dataset.parquet" if wildcards.method != "inpainting-network" else [],
    output:
        weights=translator("{method}"),
    log:
        f"{ROOT}/logs/train_translator/{{method}}.log",
    benchmark:
        f"{ROOT}/benchmarks/train_translator/{{method}}.tsv"
    wildcard_constraints:
        method="|".join(get_args(TranslationMethod)),
    retries: PREEMPTIONS
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
        attempt=this_attempt,
    params:
        stage=at_revision("train_translator"),
        method="{method}",
        names=list(checked.part_names),
        settings=settings["studies"]["translators"],
        masks=lambda wildcards: (settings["encoder"] or {}).get("mask", {}) if wildcards.method != "cyclegan" else {},
        seed=SEED,
        checkpoints=f"{ROOT}/checkpoints",
    script:
        "../scripts/stage.py"


rule reconstruct_collages:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=encoder_of,
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
        model=lambda wildcards: files_of_translation(wildcards.method),
    output:
        made=f"{ROOT}/evaluation/studies/comparison/{{method}}.npz",
    log:
        f"{ROOT}/logs/reconstruct_collages/{{method}}.log",
    benchmark:
        f"{ROOT}/benchmarks/reconstruct_collages/{{method}}.tsv"
    wildcard_constraints:
        method="|".join(COMPARED),
    conda:
        "../../envs/pipeline.yaml"
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
    script:
        "../scripts/stage.py"


rule study_comparison:
    input:
        made=expand(f"{ROOT}/evaluation/studies/comparison/{{method}}.npz", method=COMPARED),
        held_out=images("held_out"),
    output:
        table=f"{ROOT}/evaluation/studies/comparison.parquet",
        pictures=f"{ROOT}/evaluation/studies/comparison.npz",
    log:
        f"{ROOT}/logs/study_comparison.log",
    conda:
        "../../envs/pipeline.yaml"
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
    script:
        "../scripts/stage.py"


rule study_composition:
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
    log:
        f"{ROOT}/logs/study_composition.log",
    benchmark:
        f"{ROOT}/benchmarks/study_composition.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_composition"),
        names=list(checked.part_names),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["edit"]["precision"],
        cache=f"{ROOT}/cache/features",
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule study_independence:
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
    log:
        f"{ROOT}/logs/study_independence.log",
    benchmark:
        f"{ROOT}/benchmarks/study_independence.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_independence"),
        names=list(checked.part_names),
        faces_of=checked.published.family if checked.published and checked.published.of_faces else None,
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["edit"]["precision"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule plot_independence:
    input:
        maps=f"{ROOT}/evaluation/studies/independence.npz",
    output:
        figure=report(
            f"{ROOT}/report/studies/independence.png",
            caption="../report/independence.rst",
            category="Studies",
            labels={"figure": "what changes with a part"},
        ),
    log:
        f"{ROOT}/logs/plot_independence.log",
    conda:
        "../../envs/pipeline.yaml"
    params:
        stage=at_revision("plot_independence"),
    script:
        "../scripts/stage.py"


rule study_interpolation:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/interpolation.parquet",
        pictures=f"{ROOT}/evaluation/studies/interpolation.npz",
    log:
        f"{ROOT}/logs/study_interpolation.log",
    benchmark:
        f"{ROOT}/benchmarks/study_interpolation.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_interpolation"),
        names=list(checked.part_names),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["edit"]["precision"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule study_ablation:
    input:
        images=images("held_out"),
        encoders=[study_encoder(variant) for variant in ("all_losses", "no_latent", "no_perceptual")],
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        table=f"{ROOT}/evaluation/studies/ablation.parquet",
        pictures=f"{ROOT}/evaluation/studies/ablation.npz",
    log:
        f"{ROOT}/logs/study_ablation.log",
    benchmark:
        f"{ROOT}/benchmarks/study_ablation.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_ablation"),
        like=settings["encoder"],
        of_paper=bool(checked.published)
        and (checked.published.family, checked.published.domain) == ("progan", "church"),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule study_completion:
    input:
        images=images("dataset"),
        held_out=images("held_out"),
        rgb=study_encoder("rgb"),
        rgbm=study_encoder("all_losses"),
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        table=f"{ROOT}/evaluation/studies/completion.parquet",
        pictures=f"{ROOT}/evaluation/studies/completion.npz",
    log:
        f"{ROOT}/logs/study_completion.log",
    benchmark:
        f"{ROOT}/benchmarks/study_completion.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_completion"),
        like=settings["encoder"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        cache=f"{ROOT}/cache/features",
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule study_direction:
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
    log:
        f"{ROOT}/logs/study_direction.log",
    benchmark:
        f"{ROOT}/benchmarks/study_direction.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_direction"),
        rebalance=FIRST,
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule study_adaptation:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
    output:
        table=f"{ROOT}/evaluation/studies/adaptation.parquet",
        pictures=f"{ROOT}/evaluation/studies/adaptation.npz",
    log:
        f"{ROOT}/logs/study_adaptation.log",
    benchmark:
        f"{ROOT}/benchmarks/study_adaptation.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_adaptation"),
        like=settings["encoder"],
        edit=FIRST["edit"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


rule study_illumination:
    input:
        images=images("dataset"),
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/illumination.parquet",
        pictures=f"{ROOT}/evaluation/studies/illumination.npz",
    log:
        f"{ROOT}/logs/study_illumination.log",
    benchmark:
        f"{ROOT}/benchmarks/study_illumination.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_illumination"),
        inversion=settings["rebalance"]["edit"]["precision"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


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
    log:
        f"{ROOT}/logs/study_discovery.log",
    benchmark:
        f"{ROOT}/benchmarks/study_discovery.tsv"
    params:
        stage=at_revision("study_discovery"),
        names=list(checked.part_names),
        inversion=settings["rebalance"]["edit"]["precision"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,


rule study_multimodal:
    input:
        images=images("dataset"),
        parts=f"{ROOT}/parts/dataset.parquet",
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        table=f"{ROOT}/evaluation/studies/multimodal.parquet",
        pictures=f"{ROOT}/evaluation/studies/multimodal.npz",
    log:
        f"{ROOT}/logs/study_multimodal.log",
    benchmark:
        f"{ROOT}/benchmarks/study_multimodal.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,
    params:
        stage=at_revision("study_multimodal"),
        edit=FIRST["edit"],
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        run=RUN,
        seed=SEED,
    script:
        "../scripts/stage.py"


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


rule collect_studies:
    input:
        studies=lambda wildcards: study_tables(),
    output:
        table=f"{ROOT}/evaluation/studies.parquet",
    log:
        f"{ROOT}/logs/collect_studies.log",
    conda:
        "../../envs/pipeline.yaml"
    params:
        stage=at_revision("collect_studies"),
        run=RUN,
    script:
        "../scripts/stage.py"


rule write_studies:
    input:
        table=f"{ROOT}/evaluation/studies.parquet",
    output:
        page=report(
            f"{ROOT}/report/studies.md",
            caption="../report/studies.rst",
            category="Studies",
            labels={"page": "The paper's studies"},
        ),
    log:
        f"{ROOT}/logs/write_studies.log",
    conda:
        "../../envs/pipeline.yaml"
    params:
        stage=at_revision("write_studies"),
    script:
        "../scripts/stage.py"


rule studies:
    input:
        lambda wildcards: study_tables(),
        rules.write_studies.output,
        lambda wildcards: [f"{ROOT}/report/studies/{study}.png" for study in STUDIES],
