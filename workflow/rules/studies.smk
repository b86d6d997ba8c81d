# The paper's studies over the run's generator, encoder and parts. None of them is part of `all`.


rule study_composition:
    input:
        samples=images("samples"),
        parts=f"{ROOT}/parts/samples.parquet",
        held_out=images("held_out"),
        encoder=f"{ROOT}/models/encoder.safetensors",
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
        stage="study_composition",
        names=list(checked.part_names),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["precision"],
        cache=f"{ROOT}/cache/features",
        run=RUN,
        seed=SEED,
        revision=1,
    script:
        "../scripts/stage.py"


rule plot_composition:
    input:
        pictures=f"{ROOT}/evaluation/studies/composition.npz",
    output:
        figure=report(
            f"{ROOT}/report/studies/composition.png",
            caption="../report/composition.rst",
            category="Studies",
            labels={"figure": "collages and what is made of them"},
        ),
    log:
        f"{ROOT}/logs/plot_composition.log",
    conda:
        "../../envs/pipeline.yaml"
    params:
        stage="plot_composition",
        revision=1,
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
        stage="study_independence",
        names=list(checked.part_names),
        faces_of=checked.published.family if checked.published and checked.published.of_faces else None,
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["precision"],
        run=RUN,
        seed=SEED,
        revision=1,
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
        stage="plot_independence",
        revision=1,
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
        stage="study_interpolation",
        names=list(checked.part_names),
        settings=settings["studies"],
        evaluate=settings["evaluate"],
        inversion=settings["rebalance"]["precision"],
        run=RUN,
        seed=SEED,
        revision=1,
    script:
        "../scripts/stage.py"


rule plot_interpolation:
    input:
        pictures=f"{ROOT}/evaluation/studies/interpolation.npz",
    output:
        figure=report(
            f"{ROOT}/report/studies/interpolation.png",
            caption="../report/interpolation.rst",
            category="Studies",
            labels={"figure": "composition against blends"},
        ),
    log:
        f"{ROOT}/logs/plot_interpolation.log",
    conda:
        "../../envs/pipeline.yaml"
    params:
        stage="plot_interpolation",
        revision=1,
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
        stage="collect_studies",
        run=RUN,
        revision=1,
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
        stage="write_studies",
        revision=1,
    script:
        "../scripts/stage.py"


rule studies:
    input:
        lambda wildcards: study_tables(),
        rules.write_studies.output,
        rules.plot_composition.output,
        rules.plot_independence.output,
        rules.plot_interpolation.output,
