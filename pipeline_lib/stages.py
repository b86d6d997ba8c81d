"""The stages by name, and how a stage is called with values read from Snakemake or the command line."""

from __future__ import annotations

import importlib
import inspect
import logging
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
    "plan_edits": "pipeline_lib.rebalance.plan",
    "plan_sham": "pipeline_lib.rebalance.plan",
    "swap_parts": "pipeline_lib.editing.swap",
    "touch_images": "pipeline_lib.editing.touch",
    "assemble_rebalanced": "pipeline_lib.editing.assemble",
    "resample_dataset": "pipeline_lib.editing.assemble",
    "draw_ideal": "pipeline_lib.editing.ideal",
    "evaluate_bias": "pipeline_lib.evaluation.bias",
    "evaluate_edits": "pipeline_lib.evaluation.edits",
    "evaluate_frontier": "pipeline_lib.evaluation.frontier",
    "evaluate_counterfactuals": "pipeline_lib.evaluation.counterfactual",
    "evaluate_leakage": "pipeline_lib.evaluation.leakage",
    "evaluate_utility": "pipeline_lib.evaluation.utility",
    "evaluate_robustness": "pipeline_lib.evaluation.robustness",
    "judge_samples": "pipeline_lib.evaluation.nearest",
    "certify_targets": "pipeline_lib.evaluation.certificate",
    "certify_samples": "pipeline_lib.evaluation.certificate_samples",
    "collect_metrics": "pipeline_lib.evaluation.metrics",
    "evaluate_quality": "pipeline_lib.evaluation.quality",
    "compare_regions": "pipeline_lib.evaluation.regions",
    "train_translator": "pipeline_lib.studies.translators",
    "train_in_domain_encoder": "pipeline_lib.studies.translators",
    "reconstruct_collages": "pipeline_lib.studies.comparison",
    "study_comparison": "pipeline_lib.studies.comparison",
    "study_composition": "pipeline_lib.studies.composition",
    "study_independence": "pipeline_lib.studies.independence",
    "study_interpolation": "pipeline_lib.studies.interpolation",
    "study_adaptation": "pipeline_lib.studies.adaptation",
    "study_ablation": "pipeline_lib.studies.ablation",
    "study_completion": "pipeline_lib.studies.completion",
    "study_direction": "pipeline_lib.studies.direction",
    "study_multimodal": "pipeline_lib.studies.multimodal",
    "study_illumination": "pipeline_lib.studies.illumination",
    "study_discovery": "pipeline_lib.studies.discovery",
    "collect_studies": "pipeline_lib.studies.rows",
    "plot_independence": "pipeline_lib.report.studies",
    "plot_pictures": "pipeline_lib.report.studies",
    "write_studies": "pipeline_lib.report.studies",
    "plot_rates": "pipeline_lib.report.figures",
    "plot_utility": "pipeline_lib.report.utility",
    "plot_frontier": "pipeline_lib.report.frontier",
    "plot_before_after": "pipeline_lib.report.figures",
    "write_tables": "pipeline_lib.report.tables",
    "write_summary": "pipeline_lib.report.summary",
    "write_datasheet": "pipeline_lib.report.datasheet",
    "record_provenance": "pipeline_lib.release.provenance",
}

#: Stages that can run in several processes, each on a GPU of its own.
SHARED = ("train_generator", "train_encoder")


def find_stage(name: str) -> Callable[..., None]:
    """Import the function of a stage."""
    return getattr(importlib.import_module(STAGES[name]), name)


def call_stage(name: str, values: Mapping[str, Any], threads: int = 1, gpus: int = 1) -> None:
    """Call a stage with plain values, converted to the types of its signature.

    Strings become paths, single values become lists where a list is expected, and dicts become config sections. A stage
    that takes a `device` gets a leased GPU, or the CPU if there is none. Values that the stage does not take are
    dropped, such as a rule's revision number, which only triggers reruns.

    Args:
        name: a key of `STAGES`.
        values: named inputs, outputs, wildcards and parameters together.
        threads: CPU threads.
        gpus: devices to lease; with more than one, the stage runs in as many processes.

    Raises:
        ConfigError: a value is missing, or this stage runs on one GPU at most.
    """
    if gpus > 1 and name not in SHARED:
        raise ConfigError(f"stage {name} runs on one GPU, not {gpus}; only {', '.join(SHARED)} can use several")
    stage = find_stage(name)
    hints = typing.get_type_hints(stage)
    arguments: dict[str, Any] = {}
    with ExitStack() as stack:
        device = stack.enter_context(_device(gpus)) if "device" in hints else None
        if gpus > 1 and device != "cpu":
            ranks.launch(name, values, gpus, threads)
            return
        for parameter in inspect.signature(stage).parameters.values():
            if parameter.name == "device":
                import torch

                arguments["device"] = torch.device(device)
                tune_cpu(threads)
            elif parameter.name == "threads":
                arguments["threads"] = threads
            elif parameter.name in values:
                arguments[parameter.name] = _convert(values[parameter.name], hints[parameter.name])
            elif parameter.default is parameter.empty:
                raise ConfigError(f"stage {name}: no value for `{parameter.name}`; add `{parameter.name}=VALUE`")
        start = time.monotonic()
        stage(**arguments)
        logger.info("%s took %.1f s", name, time.monotonic() - start)


def _device(gpus: int) -> AbstractContextManager[Any]:
    return ranks.joined() if ranks.launched() else lease_device(gpus)


def _convert(value: Any, wanted: Any) -> Any:
    if typing.get_origin(wanted) is list and (isinstance(value, str | Path) or not isinstance(value, Iterable)):
        value = [value]
    elif typing.get_origin(wanted) is list:
        value = [str(item) if isinstance(item, Path) else item for item in value]
    return TypeAdapter(wanted).validate_python(value)
