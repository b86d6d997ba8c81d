use rule timed as evaluate_bias with:
    input:
        truth=f"{ROOT}/labels/dataset.parquet",
        rebalanced_truth=f"{ROOT}/labels/dataset_rebalanced_true.parquet" if DRAWN else [],
        checked=f"{ROOT}/evaluation/counterfactual.json" if DRAWN else [],
        held_out_truth=f"{ROOT}/labels/held_out.parquet",
        held_out_referee=f"{ROOT}/scores/referee/held_out.parquet",
        selector=scores("selector", checked.image_sets),
        referee=scores("referee", checked.image_sets),
    output:
        bias=f"{ROOT}/evaluation/bias.parquet",
        gaps=f"{ROOT}/evaluation/gaps.json",
        agreement=f"{ROOT}/evaluation/agreement.json",
        kappa=f"{ROOT}/evaluation/kappa.json",
    pathvars:
        job="evaluate_bias",
    params:
        stage=at_revision("evaluate_bias"),
        targets=rebalance(),
        detectors=settings["detectors"],
        settings=evaluation("confidence"),
        run=RUN,
        seed=SEED,


use rule on_device as evaluate_quality with:
    input:
        held_out=images("held_out"),
        images=images_of(checked.image_sets),
    output:
        quality=f"{ROOT}/evaluation/quality.parquet",
    pathvars:
        job="evaluate_quality",
    params:
        stage=at_revision("evaluate_quality"),
        cache=f"{ROOT}/cache/features",
        settings=evaluation("images"),
        run=RUN,
        seed=SEED,


use rule timed as evaluate_edits with:
    input:
        candidates=swaps("candidates"),
        plan=f"{ROOT}/plan/{{name}}.parquet",
        referee_scores=f"{ROOT}/scores/referee/{{name}}_rebalanced.parquet",
        scores_before=f"{ROOT}/scores/referee/{{name}}.parquet",
        summary=f"{ROOT}/plan/{{name}}.json",
    output:
        edits=f"{ROOT}/evaluation/edits-{{name}}.json",
    pathvars:
        job="evaluate_edits/{name}",
    params:
        stage=at_revision("evaluate_edits"),
        settings=rebalance(),


CERTIFIED = {
    "certificate": {
        "labels": f"{ROOT}/labels/dataset.parquet",
        "assembled": f"{ROOT}/labels/dataset_rebalanced.parquet",
        "plan": f"{ROOT}/plan/dataset.parquet",
        "truth": f"{ROOT}/labels/dataset_rebalanced_true.parquet" if DRAWN else [],
        "checked": f"{ROOT}/evaluation/counterfactual.json" if DRAWN else [],
    },
    "certificate-samples": {
        "retrained": f"{ROOT}/scores/referee/retrained.parquet",
        "control": f"{ROOT}/scores/referee/control.parquet",
    },
}


use rule stage as certify with:
    input:
        unpack(lambda wildcards: CERTIFIED[wildcards.certificate]),
        images=lambda wildcards: images(
            "retrained" if wildcards.certificate == "certificate-samples" else "dataset_rebalanced"
        ),
        audit=given(*(checked.certify.labels or [])),
    output:
        certificate=f"{ROOT}/evaluation/{{certificate}}.json",
    pathvars:
        job="certify/{certificate}",
    wildcard_constraints:
        certificate="|".join(CERTIFIED),
    params:
        stage=at_revision("certify"),
        targets=rebalance(*HOW) | {"labels": settings["rebalance"]["labels"]},
        settings=settings["certify"],
        confidence=settings["evaluate"]["confidence"],
        seed=SEED,


use rule stage as collect_metrics with:
    input:
        bias=f"{ROOT}/evaluation/bias.parquet",
        quality=f"{ROOT}/evaluation/quality.parquet",
        results=[
            *(f"{ROOT}/evaluation/{name}.json" for name in ("gaps", "agreement", "kappa", "certificate")),
            *(f"{ROOT}/evaluation/edits-{name}.json" for name in checked.edited_sets),
            *(f"{ROOT}/evaluation/leakage-{name}.json" for name in checked.edited_sets),
            *([f"{ROOT}/evaluation/counterfactual.json"] if DRAWN else []),
            *([f"{ROOT}/evaluation/utility.json"] if checked.evaluate.utility else []),
            *([f"{ROOT}/evaluation/robustness.json"] if checked.gans else []),
            *([f"{ROOT}/evaluation/closest-renderings.json"] if checked.compares_with_renderings else []),
            *([f"{ROOT}/evaluation/certificate-samples.json"] if checked.retrain else []),
        ],
        reports=[f"{ROOT}/models/{name}.json" for name in (*DETECTORS, *(["segmenter"] if SEGMENTED else []))],
    output:
        metrics=f"{ROOT}/evaluation/metrics.json",
    pathvars:
        job="collect_metrics",
    params:
        stage=at_revision("collect_metrics"),
        benchmarks=f"{ROOT}/benchmarks",


