"""What refining the latents of chosen edits gains and costs, on avatars, whose ideal edits are known.

    OMP_NUM_THREADS=1 python -m experiments.refinement results/avatars --edits 64 --steps 0 5 20 50
    OMP_NUM_THREADS=1 python -m experiments.refinement results/avatars --edits 16 --steps 0 --methods lbfgs encode-lbfgs

The second also optimises each edit by methods that the paper compares itself with (`editor: optimization`).
Both need a finished run of `config/config.yaml`, which gives the images, the chosen donors and the selector. Encoder
and generator are those in `resources/avatars-64`. The first number of steps must be 0, with which the others are
compared.

Spreads are the median over the edits, with the least and the greatest. `known` is the PSNR of the composite over the
known pixels of the collage, `inside` that of the finished edit to the ideal one inside the region, as in
`evaluate_counterfactuals`. `changed` counts edits of which a byte differs from the unrefined one, and `kept` those that
still succeed of those that do so unrefined. The seconds are those of the inversion alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline_lib.config import AvatarData, BoxRegion, OptimizationMethod, PartRegion, Rebalance, load_config
from pipeline_lib.data.avatars import Face, draw_variants, face_of, render_image
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import shards_in
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.editing.choice import judge
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.editors import LatentRegressionEditor
from pipeline_lib.editing.finish import Finish, finish
from pipeline_lib.editing.swap import faces_at_a_time
from pipeline_lib.evaluation.counterfactual import IDENTICAL, RIM, judge_image
from pipeline_lib.imaging.collages import Masks, make_collage, region_masks
from pipeline_lib.imaging.masks import grow
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.devices import tune_cpu
from pipeline_lib.studies.methods.optimization import OptimizingInverter

CONFIG, WEIGHTS = Path("config/config.yaml"), Path("resources/avatars-64")
CPU = torch.device("cpu")
HOW: tuple[Finish, ...] = ("none", "detail")

_Drawings = list[tuple[str, Face, np.ndarray]]


class _Edits(NamedTuple):
    """Chosen edits of a run, without their composites."""

    names: list[str]
    context: Tensor
    donor: Tensor
    masks: Masks
    wanted: Tensor
    targets: Tensor


class _Found(NamedTuple):
    """What is measured of each edit."""

    known: np.ndarray  # dB (n,)
    inside: np.ndarray  # dB (n,)
    pixels: np.ndarray  # as they would be stored, uint8 (n, H, W, 3)
    success: np.ndarray  # bool (n,)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--edits", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 5, 20, 50])
    parser.add_argument("--methods", nargs="*", choices=get_args(OptimizationMethod), default=[])
    parser.add_argument("--method-steps", type=int, default=300, help="steps of each of the methods (default: 300)")
    options = parser.parse_args(arguments)
    if options.steps[0] != 0:
        parser.error(f"--steps: the first is {options.steps[0]}; it must be 0, with which the others are compared")
    config = load_config(CONFIG)
    if not isinstance(config.data, AvatarData):
        parser.error(f"{CONFIG}: the ideal edits of `reader: {config.data.reader}` are unknown; choose `avatars`")
    tune_cpu(1)
    settings = config.rebalance
    edits = _chosen_edits(options.results, settings.edit.region, options.edits, config.seed)
    editor = LatentRegressionEditor(Inverter(WEIGHTS / "encoder.safetensors", WEIGHTS / "generator.safetensors", CPU))
    selector = load_weights(options.results / "models/selector.safetensors", Detector, CPU)
    drawings = [
        [
            (drawing, face, render_image(face, config.data.resolution, config.data.crop))
            for drawing, face in draw_variants(face_of(config.data, name), parts_of(settings.edit.region))
        ]
        for name in edits.names
    ]
    batch = faces_at_a_time(CPU, settings.edit.candidates, config.data.resolution)
    _refined(editor, edits, 1, batch)  # the first call is slower
    table = Table(
        "finish", "steps", "ms an edit", "known, dB", "gain, dB", "dB/s", "inside, dB", "gain, dB", "changed", "kept"
    )
    before: dict[str, _Found] = {}
    for way in (*options.steps, *options.methods):
        start = time.perf_counter()
        if isinstance(way, int):
            composite = _refined(editor, edits, way, batch)
        else:
            composite = _optimised(way, edits, options.method_steps)
        seconds = (time.perf_counter() - start) / len(edits.names)
        for how in HOW:
            found = _judge(composite, edits, how, drawings, selector, settings)
            unrefined = before.setdefault(how, found)
            gain = found.known - unrefined.known
            changed = (found.pixels != unrefined.pixels).any(axis=(1, 2, 3))
            table.add_row(
                *(how, str(way), f"{1000 * seconds:.0f}"),
                *(_spread(found.known), _spread(gain), f"{np.median(gain) / seconds:.1f}"),
                *(_spread(found.inside), _spread(found.inside - unrefined.inside)),
                *(
                    f"{changed.sum()} of {len(changed)}",
                    f"{found.success[unrefined.success].sum()} of {unrefined.success.sum()}",
                ),
            )
    Console(width=170).print(table)


def _chosen_edits(results: Path, region: PartRegion | BoxRegion, count: int, seed: int) -> _Edits:
    """Draw chosen edits of the dataset."""
    image_set = ImageSet(shards_in(results / "images/dataset"), results / "parts/dataset.parquet", parts_of(region))
    tried = read_tables(shards_in(results / "swaps/dataset", "candidates.parquet"), "candidates")
    chosen = tried[tried["chosen"]].merge(read_table(results / "plan/dataset.parquet", "plan"), on="image_id")
    chosen = chosen.sort_values("position", ignore_index=True)
    chosen = chosen.iloc[seeding.numpy_generator(seed, "refinement").permutation(len(chosen))[:count]]
    (context, context_parts), (donor, donor_parts) = (
        image_set.look(np.array([image_set.position[name] for name in chosen[column]])).to(CPU)
        for column in ("image_id", "donor_id")
    )
    masks = region_masks(region, donor_parts, context_parts)
    wanted, targets = (torch.tensor(chosen[column].to_numpy()) for column in ("wanted", "target"))
    return _Edits(chosen["image_id"].tolist(), context, donor, masks, wanted, targets.long())


def _refined(editor: LatentRegressionEditor, edits: _Edits, steps: int, batch: int) -> Tensor:
    """Refine the edits in batches of the size that the stage has."""
    tensors = (edits.context, edits.donor, *edits.masks)
    batches = zip(*(tensor.split(batch) for tensor in tensors), strict=True)
    with torch.no_grad():
        return torch.cat([editor.refine(context, donor, Masks(*masks), steps) for context, donor, *masks in batches])


def _optimised(method: OptimizationMethod, edits: _Edits, steps: int) -> Tensor:
    """Make the composites by a method that optimises each of them."""
    files = (WEIGHTS / f"{name}.safetensors" for name in ("encoder", "generator"))
    editor = LatentRegressionEditor(OptimizingInverter(*files, method, steps, CPU))
    return editor(edits.context, edits.donor, edits.masks)


@torch.no_grad()
def _judge(
    composite: Tensor,
    edits: _Edits,
    how: Finish,
    drawings: Sequence[_Drawings],
    selector: Detector,
    settings: Rebalance,
) -> _Found:
    """Finish the composites and measure both."""
    known = edits.masks.known
    error = (composite - make_collage(edits.context, edits.donor, edits.masks.pasted)).square() * known
    psnr = 10 * torch.log10(4 * 3 * known.sum(dim=(1, 2, 3)) / error.sum(dim=(1, 2, 3)))
    finished = finish(edits.context, edits.donor, composite, edits.masks, how)
    groups = [target.where for target in settings.targets]
    judged = judge(selector, settings.targets[0].attribute, groups, finished, edits.wanted, edits.targets)
    pixels = judged.pixels.numpy()
    regions = grow(edits.masks.region, RIM)[:, 0].numpy() > 0
    images = zip(as_pixels(edits.context).numpy(), pixels, regions, drawings, strict=True)
    inside = np.array([judge_image(*image).psnr_inside for image in images])
    return _Found(psnr.numpy(), inside.clip(max=IDENTICAL), pixels, (judged.strength > 0).numpy())


def _spread(values: np.ndarray) -> str:
    return f"{np.median(values):.1f} ({values.min():.1f} to {values.max():.1f})"


if __name__ == "__main__":
    main()
