"""The formats of an export: PNG files with a table, a Hugging Face image folder, CelebA's layout, WebDataset."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib import __version__
from pipeline_lib.data.images import SUFFIXES
from pipeline_lib.data.tables import read_table
from pipeline_lib.imaging.png import encode_png
from pipeline_lib.release.image_sets import TEST, TRAIN, ImageSet, Split
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress

TABLE, METADATA = "labels.csv", "metadata.parquet"
MOST_IN_A_TAR = 10_000  # images
MOST_BYTES_IN_A_TAR = 2**28
PARTITION = {TRAIN: 0, TEST: 2}  # CelebA's numbers; 1 is for validation
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Format:
    """A format of an export.

    Attributes:
        write: writes the images of a set, and what belongs to them, into a folder.
        files: what the folder then holds, as Markdown for its README.
        table: what holds the labels, as Markdown.
        plain: whether it holds the set and its labels alone, without held-out images and a table of lineage.
    """

    write: Callable[[ImageSet, Path], None]
    files: str
    table: str
    plain: bool = False


def lineage_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an image was made, with the keys that the composer writes in its PNG files."""
    step = {
        "donor": row["donor_id"],
        "attribute": row["target_attribute"],
        "value": row["target_value"],
        "region": row["region"],
        "editor": row["editor"],
        "finish": row["finish"],
    }
    roles = ("selector", "encoder", "editor", "generator")
    return {
        "synthetic": row["synthetic"],
        "edited": row["edited"],
        "software": f"latent-rebalance {__version__}",
        "original": row["original_id"],
        "steps": [step] if row["edited"] else [],
        "models": {role: row[f"{role}_digest"] for role in roles if row[f"{role}_digest"]},
        "run": row["run"],
        "seed": row["seed"],
    }


def _encoded(image_set: ImageSet, split: Split) -> Iterator[tuple[Rows, list[bytes]]]:
    """Yield rows of lineage and PNG files, of one row group of a shard after another."""

    def encode(row: dict[str, Any], image: np.ndarray) -> bytes:
        return encode_png(image, lineage_of(row))

    title = f"export ({image_set.name}, {split.name})"
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(title, len(split)) as progress:
        for rows, pixels in image_set.iterate(split):
            pngs = list(pool.map(encode, rows, pixels))
            progress.advance(len(rows))
            yield rows, pngs


def file_name(image_id: str) -> str:
    """Return the name of an image's PNG file, with its folders."""
    path = PurePosixPath(image_id)
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix() + ".png"


def check_file_names(image_ids: Iterable[str]) -> None:
    """Check that every image has a file of its own, within the folder.

    Raises:
        DataError: a name leads out of the folder, or is another image's, also where case does not count.
    """
    mend = "rename the image in the source, or use a format that numbers its files (webdataset)"
    taken: set[str] = set()
    for image_id in image_ids:
        name = file_name(image_id)
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(f"image {image_id}: its name leads out of the folder; {mend}")
        if name.casefold() in taken:
            raise DataError(f"image {image_id}: another image would be the file {name} too; {mend}")
        taken.add(name.casefold())


def _write_png(image_set: ImageSet, folder: Path) -> None:
    split = image_set.splits[0]
    for _ in _written(image_set, split, folder):
        pass
    table = _labels(image_set, split)
    table.insert(0, "image", table.pop("image_id").map(file_name))
    table.to_csv(folder / TABLE, index=False)


def _labels(image_set: ImageSet, split: Split) -> pd.DataFrame:
    """Return the labels of images with 1, 0 or nothing, and of a rebalanced set what was done to each image."""
    path = image_set.run.labels(image_set.name)
    if image_set.name.endswith("_rebalanced"):
        table = split.known.drop_columns("donor_id").to_pandas().rename(columns={"original_id": "image_id"})
    elif path.exists():
        table = read_table(path, "labels")
    else:
        return pd.DataFrame({"image_id": split.image_ids.to_pylist()})
    for column in [*image_set.attributes, *({"edited", "target_value"} & set(table))]:
        table[column] = table[column].astype("boolean").astype("Int8")
    return table


def _write_imagefolder(image_set: ImageSet, folder: Path) -> None:
    for split in image_set.splits:
        own = folder / split.name
        own.mkdir()
        with _table(own / METADATA, image_set.schema) as table:
            for rows in _written(image_set, split, own):
                table.write_table(pa.Table.from_pylist(rows, schema=image_set.schema))


