"""Shift-tolerant perceptual distance and features (Ghildyal & Liu, ECCV 2022), with weights from a Python package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.runtime.errors import WeightsError

PACKAGE = "stlpips_pytorch"
INSTALL = "pip install stlpips-pytorch==0.0.2"
TITLES = {"alex": "shift-tolerant AlexNet", "vgg": "shift-tolerant VGG16"}

# Mean and standard deviation of ImageNet's colours, for pixels in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class BlurPool(nn.Module):
    """Halve the size after a binomial blur [1 2 1] x [1 2 1] / 16, reflected by two pixels at the border."""

    def forward(self, x: Tensor) -> Tensor:
        # Two 2x2 average pools equal this blur, at a fraction of the cost of a depthwise convolution on a CPU.
        return F.avg_pool2d(F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 2, stride=1), 2, stride=2)


class Perceptual(nn.Module):
    """A frozen backbone with learned channel weights, for distances between images and for image features.

    Gradients flow to the images, but not to the weights.

    Args:
        network: the backbone.
        name: name of backbone and weights, stored with every metric.
    """

    def __init__(self, network: Literal["alex", "vgg"], name: str):
        super().__init__()
        self.network = network
        self.name = name
        layers, self.taps, widths = _alex_layers() if network == "alex" else _vgg_layers()
        self.trunk = nn.Sequential(*layers)
        self.channel_weights = nn.ParameterList(torch.ones(1, width, 1, 1) for width in widths)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, float (n,), 0 for equal images (Zhang et al. 2018, Eq. 1).

        Args:
            a: images (n, 3, H, W) in [-1, 1], H and W of at least 32.
            b: images of the same shape.
        """
        total = torch.zeros((), device=a.device)
        with torch.autocast(a.device.type, enabled=False):  # bfloat16 is off by a quarter for nearly equal images
            for weight, of_a, of_b in zip(
                self.channel_weights, self._blocks(a.float()), self._blocks(b.float()), strict=True
            ):
                difference = (_unit_channels(of_a) - _unit_channels(of_b)).square()
                total = total + (difference * weight).sum(dim=1).mean(dim=(1, 2))
        return total

    def features(self, images: Tensor) -> Tensor:
        """Return the spatial mean of the last block, (n, 256) for alex and (n, 512) for vgg.

        Args:
            images: (n, 3, H, W) in [-1, 1], H and W of at least 32.
        """
        return self._blocks(images)[-1].float().mean(dim=(2, 3))

    def _blocks(self, images: Tensor) -> list[Tensor]:
        """Return the activations at the end of each block."""
        x = (images.contiguous(memory_format=torch.channels_last) - self.shift) / self.scale
        activations = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.taps:
                activations.append(x)
        return activations


def load_perceptual(network: Literal["alex", "vgg"]) -> Perceptual:
    """Load a backbone from the installed package `stlpips_pytorch`, without running its code.

    Args:
        network: alex (10 MB, 0.3 GMAC an image at 64 pixels) or vgg (59 MB, 1.25 GMAC).

    Returns:
        The network in evaluation mode and channels-last layout, frozen, on the CPU.

    Raises:
        WeightsError: the package is missing, or its weight file is missing, damaged or of another format.
    """
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise WeightsError(f"perceptual network `{network}`: no package {PACKAGE}; run `{INSTALL}`") from None
    path = Path(package.locate_file(f"{PACKAGE}/weights/vST0.0/{network}_shift_tolerant.pth"))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents no closed set of errors for a damaged file
        raise WeightsError(f"{path}: not a readable weight file ({error}); run `{INSTALL}`") from error
    perceptual = Perceptual(network, f"{TITLES[network]} (stlpips {package.version})")
    try:
        perceptual.load_state_dict(_rename(state))
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise WeightsError(f"{path}: not the weights of this network ({problem}); run `{INSTALL}`") from None
    return perceptual.to(memory_format=torch.channels_last)


def _rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's tensors to our keys; constants (colour scaling, blur filters) are dropped."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "net" and parts[-1] in ("weight", "bias"):  # net.slice<block>.<layer>.<weight or bias>
            renamed[f"trunk.{parts[-2]}.{parts[-1]}"] = value
        elif parts[0].startswith("lin"):  # lin<block>.model.1.weight
            renamed[f"channel_weights.{parts[0].removeprefix('lin')}"] = value
    return renamed


def _unit_channels(x: Tensor) -> Tensor:
    """Scale each position's feature vector to unit length; vector_norm's gradient is finite at zero vectors."""
    x = x.float()
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10)


def _alex_layers() -> tuple[list[nn.Module], tuple[int, ...], tuple[int, ...]]:
    """Return AlexNet's layers, the indices after which a block ends, and the blocks' widths."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 11, padding=2),  # stride 1; the blur after it halves the size
        BlurPool(),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=1),
        BlurPool(),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=1),
        BlurPool(),
    ]
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return layers, (2, 6, 10, 12, 14), (64, 192, 384, 256, 256)


def _vgg_layers() -> tuple[list[nn.Module], tuple[int, ...], tuple[int, ...]]:
    """Return VGG16's layers, the indices after which a block ends, and the blocks' widths."""
    layers: list[nn.Module] = []
    taps, widths, inputs = [], (64, 128, 256, 512, 512), 3
    for block, (width, depth) in enumerate(zip(widths, (2, 2, 3, 3, 3), strict=True)):
        if block:
            layers += [nn.MaxPool2d(2, stride=1), BlurPool()]
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        taps.append(len(layers) - 1)
    return layers, tuple(taps), widths
