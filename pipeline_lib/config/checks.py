"""Consistency checks across config sections; each raises a ValueError that names the key and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline_lib.config.base import FOLDER, Section
from pipeline_lib.config.columns import column_of
from pipeline_lib.config.messages import check_name
from pipeline_lib.config.names import (
    RESERVED,
    group_name,
)
from pipeline_lib.config.rebalance import BoxRegion, PartRegion
from pipeline_lib.config.run import Config
from pipeline_lib.config.sections import (
    Encoder,
    GanTraining,
    Generator,
    Retrain,
)
from pipeline_lib.config.studies import impossible_methods
from pipeline_lib.runtime.files import SHIPPED, files_below

LEAST_PERCEPTUAL_SIDE = 22  # pixels; smaller images have no output left after the strides of AlexNet
MOST_RELATED = 12  # attributes of targets and conditions, of which every combination is gone through


def check_paths(config: Config) -> None:
    """Check that every file and folder that is named exists, but for published weights: they can be fetched."""
    published = config.published
    fetched = published.files().values() if published else ()
    for key, path, is_folder, is_optional in _paths(config):
        if path not in fetched and not (path.is_dir() if is_folder else path.is_file()):
            kind, mend = "folder" if is_folder else "file", " or remove the key" if is_optional else ""
            also = f", nor in {SHIPPED}" if path.parts[0] == "resources" else ""
            raise ValueError(f"`{key}`: no {kind} {path}{also}; correct the path{mend}")


def named_files(config: Config) -> list[Path]:
    """Return the files that a config names, and those in the folders that it names, without folders of images."""
    folders = ("data.", "published.")
    named = [
        (path, is_folder) for key, path, is_folder, _ in _paths(config) if not (is_folder and key.startswith(folders))
    ]
    files = [file for path, is_folder in named for file in (files_below([path]) if is_folder else [path])]
    return list(dict.fromkeys(files))


def _paths(section: Section, place: str = "") -> Iterator[tuple[str, Path, bool, bool]]:
    """Yield key, path, whether it is of a folder and whether it may be left out, of every path below `section`."""
    for name, value in section:
        if isinstance(value, Section):
            yield from _paths(value, f"{place}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Path):
            yield from ((f"{place}{name}.{number}", path, False, False) for number, path in enumerate(value))
        elif isinstance(value, Path):
            node = section.model_json_schema()["properties"][name]
            is_folder = any(option.get("format") == FOLDER for option in (node, *node.get("anyOf", ())))
            yield f"{place}{name}", value, is_folder, "default" in node


def check_attributes(config: Config) -> None:
    """Check that every attribute and part named in the config exists."""
    attributes = config.data.known_attributes()
    for name in config.detectors.attributes:
        check_name("detectors.attributes", name, attributes)
    for target in config.rebalance.targets:
        for name in (target.attribute, *target.where):
            is_learnt = name in config.detectors.attributes
            check_name("rebalance.targets", name if is_learnt else column_of(name), config.detectors.attributes)
    for attribute, altered in config.rebalance.edit.alters.items():
        for name in altered:
            check_name(f"rebalance.edit.alters.{attribute}", name, attributes)
    for key, region in _regions(config):
        named = "name" if isinstance(region, PartRegion) else "shows"
        for part in region.parts:
            if not config.part_names:
                raise ValueError(
                    f"`{key}.{named}` names the part `{part}`, but these images have no part masks; "
                    "provide masks, set a segmenter under `parts`, or swap a box with {kind: box, shows: null}"
                )
            check_name(f"{key}.{named}", part, config.part_names[1:])


def _regions(config: Config) -> Iterator[tuple[str, PartRegion | BoxRegion]]:
    """Yield the regions that are swapped, with their keys."""
    for attribute in config.rebalance.edited:
        own = config.rebalance.edit.region_key(attribute)
        yield (
            f"rebalance.edit.regions.{own}" if own else "rebalance.edit.region",
            config.rebalance.edit.region_of(attribute),
        )


def check_names(config: Config) -> None:
    """Check that no attribute is named like a column of ours, and that no two are alike in a report or an export."""
    alike: dict[str, str] = {}
    for key in ("data.attributes", "detectors.attributes"):
        names = list(getattr(getattr(config, key.partition(".")[0]), "attributes", ()))
        for name in names:
            if name.casefold() in RESERVED:
                raise ValueError(
                    f"`{key}`: `{name}` is the name of a column of our tables or exports; rename this column of yours"
                )
            if name != name.strip() or not name.isprintable() or name.endswith("="):
                raise ValueError(f"`{key}`: {name!r} begins or ends with a blank or `=`, or does not print; rename it")
            other = alike.setdefault(_plain(name), name)
            if other != name or names.count(name) > 1:
                raise ValueError(
                    f"`{key}`: `{other}` and `{name}` would have one name in reports and exports; rename or remove one"
                )


def _plain(name: str) -> str:
    """Return a name without what differs in no report: its case, and what divides its words."""
    return " ".join(filter(None, re.split(r"[\s_=]+", name.casefold())))


def check_targets(config: Config) -> None:
    """Check that no image matches two targets of one attribute, and that an edit changes what one target asks for."""
    targets = config.rebalance.targets
    if isinstance(tolerances := config.certify.tolerance, list) and len(tolerances) != len(targets):
        raise ValueError(
            f"`certify.tolerance` has {len(tolerances)} entries for {len(targets)} targets; give one for each"
        )
    if len(config.rebalance.edited) > 1 and config.evaluate.utility:
        raise ValueError(
            "`evaluate.utility` trains classifiers of one attribute, and `rebalance.targets` are for several; set "
            "it to null"
        )
    _check_related(config)
    for number, target in enumerate(targets):
        for name in target.where:
            if column_of(name) == column_of(target.attribute):
                raise ValueError(
                    f"`rebalance.targets.{number}`: `{target.attribute}` is conditioned on itself; "
                    "use another attribute"
                )
        for other in (other for other in targets[:number] if other.attribute == target.attribute):
            if not _exclude(target.where, other.where):
                raise ValueError(
                    f"`rebalance.targets` overlap, because an image can match both {other.where} and {target.where}; "
                    "make their conditions exclusive, or name values of one column, as in `where: {race: each}`"
                )
            if _plain(group_name(target.where)) == _plain(group_name(other.where)):
                raise ValueError(
                    f"`rebalance.targets`: {other.where} and {target.where} would have one name in reports; rename an "
                    "attribute"
                )


def _check_related(config: Config) -> None:
    """Check that targets name not too many attributes, and of a column whose value is edited no other value."""
    edited = config.rebalance.edited
    named = dict.fromkeys(name for target in config.rebalance.targets for name in (target.attribute, *target.where))
    for attribute in edited:
        for name in named:
            if name != attribute and column_of(name) == column_of(attribute):
                raise ValueError(
                    f"`rebalance.targets`: an edit of `{attribute}` would change `{name}` too, since both are of one "
                    "column; name one of them alone"
                )
    if len(named) > MOST_RELATED:
        raise ValueError(
            f"`rebalance.targets` name {len(named)} attributes, and at most {MOST_RELATED} are possible; use fewer "
            "groups, such as bands of ages"
        )


def _exclude(one: Mapping[str, bool], other: Mapping[str, bool]) -> bool:
    """Return whether no image can match both conditions: they contradict, or name different values of one column."""
    if any(name in other and other[name] is not value for name, value in one.items()):
        return True
    return any(
        "=" in name and column_of(name) == column_of(another) and name != another and one[name] and other[another]
        for name in one
        for another in other
    )


def check_sections(config: Config) -> None:
    """Check that the networks that editor and retraining need are described."""
    for section in ("generator", "encoder"):
        if config.uses_encoder and getattr(config, section) is None:
            raise ValueError(
                f"`{section}` is missing, and `rebalance.edit.editor: {config.rebalance.edit.editor.kind}` needs it; "
                "add it, or use `editor: poisson`"
            )
    if config.uses_generator and config.generator is None:
        raise ValueError("`generator` is missing, and `retrain` needs it; add it, or set `retrain: null`")


def _check_attribute_loss(config: Config, retrain: Retrain) -> None:
    """Check that the selector is differentiable if it is in the loss on attributes."""
    if retrain.attributes and config.detectors.selector.backend == "onnx":
        raise ValueError(
            "`retrain.attributes` needs a differentiable selector, and an ONNX model is not; "
            "remove `retrain.attributes` or use another backend for `detectors.selector`"
        )


def check_networks(config: Config) -> None:
    """Check that widths, squares and resolutions fit each other."""
    if config.generator:
        _check_generator(config, config.generator)
    if config.encoder:
        _check_encoder(config.encoder, config.data.resolution)
    if config.retrain:
        _check_local("retrain.training", config.retrain.training, config.data.resolution)
        _check_attribute_loss(config, config.retrain)
    _check_methods(config)
    _check_truncation(config)
    if config.published and config.published.of_domain().resolution != config.data.resolution:
        raise ValueError(
            f"`data.resolution` is {config.data.resolution}, but the generator of {config.published.domain} makes "
            f"images of {config.published.of_domain().resolution} pixels; change `data.resolution`"
        )


def _check_methods(config: Config) -> None:
    """Check that the generator has the latents that the methods of the config optimise."""
    if config.studies and not (config.uses_encoder and config.rebalance.parts):
        raise ValueError(
            "`studies` need an encoder and a part to segment; set `rebalance.edit.editor: latent-regression` and a "
            "`rebalance.edit.region` that names or shows a part, or remove them"
        )
    for method in (config.studies and config.studies.methods) or []:
        if method in impossible_methods(config.source_family):
            raise ValueError(
                f"`studies.methods`: {method} is not possible with a generator of the architecture "
                f"{config.source_family}; use another method"
            )


def _check_truncation(config: Config) -> None:
    """Check that every generator that is sampled has the mean latent that truncation draws towards."""
    retrained = config.generator.architecture if config.generator and config.retrain else None
    if config.sample.truncation < 1 and config.uses_generator and "progan" in (config.source_family, retrained):
        raise ValueError(
            f"`sample.truncation` is {config.sample.truncation:g}, but a generator of the architecture progan has no "
            "truncation; set it to 1"
        )


def _check_generator(config: Config, generator: Generator) -> None:
    resolution = config.data.resolution
    levels = resolution.bit_length() - 2
    if len(generator.channels) != levels:
        raise ValueError(
            f"`generator.channels` has {len(generator.channels)} entries; "
            f"{levels} are required, one for each resolution from 4 to {resolution} pixels"
        )
    _check_local("generator.training", generator.training, resolution)
    is_trained_on = generator.training is not None or (config.retrain and config.retrain.init == "source")
    if generator.weights and is_trained_on and not generator.discriminator:
        raise ValueError("training from `generator.weights` also needs `generator.discriminator`")


def _check_encoder(encoder: Encoder, resolution: int) -> None:
    training = encoder.training
    for key, side in (("perceptual_crop", training.perceptual_crop), ("local", training.local and training.local.side)):
        if side is not None and round(side * resolution) < LEAST_PERCEPTUAL_SIDE:
            raise ValueError(
                f"`encoder.training.{key}`: {side:g} of {resolution} pixels is less than the "
                f"{LEAST_PERCEPTUAL_SIDE} pixels that the perceptual distance needs; increase it"
            )
    if encoder.weights is None and training.kimg == 0:
        raise ValueError("`encoder.training.kimg` is 0 and `encoder.weights` is not set; set one of the two")


def _check_local(key: str, training: GanTraining | None, resolution: int) -> None:
    if training is None or training.local is None:
        return
    local = training.local
    least = local.side * min([resolution, *(phase.resolution for phase in training.growth)])
    side, fitting = local.side * resolution, 4 * 2 ** (len(local.channels) - 1)
    if side != fitting or least < 4:
        raise ValueError(
            f"`{key}.local`: the square is {side:g} pixels wide at {resolution} pixels and {least:g} at the lowest "
            f"resolution; with {len(local.channels)} `channels` it must be {fitting}, and nowhere less than 4"
        )