def _written(image_set: ImageSet, split: Split, folder: Path) -> Iterator[Rows]:
    """Write each image of a split as a file with its own name, and yield the rows of those written."""
    check_file_names(name.as_py() for name in split.image_ids)
    for rows, pngs in _encoded(image_set, split):
        for row, png in zip(rows, pngs, strict=True):
            row["file_name"] = file_name(row["original_id"])
            path = folder / row["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
        yield rows


def _write_celeba(image_set: ImageSet, folder: Path) -> None:
    attributes, images = image_set.attributes, folder / "img_align_celeba"
    images.mkdir()
    count = 0
    with ExitStack() as stack:
        known, partition, edited = (
            stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "list_edited.txt")
        )
        table = stack.enter_context(_table(folder / METADATA, image_set.schema))
        images_in_all = sum(len(split) for split in image_set.splits)
        edits_in_all = sum(split.edits for split in image_set.splits)
        known.write(f"{images_in_all}\n{' '.join(map(_in_a_word, attributes))}\n")
        edited.write(f"{edits_in_all}\ntarget_attribute target_value\n")
        for split in image_set.splits:
            for rows, pngs in _encoded(image_set, split):
                for row, png in zip(rows, pngs, strict=True):
                    count += 1
                    row["file_name"] = name = f"{count:06d}.png"
                    (images / name).write_bytes(png)
                    known.write(" ".join([name, *(_as_celeba(row[attribute]) for attribute in attributes)]) + "\n")
                    partition.write(f"{name} {PARTITION[split.name]}\n")
                    if row["edited"]:
                        aim = _in_a_word(row["target_attribute"]), _as_celeba(row["target_value"])
                        edited.write(f"{name} {' '.join(aim)}\n")
                table.write_table(pa.Table.from_pylist(rows, schema=image_set.schema))


def _in_a_word(name: str) -> str:
    """Return a name without spaces, which divide the columns of CelebA's lists."""
    return "_".join(name.split())


def _as_celeba(value: bool | None) -> str:
    """Return 1 or -1, and 0 for what is unknown."""
    return "0" if value is None else "1" if value else "-1"


def _write_webdataset(image_set: ImageSet, folder: Path) -> None:
    in_a_tar = min(MOST_IN_A_TAR, max(1, MOST_BYTES_IN_A_TAR // (3 * image_set.resolution**2)))
    for split in image_set.splits:
        samples = (sample for rows, pngs in _encoded(image_set, split) for sample in zip(rows, pngs, strict=True))
        for shard, start in enumerate(range(0, len(split), in_a_tar)):
            with tarfile.open(folder / f"{split.name}-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for number, (row, png) in enumerate(islice(samples, in_a_tar), start):
                    row["file_name"] = f"{number:08d}.png"
                    _add(tar, row["file_name"], png)
                    _add(tar, f"{number:08d}.json", json.dumps(row).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without time, owner or anything else that differs between two exports."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@contextmanager
def _table(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer


FORMATS = {
    "png": Format(
        _write_png,
        """\
- `*.png`: the images, with the names that they have in the source.
- `labels.csv`: a row for each image, with 1, 0, or nothing where unknown. The reader `folder` of Latent Rebalance reads
  it; `edited_labels: confirmed` then takes the value aimed at where it is confirmed and nothing else is known.""",
        "`labels.csv`",
        plain=True,
    ),
    "imagefolder": Format(
        _write_imagefolder,
        """\
- `train/*.png` and, where images were held out, `test/*.png`: the images. No held-out image was edited or was a donor.
- `train/metadata.parquet`, `test/metadata.parquet`: a row for each image, as `datasets` expects it:
  `load_dataset("imagefolder", data_dir="this folder")`.
- `croissant.json`: what is in the tables, as [Croissant](https://docs.mlcommons.org/croissant/) metadata.""",
        "`train/metadata.parquet`",
    ),
    "celeba": Format(
        _write_celeba,
        """\
- `img_align_celeba/*.png`: the images, numbered.
- `list_attr_celeba.txt`: the attributes, 1 or -1, and **0 where unknown, as can be of an edited image what its region
  shows**. CelebA itself has no 0, and a reader that only asks for 1 takes it for -1. Such a reader must leave out the
  files with a 0, which other images have too where a label is unknown.
- `list_edited.txt`: a line for each edited image, with the attribute that it was to get and the value, 1 or -1. Who
  confirms that it shows that value is in `metadata.parquet`.
- `list_eval_partition.txt`: 0 for training, 2 for the images that were held out. No held-out image was edited or was a
  donor.
- `metadata.parquet`: a row for each image, with everything that is known of it.""",
        "`metadata.parquet`",
    ),
    "webdataset": Format(
        _write_webdataset,
        """\
- `train-*.tar` and, where images were held out, `test-*.tar`: WebDataset shards with a `.png` and a `.json` for each
  image. The JSON has everything that is known of it. No held-out image was edited or was a donor.""",
        "what the JSON files hold,",
    ),
}
