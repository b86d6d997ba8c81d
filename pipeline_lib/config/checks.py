"""Consistency checks across config sections; each raises a ValueError that names the key and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.config.columns import label_columns
from pipeline_lib.config.data import (
    AvatarData,
    CelebAData,
    CelebAHQData,
    ClassFolderData,
    FFHQData,
    FolderData,
    HuggingFaceData,
)
from pipeline_lib.config.messages import check_name
from pipeline_lib.config.names import AVATAR_ATTRIBUTES, AVATAR_SETTABLE, CELEBA_ATTRIBUTES
from pipeline_lib.config.run import Config
from pipeline_lib.config.sections import GanTraining, PartRegion
from pipeline_lib.runtime.errors import DataError

LEAST_PERCEPTUAL_SIDE = 22  # pixels; smaller images have no output left after the strides of AlexNet


def check_attributes(config: Config) -> None:
    """Check that every attribute and part named in the config exists."""
    attributes = _KNOWN_ATTRIBUTES[config.data.reader](config.data)
    for name in config.detectors.attributes:
        check_name("detectors.attributes", name, attributes)
    for target in config.rebalance.targets:
        for name in (target.attribute, *target.where):
            check_name("rebalance.targets", name, config.detectors.attributes)
    region, parts = config.rebalance.region, config.part_names
    key, part = ("name", region.name) if isinstance(region, PartRegion) else ("shows", region.shows)
    if part is not None and not parts:
        raise ValueError(
            f"`rebalance.region.{key}` names the part `{part}`, but these images have no part masks; "
            "provide masks, set a segmenter under `parts`, or swap a box with {kind: box, shows: null}"
        )
    if part is not None:
        check_name(f"rebalance.region.{key}", part, parts[1:])


def _attributes_of_avatars(data: AvatarData) -> Sequence[str]:
    for rule in data.rates:
        order = list(AVATAR_SETTABLE)
        check_name("data.rates.attribute", rule.attribute, order)
        for name in rule.where:
            check_name("data.rates.where", name, order[: order.index(rule.attribute)])
    return AVATAR_ATTRIBUTES


def _attributes_of_folder(data: FolderData) -> Sequence[str]:
    _check_folders(folder=data.folder, masks=data.masks)
    _check_columns(
        data.labels, id_column=[data.id_column], attributes=data.attributes, split_column=[data.split_column]
    )
    return data.attributes


def _attributes_of_ffhq(data: FFHQData) -> Sequence[str]:
    _check_folders(folder=data.folder)
    _check_columns(data.labels, id_column=[data.id_column], attributes=data.attributes)
    if not data.metadata.is_file():
        raise ValueError(f"`data.metadata`: no file {data.metadata}; set it to FFHQ's ffhq-dataset-v2.json")
    return data.attributes


def _attributes_of_class_folders(data: ClassFolderData) -> Sequence[str]:
    for attribute, folders in data.attributes.items():
        _check_folders(**{f"attributes.{attribute}": data.folder / name for name in folders})
    _check_folders(**{f"others.{number}": data.folder / name for number, name in enumerate(data.others)})
    return list(data.attributes)


def _check_columns(labels: Path, **named: Sequence[str | None]) -> None:
    """Check that a table of labels has the columns that the config names."""
    try:
        columns = label_columns(labels)
    except DataError as error:
        raise ValueError(f"`data.labels`: {error}") from None
    for key, names in named.items():
        for name in filter(None, names):
            check_name(f"data.{key}", name, columns)


def _attributes_of_celeba(data: CelebAData | CelebAHQData) -> Sequence[str]:
    _check_folders(folder=data.folder)
    if data.identities is not None and not data.identities.is_file():
        raise ValueError(f"`data.identities`: no file {data.identities}; correct the path or remove the key")
    for name in data.attributes:
        check_name("data.attributes", name, CELEBA_ATTRIBUTES)
    return data.attributes


def _attributes_of_huggingface(data: HuggingFaceData) -> Sequence[str]:
    _check_folders(folder=data.folder)
    return data.attributes


_KNOWN_ATTRIBUTES = {
    "avatars": _attributes_of_avatars,
    "folder": _attributes_of_folder,
    "celeba": _attributes_of_celeba,
    "celeba-hq": _attributes_of_celeba,
    "huggingface": _attributes_of_huggingface,
    "ffhq": _attributes_of_ffhq,
    "class-folders": _attributes_of_class_folders,
}


def _check_folders(**folders: Path | None) -> None:
    for key, folder in folders.items():
        if folder is not None and not folder.is_dir():
            raise ValueError(f"`data.{key}`: no folder {folder}; correct the path")


def check_targets(config: Config) -> None:
    """Check that all targets are for one attribute and that no image matches two of them."""
    targets = config.rebalance.targets
    attributes = sorted({target.attribute for target in targets})
    if len(attributes) > 1:
        raise ValueError(
            f"`rebalance.targets` are for several attributes, {', '.join(attributes)}; a run rebalances only one"
        )
    for number, target in enumerate(targets):
        if target.attribute in target.where:
            raise ValueError(
                f"`rebalance.targets.{number}`: `{target.attribute}` is conditioned on itself; use another attribute"
            )
        for other in targets[:number]:
            shared = set(target.where) & set(other.where)
            if not any(target.where[name] is not other.where[name] for name in shared):
                raise ValueError(
                    f"`rebalance.targets` overlap, because an image can match both {other.where} and {target.where}; "
                    "make their conditions exclusive"
                )


def check_networks(config: Config) -> None:
    """Check that widths, squares and resolutions are consistent and that every file named in the config exists."""
    levels = config.data.resolution.bit_length() - 2
    if len(config.generator.channels) != levels:
        raise ValueError(
            f"`generator.channels` has {len(config.generator.channels)} entries; "
            f"{levels} are required, one for each resolution from 4 to {config.data.resolution} pixels"
        )
    for key, training in (
        ("generator.training", config.generator.training),
        ("retrain.training", config.retrain.training),
    ):
        if training is not None and training.local is not None:
            _check_local(key, training, config.data.resolution)
    encoder = config.encoder.training
    for key, side in (("perceptual_crop", encoder.perceptual_crop), ("local", encoder.local and encoder.local.side)):
        if side is not None and round(side * config.data.resolution) < LEAST_PERCEPTUAL_SIDE:
            raise ValueError(
                f"`encoder.training.{key}`: {side:g} of {config.data.resolution} pixels is less than the "
                f"{LEAST_PERCEPTUAL_SIDE} pixels that the perceptual distance needs; increase it"
            )
    fetched = config.published.files().values() if config.published else ()
    if config.published and config.published.of_domain().resolution != config.data.resolution:
        raise ValueError(
            f"`data.resolution` is {config.data.resolution}, but the generator of {config.published.domain} makes "
            f"images of {config.published.of_domain().resolution} pixels; change `data.resolution`"
        )
    named = {
        "generator.weights": config.generator.weights,
        "generator.discriminator": config.generator.discriminator,
        "encoder.weights": config.encoder.weights,
        "encoder.training.identity.path": encoder.identity and encoder.identity.path,
    }
    given = {
        "detectors.selector": config.detectors.selector,
        "detectors.referee": config.detectors.referee,
        "parts": config.parts,
    }
    named |= {f"{key}.{name}": getattr(part, name, None) for key, part in given.items() for name in ("path", "weights")}
    folders = [f"{key}.path" for key, part in given.items() if part.backend == "transformers"]
    for key, path in named.items():
        found = path is None or path in fetched or (path.is_dir() if key in folders else path.is_file())
        if not found:
            raise ValueError(
                f"`{key}`: no {'folder' if key in folders else 'file'} {path}; correct the path or remove the key"
            )
    needs_discriminator = config.generator.training is not None or config.retrain.init == "source"
    if config.generator.weights and needs_discriminator and not config.generator.discriminator:
        raise ValueError("training from `generator.weights` also needs `generator.discriminator`")
    if config.retrain.attributes is not None and config.detectors.selector.backend == "onnx":
        raise ValueError(
            "`retrain.attributes` needs a differentiable selector, and an ONNX model is not; "
            "remove `retrain.attributes` or use another backend for `detectors.selector`"
        )
    if config.encoder.weights is None and config.encoder.training.kimg == 0:
        raise ValueError("`encoder.training.kimg` is 0 and `encoder.weights` is not set; set one of the two")


def _check_local(key: str, training: GanTraining, resolution: int) -> None:
    local = training.local
    least = local.side * min([resolution, *(phase.resolution for phase in training.growth)])
    side, fitting = local.side * resolution, 4 * 2 ** (len(local.channels) - 1)
    if side != fitting or least < 4:
        raise ValueError(
            f"`{key}.local`: the square is {side:g} pixels wide at {resolution} pixels and {least:g} at the lowest "
            f"resolution; with {len(local.channels)} `channels` it must be {fitting}, and nowhere less than 4"
        )
