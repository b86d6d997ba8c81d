"""Poisson blending: the region takes its gradients from the donor and the colours of its rim from the context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.editing.editor import EditorSection, EditRequest

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.imaging.collages import Masks


class Poisson(EditorSection):
    """Seamless cloning (Pérez, Gangnet and Blake 2003); it needs no network.

    The composite is the donor plus a membrane that is the two images' difference along the rim. What is unknown to
    other editors comes from the donor as well.
    """

    description = (
        "its colours were fitted to those around it by Poisson blending (Pérez, Gangnet and Blake 2003), without a "
        "network"
    )
    generates = False

    kind: Literal["poisson"] = Field("poisson", description="gradients of the donor, colours of the image's rim")

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        from pipeline_lib.imaging.membrane import spread_inwards

        cloned = donor + spread_inwards(context - donor, masks.region)
        return cloned.clamp(-1, 1).where(masks.region.bool(), context)
