use rule on_device as evaluate_images with:
    input:
        images=images_of(checked.image_sets),
        selector=scores("selector", checked.image_sets),
        referee=scores("referee", checked.image_sets),
        held_out=images("held_out"),
        held_out_truth=f"{ROOT}/labels/held_out.parquet",
        held_out_referee=f"{ROOT}/scores/referee/held_out.parquet",
        truth=f"{ROOT}/labels/dataset.parquet",
        rebalanced_truth=f"{ROOT}/labels/dataset_rebalanced_true.parquet" if DRAWN else [],
        checked=f"{ROOT}/evaluation/counterfactual.json" if DRAWN else [],
    output:
        image_sets=f"{ROOT}/evaluation/image-sets.json",
    pathvars:
        job="evaluate_images",
    params:
        stage=at_revision("evaluate_images"),
        targets=rebalance(),
        detectors=settings["detectors"],
        settings=evaluation("confidence", "images"),
        cache=f"{ROOT}/cache/features",
        seed=SEED,


use rule on_device as evaluate_edits with:
    input:
        candidates=swaps("candidates"),
        plan=f"{ROOT}/plan/{{name}}.parquet",
        summary=f"{ROOT}/plan/{{name}}.json",
        parts=f"{ROOT}/parts/{{name}}.parquet",
        before=f"{ROOT}/scores/referee/{{name}}.parquet",
        images=images("{name}_rebalanced"),
        labels=f"{ROOT}/labels/{{name}}_rebalanced.parquet",
        selector=f"{ROOT}/scores/selector/{{name}}_rebalanced.parquet",
        referee=f"{ROOT}/scores/referee/{{name}}_rebalanced.parquet",
    output:
        edits=f"{ROOT}/evaluation/edits-{{name}}.json",
    pathvars:
        job="evaluate_edits/{name}",
    wildcard_constraints:
        name="|".join(KNOWN_BY),
    params:
        stage=at_revision("evaluate_edits"),
        settings=rebalance("region", "regions"),
        evaluate=evaluation("confidence", "leakage_steps"),
        seed=SEED,


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
        image_sets=f"{ROOT}/evaluation/image-sets.json",
        edits=[f"{ROOT}/evaluation/edits-{name}.json" for name in checked.edited_sets],
        certificate=f"{ROOT}/evaluation/certificate.json",
        certificate_samples=f"{ROOT}/evaluation/certificate-samples.json" if checked.retrain else [],
        counterfactual=f"{ROOT}/evaluation/counterfactual.json" if DRAWN else [],
        closest_renderings=f"{ROOT}/evaluation/closest-renderings.json" if checked.compares_with_renderings else [],
        robustness=f"{ROOT}/evaluation/robustness.json" if checked.gans else [],
        utility=f"{ROOT}/evaluation/utility.json" if checked.evaluate.utility else [],
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


use rule on_device as evaluate_robustness with:
    input:
        images=images_of(checked.gans),
        selector=f"{ROOT}/models/selector.safetensors",
        referee=f"{ROOT}/models/referee.safetensors",
    output:
        robustness=f"{ROOT}/evaluation/robustness.json",
    pathvars:
        job="evaluate_robustness",
    params:
        stage=at_revision("evaluate_robustness"),
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
