"""Which files of a Hugging Face dataset are a split, and the names of its classes, as the library `datasets` says."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pipeline_lib.data.sources import LeftOut
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import is_hidden

if TYPE_CHECKING:
    from datasets import DatasetDict, Features

#: Name of a file of a split, such as `train-00000-of-00002`, with a fingerprint or without.
SHARD = re.compile(r"(?P<series>.+)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")
FORMATS = (".arrow", ".parquet")


class Layout(NamedTuple):
    """The files of each split, in order, and the features that a card or a description beside them gives."""

    files: dict[str, list[Path]]
    features: Features | None


def find_files(folder: Path, configuration: str | None, splits: Sequence[str]) -> Layout:
    """Find the files of the splits of a dataset that was saved to disk, or is a snapshot of the Hub.

    Args:
        folder: where the dataset is.
        configuration: name of its configuration; None if it has one.
        splits: names of the splits.

    Raises:
        DataError: `datasets` is missing or finds no such dataset, there is no such configuration, split or shard, there
            are several configurations and none was chosen, or a file is in two splits or of another format.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            "`data.reader`: huggingface needs datasets; run `pip install latent-rebalance[huggingface]`"
        ) from None
    try:
        is_saved = (folder / "dataset_dict.json").exists()
        layout = _saved(datasets.load_from_disk(folder)) if is_saved else _published(folder, configuration)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: not read by datasets ({reason}); correct the folder or its card") from None
    for split in splits:
        if split not in layout.files:
            there = ", ".join(sorted(layout.files))
            raise DataError(f"{folder}: no split {split}; there are {there}; correct the split or the folder")
        for path in layout.files[split]:
            if path.suffix.lower() not in FORMATS:
                raise DataError(f"{path}: neither Parquet nor Arrow; load the dataset and save it to disk")
        _check_numbers(layout.files[split])
    if twice := set.intersection(*(set(layout.files[split]) for split in splits)):
        raise DataError(f"{min(twice)}: this file is in the splits {' and '.join(splits)}; correct one of them")
    return layout._replace(files={split: layout.files[split] for split in splits})


def left_out(folder: Path, files: dict[str, list[Path]]) -> list[LeftOut]:
    """Return the Arrow and Parquet files that are in none of the splits."""
    taken = {path for of_split in files.values() for path in of_split}
    found = (path for path in folder.rglob("*") if path.suffix.lower() in FORMATS and path.is_file())
    names = sorted(path.relative_to(folder) for path in found if path not in taken)
    return [
        LeftOut(name.as_posix(), "a file of a split that is not read")
        for name in names
        if not any(map(is_hidden, name.parts))
    ]


def class_names(schema: pa.Schema, described: Features | None) -> dict[str, list[str]]:
    """Return the names of the classes of each `ClassLabel` column, by the file itself or else what describes it."""
    from datasets import ClassLabel, Features

    own = b"huggingface" in (schema.metadata or {})
    features = Features.from_arrow_schema(schema) if own else described or {}
    return {name: feature.names for name, feature in features.items() if isinstance(feature, ClassLabel)}


def _saved(splits: DatasetDict) -> Layout:
    for split, rows in splits.items():
        if rows._indices is not None:
            raise ValueError(f"the rows of {split} are chosen by a file of indices; save the dataset again")
    files = {split: [Path(file["filename"]) for file in rows.cache_files] for split, rows in splits.items()}
    return Layout(files, next(iter(splits.values())).features)


def _published(folder: Path, configuration: str | None) -> Layout:
    from datasets import get_dataset_config_names, load_dataset_builder

    names = get_dataset_config_names(str(folder))
    if configuration is None and len(names) > 1:
        raise DataError(f"{folder}: several configurations, {', '.join(names)}; choose one by `data.configuration`")
    if configuration is not None and configuration not in names:
        raise DataError(
            f"{folder}: no configuration {configuration}; it has {', '.join(names)}; correct `data.configuration`"
        )
    with tempfile.TemporaryDirectory() as cache:  # of locks; what is in the files is not copied
        builder = load_dataset_builder(str(folder), configuration, cache_dir=cache)
    files = {str(split): [Path(path) for path in paths] for split, paths in builder.config.data_files.items()}
    return Layout(files, builder.info.features)


def _check_numbers(paths: list[Path]) -> None:
    """Check that of files that are numbered, as in `train-00000-of-00002`, each is there once."""
    numbered: dict[tuple[Path, str, int], list[int]] = defaultdict(list)
    for path in paths:
        if shard := SHARD.fullmatch(path.stem):
            numbered[path.parent, shard["series"], int(shard["count"])].append(int(shard["number"]))
    for (parent, series, count), numbers in numbered.items():
        if sorted(numbers) != list(range(count)):
            raise DataError(
                f"{parent / series}-*: of {count} files of this split, from number 0 on, there are the numbers "
                f"{', '.join(map(str, sorted(numbers)))}; download the missing ones, or remove those of another version"
            )
