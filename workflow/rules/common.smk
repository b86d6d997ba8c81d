# What the rules share: the checked config and the patterns of paths.
from snakemake.exceptions import WorkflowError

from pipeline_lib.config import parse_config
from pipeline_lib.evaluation.image_sets import COMPARED
from pipeline_lib.runtime.errors import ConfigError

try:
    checked = parse_config(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

settings = checked.model_dump(mode="json")
RUN = settings["run"]
SEED = settings["seed"]
ROOT = f"results/{RUN}"
# attributes of the targets and of their conditions, without the rates: those change nothing before the plan
RELATED = sorted(
    {name for target in settings["rebalance"]["targets"] for name in (target["attribute"], *target["where"])}
)
REGION = settings["rebalance"]["region"]
SEGMENTED = REGION.get("name") or REGION.get("shows")  # the part that a segmenter must find; none: a box in any image
ALL_CORES = 64  # capped by --cores: one heavy job at a time on the CPU
PREEMPTIONS = 3  # of a training, which each time goes on from its checkpoint; a refusal is not tried again


wildcard_constraints:
    judge="selector|referee",
    name="[a-z_]+",
    shard=r"\d+",


def images(name):
    """Return every shard of an image set; `name` may be a wildcard in braces."""
    return [f"{ROOT}/images/{name}/{shard}.parquet" for shard in range(settings["data"]["shards"])]


def images_of(names):
    """Return every shard of several image sets."""
    return [path for name in names for path in images(name)]


def given(*paths):
    """Return those of the paths that the config names; they are looked for here, whatever storage a profile names."""
    return [local(path) for path in paths if path is not None]


def scores(judge, names):
    """Return the score table of each image set."""
    return [f"{ROOT}/scores/{judge}/{name}.parquet" for name in names]


def swaps(kind):
    """Return the tables of candidates or the shards of composites of an image set."""
    return [f"{ROOT}/swaps/{{name}}/{shard}.{kind}.parquet" for shard in range(settings["rebalance"]["shards"])]


def this_attempt(wildcards, attempt):
    """Return how often a job has been started: kept as a resource, for those change no result."""
    return attempt
