"""Several ways to make whole images of the same collages of real images (paper 4.2, Fig. 6, Tables 4 and 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import AvatarData, Edit, Evaluate, OptimizationMethod, Studies, TranslationMethod
from pipeline_lib.data.avatars import combine_faces, face_of, render_image
from pipeline_lib.data.shards import read_shards
from pipeline_lib.editing.editor import Editor
from pipeline_lib.editing.editors import LatentRegressionEditor
from pipeline_lib.editing.finish import finish
from pipeline_lib.evaluation.features import extract_features, features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.imaging.collages import Masks
from pipeline_lib.imaging.distances import masked_l1, peak_signal_to_noise
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.inversion import open_inverter
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.collages import Layers, blend_layers, draw_collages, lay
from pipeline_lib.studies.methods.optimization import OptimizingInverter
from pipeline_lib.studies.methods.translation_editors import open_translation
from pipeline_lib.studies.rows import groups_of, mean_row, not_done, over, write_arrays, write_rows

STUDY = "comparison"
L1, DENSITY, FRECHET, SECONDS = "masked L1", "density", "Fréchet distance", "seconds an image"
PSNR = "dB to the ideal image"
RATIO = "seconds, times those of one pass"
COLLAGES, IDEAL, OURS = "collages", "ideal image", "one pass through the encoder"
#: Titles of the methods, in the order of the table.
TITLES = {
    "cyclegan": "CycleGAN",
    "spade": "SPADE",
    "inpainting-network": "inpainting network",
    "poisson": "Poisson blending",
    "deep-image-prior": "deep image prior",
    "lbfgs": "L-BFGS from the best of 500 latents",
    "im2stylegan": "Im2StyleGAN, in W+",
    "stylegan-projection": "StyleGAN projection, in w",
    "encode-lbfgs": "encoder, then L-BFGS",
    "multi-code": "multi-code prior",
    "in_domain": "in-domain encoder, short training",
    "in-domain": "in-domain optimisation, with that encoder",
    "pyramid": "masked pSp, short training",
    "all_losses": "one pass, short training",
    "latent-regression": OURS,
    "finished": "one pass, finished",
}
LACKING = ("ALAE",)  # methods of the paper's tables that this study lacks
SHOWN = 6  # collages in the figure

#: Masked L1 and seconds of the paper's Tables 4 (churches) and 5 (faces). Its densities are measured on other features,
#: and FID is another distance, so that these are not put beside ours.
PAPER: dict[str, dict[str, tuple[float, float | None]]] = {
    "progan church": {
        "cyclegan": (0.14, 0.10), "spade": (0.50, 0.07), "inpainting-network": (0.00, 0.02),
        "multi-code": (0.13, 477.93), "deep-image-prior": (0.04, 98.90), "lbfgs": (0.23, 188.94),
        "encode-lbfgs": (0.23, 66.55), "latent-regression": (0.32, 0.02),
    },
    "stylegan2 church": {
        "cyclegan": (0.14, 0.10), "spade": (0.50, 0.07), "inpainting-network": (0.00, 0.02),
        "deep-image-prior": (0.04, 98.90), "lbfgs": (0.13, 368.92), "stylegan-projection": (0.23, 86.87),
        "encode-lbfgs": (0.15, 176.96), "latent-regression": (0.36, 0.03),
    },
    "progan celebahq": {"inpainting-network": (0.02, None), "latent-regression": (0.27, None)},
    "stylegan2 ffhq": {
        "inpainting-network": (0.02, None), "im2stylegan": (0.21, None), "in_domain": (0.21, None),
        "in-domain": (0.12, None), "pyramid": (0.15, None), "latent-regression": (0.26, None),
    },
}  # fmt: skip


@torch.no_grad()
@stage(revision=2)
def reconstruct_collages(
    *,
    images: list[Path],
    parts: Path,
    encoder: Path,
    generator: Path,
    precision: Path,
    model: list[Path],
    names: list[str],
    method: str,
    settings: Studies,
    edit: Edit,
    seed: int,
    made: Path,
    device: torch.device,
) -> None:
    """Make whole images of the collages by one method, one at a time.

    Args:
        images: shards of real images, which parts come from.
        parts: their table of parts.
        encoder: weight file of the run's encoder, or of the one that the method is about.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        model: files of a translation's network, see `open_translation`; empty for other methods.
        names: names of the parts from back to front, the background first.
        method: a key of `TITLES`.
        settings: the config section.
        edit: the config section with the precision of the inversion.
        seed: seed of the run.
        made: NPZ to write, with the images, their masked L1, the seconds of each, the collages, and the names of the
            images that their parts come from.
        device: where to compute.
    """
    how = settings.comparison
    image_ids, pixels = read_shards(images)
    reconstruct, used = _opened(method, settings, edit, encoder, generator, precision, model, device)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("pixels", "collages", "sources", "l1")}
    seconds = []
    with Progress(f"{STUDY} ({method})", how.collages) as progress:
        for layers in draw_collages(image_ids, pixels, parts, names, how.collages, STUDY, seed, device, at_once=1):
            collage, known = lay(layers)
            if not seconds and method not in get_args(OptimizationMethod):
                reconstruct(layers, collage, known)  # the first call is slower than the others
            start = time.perf_counter()
            output = reconstruct(layers, collage, known)
            rows["l1"].append(masked_l1(collage, output, known).cpu().numpy())  # waits for the device
            seconds.append(time.perf_counter() - start)
            rows["pixels"].append(as_pixels(output).cpu().numpy())
            rows["collages"].append(as_pixels(collage).cpu().numpy())
            rows["sources"].append(layers.names)
            progress.advance(1)
    write_arrays(
        made,
        seconds=np.array(seconds),
        precision=np.array(used),
        **{name: np.concatenate(found) for name, found in rows.items()},
    )


def _opened(
    method: str,
    settings: Studies,
    edit: Edit,
    encoder: Path,
    generator: Path,
    precision: Path,
    model: list[Path],
    device: torch.device,
) -> tuple[Callable[[Layers, Tensor, Tensor], Tensor], str]:
    """Return a function from layers, collages and known pixels to whole images (n, 3, H, W), and its precision."""
    if method == "poisson":
        return lambda layers, collage, known: blend_layers(layers), "float32"
    opened: Editor
    if method in get_args(TranslationMethod):
        opened = open_translation(method, model, device)
    elif method in get_args(OptimizationMethod):
        inverter = OptimizingInverter(encoder, generator, method, settings.comparison.steps, device)
        opened = LatentRegressionEditor(inverter)
    else:
        opened = LatentRegressionEditor(
            open_inverter(encoder, generator, device, edit.precision, precision, compile=False)
        )

    def reconstruct(_: Layers, collage: Tensor, known: Tensor) -> Tensor:
        masks = Masks(torch.zeros_like(known), 1 - known)
        composite = opened(collage, collage, masks)
        return finish(collage, collage, composite, masks, "region" if method == "finished" else "none")

    return reconstruct, opened.precision


@stage(revision=3)
def study_comparison(
    *,
    made: list[Path],
    methods: list[str],
    held_out: list[Path],
    names: list[str],
    data: AvatarData | None,
    of_paper: str | None,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    cache: Path,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Compare what the methods made of the same collages.

    Density is the mean over groups of a fifth of the collages, masked L1 and seconds over collages. The Fréchet
    distance of so few images has no interval, and can be compared between rows alone. Of avatars it is known which
    image a collage should become, and the PSNR to it is the mean over the collages that have one.

    Args:
        made: NPZ of `reconstruct_collages` for each method.
        methods: keys of `TITLES`, in the same order.
        held_out: shards of other real images, the reference of quality.
        names: names of the parts from back to front.
        data: the config section of the dataset, if it draws every part; None if ideal images are unknown.
        of_paper: family and domain of a generator in the paper's Tables 4 and 5, such as "progan church", whose figures
            are then put beside.
        settings: the config section.
        evaluate: the config section with the number of reference images and the confidence level.
        run: name of the run, stored in the file.
        cache: folder of cached features.
        table: table to write, with rows for each method, and how much larger the figures of one are than another's.
        pictures: NPZ to write, with the first collages for the figure.
        device: where to compute.
    """
    extractor = load_perceptual("alex")
    reference = extract_features(held_out, extractor, device, limit=evaluate.images, cache=cache)
    found = {method: dict(np.load(path)) for method, path in zip(methods, made, strict=True)}
    stored = {COLLAGES: found[methods[0]]["collages"]} | {TITLES[name]: found[name]["pixels"] for name in methods}
    measured: dict[tuple[str, str], np.ndarray] = {}
    for title, pixels in stored.items():
        features = features_of(pixels, extractor, device)
        groups = [density_and_coverage(reference, group, device=device) for group in groups_of(features)]
        measured[title, DENSITY] = np.array([group.density for group in groups])
        measured[title, FRECHET] = np.array([frechet_distance(reference, features)])
    ideal = _ideal_images(found[methods[0]]["sources"], names, data)
    if ideal:
        for title, pixels in stored.items():
            pairs = [[torch.tensor(each) / 127.5 - 1 for each in (pixels[n], ideal[n])] for n in ideal]
            measured[title, PSNR] = np.array([peak_signal_to_noise(*pair) for pair in pairs])
        blank = np.full_like(stored[COLLAGES][0], 255)
        stored[IDEAL] = np.stack([ideal.get(number, blank) for number in range(len(stored[COLLAGES]))])
    of_one_pass = float(np.median(found["latent-regression"]["seconds"]))
    for method in methods:
        measured[TITLES[method], L1] = found[method]["l1"]
        measured[TITLES[method], SECONDS] = found[method]["seconds"]
        if method in get_args(OptimizationMethod):
            measured[TITLES[method], RATIO] = found[method]["seconds"] / of_one_pass
    quoted = {
        (TITLES[method], metric): figure
        for method, figures in PAPER.get(of_paper or "", {}).items()
        for metric, figure in zip((L1, SECONDS), figures, strict=True)
    }
    rows = [
        mean_row(STUDY, title, metric, values, evaluate.confidence, quoted.get((title, metric)))
        for (title, metric), values in measured.items()
    ]
    rows += [not_done(STUDY, name, L1) for name in LACKING]
    rows += [not_done(STUDY, title, L1) for method, title in TITLES.items() if method not in methods]
    for other, ours, metric in _orderings(methods):
        difference = measured[other, metric] - measured[ours, metric]
        rows.append(mean_row(STUDY, over(other, ours), metric, difference, evaluate.confidence))
    write_rows(table, rows, settings.comparison, run, made, str(found["latent-regression"]["precision"]))
    write_arrays(
        pictures, columns=np.array(list(stored)), pixels=np.stack([found[:SHOWN] for found in stored.values()], axis=1)
    )


def _ideal_images(sources: np.ndarray, names: list[str], data: AvatarData | None) -> dict[int, np.ndarray]:
    """Return what collages should become, uint8 (H, W, 3), by their number; without those that no drawing shows.

    Args:
        sources: names of the images that the parts come from, str (n, c).
        names: names of the parts.
        data: the config section of avatars; None for other images.
    """
    if data is None:
        return {}
    found = {}
    for number, images in enumerate(sources):
        face = combine_faces({part: face_of(data, image) for part, image in zip(names, images, strict=True)})
        if face is not None:
            found[number] = render_image(face, data.resolution, data.crop)
    return found


def _orderings(methods: list[str]) -> list[tuple[str, str, str]]:
    """Return what the paper finds: optimisation fits the collage better than one pass, and is less realistic."""
    optimised = [TITLES[name] for name in methods if name in ("lbfgs", "encode-lbfgs")]
    return [(OURS, title, L1) for title in optimised] + [(title, OURS, DENSITY) for title in optimised]
