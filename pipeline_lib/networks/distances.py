"""Perceptual distances by name, either shift-tolerant LPIPS from an installed package or LPIPS on a given backbone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline_lib.imaging.distances import check_pairs
from pipeline_lib.networks.perceptual import Perceptual, load_perceptual
from pipeline_lib.runtime.errors import WeightsError

#: Weight files of the backbones in torchvision's cache, and the constructors that download them.
TRUNKS = {
    "alex": ("alexnet-owt-7be5be79.pth", "alexnet"),
    "vgg": ("vgg16-397923af.pth", "vgg16"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1"),
}


class Lpips(nn.Module):
    """The distance of Zhang et al. 2018 by the package `lpips`, which includes its channel weights.

    Args:
        network: the backbone.
        trunk: weights of the backbone, as torchvision publishes them.

    Raises:
        WeightsError: the weights of the backbone cannot be used.
    """

    def __init__(self, network: Literal["alex", "vgg", "squeeze"], trunk: Path):
        import lpips

        super().__init__()
        self.name = f"LPIPS {network} 0.1"
        with warnings.catch_warnings():  # torchvision warns of a deprecated argument that lpips uses
            warnings.simplefilter("ignore", UserWarning)
            self._distance = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        self._load_trunk(trunk)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, float (n,), 0 for equal images.

        Args:
            a: images (n, 3, H, W) in [-1, 1], H and W of at least 32.
            b: images of the same shape.
        """
        with torch.autocast(a.device.type, enabled=False):  # as in `Perceptual`
            return self._distance(a.float(), b.float()).flatten()

    def _load_trunk(self, path: Path) -> None:
        """Load torchvision's `features.<layer>` into the slices into which lpips splits a backbone."""
        try:
            given = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load documents no closed set of errors for a damaged file
            raise WeightsError(f"{path}: not a readable weight file ({error}); download it again") from error
        wanted = self._distance.net.state_dict()
        state = {name: given.get(f"features.{name.partition('.')[2]}") for name in wanted}
        unfit = [name for name, value in state.items() if value is None or value.shape != wanted[name].shape]
        if unfit:
            missing = f"features.{unfit[0].partition('.')[2]}"
            raise WeightsError(f"{path}: not the backbone of {self.name}; {missing} is missing or has another shape")
        self._distance.net.load_state_dict(state)


PerceptualDistance = Perceptual | Lpips


def open_distance(name: str) -> PerceptualDistance:
    """Open a perceptual distance; the backbones of LPIPS are in torch's cache of downloads (TORCH_HOME).

    Args:
        name: stlpips-alex, stlpips-vgg, lpips-alex, lpips-vgg or lpips-squeeze.

    Raises:
        WeightsError: the weights are missing or cannot be used.
    """
    family, network = name.split("-")
    if family == "stlpips":
        return load_perceptual(network)
    file, constructor = TRUNKS[network]
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not path.is_file():
        raise WeightsError(
            f"{path}: no backbone weights for {name}; download them with "
            f"`python -c \"import torchvision; torchvision.models.{constructor}(weights='IMAGENET1K_V1')\"`"
        )
    return Lpips(network, path)


@torch.inference_mode()
def perceptual_distances(
    perceptual: PerceptualDistance, images: Tensor, reconstructions: Tensor, mask: Tensor | None = None, batch: int = 64
) -> Tensor:
    """Return the perceptual distance of each pair, float (n,), in batches and without gradients.

    Args:
        perceptual: the network, on the images' device.
        images: (n, 3, H, W) in [-1, 1].
        reconstructions: of the same shape and range.
        mask: (n, 1, H, W), true or 1 for pixels that count; the others are set to mid-grey in both images.
        batch: pairs at a time.

    Raises:
        ValueError: the shapes do not match.
    """
    check_pairs(images, reconstructions, mask)
    if mask is not None:
        images, reconstructions = images * mask, reconstructions * mask
    pairs = zip(images.split(batch), reconstructions.split(batch), strict=True)
    return torch.cat([perceptual(first, second) for first, second in pairs])