use rule timed as evaluate_counterfactuals with:
    input:
        images=images("dataset"),
        rebalanced=images("dataset_rebalanced"),
        parts=f"{ROOT}/parts/dataset.parquet",
        labels=f"{ROOT}/labels/dataset.parquet",
        plan=f"{ROOT}/plan/dataset.parquet",
        candidates=[path.format(name="dataset") for path in swaps("candidates")],
    output:
        counterfactuals=f"{ROOT}/evaluation/counterfactuals.parquet",
        truth=f"{ROOT}/labels/dataset_rebalanced_true.parquet",
        summary=f"{ROOT}/evaluation/counterfactual.json",
    pathvars:
        job="evaluate_counterfactuals",
    threads: HALF_OF_CORES
    params:
        stage=at_revision("evaluate_counterfactuals"),
        data=settings["data"],
        settings=rebalance("region", "regions", "choose", "seam_tolerance", "candidates", "pool"),
        confidence=settings["evaluate"]["confidence"],
        run=RUN,
        seed=SEED,


use rule on_device as evaluate_leakage with:
    input:
        images=images("{name}_rebalanced"),
        labels=f"{ROOT}/labels/{{name}}_rebalanced.parquet",
        parts=f"{ROOT}/parts/{{name}}.parquet",
        selector=f"{ROOT}/scores/selector/{{name}}_rebalanced.parquet",
        referee=f"{ROOT}/scores/referee/{{name}}_rebalanced.parquet",
    output:
        leakage=f"{ROOT}/evaluation/leakage-{{name}}.json",
    pathvars:
        job="evaluate_leakage/{name}",
    wildcard_constraints:
        name="|".join(KNOWN_BY),
    params:
        stage=at_revision("evaluate_leakage"),
        settings=rebalance("region", "regions"),
        evaluate=evaluation("confidence", "leakage_steps"),
        seed=SEED,


use rule on_device as evaluate_robustness with:
    input:
        images=images_of(checked.gans),
        selector=f"{ROOT}/models/selector.safetensors",
        referee=f"{ROOT}/models/referee.safetensors",
        selector_scores=scores("selector", checked.gans),
        referee_scores=scores("referee", checked.gans),
    output:
        robustness=f"{ROOT}/evaluation/robustness.json",
    pathvars:
        job="evaluate_robustness",
    params:
        stage=at_revision("evaluate_robustness"),
        sets=list(checked.gans),
        targets=rebalance(),
        settings=evaluation("confidence"),


use rule on_device as compare_with_renderings with:
    input:
        images=images_of(["samples", *checked.gans]),
        selector=scores("selector", ["samples", *checked.gans]),
        referee=scores("referee", ["samples", *checked.gans]),
        encoder=f"{ROOT}/models/encoder.safetensors",
        generator=f"{ROOT}/models/source/generator.safetensors",
        precision=f"{ROOT}/models/encoder.json",
    output:
        found=f"{ROOT}/evaluation/closest-renderings.json",
    pathvars:
        job="compare_with_renderings",
    params:
        stage=at_revision("compare_with_renderings"),
        data=settings["data"],
        settings=rebalance("region", "regions"),
        evaluate=evaluation("confidence", "judge_bank"),
        seed=SEED,


use rule on_device as evaluate_utility with:
    input:
        given(checked.evaluate.classifier_weights),
        images=images("dataset"),
        labels=f"{ROOT}/labels/dataset.parquet",
        rebalanced=images("dataset_rebalanced"),
        assembled=f"{ROOT}/labels/dataset_rebalanced.parquet",
        plan=f"{ROOT}/plan/dataset.parquet",
        referee=f"{ROOT}/scores/referee/dataset_rebalanced.parquet",
        held_out=images("held_out"),
        held_out_labels=f"{ROOT}/labels/held_out.parquet",
        truth=f"{ROOT}/labels/dataset_rebalanced_true.parquet" if DRAWN else [],
        checked=f"{ROOT}/evaluation/counterfactual.json" if DRAWN else [],
        counterfactuals=f"{ROOT}/evaluation/counterfactuals.parquet" if DRAWN else [],
    output:
        utility=f"{ROOT}/evaluation/utility.json",
    pathvars:
        job="evaluate_utility",
    params:
        stage=at_revision("evaluate_utility"),
        data=settings["data"],
        settings=rebalance("region", "regions"),
        evaluate=evaluation("confidence", "utility"),
        seed=SEED,
