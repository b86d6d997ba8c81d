"""Which files of a Hugging Face dataset are a split, and the names of its classes.

`state.json` says it where a dataset was saved to disk, the card in a snapshot of the Hub
(https://huggingface.co/docs/hub/datasets-manual-configuration), and without a card the names of the files.
"""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from pipeline_lib.data.sources import LeftOut
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import is_hidden, read_json

#: Name of a file of a split, such as `train-00000-of-00002`, with a fingerprint or without.
SHARD = re.compile(r"(?P<prefix>.+)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")
CONVERTED = re.compile(r"\d{4}")  # as the Hub names the files that it converts to Parquet
FORMATS = (".arrow", ".parquet")

Splits = dict[str, list[Path]]  # files of each split


def find_files(folder: Path, configuration: str | None, splits: Sequence[str]) -> tuple[str, Splits]:
    """Return the name of the configuration that is read, and the files of each split, in order.

    Args:
        folder: where the dataset is.
        configuration: name of its configuration; None if it has one.
        splits: names of the splits.

    Raises:
        DataError: there is no such configuration, split or shard, there are several configurations and none was chosen,
            or a file is in two splits or of another format.
    """
    found = _saved(folder) or _by_card(folder, splits) or _by_name(folder, splits)
    names = ", ".join(sorted(found))
    if not found:
        raise DataError(
            f"{folder}: no split {' or '.join(splits)} as <split>/*.arrow, <split>/*.parquet or "
            "<split>-00000-of-00001.parquet; correct the split or the folder"
        )
    if configuration is None and len(found) > 1:
        raise DataError(f"{folder}: several configurations, {names}; choose one by `data.configuration`")
    if configuration is not None and configuration not in found:
        raise DataError(f"{folder}: no configuration {configuration}; it has {names}; correct `data.configuration`")
    name = names if configuration is None else configuration
    chosen = found[name]
    for split in splits:
        if split not in chosen:
            raise DataError(f"{folder}: no split {split}; there are {', '.join(sorted(chosen))}; correct the split")
        if not chosen[split]:
            raise DataError(f"{folder}: no file of the split {split} is there that its card names; download them")
        for path in chosen[split]:
            if path.suffix.lower() not in FORMATS:
                raise DataError(f"{path}: neither Parquet nor Arrow; load the dataset and save it to disk")
    if twice := set.intersection(*(set(chosen[split]) for split in splits)):
        raise DataError(f"{min(twice)}: this file is in the splits {' and '.join(splits)}; correct one of them")
    return name, {split: _in_order(chosen[split]) for split in splits}


def left_out(folder: Path, splits: Splits) -> list[LeftOut]:
    """Return the Arrow and Parquet files that are in none of the splits."""
    taken = {path for files in splits.values() for path in files}
    others = [path for path in _data_files(folder) if path not in taken]
    return [LeftOut(path.relative_to(folder).as_posix(), "a file of a split that is not read") for path in others]


