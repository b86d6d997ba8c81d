"""What an editor is: it makes a composite of a context, a donor and the masks of what is swapped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from pipeline_lib.config.base import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline_lib.config import Edit, Rebalance
    from pipeline_lib.imaging.collages import Masks
    from pipeline_lib.networks.inversion import Inverter


class EditRequest(NamedTuple):
    """What editors need that draw a part by themselves instead of taking it from the donor."""

    wanted: Tensor  # target value, bool (n,)
    seeds: Tensor  # of each composite's noise, int64 (n,)


class Editor(Protocol):
    """Makes composites (n, 3, H, W) in [-1, 1] of contexts and donors of that shape.

    `request` is None where an image gets a part without an aim, as in a comparison of regions.
    """

    precision: str

    def __call__(self, context: Tensor, donor: Tensor, masks: Masks, request: EditRequest | None = None) -> Tensor: ...


class EditorSection(Section):
    """A kind of editor: its keys in the config, what it needs, how it is opened and how a report describes it.

    Its key `kind` has its name. One without a network is an editor by itself, with `__call__`; others override `open`.
    """

    #: How it makes a composite, as a clause of a report.
    description: ClassVar[str]
    #: Whether it takes pixels of a donor, of which others take the shape of the part alone.
    takes_donor: ClassVar[bool] = True
    #: Whether it needs the run's encoder and generator.
    inverts: ClassVar[bool] = False
    #: Whether a network draws its pixels, which the card of a release says.
    generates: ClassVar[bool] = True
    #: Packages that make its pixels, whose versions the provenance records.
    packages: ClassVar[tuple[str, ...]] = ()
    precision: ClassVar[str] = "float32"

    @property
    def files(self) -> list[Path]:
        """Files and folders of its own model."""
        return [value for _, value in self if isinstance(value, Path)]

    def check(self, settings: Rebalance) -> None:
        """Raise a ValueError if it cannot make the edits of that config section."""

    def open(self, device: torch.device, inverter: Inverter | None) -> Editor:
        """Open it on a device; `inverter` is given to one that inverts.

        Raises:
            WeightsError: its model cannot be used.
        """
        return self


def open_editor(
    settings: Edit, encoder: list[Path], generator: list[Path], precision: list[Path], device: torch.device
) -> Editor:
    """Open the editor that the config names.

    Args:
        settings: the config section.
        encoder: its weight file; empty for an editor that needs none.
        generator: likewise.
        precision: report of the encoder's training, likewise.
        device: where to compute.

    Raises:
        WeightsError: its model cannot be used.
    """
    if not settings.editor.inverts:
        return settings.editor.open(device, None)
    from pipeline_lib.networks.inversion import open_inverter

    return settings.editor.open(device, open_inverter(*encoder, *generator, device, *precision))
