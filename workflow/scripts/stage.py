"""Call the library stage that a rule names, with the rule's parameters and its inputs and outputs that have a name.

An input without a name is one whose path the stage knows from its config section.
"""

import logging
import sys
from pathlib import Path

# A conda environment holds no pipeline_lib: that of the repository comes first, that of an installation last.
ROOT = Path(snakemake.scriptdir).resolve().parents[1]
if (ROOT / "pipeline_lib").is_dir():
    sys.path.insert(0, str(ROOT))
else:
    sys.path.append(str(ROOT.parents[1]))

from pipeline_lib.runtime.errors import PipelineError, refuse_again  # noqa: E402
from pipeline_lib.stages import call_stage  # noqa: E402

if __name__ == "__main__":
    job = snakemake
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.StreamHandler(), logging.FileHandler(job.log[0], mode="w")],
    )
    values = {**dict(job.input.items()), **dict(job.output.items()), **dict(job.params.items())}
    name, _, _ = values.pop("stage").partition("@")  # its revision only triggers reruns
    try:
        with refuse_again(Path(f"{job.log[0]}.refused"), job.resources.get("attempt", 1)):
            call_stage(name, values, job.threads, job.resources.get("gpu"), bool(job.config.get("allow_cpu")))
    except PipelineError as error:
        logging.error("%s: %s", type(error).__name__, error)
        sys.exit(2)
    except Exception:
        logging.exception("unexpected failure; see this traceback")
        sys.exit(1)
