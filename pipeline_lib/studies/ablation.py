"""What an encoder loses without one of its losses (paper A.2.3, Table 2, Fig. 16)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Encoder, Evaluate, Studies
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.networks.perceptual import TITLES, load_perceptual
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.masked import masked_images
from pipeline_lib.studies.rows import mean_row, over, write_arrays, write_rows

STUDY = "ablation"
ALL, NO_LATENT, NO_PERCEPTUAL = ENCODERS = (
    "encoder with all losses", "encoder without latent loss", "encoder without perceptual loss",
)  # fmt: skip
L1, PERCEPTUAL = METRICS = "masked L1", "perceptual distance"
SHOWN = 6  # images in the figure
#: The paper's Table 2, of its ProGAN of churches: masked L1 and LPIPS with AlexNet.
PAPER = {ALL: (0.194, 0.291), NO_LATENT: (0.194, 0.305), NO_PERCEPTUAL: (0.197, 0.318)}


@torch.no_grad()
@stage(revision=1)
def study_ablation(
    *,
    images: list[Path],
    encoders: list[Path],
    generator: Path,
    like: Encoder,
    of_paper: bool,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Reconstruct masked images with encoders trained alike but for one loss, and measure the errors at known pixels.

    The perceptual distance is by another backbone than the one in the loss, as in the paper. Unknown pixels are grey in
    both images.

    Args:
        images: shards of real images, which no encoder has seen.
        encoders: weight files of the encoders, in the order of `ENCODERS`.
        generator: weight file.
        like: config section of the run's encoder, with the masks and the perceptual loss.
        of_paper: whether the generator is that of the paper's Table 2, whose figures are then put beside.
        settings: the config section.
        evaluate: the config section with the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with rows for each encoder, and how much more perceptual distance the others have.
        pictures: NPZ to write, with the first images for the figure.
        device: where to compute.

    Raises:
        DataError: fewer images than asked for.
    """
    how = settings.ablation
    judge = load_perceptual("alex" if like.training.distance.endswith("vgg") else "vgg").to(device)
    inverters = [Inverter(path, generator, device, compile=False) for path in encoders]
    errors: dict[str, list[Tensor]] = {name: [] for name in ENCODERS}
    shown = None
    for batch, known in masked_images(images, how.images, like.mask, "studies.ablation.images", seed, device):
        rebuilt = [inverter(batch, known) for inverter in inverters]
        for name, made in zip(ENCODERS, rebuilt, strict=True):
            measured = masked_l1(batch, made, known), perceptual_distances(judge, batch, made, known)
            errors[name].append(torch.stack(measured, dim=1).cpu())
        if shown is None:
            columns = torch.stack([part[:SHOWN] for part in (batch, batch * known, *rebuilt)], dim=1)
            shown = torch.stack([as_pixels(column) for column in columns.unbind(1)], dim=1).cpu().numpy()
    found = {name: torch.cat(batches).numpy() for name, batches in errors.items()}
    some_known = ~np.isnan(found[ALL]).any(axis=1)  # a mask can hide a whole image
    found = {name: values[some_known] for name, values in found.items()}
    write_rows(
        table, _rows(found, TITLES[judge.network], of_paper, evaluate.confidence), how, run, [*encoders, generator],
        "float32",
    )  # fmt: skip
    write_arrays(pictures, columns=np.array(["image", "known pixels", *ENCODERS]), pixels=shown)


def _rows(found: dict[str, np.ndarray], judge: str, of_paper: bool, confidence: float) -> list[dict[str, object]]:
    perceptual = f"{PERCEPTUAL} ({judge})"
    rows = [
        mean_row(STUDY, name, metric, values[:, column], confidence, PAPER[name][column] if of_paper else None)
        for name, values in found.items()
        for column, metric in enumerate((L1, perceptual))
    ]
    return rows + [
        mean_row(STUDY, over(name, ALL), perceptual, found[name][:, 1] - found[ALL][:, 1], confidence)
        for name in (NO_LATENT, NO_PERCEPTUAL)
    ]
