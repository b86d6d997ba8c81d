use rule stage as plot_rates with:
    input:
        bias=f"{ROOT}/evaluation/bias.parquet",
        gaps=f"{ROOT}/evaluation/gaps.json",
        agreement=f"{ROOT}/evaluation/agreement.json",
        edits=expand(f"{ROOT}/evaluation/edits-{{name}}.json", name=checked.edited_sets),
    output:
        figure=report(
            f"{ROOT}/report/rates.png",
            caption="../report/rates.rst",
            category="Bias",
            labels={"figure": "rates by group"},
        ),
    pathvars:
        job="plot_rates",
    params:
        stage=at_revision("plot_rates"),
        targets=rebalance(),
        detectors=settings["detectors"],


use rule stage as plot_before_after with:
    input:
        images=images("{name}"),
        parts=f"{ROOT}/parts/{{name}}.parquet",
        plan=f"{ROOT}/plan/{{name}}.parquet",
        candidates=swaps("candidates"),
        composites=swaps("images"),
    output:
        gallery=report(
            f"{ROOT}/report/edits-{{name}}.png",
            caption="../report/gallery.rst",
            category="Edits",
            labels={"figure": "before and after: {name}"},
        ),
    pathvars:
        job="plot_before_after/{name}",
    params:
        stage=at_revision("plot_before_after"),
        settings=rebalance("region", "regions"),


use rule stage as plot_utility with:
    input:
        utility=f"{ROOT}/evaluation/utility.json",
    output:
        figure=report(
            f"{ROOT}/report/utility.png",
            caption="../report/utility.rst",
            category="Utility",
            labels={"figure": "classifiers by what they were trained on"},
        ),
    pathvars:
        job="plot_utility",
    params:
        stage=at_revision("plot_utility"),


use rule stage as plot_frontier with:
    input:
        frontier=f"{ROOT}/evaluation/frontier.json",
    output:
        figure=report(
            f"{ROOT}/report/frontier.png",
            caption="../report/frontier.rst",
            category="Edits",
            labels={"figure": "group gap against realism"},
        ),
    pathvars:
        job="plot_frontier",
    params:
        stage=at_revision("plot_frontier"),


use rule stage as write_tables with:
    input:
        metrics=f"{ROOT}/evaluation/metrics.json",
    output:
        quality=report(
            f"{ROOT}/report/quality.csv",
            caption="../report/quality.rst",
            category="Quality",
            labels={"table": "image quality"},
        ),
        detectors=report(
            f"{ROOT}/report/detectors.csv",
            caption="../report/detectors.rst",
            category="Detectors",
            labels={"table": "detectors"},
        ),
        edits=report(
            f"{ROOT}/report/edits.csv",
            caption="../report/edits.rst",
            category="Edits",
            labels={"table": "edits"},
        ),
        timing=report(
            f"{ROOT}/report/timing.csv",
            caption="../report/timing.rst",
            category="Run times",
            labels={"table": "seconds a job"},
        ),
    pathvars:
        job="write_tables",
    params:
        stage=at_revision("write_tables"),


use rule stage as write_summary with:
    input:
        metrics=f"{ROOT}/evaluation/metrics.json",
        rates=f"{ROOT}/report/rates.png",
        gallery=f"{ROOT}/report/edits-dataset.png",
        utility=f"{ROOT}/report/utility.png" if checked.evaluate.utility else [],
        frontier=f"{ROOT}/report/frontier.png" if JUDGED else [],
    output:
        summary=report(
            f"{ROOT}/report/summary.html",
            caption="../report/summary.rst",
            category="Summary",
            labels={"page": "Did it work?"},
        ),
    pathvars:
        job="write_summary",
    params:
        stage=at_revision("write_summary"),
        targets=rebalance(*HOW),
        detectors=settings["detectors"],
        retrain=settings["retrain"],


use rule stage as write_datasheet with:
    input:
        metrics=f"{ROOT}/evaluation/metrics.json",
        labels=f"{ROOT}/labels/dataset_rebalanced.parquet",
    output:
        card=report(
            f"{ROOT}/report/datasheet.md",
            caption="../report/datasheet.rst",
            category="Summary",
            labels={"page": "Dataset card"},
        ),
    pathvars:
        job="write_datasheet",
    params:
        stage=at_revision("write_datasheet"),
        run=RUN,
        data=settings["data"],
        targets=rebalance(*HOW) | {"labels": settings["rebalance"]["labels"]},


use rule stage as record_provenance with:
    input:
        images=images_of(["dataset", "held_out", "dataset_rebalanced"]),
        models=[
            f"{ROOT}/models/selector.safetensors",
            *([f"{ROOT}/models/segmenter.safetensors"] if SEGMENTED else []),
            *([f"{ROOT}/models/encoder.safetensors"] if checked.uses_encoder else []),
            *([f"{ROOT}/models/source/generator.safetensors"] if checked.uses_generator else []),
            *([f"{ROOT}/models/retrained/generator.safetensors"] if checked.retrain else []),
        ],
        given=given(*named_files(checked)),
    output:
        provenance=f"{ROOT}/provenance.json",
    pathvars:
        job="record_provenance",
    params:
        stage=at_revision("record_provenance"),
        settings=settings,
