# The checked config and path patterns, shared by all rules.
from pathlib import Path

from snakemake.exceptions import WorkflowError

from pipeline_lib.config import named_files, parse_config
from pipeline_lib.config.names import BASELINES
from pipeline_lib.runtime.devices import cpu_chosen, gpu_in_sight
from pipeline_lib.runtime.errors import ConfigError
from pipeline_lib.runtime.files import digest_of_listing, files_below
from pipeline_lib.stages import at_revision

try:
    checked = parse_config(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

settings = checked.model_dump(mode="json")
RUN = settings["run"]
SEED = settings["seed"]
ROOT = f"results/{RUN}"
FIRST = checked.rebalance.first_attribute().model_dump(mode="json", include={"targets", "edit"})  # a single attribute
# Region of each attribute that is edited.
REGIONS = {name: region.model_dump(mode="json") for name, region in checked.rebalance.regions_by_attribute.items()}
HOW = [key for key in settings["rebalance"]["edit"] if key != "alters"]  # keys that say how an edit is made
SEGMENTED = bool(checked.rebalance.parts)  # whether there is a part to segment; not for a box without one
# The trained detectors, of which the last is only in the loss of a GAN.
DETECTORS = {name: settings["detectors"][name] for name in ("selector", "referee")}
# Detectors of which it must be seen that they are not the selector once more, as a network that is given could be.
SUSPECTED = ["referee"] if checked.given_detectors else []
DRAWN = checked.knows_ideal_edits  # whether the truth of an edit is known
COLLAGES = settings["detectors"]["collages"]  # share of collages among the training images of detectors
# Small networks use half of the cores better than all of them, so that two heavy jobs run at a time on one machine. A
# job that is sent to a cluster has what it requests to itself, which is `max-threads` of the profile.
ALL_CORES = 64  # capped by --cores or --max-threads
SENT_AWAY = workflow.remote_exec or not workflow.local_exec
HALF_OF_CORES = ALL_CORES if SENT_AWAY else max(1, (workflow.resource_settings.cores or 2) // 2)
GPU = int(SENT_AWAY or gpu_in_sight())  # on a machine without one, `--resources gpu` does not limit the jobs
GPUS_ASKED = workflow.global_resources.get("gpu").value  # None if neither command line nor profile says a number
if GPUS_ASKED is None and not SENT_AWAY:
    workflow.register_resource("gpu", 1)  # without a limit Snakemake would start all at once
ON_LONGEST_PATH = 1  # of jobs that could start, those that lead to the retrained GAN do
PREEMPTIONS = 3  # retries of a training, which resumes from its checkpoint; errors in the input are not retried


onstart:
    if GPUS_ASKED and not (GPU or checked.allow_cpu or cpu_chosen()):
        raise WorkflowError(
            f"--resources gpu={GPUS_ASKED}: no GPU found on this machine, on whose CPU the networks may take days; leave the "
            "option out, or set `allow_cpu: true` in the config"
        )


wildcard_constraints:
    detector="selector|referee",
    name="[a-z_]+",
    shard=r"\d+",


def rebalance(*of_edit):
    """Return the targets and the named keys of `rebalance.edit`: what a stage reads, so that no other key reruns it."""
    chosen = settings["rebalance"]
    return {"targets": chosen["targets"], "edit": {key: chosen["edit"][key] for key in of_edit}}


def evaluation(*keys):
    """Return the named keys of `evaluate`, likewise."""
    return {key: settings["evaluate"][key] for key in keys}


def images(name):
    """Return every shard of an image set; `name` may be a wildcard in braces."""
    return [f"{ROOT}/images/{name}/{shard}.parquet" for shard in range(settings["jobs"])]


def images_of(names):
    """Return every shard of several image sets."""
    return [path for name in names for path in images(name)]


def original(wildcards):
    """Return the image set that is edited, which for sham edits is the dataset."""
    return "dataset" if wildcards.name == "dataset_sham" else wildcards.name


def given(*paths):
    """Return the paths that are set in the config as local files, whatever the storage of the profile.

    Of a folder these are its files, since its own time misses changes in them.
    """
    found = [Path(path) for path in paths if path is not None]
    return [local(file) for path in found for file in (files_below([path]) if path.is_dir() else [path])]


def files_of_editor():
    """Return the files of an editor's own model; nothing for one that has none."""
    return given(*checked.rebalance.edit.editor.files)


def of_inverter(model):
    """Return the file of a model that inverts collages; nothing for an editor that needs none."""
    return f"{ROOT}/models/{model}" if checked.uses_encoder else []


def scores(detector, names):
    """Return the score table of each image set."""
    return [f"{ROOT}/scores/{detector}/{name}.parquet" for name in names]


def swaps(kind):
    """Return the tables of candidates or the shards of composites of an image set."""
    return [f"{ROOT}/swaps/{{name}}/{shard}.{kind}.parquet" for shard in range(settings["jobs"])]


def this_attempt(wildcards, attempt):
    """Return the number of a job's attempt, as a resource, since resources trigger no reruns."""
    return attempt
