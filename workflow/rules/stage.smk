# What rules repeat. A rule that uses one of these says where its log lies, by `job`, and names its stage.
rule stage:
    log:
        f"{ROOT}/logs/<job>.log",
    pathvars:
        job="stage",
    conda:
        "../../envs/pipeline.yaml"
    script:
        "../scripts/stage.py"


# Its run time is in the metrics.
use rule stage as timed with:
    benchmark:
        f"{ROOT}/benchmarks/<job>.tsv"


use rule timed as on_device with:
    threads: HALF_OF_CORES
    resources:
        gpu=GPU,


# It resumes from its checkpoint.
use rule on_device as training with:
    retries: PREEMPTIONS
    resources:
        gpu=GPU,
        attempt=this_attempt,
