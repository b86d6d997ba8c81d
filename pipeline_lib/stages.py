"""The stages by name, and how a stage is called with values read from Snakemake or the command line."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import inspect
import logging
import re
import time
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.devices import lease_device, tune_cpu
from pipeline_lib.runtime.errors import ConfigError

logger = logging.getLogger(__name__)

STAGES = {
    "fetch_published": "pipeline_lib.runtime.fetch",
    "prepare_dataset": "pipeline_lib.data.prepare",
    "train_detector": "pipeline_lib.training.detector",
    "train_segmenter": "pipeline_lib.training.segmenter",
    "train_generator": "pipeline_lib.training.generator",
    "train_encoder": "pipeline_lib.training.encoder",
    "sample_generator": "pipeline_lib.editing.sampling",
    "extract_parts": "pipeline_lib.editing.parts",
    "score_attributes": "pipeline_lib.editing.scoring",
    "plan_edits": "pipeline_lib.editing.plan",
    "plan_sham": "pipeline_lib.editing.plan",
    "swap_parts": "pipeline_lib.editing.swap",
    "assemble_rebalanced": "pipeline_lib.editing.assemble",
    "resample_dataset": "pipeline_lib.editing.assemble",
    "evaluate_images": "pipeline_lib.evaluation.images",
    "evaluate_edits": "pipeline_lib.evaluation.edits",
    "evaluate_counterfactuals": "pipeline_lib.evaluation.counterfactual",
    "evaluate_utility": "pipeline_lib.evaluation.utility",
    "evaluate_robustness": "pipeline_lib.evaluation.robustness",
    "compare_with_renderings": "pipeline_lib.evaluation.closest_renderings",
    "certify": "pipeline_lib.audit.certificate",
    "collect_metrics": "pipeline_lib.evaluation.metrics",
    "train_translator": "pipeline_lib.studies.methods.training",
    "train_study_encoder": "pipeline_lib.studies.methods.training",
    "reconstruct_collages": "pipeline_lib.studies.comparison",
    "run_study": "pipeline_lib.studies.study",
    "write_studies": "pipeline_lib.studies.report",
    "plot_before_after": "pipeline_lib.report.figures",
    "write_report": "pipeline_lib.report.page",
    "write_datasheet": "pipeline_lib.release.cards",
    "record_provenance": "pipeline_lib.release.provenance",
}

#: Stages that can run in several processes, each on a GPU of its own.
SHARED = ("train_generator", "train_encoder")

GIVEN_HERE = ("device", "threads")  # parameters of a stage that are no values


def find_stage(name: str) -> Callable[..., None]:
    """Import the function of a stage."""
    return getattr(importlib.import_module(STAGES[name]), name)


def revision_of(name: str) -> int:
    """Return the revision at the definition of a stage, read from its source: to import it would load torch."""
    source = Path(importlib.util.find_spec(STAGES[name]).origin).read_text(encoding="utf-8")
    return int(re.search(rf"^@(?:revisions\.)?stage\(revision=(\d+)\)\ndef {name}\(", source, re.MULTILINE)[1])


def at_revision(name: str) -> str:
    """Return `name@revision`, as a rule names its stage: jobs run again when the revision is raised."""
    return f"{name}@{revision_of(name)}"


def call_stage(
    name: str, values: Mapping[str, Any], threads: int = 1, gpus: int | None = None, allow_cpu: bool = False
) -> None:
    """Call a stage with plain values, converted to the types of its signature.

    Strings become paths, single values become lists where a list is expected, and dicts become config sections. A
    parameter that is a dataclass gathers the values of its fields, of which a file that is absent is None. A stage that
    takes a `device` gets a leased GPU, or the CPU if there is none.

    Args:
        name: a key of `STAGES`.
        values: named inputs, outputs and parameters together.
        threads: CPU threads.
        gpus: devices to lease; with more than one, the stage runs in as many processes. None for one if there is one.
        allow_cpu: whether the CPU serves where there are no GPUs.

    Raises:
        ConfigError: a value is missing or unknown, this stage runs on one GPU at most, or there are too few.
    """
    several = gpus is not None and gpus > 1
    if several and name not in SHARED:
        raise ConfigError(f"stage {name} runs on one GPU, not {gpus}; only {', '.join(SHARED)} can use several")
    stage = find_stage(name)
    parameters, taken = inspect.signature(stage).parameters, values_of(stage)
    for given in values:
        if given not in taken:
            nearest = difflib.get_close_matches(given, taken, n=1, cutoff=0.0)[0]
            raise ConfigError(f"stage {name} takes no `{given}`; did you mean `{nearest}`?")
    for parameter, is_needed in taken.items():
        if is_needed and parameter not in values:
            raise ConfigError(f"stage {name}: no value for `{parameter}`; add `{parameter}=VALUE`")
    hints = typing.get_type_hints(stage)
    with ExitStack() as stack:
        device = stack.enter_context(_device(gpus, allow_cpu)) if "device" in parameters else None
        if several and device != "cpu":
            ranks.launch(name, values, gpus, threads)
            return
        arguments = {}
        for parameter in parameters:
            if dataclasses.is_dataclass(hints[parameter]):
                arguments[parameter] = _gather(values, hints[parameter])
            elif parameter in values:
                arguments[parameter] = _convert(values[parameter], hints[parameter])
        if device is not None:
            import torch

            arguments["device"] = torch.device(device)
            tune_cpu(threads)
        if "threads" in parameters:
            arguments["threads"] = threads
        start = time.monotonic()
        stage(**arguments)
        logger.info("%s took %.1f s", name, time.monotonic() - start)


def _device(gpus: int | None, allow_cpu: bool) -> AbstractContextManager[Any]:
    return ranks.joined() if ranks.launched() else lease_device(gpus, allow_cpu)


def values_of(stage: Callable[..., None]) -> dict[str, bool]:
    """Return the values that a stage takes, and whether each must be given."""
    hints, taken = typing.get_type_hints(stage), {}
    for name, parameter in inspect.signature(stage).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            taken |= values_of(hints[name])
        elif name not in GIVEN_HERE:
            taken[name] = parameter.default is inspect.Parameter.empty
    return taken


def _gather(values: Mapping[str, Any], group: type) -> Any:
    hints = typing.get_type_hints(group)
    return group(**{name: _convert(value, hints[name]) for name, value in values.items() if name in hints})


def _convert(value: Any, wanted: Any) -> Any:
    parts = typing.get_args(wanted)
    if typing.get_origin(wanted) is list and (isinstance(value, str | Path) or not isinstance(value, Iterable)):
        value = [value]
    elif type(None) in parts and isinstance(value, list) and (not value or Path in parts):
        value = value[0] if value else None
    elif typing.get_origin(wanted) is list:
        value = [str(item) if isinstance(item, Path) else item for item in value]
    return TypeAdapter(wanted).validate_python(value)
