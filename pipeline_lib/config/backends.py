"""Where attribute detectors and the part segmenter come from: trained here, or given as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Count, Positive, Section

Seed = Annotated[int, Field(description="of weights and batches; the two detectors must differ in this")]
Half = Annotated[
    Literal[0, 1], Field(description="which half of the training images it learns from; they must differ in this")
]
ColumnNumber = Annotated[int, Field(ge=0)]
ImageSide = Annotated[
    Count | None, Field(description="to which images are scaled for it, in pixels; none: left as they are")
]
Mean = Annotated[tuple[float, float, float], Field(description="subtracted from colours in [0, 1]")]
Deviation = Annotated[tuple[Positive, Positive, Positive], Field(description="by which they are then divided")]


class SupervisedTraining(Section):
    """Training of a detector or a segmenter."""

    kimg: Positive = Field(description="thousands of images shown")
    batch: Count = Field(64, description="images a step")
    learning_rate: Positive = Field(2e-3, description="largest step of Adam")


class DetectorNetwork(Section):
    """An attribute classifier that is trained here."""

    backend: Literal["trained"] = Field("trained", description="trained on the dataset's labels")
    architecture: Literal["plain", "residual"] = Field(description="the two detectors must differ in this")
    width: Count = Field(24, description="channels of the first layer")
    seed: Seed
    half: Half


class BackboneNetwork(Section):
    """An attribute classifier that is trained here, on a network of torchvision or timm."""

    backend: Literal["backbone"] = Field(description="a network of a library, with a new last layer")
    library: Literal["torchvision", "timm"] = Field("torchvision", description="where the network is from")
    name: str = Field(description="of the network, such as resnet18; the two detectors must differ in this")
    weights: Path | None = Field(
        None, description="weights to start from, as the library publishes them; none: from scratch"
    )
    seed: Seed
    half: Half


class OnnxNetwork(Section):
    """An attribute classifier that somebody else trained, as an ONNX file; it is only calibrated here."""

    backend: Literal["onnx"] = Field(description="an ONNX file, run by onnxruntime")
    path: Path = Field(description="the model: one input, images (n, 3, side, side)")
    columns: dict[str, ColumnNumber] = Field(description="column of its first output for each attribute")
    side: ImageSide = None
    mean: Mean = (0.5, 0.5, 0.5)
    std: Deviation = (0.5, 0.5, 0.5)
    gives: Literal["logits", "probabilities", "exclusive"] = Field(
        "logits", description="what its columns hold; exclusive: logits of classes of which one is true"
    )


class TransformersNetwork(Section):
    """An image classifier of the library transformers, in a local folder; it is only calibrated here."""

    backend: Literal["transformers"] = Field(description="a model of the library transformers")
    path: Path = Field(description="its folder: config.json, model.safetensors, preprocessor_config.json")
    classes: dict[str, str] = Field(description="name of the model's class for each attribute")


TrainedHere = DetectorNetwork | BackboneNetwork
GivenNetwork = OnnxNetwork | TransformersNetwork
DetectorBackend = Annotated[TrainedHere | GivenNetwork, Field(discriminator="backend")]


class Parts(Section):
    """A segmenter that is trained here."""

    backend: Literal["trained"] = Field("trained", description="trained on the dataset's part masks")
    width: Count = Field(16, description="channels of the first layer")
    training: SupervisedTraining = Field(
        SupervisedTraining(kimg=12, batch=16, learning_rate=4e-3), description="how it is trained"
    )


class GroupedParts(Section):
    """A segmenter whose classes are put together to parts."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that it finds, the background first."""
        return ("background", *self.groups)


class OnnxParts(GroupedParts):
    """A segmenter that somebody else trained, as an ONNX file."""

    backend: Literal["onnx"] = Field(description="an ONNX file, run by onnxruntime")
    path: Path = Field(description="the model: images (n, 3, side, side) to scores (n, classes, h, w)")
    groups: dict[str, list[ColumnNumber]] = Field(
        min_length=1, description="numbers of the model's classes that make up each part; all others are background"
    )
    side: ImageSide = None
    mean: Mean = (0.5, 0.5, 0.5)
    std: Deviation = (0.5, 0.5, 0.5)


class TransformersParts(GroupedParts):
    """A semantic segmenter of the library transformers, in a local folder."""

    backend: Literal["transformers"] = Field(description="a model of the library transformers")
    path: Path = Field(description="its folder: config.json, model.safetensors, preprocessor_config.json")
    groups: dict[str, list[str]] = Field(
        min_length=1, description="names of the model's classes that make up each part; all others are background"
    )


class SaliencyParts(Section):
    """A saliency network that somebody else trained, as an ONNX file: one part, `salient` (paper A.2.4)."""

    backend: Literal["saliency"] = Field(description="an ONNX file that scores how salient each pixel is")
    path: Path = Field(description="the model: images (n, 3, side, side) to (n, 1, h, w)")
    threshold: float = Field(0.5, description="score from which on a pixel is salient")
    side: ImageSide = None
    mean: Mean = (0.485, 0.456, 0.406)
    std: Deviation = (0.229, 0.224, 0.225)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that it finds, the background first."""
        return ("background", "salient")


GivenParts = OnnxParts | TransformersParts | SaliencyParts
PartsBackend = Annotated[Parts | GivenParts, Field(discriminator="backend")]


def fill_backend(values: Any) -> Any:
    """Name the back end of a section that names none: what is not given is trained here."""
    return {"backend": "trained"} | values if isinstance(values, dict) else values
