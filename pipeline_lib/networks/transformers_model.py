"""Attribute detectors and segmenters that run a model of the library transformers from a local folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline_lib.networks.classifier import Detector, as_logits
from pipeline_lib.networks.preprocess import Preprocess
from pipeline_lib.networks.segmenter import Segmenter, group_codes
from pipeline_lib.runtime.errors import WeightsError

CLASSIFIER, SEGMENTER = "AutoModelForImageClassification", "AutoModelForSemanticSegmentation"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # by the number that Pillow has for it
UNCROPPED = 384  # from this side on ConvNeXt's own preprocessing crops nothing


class TransformersClassifier(Detector):
    """Uses one class of an image classifier for each attribute.

    Logits of exclusive classes are converted to logits of each class against all others. Those of independent labels
    are used unchanged.

    Args:
        attributes: names of the outputs, in order.
        classes: names of the model's classes for each attribute.
        config: config of the model, as stored by transformers.
        preprocess: arguments of `Preprocess`.
        mirror: average over an image and its mirror image.
    """

    architecture = "transformers-classifier"

    def __init__(
        self,
        attributes: Sequence[str],
        classes: Sequence[str],
        config: Mapping[str, Any],
        preprocess: Mapping[str, Any],
        mirror: bool = True,
    ):
        super().__init__(attributes, 0, mirror)
        self.arguments = {
            "attributes": self.attributes,
            "classes": list(classes),
            "config": dict(config),
            "preprocess": dict(preprocess),
            "mirror": mirror,
        }
        numbers = class_numbers(config)
        self._columns = [numbers[name] for name in classes]
        self._gives = "logits" if config.get("problem_type") == "multi_label_classification" else "exclusive"
        self.preprocess = Preprocess(**preprocess)
        self.network = _build(CLASSIFIER, config)

    @classmethod
    def from_folder(
        cls, path: Path, attributes: Sequence[str], classes: Sequence[str], mirror: bool = True
    ) -> TransformersClassifier:
        """Load a model from its folder.

        Raises:
            WeightsError: it cannot be used, or has no such class.
        """
        network, preprocess = _read(CLASSIFIER, path, classes)
        detector = cls(attributes, classes, network.config.to_dict(), preprocess, mirror)
        detector.network.load_state_dict(network.state_dict())
        return detector

    def view_logits(self, images: Tensor) -> Tensor:
        return as_logits(self.network(pixel_values=self.preprocess(images)).logits, self._columns, self._gives)


class TransformersSegmenter(Segmenter):
    """Groups the classes of a semantic segmentation model into parts.

    Args:
        groups: names of the model's classes of each part; all others are background.
        config: config of the model, as stored by transformers.
        preprocess: arguments of `Preprocess`.
    """

    architecture = "transformers-segmenter"

    def __init__(self, groups: Mapping[str, Sequence[str]], config: Mapping[str, Any], preprocess: Mapping[str, Any]):
        super().__init__(["background", *groups])
        self.arguments = {
            "groups": {name: list(classes) for name, classes in groups.items()},
            "config": dict(config),
            "preprocess": dict(preprocess),
        }
        self._numbers = class_numbers(config)
        self.preprocess = Preprocess(**preprocess)
        self.network = _build(SEGMENTER, config)

    @classmethod
    def from_folder(cls, path: Path, groups: Mapping[str, Sequence[str]]) -> TransformersSegmenter:
        """Load a model from its folder.

        Raises:
            WeightsError: it cannot be used, or has no such class.
        """
        network, preprocess = _read(SEGMENTER, path, [name for classes in groups.values() for name in classes])
        if preprocess["crop"]:
            raise WeightsError(
                f"{path}: preprocessor_config.json crops images (`do_center_crop`), which would leave pixels without a "
                "class; set it to false"
            )
        segmenter = cls(groups, network.config.to_dict(), preprocess)
        segmenter.network.load_state_dict(network.state_dict())
        return segmenter

    def forward(self, images: Tensor) -> Tensor:
        scores = self.network(pixel_values=self.preprocess(images)).logits
        found = F.interpolate(scores, size=images.shape[-2:], mode="bilinear").argmax(dim=1)
        numbers = [[self._numbers[name] for name in classes] for classes in self.arguments["groups"].values()]
        return group_codes(found, numbers, scores.shape[1])


def class_numbers(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the index of each class by its name."""
    return {name: int(number) for number, name in config["id2label"].items()}


def _read(kind: str, path: Path, classes: Sequence[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Read a model and its preprocessing; only safetensors are read, so that no code in the folder can run."""
    try:
        network = getattr(_library(), kind).from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        processor = json.loads((path / "preprocessor_config.json").read_text())
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: no {kind} with preprocessor_config.json ({reason}); save both there") from None
    known = class_numbers(network.config.to_dict())
    missing = [name for name in classes if name not in known]
    if missing:
        raise WeightsError(f"{path}: has no class {', '.join(missing)}; it has {', '.join(known)}")
    return network, _preprocessing(path, processor)


def _preprocessing(path: Path, processor: Mapping[str, Any]) -> dict[str, Any]:
    """Turn preprocessor_config.json into arguments of `Preprocess`, for square images, as all are here."""
    if processor.get("do_flip_channel_order"):
        raise WeightsError(
            f"{path}: wants colours as blue, green, red (`do_flip_channel_order`), which is not done here"
        )
    resample = processor.get("resample", 2)
    if resample not in RESAMPLE:
        raise WeightsError(f"{path}: `resample` is {resample}, which is not done here; it may be 2 or 3")
    side = _size(processor.get("size")) if processor.get("do_resize", True) else None
    crop = _size(processor.get("crop_size")) if processor.get("do_center_crop") else None
    share = processor.get("crop_pct")  # of the scaled image, where `size` is what is left of it
    if share and side and (crop or side[0] < UNCROPPED):
        side, crop = [int(pixels / share) for pixels in side], crop or side
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.get("do_normalize", True):
        mean, std = (processor.get(key, IMAGENET[key]) for key in ("image_mean", "image_std"))
    if processor.get("include_top"):  # EfficientNet divides a second time
        std = [once * twice for once, twice in zip(std, processor.get("image_std", IMAGENET["image_std"]), strict=True)]
    # of values in [0, 255], where `Preprocess` has them in [0, 1]
    factor = 255 * (processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0)
    offset = 1.0 if processor.get("rescale_offset") else 0.0  # taken off before normalising, as EfficientNet does
    return {
        "side": side,
        "mean": [(value + offset) / factor for value in mean],
        "std": [value / factor for value in std],
        "crop": None if crop == side else crop,
        "resample": RESAMPLE[resample],
    }


def _size(size: Mapping[str, int] | int | None) -> list[int] | None:
    """Return height and width to which a square image is brought."""
    if size is None or isinstance(size, int):
        return size and [size, size]
    if "height" in size:
        return [size["height"], size["width"]]
    side = min(value for value in size.values() if value)  # a square's shortest edge is also its longest
    return [side, side]


def _build(kind: str, config: Mapping[str, Any]) -> nn.Module:
    library = _library()
    values = {key: value for key, value in config.items() if key != "model_type"}
    return getattr(library, kind).from_config(library.AutoConfig.for_model(config["model_type"], **values))


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise WeightsError(
            "a transformers model needs that library; run `pip install latent-rebalance[transformers]`"
        ) from None
    return transformers
