"""Editors that are networks of their own, without a pretrained generator (paper 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.config import TranslationMethod
from pipeline_lib.editing.editor import EditRequest
from pipeline_lib.imaging.collages import Masks, make_collage
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.segmenter import Segmenter
from pipeline_lib.studies.methods.translation import LayoutGenerator, ResNetTranslator, layout_of


class CycleEditor:
    """Translates the collage, grey where it is unknown, to an image (Zhu et al. 2017)."""

    precision = "float32"

    def __init__(self, translator: ResNetTranslator):
        self._translator = translator

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        return self._translator(make_collage(context, donor, masks.pasted) * masks.known)


class FillingEditor:
    """Keeps what is known of the collage, and fills the rest."""

    precision = "float32"

    def __init__(self, translator: ResNetTranslator):
        self._translator = translator

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        collage = make_collage(context, donor, masks.pasted)
        made = self._translator(torch.cat([collage * masks.known, masks.known], dim=1))
        return torch.where(masks.known.bool(), collage, made)


class LayoutEditor:
    """Segments the collage, and draws an image from its parts alone (Park et al. 2019)."""

    precision = "float32"

    def __init__(self, generator: LayoutGenerator, segmenter: Segmenter):
        self._generator, self._segmenter = generator, segmenter
        codes = [generator.parts.index(part) if part in generator.parts else 0 for part in segmenter.parts]
        self._codes = torch.tensor(codes, device=next(generator.parameters()).device)

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor:
        found = self._codes[self._segmenter(make_collage(context, donor, masks.pasted))]
        return self._generator(layout_of(found, masks.known, len(self._generator.parts)))


def open_translation(
    method: TranslationMethod, model: Sequence[Path], device: torch.device
) -> CycleEditor | FillingEditor | LayoutEditor:
    """Open an editor of its weight file, with that of the segmenter after it if it draws from parts.

    Raises:
        WeightsError: a file cannot be used.
    """
    if method == "spade":
        return LayoutEditor(load_weights(model[0], LayoutGenerator, device), load_weights(model[1], Segmenter, device))
    editor = CycleEditor if method == "cyclegan" else FillingEditor
    return editor(load_weights(model[0], ResNetTranslator, device))
