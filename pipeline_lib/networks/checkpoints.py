"""Loading and saving of weights, as safetensors with a header that describes the network."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pipeline_lib.networks.backbone import BackboneClassifier
from pipeline_lib.networks.classifier import PlainClassifier, ResidualClassifier
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.onnx_model import OnnxClassifier, OnnxSegmenter
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.published import recognise
from pipeline_lib.networks.segmenter import UNetSegmenter
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.networks.transformers_model import TransformersClassifier, TransformersSegmenter
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.files import atomic_path, digest_of_files
from pipeline_lib.runtime.revisions import made_by

ARCHITECTURES: dict[str, type[nn.Module]] = {
    network.architecture: network
    for network in (
        StyleGAN2Generator,
        ProGANGenerator,
        Discriminator,
        ResNetEncoder,
        PlainClassifier,
        ResidualClassifier,
        BackboneClassifier,
        OnnxClassifier,
        TransformersClassifier,
        UNetSegmenter,
        OnnxSegmenter,
        TransformersSegmenter,
    )
}


def register(network: type[nn.Module]) -> type[nn.Module]:
    """Let `load_weights` know a network of another room, as a decorator of its class."""
    ARCHITECTURES[network.architecture] = network
    return network


def save_weights(path: str | Path, network: nn.Module, provenance: dict[str, Any], half: bool = False) -> None:
    """Write a network's weights as safetensors, atomically.

    Args:
        path: the file to write.
        network: with the attributes `architecture` and `arguments`, from which `load_weights` rebuilds it.
        provenance: origin of the weights (config digest, steps, data), in the header beside the stage that writes.
        half: store floating-point weights in half precision.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    header = {"architecture": network.architecture, "arguments": network.arguments, **provenance, **made_by()}
    with atomic_path(path) as beside:
        save_file(tensors, beside, metadata={"latent_rebalance": json.dumps(header)})


def ship_weights(source: str | Path, target: str | Path) -> None:
    """Write a half-precision copy of a weight file, with its header, for distribution."""
    save_weights(target, load_weights(source), read_header(source), half=True)


def read_header(path: str | Path) -> dict[str, Any]:
    """Read the header of a weight file.

    Raises:
        WeightsError: the file is missing, damaged or has no such header.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    if "latent_rebalance" not in metadata:
        raise WeightsError(f"{path}: safetensors without this project's header; import it first")
    try:
        header = json.loads(metadata["latent_rebalance"])
    except ValueError as error:
        raise WeightsError(f"{path}: its header `latent_rebalance` is not JSON ({error}); fetch it again") from None
    values = header if isinstance(header, dict) else {}
    for key, kind in (("architecture", str), ("arguments", dict)):
        if not isinstance(values.get(key), kind):
            raise WeightsError(f"{path}: its header has no {key}; fetch it again")
    return header


def load_weights(path: str | Path, kind: type[nn.Module] = nn.Module, device: str | torch.device = "cpu") -> Any:
    """Rebuild the network of a weight file in float32, frozen and in evaluation mode.

    Args:
        path: a file written by `save_weights`.
        kind: required class of the network.
        device: device of the network.

    Raises:
        WeightsError: the file is missing, damaged, or contains another kind of network.
    """
    header = read_header(path)
    network_class = ARCHITECTURES.get(header["architecture"])
    if network_class is None or not issubclass(network_class, kind):
        raise WeightsError(f"{path}: contains a {header['architecture']}, expected a {kind.__name__}; correct the path")
    try:
        network = network_class(**header["arguments"])
    except WeightsError:
        raise
    except Exception as error:  # what a network makes of another one's arguments is no closed set of errors
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: the arguments in its header do not describe a {header['architecture']} ({reason}); "
            "download it again"
        ) from None
    with _open(path) as file:
        names = file.keys()
        state = {name: file.get_tensor(name) for name in names}
    expected = network.state_dict()
    state = {name: value.to(expected[name].dtype) if name in expected else value for name, value in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: weights do not match their header ({' '.join(str(error).split())})") from None
    return network.to(device).requires_grad_(False).eval()


def import_weights(source: str | Path, target: str | Path, resolution: int | None = None) -> nn.Module:
    """Convert published weights to a weight file, whose header has the source's name and digest.

    Args:
        source: a published `.pth` or `.pt` file.
        target: the safetensors file to write.
        resolution: resolution of the images, see `read_published`.

    Returns:
        The network, frozen and in evaluation mode.

    Raises:
        WeightsError: the source cannot be used.
    """
    network = read_published(source, resolution)
    save_weights(target, network, origin_of(Path(source)))
    return network


def load_given(path: Path, kind: type[nn.Module], resolution: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Load weights named in a config, either .safetensors or published, and return the network and its provenance.

    Args:
        path: the file.
        kind: required class of the network.
        resolution: resolution of the images, see `read_published`.

    Raises:
        WeightsError: the file cannot be used, or contains another kind of network.
    """
    if path.suffix == ".safetensors":
        return load_weights(path, kind), read_header(path)
    network = read_published(path, resolution)
    if not isinstance(network, kind):
        raise WeightsError(f"{path}: contains a {network.architecture}, expected a {kind.__name__}; correct the path")
    return network, origin_of(path)


def read_published(source: str | Path, resolution: int | None = None) -> nn.Module:
    """Read published weights of ProGAN and StyleGAN2 generators and of their masked encoders.

    Args:
        source: a published `.pth` or `.pt` file.
        resolution: resolution of the images, required for ProGAN's encoders, whose strides depend on it.

    Returns:
        The network, frozen and in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, contains more than tensors, or has no known network.
    """
    if not Path(source).is_file():
        raise WeightsError(f"{source}: no such weight file; correct the path")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{source}: refused, because it contains objects other than tensors, which could run code ({reason})"
        ) from None
    except Exception as error:  # damage can stop the reader anywhere; its errors are no closed set
        reason = " ".join(str(error).split())
        raise WeightsError(f"{source}: not a readable weight file ({reason}); it may be truncated") from None
    network, state = recognise(content, str(source), resolution)
    try:
        missing, left_over = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{source}: does not match a {network.architecture} ({reason})") from None
    if missing or left_over:
        raise WeightsError(
            f"{source}: does not match a {network.architecture}; "
            f"missing keys are {_some(missing)}, unexpected keys are {_some(left_over)}"
        )
    return network.requires_grad_(False).eval()


def origin_of(path: Path) -> dict[str, Any]:
    """Return the name and digest of a file or folder of external weights, for a header."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return {"imported_from": path.name, "source_digest": digest_of_files(*files)}


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most]) or "none"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _open(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such weight file; correct the path or run the rule that makes it")
    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); it may be truncated, so download it again"
        ) from None
