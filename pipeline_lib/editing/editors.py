"""The editors that a config can name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.config import Edit, Inpainting, Poisson
from pipeline_lib.editing.editor import Editor, EditRequest
from pipeline_lib.editing.inpainting import InpaintingEditor
from pipeline_lib.imaging.collages import Masks, make_collage
from pipeline_lib.imaging.membrane import spread_inwards
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.runtime.errors import ConfigError


class LatentRegressionEditor:
    """The collage passes once through the masked encoder and the frozen generator (paper Eq. 4)."""

    def __init__(self, inverter: Inverter):
        self._inverter = inverter
        self.precision = inverter.precision

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        return self._inverter(make_collage(context, donor, masks.pasted), masks.known)


class PoissonEditor:
    """The region takes its gradients from the donor and the colours of its rim from the context.

    This is seamless cloning (Pérez, Gangnet and Blake 2003): the donor plus a membrane that is the two images'
    difference along the rim. What is unknown to other editors comes from the donor as well.
    """

    precision = "float32"

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        cloned = donor + spread_inwards(context - donor, masks.region)
        return torch.where(masks.region.bool(), cloned.clamp(-1, 1), context)


def open_editor(
    settings: Edit,
    encoder: list[Path],
    generator: list[Path],
    precision: list[Path],
    device: torch.device,
    compile: bool | None = None,
) -> Editor:
    """Open the editor that the config names.

    Args:
        settings: the config section.
        encoder: its weight file; empty for an editor that needs none.
        generator: likewise.
        precision: report of the encoder's training, likewise.
        device: where to compute.
        compile: whether to compile networks; None: on a GPU.

    Raises:
        ConfigError: the editor needs weights that are not given.
        WeightsError: its model cannot be used.
    """
    if isinstance(settings.editor, Poisson):
        return PoissonEditor()
    if isinstance(settings.editor, Inpainting):
        return InpaintingEditor(settings.editor, device)
    if not (encoder and generator and precision):
        raise ConfigError(
            f"`rebalance.edit.editor`: {settings.editor.kind} needs an encoder and its generator; none are given"
        )
    return LatentRegressionEditor(open_inverter(encoder[0], generator[0], device, precision[0], compile))
