"""Recognition of the network of a published state dict by its keys and shapes.

The keys are those of the weights of Chai et al. 2021: ProGAN as converted for GAN dissection (Bau et al. 2019), in its
newer and older naming, StyleGAN2 as in its common PyTorch conversion, and encoders as saved by the paper's code.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from pipeline_lib.networks.encoder import BLOCKS, SMALL_BELOW, ResNetEncoder
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.errors import WeightsError

State = dict[str, Tensor]

STYLE_DIM = 512  # of every published style generator
WPLUS_RESIZE = 256  # side in pixels to which the published W+ encoders resize images


def recognise(content: Any, name: str, resolution: int | None = None) -> tuple[nn.Module, State]:
    """Build the network of a published file, and rename its state dict to our keys.

    Args:
        content: result of `torch.load`.
        name: name of the file, for errors.
        resolution: resolution of the images, which cannot be inferred for a ProGAN encoder.

    Raises:
        WeightsError: the network is unknown or incomplete.
    """
    if not isinstance(content, dict):
        raise WeightsError(f"{name}: contains a {type(content).__name__}, expected a state dict")
    if "g_ema" in content:
        return _stylegan2(dict(content["g_ema"]), content.get("latent_avg"), name)
    state = dict(content.get("state_dict", content))
    if "features.0.conv.weight" in state:
        state = _from_older_names(state)
    if "layer1.conv.weight" in state:
        return _progan(state), state
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        return _encoder(state, name, resolution)
    found = ", ".join(map(str, itertools.islice(state, 3)))
    raise WeightsError(
        f"{name}: neither a ProGAN or StyleGAN2 generator nor an encoder of one; its first keys are {found}"
    )


def _stylegan2(state: State, mean_latent: Tensor | None, name: str) -> tuple[nn.Module, State]:
    if mean_latent is None:
        raise WeightsError(f"{name}: has `g_ema` but no `latent_avg`, the mean latent; convert it again")
    try:
        channels = [state["conv1.conv.weight"].shape[1]]
        style_dim = state["style.1.weight"].shape[0]
    except KeyError as missing:
        raise WeightsError(f"{name}: a StyleGAN2 generator without {missing}") from None
    channels += [state[f"convs.{layer}.conv.weight"].shape[1] for layer in _numbers(state, "convs.{}.conv.weight")[::2]]
    depth = len(_numbers(state, "style.{}.weight", first=1))
    generator = StyleGAN2Generator(2 ** (len(channels) + 1), channels, style_dim, depth)
    return generator, state | {"latent_avg": mean_latent.reshape(-1)}


def _progan(state: State) -> nn.Module:
    layers = _numbers(state, "layer{}.conv.weight", first=1)
    channels = [state[f"layer{layer}.conv.weight"].shape[0] for layer in layers[::2]]
    sizes = [4 * 2**number for number in range(len(channels))]
    heads = [size for size in sizes if f"output_{size}x{size}.conv.weight" in state]
    return ProGANGenerator(sizes[-1], channels, state["layer1.conv.weight"].shape[1], heads or sizes[-1:])


def _from_older_names(state: State) -> State:
    """Rename `features.N` to `layer(N+1)` and `output` to the RGB head of the full resolution."""
    size = 4 * 2 ** ((len(_numbers(state, "features.{}.conv.weight")) - 1) // 2)
    renamed = {}
    for key, value in state.items():
        block, _, rest = key.partition(".")
        if block == "features":
            number, _, rest = rest.partition(".")
            block = f"layer{int(number) + 1}"
        elif block == "output":
            block = f"output_{size}x{size}"
        renamed[f"{block}.{rest}"] = value
    return renamed


def _encoder(state: State, name: str, resolution: int | None) -> tuple[nn.Module, State]:
    """Encoders into z end in `fc`, those into W+ in a 1x1 convolution, which is equivalent after pooling."""
    blocks = tuple(len(_numbers(state, f"layer{stage}.{{}}.conv1.weight")) for stage in range(1, 5))
    depth = next((depth for depth, count in BLOCKS.items() if count == blocks), None)
    if depth is None:
        raise WeightsError(f"{name}: an encoder with {blocks} blocks per stage; known are {BLOCKS}")
    width, inputs = state["conv1.weight"].shape[:2]
    if "layer5.conv5.weight" in state:
        state["fc.weight"] = state.pop("layer5.conv5.weight").flatten(1)
        state["fc.bias"] = state.pop("layer5.conv5.bias")
        shape = (len(state["fc.bias"]) // STYLE_DIM, STYLE_DIM)
        return ResNetEncoder(shape, width, inputs == 4, 0.0, depth=depth, resize=WPLUS_RESIZE), state
    if "fc.bias" not in state:
        raise WeightsError(f"{name}: an encoder without a last layer; fc.bias (or layer5.conv5.bias) is missing")
    if resolution is None:
        raise WeightsError(
            f"{name}: an encoder into z, whose first strides depend on the resolution of its images; set it"
        )
    small = resolution < SMALL_BELOW
    return ResNetEncoder((len(state["fc.bias"]),), width, inputs == 4, 0.5, small, depth), state


def _numbers(state: State, pattern: str, first: int = 0) -> list[int]:
    """Return the numbers, from `first` on, for which the state has the key."""
    return list(itertools.takewhile(lambda number: pattern.format(number) in state, itertools.count(first)))