def class_names(path: Path, schema: pa.Schema, folder: Path, configuration: str) -> dict[str, list[str]]:
    """Return the names of the classes of each `ClassLabel` column of a file, by what describes it first.

    That is the file itself, the description that was saved beside it, or the card.

    Raises:
        DataError: the card describes several configurations, each in its own way, and this one is none of them.
    """
    beside = path.parent / "dataset_info.json"
    if b"huggingface" in (schema.metadata or {}):
        features = json.loads(schema.metadata[b"huggingface"]).get("info", {}).get("features")
    elif beside.exists():
        description = read_json(beside)
        if not isinstance(description, dict):
            raise DataError(f"{beside}: it describes no columns as `datasets` does; save the dataset again")
        features = description.get("features")
    else:
        return _class_names_of_card(folder, configuration)
    return {
        column: feature["names"]
        for column, feature in (features or {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _saved(folder: Path) -> dict[str, Splits]:
    """Return the files of each configuration and split that were saved to disk, which leaves a `state.json`."""
    found: dict[str, Splits] = defaultdict(dict)
    for path in sorted(folder.rglob("state.json")):
        if path.parent == folder or _is_hidden(path, folder):
            continue
        state = read_json(path)
        try:
            chosen_by, files = state.get("_indices_data_files"), [file["filename"] for file in state["_data_files"]]
            files = [path.parent / name for name in files]
        except (AttributeError, KeyError, TypeError):
            raise DataError(f"{path}: it names no files as `datasets` does; save the dataset again") from None
        if chosen_by:
            raise DataError(f"{path}: the rows are chosen by a file of indices; save the dataset again")
        for file in files:
            if not file.exists():
                raise DataError(f"{path}: no file {file.name}, which is named there; save the dataset again")
        found[path.parent.parent.relative_to(folder).as_posix()][path.parent.name] = files
    return found


def _by_card(folder: Path, splits: Sequence[str]) -> dict[str, Splits]:
    """Return the files of each configuration and split that the card names; none if it names no files."""
    found: dict[str, Splits] = {}
    for entry in _entries(_card(folder).get("configs")):
        base = folder / entry.get("data_dir", "")
        if given := entry.get("data_files"):
            files = {split: _matching(base, patterns) for split, patterns in _patterns(given).items()}
        else:
            files = {split: paths for of_base in _by_name(base, splits).values() for split, paths in of_base.items()}
        found[entry.get("config_name", "default")] = files
    return found


def _patterns(given: Any) -> dict[str, list[str]]:
    """Return the patterns of each split from a card's `data_files`: a pattern, a list of them, or split by split."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, dict):
        given = [{"split": split, "path": path} for split, path in given.items()]
    found: dict[str, list[str]] = defaultdict(list)
    for part in given:
        split, paths = (part.get("split", "train"), part.get("path", [])) if isinstance(part, dict) else ("train", part)
        found[split] += [paths] if isinstance(paths, str) else paths
    return found


def _matching(base: Path, patterns: list[str]) -> list[Path]:
    names = set()
    for pattern in patterns:
        names.update(glob.glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207 - that of Path refuses `**.parquet`
    return sorted(path for path in map(base.joinpath, names) if path.is_file())


def _by_name(folder: Path, splits: Sequence[str]) -> dict[str, Splits]:
    """Return the files of the splits by their names; a configuration is called as the folder that holds its splits."""
    found: dict[str, Splits] = defaultdict(lambda: defaultdict(list))
    for path in _data_files(folder):
        shard = SHARD.fullmatch(path.stem)
        if path.suffix.lower() == ".arrow" and not shard:  # a cache that `map` left
            continue
        prefix = shard["prefix"] if shard else path.stem
        within = path.parent.name if path.parent != folder else None
        split = prefix if prefix in splits else within
        if split in splits:
            base = path.parent.parent if within == split else path.parent
            found[base.relative_to(folder).as_posix()][split].append(path)
    for of_base in found.values():
        for split, paths in of_base.items():
            of_base[split] = [path for path in paths if _series(path) == split] or paths
            if len(places := sorted({str(path.parent) for path in of_base[split]})) > 1:
                raise DataError(f"{folder}: files of the split {split} in {' and '.join(places)}; remove one of them")
            first_of = {_series(path): path for path in reversed(of_base[split])}
            if len(first_of) > 1:
                raise DataError(
                    f"{folder}: {' and '.join(path.name for path in first_of.values())} may each be the split {split}; "
                    "remove one, name them as parts (-00000-of-00002), or list all of them in the card's `configs`"
                )
    return found


def _in_order(paths: list[Path]) -> list[Path]:
    """Sort the files of a split by their numbers.

    Raises:
        DataError: a number is missing or there twice.
    """
    numbered: dict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    counts: dict[tuple[str, str], int] = {}
    for path in paths:
        shard = SHARD.fullmatch(path.stem)
        group = (str(path.parent), _series(path))
        number = int(shard["number"]) if shard else int(path.stem) if CONVERTED.fullmatch(path.stem) else 0
        numbered[group].append((number, path))
        counts[group] = max(counts.get(group, 0), int(shard["count"])) if shard else counts.get(group, 0) + 1
    for group, files in numbered.items():
        numbers = [number for number, _ in sorted(files)]
        if numbers != list(range(counts[group])):
            raise DataError(
                f"{files[0][1]}: of {counts[group]} files of this split, from number 0 on, there are the numbers "
                f"{', '.join(map(str, numbers))}; download the missing ones, or remove those of another version"
            )
    return [path for group in sorted(numbered) for _, path in sorted(numbered[group])]


def _series(path: Path) -> str:
    """Return what the names of numbered files that belong together begin with; nothing where they are numbers alone."""
    shard = SHARD.fullmatch(path.stem)
    return shard["prefix"] if shard else "" if CONVERTED.fullmatch(path.stem) else path.stem


def _class_names_of_card(folder: Path, configuration: str) -> dict[str, list[str]]:
    found = {
        entry.get("config_name", "default"): _class_names_of(_entries(entry.get("features")))
        for entry in _entries(_card(folder).get("dataset_info"))
    }
    if configuration in found:
        return found[configuration]
    described = list(found.values())
    if any(names != described[0] for names in described):
        raise DataError(
            f"{folder / 'README.md'}: the classes of the configurations {', '.join(found)} are named, each in its own "
            f"way, but those of {configuration} are not; choose one by `data.configuration`, or name it in the card"
        )
    return described[0] if described else {}


def _class_names_of(features: list[dict[str, Any]]) -> dict[str, list[str]]:
    found = {}
    for feature in features:
        dtype = feature.get("dtype")
        names = dtype.get("class_label", {}).get("names") if isinstance(dtype, dict) else None
        if names:
            numbered = names if isinstance(names, dict) else dict(enumerate(names))
            found[feature.get("name", "")] = [numbered[number] for number in sorted(numbered, key=int)]
    return found


def _entries(given: Any) -> list[dict[str, Any]]:
    """Return the mappings of a list of a card, which may be one mapping by itself."""
    return [entry for entry in (given if isinstance(given, list) else [given]) if isinstance(entry, dict)]


def _card(folder: Path) -> dict[str, Any]:
    """Read the YAML at the head of a card; every value stays text, for `no` is a class and 0.25 a configuration."""
    path = folder / "README.md"
    if not path.exists():
        return {}
    try:
        head = re.match(r"---\s*\n(.*?)\n---\s*$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found = yaml.load(head[1], yaml.BaseLoader) if head else {}
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: its header cannot be read as YAML ({' '.join(str(error).split())}); save it again in UTF-8"
        ) from None
    return found if isinstance(found, dict) else {}


def _data_files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in FORMATS and not _is_hidden(path, folder))
    return sorted(path for path in found if path.is_file())


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(map(is_hidden, path.relative_to(folder).parts))
