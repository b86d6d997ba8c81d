"""Metadata of an image folder in Croissant's JSON-LD (https://docs.mlcommons.org/croissant/docs/croissant-spec.html)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import mlcroissant as mlc
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.release.formats import METADATA
from pipeline_lib.release.image_sets import ATTRIBUTE, COLUMNS, ImageSet, Split

TYPES = {pa.string(): mlc.DataType.TEXT, pa.bool_(): mlc.DataType.BOOL, pa.int64(): mlc.DataType.INTEGER}


def croissant(image_set: ImageSet, folder: Path, title: str, licence: str) -> dict[str, Any]:
    """Return the metadata of an image folder.

    Args:
        image_set: what was exported.
        folder: the folder, with the tables of its splits.
        title: title of the dataset.
        licence: its licence, by SPDX or in words.
    """
    return mlc.Metadata(
        name=f"{image_set.config.run}-{image_set.name}".replace("_", "-"),
        description=f"{title}. Edited images are marked in each row; what is unknown of them is null.",
        license=[licence],
        version=image_set.provenance["installation"]["latent-rebalance"],
        distribution=[entry for split in image_set.splits for entry in _files(split, folder)],
        record_sets=[_records(image_set, split) for split in image_set.splits],
    ).to_json()


def _files(split: Split, folder: Path) -> list[mlc.FileObject | mlc.FileSet]:
    path = folder / split.name / METADATA
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [
        mlc.FileObject(
            id=f"{split.name}-table",
            description="A row for each image.",
            content_url=f"{split.name}/{METADATA}",
            content_size=f"{path.stat().st_size} B",
            encoding_formats=["application/x-parquet"],
            sha256=digest,
        ),
        mlc.FileSet(
            id=f"{split.name}-files",
            description="The images.",
            encoding_formats=["image/png"],
            includes=[f"{split.name}/*.png", f"{split.name}/**/*.png"],
        ),
    ]


def _records(image_set: ImageSet, split: Split) -> mlc.RecordSet:
    fields = [
        mlc.Field(
            id=f"{split.name}/{'_'.join(column.name.split())}",  # which can have no blanks
            name=column.name,
            description=COLUMNS.get(column.name, ATTRIBUTE),
            data_types=[TYPES[column.type]],
            source=mlc.Source(file_object=f"{split.name}-table", extract=mlc.Extract(column=column.name)),
        )
        for column in image_set.schema
    ]
    if not pc.any(pc.match_substring(split.image_ids, "/")).as_py():  # a join can compare the last part of a path alone
        fields[0].references = _of_files(split, "filename")
        fields.append(
            mlc.Field(
                id=f"{split.name}/image",
                description="the image",
                data_types=[mlc.DataType.IMAGE_OBJECT],
                source=_of_files(split, "content"),
            )
        )
    return mlc.RecordSet(
        id=split.name,
        description=f"The images of the split {split.name}, with all that is known of each.",
        fields=fields,
    )


def _of_files(split: Split, part: str) -> mlc.Source:
    return mlc.Source(file_set=f"{split.name}-files", extract=mlc.Extract(file_property=mlc.FileProperty[part]))
