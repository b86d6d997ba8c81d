"""The paper's editor: the collage passes once through the masked encoder and the frozen generator (paper Eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.editing.editor import EditorSection, EditRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline_lib.imaging.collages import Masks
    from pipeline_lib.networks.inversion import Inverter


class LatentRegression(EditorSection):
    """The keys of the paper's editor."""

    description = (
        "the collage was passed once through a masked latent-regression encoder and a frozen GAN (Chai, Wulff and "
        "Isola, ICLR 2021, section A.2.1)"
    )
    inverts = True

    kind: Literal["latent-regression"] = Field("latent-regression", description="encoder and generator")

    def open(self, device: torch.device, inverter: Inverter | None) -> LatentRegressionEditor:
        return LatentRegressionEditor(inverter)


class LatentRegressionEditor:
    """The paper's editor with its networks."""

    def __init__(self, inverter: Inverter):
        self._inverter = inverter
        self.precision = inverter.precision

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        from pipeline_lib.imaging.collages import make_collage

        return self._inverter(make_collage(context, donor, masks.pasted), masks.known)
