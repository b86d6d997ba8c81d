"""Where attribute detectors and the part segmenter come from: trained here, or given as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Count, Folder, Positive, Section

ColumnNumber = Annotated[int, Field(ge=0)]
ImageSide = Annotated[
    Count | None, Field(description="side to which its input images are resized, in pixels; null: not resized")
]
Mean = Annotated[tuple[float, float, float], Field(description="channel means, subtracted from colours in [0, 1]")]
Deviation = Annotated[
    tuple[Positive, Positive, Positive], Field(description="channel standard deviations, which divide the result")
]


class SupervisedTraining(Section):
    """Training of a detector or a segmenter."""

    kimg: Positive = Field(description="length of the training in thousands of images")
    batch: Count = Field(64, description="batch size")
    learning_rate: Positive = Field(2e-3, description="peak learning rate of AdamW")


class DetectorNetwork(Section):
    """An attribute classifier that is trained here: a plain network as selector, a residual one as referee."""

    backend: Literal["trained"] = Field("trained", description="trained on the dataset's labels")
    width: Count = Field(24, description="channels of the first layer")


class LibraryNetwork(Section):
    """A network from torchvision or timm with a new last layer, to be trained here."""

    library: Literal["torchvision", "timm"] = Field("torchvision", description="library that provides the network")
    name: str = Field(description="name of the network, such as resnet18")
    weights: Path | None = Field(
        None, description="pretrained weights, as the library publishes them; null: from scratch"
    )


class BackboneNetwork(LibraryNetwork):
    """An attribute classifier that is trained here, with a backbone of torchvision or timm, another one in each."""

    backend: Literal["backbone"] = Field(description="a network of a library, with a new last layer")


class OnnxNetwork(Section):
    """A pretrained attribute classifier as an ONNX file; it is only calibrated here."""

    backend: Literal["onnx"] = Field(description="an ONNX file, run with onnxruntime")
    path: Path = Field(description="the model; its one input is images (n, 3, side, side)")
    columns: dict[str, ColumnNumber] = Field(description="column of its first output for each attribute")
    side: ImageSide = None
    mean: Mean = (0.5, 0.5, 0.5)
    std: Deviation = (0.5, 0.5, 0.5)
    gives: Literal["logits", "probabilities", "exclusive"] = Field(
        "logits", description="type of its outputs; exclusive: logits of mutually exclusive classes"
    )


class TransformersNetwork(Section):
    """An image classifier of the library transformers in a local folder; it is only calibrated here."""

    backend: Literal["transformers"] = Field(description="a model of the library transformers")
    path: Folder = Field(description="its folder, with config.json, model.safetensors and preprocessor_config.json")
    classes: dict[str, str] = Field(description="name of the model's class for each attribute")


TrainedHere = DetectorNetwork | BackboneNetwork
GivenNetwork = OnnxNetwork | TransformersNetwork
DetectorBackend = Annotated[TrainedHere | GivenNetwork, Field(discriminator="backend")]


class Parts(Section):
    """A segmenter that is trained here."""

    backend: Literal["trained"] = Field("trained", description="trained on the dataset's part masks")
    width: Count = Field(16, description="channels of the first layer")
    training: SupervisedTraining = Field(
        SupervisedTraining(kimg=12, batch=16, learning_rate=4e-3), description="training of the segmenter"
    )


class GroupedParts(Section):
    """A segmenter whose classes are grouped into parts."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts it segments, the background first."""
        return ("background", *self.groups)


class OnnxParts(GroupedParts):
    """A pretrained segmenter as an ONNX file."""

    backend: Literal["onnx"] = Field(description="an ONNX file, run with onnxruntime")
    path: Path = Field(description="the model, from images (n, 3, side, side) to scores (n, classes, h, w)")
    groups: dict[str, list[ColumnNumber]] = Field(
        min_length=1, description="indices of the model's classes that form each part; all others are background"
    )
    threshold: float | None = Field(
        None, description="of a saliency network, with one score a pixel: the lowest one of its one part (paper A.2.4)"
    )
    side: ImageSide = None
    mean: Mean = (0.5, 0.5, 0.5)
    std: Deviation = (0.5, 0.5, 0.5)


class TransformersParts(GroupedParts):
    """A semantic segmentation model of the library transformers in a local folder."""

    backend: Literal["transformers"] = Field(description="a model of the library transformers")
    path: Folder = Field(description="its folder, with config.json, model.safetensors and preprocessor_config.json")
    groups: dict[str, list[str]] = Field(
        min_length=1, description="names of the model's classes that form each part; all others are background"
    )


GivenParts = OnnxParts | TransformersParts
PartsBackend = Annotated[Parts | GivenParts, Field(discriminator="backend")]


def fill_backend(values: Any) -> Any:
    """Set the backend of a section that names none to `trained`."""
    return {"backend": "trained"} | values if isinstance(values, dict) else values
