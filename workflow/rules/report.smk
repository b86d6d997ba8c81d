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


use rule stage as write_report with:
    input:
        metrics=f"{ROOT}/evaluation/metrics.json",
        gallery=f"{ROOT}/report/edits-dataset.png",
    output:
        page=report(f"{ROOT}/report.html", caption="../report/page.rst", category="Summary"),
        figures=[f"{ROOT}/report/{name}.png" for name in ("rates", *(["utility"] if checked.evaluate.utility else []))],
        csv=[f"{ROOT}/report/{name}.csv" for name in ("quality", "detectors", "edits", "timing")],
    pathvars:
        job="write_report",
    params:
        stage=at_revision("write_report"),
        targets=rebalance(*HOW),
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
