"""The formats of an export: an image folder with a table, as Hugging Face's `datasets` expects it, and WebDataset."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib import __version__
from pipeline_lib.data.images import SUFFIXES
from pipeline_lib.imaging.png import encode_png
from pipeline_lib.release.image_sets import ImageSet, Split
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress

METADATA = "metadata.parquet"
MOST_IN_A_TAR = 10_000  # images
MOST_BYTES_IN_A_TAR = 2**28
Rows = list[dict[str, Any]]


def write_image_folder(image_set: ImageSet, folder: Path) -> None:
    """Write each image of a split as a PNG file with its own name, and a table of all that is known of them.

    Raises:
        DataError: an image cannot have a file of its own within the folder.
    """
    for split in image_set.splits:
        check_file_names(name.as_py() for name in split.image_ids)
        (folder / split.name).mkdir()
        with pq.ParquetWriter(folder / split.name / METADATA, image_set.schema, compression="zstd") as table:
            for rows, pngs in _encoded(image_set, split):
                for row, png in zip(rows, pngs, strict=True):
                    row["file_name"] = file_name(row["original_id"])
                    path = folder / split.name / row["file_name"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(png)
                table.write_table(pa.Table.from_pylist(rows, schema=image_set.schema))


def write_webdataset(image_set: ImageSet, folder: Path) -> None:
    """Write tar shards with a PNG file and a JSON file, of all that is known of it, for each image."""
    in_a_tar = min(MOST_IN_A_TAR, max(1, MOST_BYTES_IN_A_TAR // (3 * image_set.resolution**2)))
    for split in image_set.splits:
        samples = (sample for rows, pngs in _encoded(image_set, split) for sample in zip(rows, pngs, strict=True))
        for shard, start in enumerate(range(0, len(split), in_a_tar)):
            with tarfile.open(folder / f"{split.name}-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for number, (row, png) in enumerate(islice(samples, in_a_tar), start):
                    row["file_name"] = f"{number:08d}.png"
                    for name, content in (
                        (row["file_name"], png),
                        (f"{number:08d}.json", json.dumps(row).encode()),
                    ):
                        member = tarfile.TarInfo(name)  # without time or owner, which differ between two exports
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))


#: Format of an export -> what writes an image set into a folder. The templates of the cards say what it then holds.
FORMATS = {"imagefolder": write_image_folder, "webdataset": write_webdataset}


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
    title = f"export ({image_set.name}, {split.name})"
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(title, len(split)) as progress:
        for rows, pixels in split.iterate():
            pngs = list(pool.map(encode_png, pixels, map(lineage_of, rows)))
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
    mend = "rename the image in the source, or use the format webdataset, which numbers its files"
    taken: set[str] = set()
    for image_id in image_ids:
        name = file_name(image_id)
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(f"image {image_id}: its name leads out of the folder; {mend}")
        if name.casefold() in taken:
            raise DataError(f"image {image_id}: another image would be the file {name} too; {mend}")
        taken.add(name.casefold())
