"""Several ways to make whole images of the same collages of real images (paper 4.2, Fig. 6, Tables 4 and 5)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import OptimizationMethod, Size, TranslationMethod
from pipeline_lib.data.avatars.drawing import render_image
from pipeline_lib.data.avatars.faces import combine_faces, face_of
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import Masks
from pipeline_lib.imaging.distances import masked_l1, peak_signal_to_noise
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.inversion import open_inverter
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.catalogue import SCALES, STUDIES
from pipeline_lib.studies.collages import Layers, PartImages, blend_layers, lay
from pipeline_lib.studies.methods.optimization import OptimizingInverter
from pipeline_lib.studies.methods.pyramid import PyramidEncoder  # noqa: F401 (weights of one can then be opened)
from pipeline_lib.studies.methods.translation import open_translation
from pipeline_lib.studies.study import DENSITY, FRECHET, Findings, Realism, Study

L1, SECONDS = TABLED = "masked L1", "seconds an image"
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
@stage(revision=4)
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
    size: Size,
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
        size: that of the studies.
        seed: seed of the run.
        made: NPZ to write, with the images, their masked L1, the seconds of each, the collages, and the names of the
            images that their parts come from.
        device: where to compute.
    """
    count, steps = STUDIES["comparison"].count(size), SCALES[size].optimization_steps
    found = PartImages(images, parts, names)
    is_optimized = method in get_args(OptimizationMethod)
    if method in get_args(TranslationMethod):
        invert = open_translation(method, model, device)
    elif is_optimized:
        invert = OptimizingInverter(encoder, generator, method, steps, device)
    elif method != "poisson":
        invert = open_inverter(encoder, generator, device, precision, compile=False)

    def reconstruct(layers: Layers, collage: Tensor, known: Tensor) -> Tensor:
        if method == "poisson":
            return blend_layers(layers)
        made = invert(collage, known)
        if method == "finished":
            return finish(collage, collage, made, Masks(torch.zeros_like(known), 1 - known), "region")
        return made

    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("pixels", "collages", "sources", "l1")}
    seconds = []
    with Progress(f"comparison ({method})", count) as progress:
        for number in range(count):
            layers = found.draw([number], "comparison", seed, device)
            collage, known = lay(layers)
            if not seconds and not is_optimized:
                reconstruct(layers, collage, known)  # the first call is slower than the others
            start = time.perf_counter()
            output = reconstruct(layers, collage, known)
            rows["l1"].append(masked_l1(collage, output, known).cpu().numpy())  # waits for the device
            seconds.append(time.perf_counter() - start)
            rows["pixels"].append(as_pixels(output).cpu().numpy())
            rows["collages"].append(as_pixels(collage).cpu().numpy())
            rows["sources"].append(layers.names)
            progress.advance(1)
    arrays = {name: np.concatenate(batches) for name, batches in rows.items()}
    with atomic_path(made) as beside, beside.open("wb") as file:
        np.savez_compressed(file, seconds=np.array(seconds), **arrays)


def measure(study: Study, device: torch.device) -> None:
    """Compare what `reconstruct_collages` made of the same collages by each method, whose names its files have.

    Density is the mean over groups of a fifth of the collages, masked L1 and seconds over collages. The Fréchet
    distance of so few images has no interval, and can be compared between rows alone. Of avatars it is known which
    image a collage should become, and the PSNR to it is the mean over the collages that have one.
    """
    by_method = {path.stem: dict(np.load(path)) for path in study.made}
    one_pass = by_method["latent-regression"]
    stored = {COLLAGES: one_pass["collages"]} | {TITLES[name]: made["pixels"] for name, made in by_method.items()}
    found, realism = Findings(study), Realism(study, device)
    for title, pixels in stored.items():
        realism.add(title, pixels)
        found.values[title, FRECHET].append(realism.of_all(title))
    found.values |= realism.by_group(DENSITY)
    if ideal := _ideal_images(one_pass["sources"], study.names, study.data):
        for title, pixels in stored.items():
            pairs = [[torch.tensor(each) / 127.5 - 1 for each in (pixels[n], ideal[n])] for n in ideal]
            found.values[title, PSNR].append(np.array([peak_signal_to_noise(*pair) for pair in pairs]))
        blank = np.full_like(stored[COLLAGES][0], 255)
        stored[IDEAL] = np.stack([ideal.get(number, blank) for number in range(len(stored[COLLAGES]))])
    for method, made in by_method.items():
        found.values[TITLES[method], L1].append(made["l1"])
        found.values[TITLES[method], SECONDS].append(made["seconds"])
        if method in get_args(OptimizationMethod):
            found.values[TITLES[method], RATIO].append(made["seconds"] / float(np.median(one_pass["seconds"])))
    for row in zip(*stored.values(), strict=True):
        found.show_pixels(row)
    # the paper finds that optimisation fits the collage better than one pass, and is less realistic
    optimised = [TITLES[name] for name in ("lbfgs", "encode-lbfgs") if name in by_method]
    quoted = PAPER.get(study.published or "", {})
    found.write(
        list(stored),
        differences=[(OURS, title, L1) for title in optimised] + [(title, OURS, DENSITY) for title in optimised],
        paper={(TITLES[name], metric): of[place] for name, of in quoted.items() for place, metric in enumerate(TABLED)},
        lacking=[(name, L1) for name in (*LACKING, *(TITLES[method] for method in TITLES if method not in by_method))],
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
