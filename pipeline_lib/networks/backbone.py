"""An attribute detector with a backbone from torchvision or timm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.preprocess import Preprocess
from pipeline_lib.runtime.errors import WeightsError


class BackboneClassifier(Detector):
    """A network of a library with one output per attribute, on images normalised with ImageNet's statistics.

    Args:
        attributes: names of the outputs, in order.
        library: library of the network.
        name: name of the network in the library, such as resnet18.
        mirror: average over an image and its mirror image.

    Raises:
        WeightsError: the library is not installed, or has no such network.
    """

    architecture = "backbone-classifier"

    def __init__(
        self, attributes: Sequence[str], library: Literal["torchvision", "timm"], name: str, mirror: bool = True
    ):
        super().__init__(attributes, 0, mirror)
        self.arguments = {"attributes": self.attributes, "library": library, "name": name, "mirror": mirror}
        self.preprocess = Preprocess(None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        self.network = _create(library, name, len(self.attributes))

    def load_pretrained(self, path: Path) -> None:
        """Load published weights of the network, except for its last layer, which has other classes.

        Raises:
            WeightsError: the file cannot be used, or is of another network.
        """
        try:
            given = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damage can stop the reader anywhere; its errors are no closed set
            raise WeightsError(f"{path}: not a readable weight file ({str(error).partition(chr(10))[0]})") from None
        own = self.network.state_dict()
        fitting = {name: value for name, value in given.items() if name in own and value.shape == own[name].shape}
        new = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
        other = [name for name in new if own[name].shape[:1] != (len(self.attributes),) or name not in given]
        if other or not fitting:
            name, shown = self.arguments["name"], ", ".join(other[:3] or new[:3])
            raise WeightsError(f"{path}: not the weights of {name}; {shown} are missing or have another shape")
        self.network.load_state_dict(fitting, strict=False)

    def view_logits(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images))


def _create(library: str, name: str, outputs: int) -> nn.Module:
    try:
        if library == "torchvision":
            import torchvision

            return torchvision.models.get_model(name, weights=None, num_classes=outputs)
        import timm

        return timm.create_model(name, pretrained=False, num_classes=outputs)
    except ImportError:
        raise WeightsError(f"the network {name} needs timm; run `pip install latent-rebalance[timm]`") from None
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"{library} has no network {name} ({error}); correct its name") from None
