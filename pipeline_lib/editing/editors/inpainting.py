"""Inpainting by a diffusion model: the region is masked and drawn anew as a prompt says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Count, Folder
from pipeline_lib.editing.editor import EditorSection, EditRequest
from pipeline_lib.runtime.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline_lib.config import Rebalance
    from pipeline_lib.imaging.collages import Masks
    from pipeline_lib.networks.inversion import Inverter

logger = logging.getLogger(__name__)

STEPS, GUIDANCE = 30, 7.5  # denoising steps, and weight of the prompt (classifier-free guidance), as usual
BATCH = 8  # images drawn at a time


class Inpainting(EditorSection):
    """A diffusion model that draws the region anew; it needs no donor, whose part only gives the region its shape."""

    description = "a diffusion model drew it as a prompt for the target value says"
    takes_donor = False
    packages = ("diffusers",)

    kind: Literal["inpainting"] = Field(description="an inpainting pipeline of the library diffusers")
    path: Folder = Field(description="its folder, as `save_pretrained` writes it, with safetensors weights")
    present: str = Field(description="prompt for a part that has the attribute, such as `a smiling mouth`")
    absent: str = Field(description="prompt for a part that does not, such as `a serious mouth`")
    side: Annotated[Count, Field(multiple_of=8)] | None = Field(
        512, description="side at which the model draws, in pixels, a multiple of 8; null: that of the images"
    )

    def check(self, settings: Rebalance) -> None:
        if len(settings.edited) > 1:
            raise ValueError("`edit.editor: inpainting` has prompts for one attribute; make a run for each attribute")

    def open(self, device: torch.device, inverter: Inverter | None) -> InpaintingEditor:
        return InpaintingEditor(self, device)


class InpaintingEditor:
    """A pipeline of the library diffusers in a local folder. Of the donor only the shape of the region is used.

    Nothing is downloaded, and no code of the folder is run: weights are read from safetensors files. A safety checker
    of the pipeline is left out, since an image that it blackens would be stored as an edit.

    Args:
        settings: the config section.
        device: where to compute; in half precision on a GPU.

    Raises:
        WeightsError: the library is missing, or the folder holds no such pipeline.
    """

    def __init__(self, settings: Inpainting, device: torch.device):
        import torch

        self._settings = settings
        self._device = device
        self.precision = "float16" if device.type == "cuda" else "float32"
        self._pipeline = _open(settings.path, getattr(torch, self.precision)).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        if getattr(self._pipeline, "safety_checker", None) is not None:
            logger.info("%s: its safety checker is left out", settings.path)
            self._pipeline.safety_checker = None

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        """Draw the region of each image (n, 3, H, W) in [-1, 1] anew; an image's noise depends on its seed alone."""
        if request is None:
            raise ValueError("inpainting draws a part by a prompt, and needs to know which")
        import torch

        chunks = zip(
            *(rows.split(BATCH) for rows in (context, masks.region, request.wanted, request.seeds)),
            strict=True,
        )
        return torch.cat([self._draw(*chunk) for chunk in chunks])

    def _draw(self, images: Tensor, region: Tensor, wanted: Tensor, seeds: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        settings, own = self._settings, images.shape[-1]
        side = settings.side or own
        large = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        drawn = self._pipeline(
            prompt=[settings.present if value else settings.absent for value in wanted.tolist()],
            image=(large + 1) / 2,
            mask_image=F.interpolate(region, (side, side)),
            height=side,
            width=side,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds.tolist()],
            output_type="pt",
        ).images.to(images)
        return F.interpolate(drawn, (own, own), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1) * 2 - 1


def _open(folder: Path, dtype: torch.dtype) -> Any:
    try:
        from diffusers import AutoPipelineForInpainting
    except ImportError:
        raise WeightsError(
            "`rebalance.edit.editor`: inpainting needs diffusers; run `pip install latent-rebalance[inpainting]`"
        ) from None
    try:
        return AutoPipelineForInpainting.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"{folder}: no inpainting pipeline of diffusers with safetensors weights ({_first_line(error)}); give the "
            "folder that `save_pretrained` wrote"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
