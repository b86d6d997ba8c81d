"""Metadata of an image folder in Croissant's JSON-LD (https://docs.mlcommons.org/croissant/docs/croissant-spec.html)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.release.formats import METADATA
from pipeline_lib.release.image_sets import ATTRIBUTE, COLUMNS, ImageSet, Split

VERSION = "http://mlcommons.org/croissant/1.0"
#: What the specification asks for, word for word.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {pa.string(): "sc:Text", pa.bool_(): "sc:Boolean", pa.int64(): "sc:Integer"}


def croissant(image_set: ImageSet, folder: Path, title: str, licence: str) -> dict[str, Any]:
    """Return the metadata of an image folder.

    Args:
        image_set: what was exported.
        folder: the folder, with the tables of its splits.
        title: title of the dataset.
        licence: its licence, by SPDX or in words.
    """
    config = image_set.config
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"{config.run}-{image_set.name}".replace("_", "-"),
        "description": f"{title}. Edited images are marked in each row; what is unknown of them is null.",
        "conformsTo": VERSION,
        "license": licence,
        "version": image_set.provenance["installation"]["latent-rebalance"],
        "distribution": [entry for split in image_set.splits for entry in _files(split, folder)],
        "recordSet": [_records(image_set, split) for split in image_set.splits],
    }


def _files(split: Split, folder: Path) -> list[dict[str, Any]]:
    path = folder / split.name / METADATA
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [
        {
            "@type": "cr:FileObject",
            "@id": f"{split.name}-table",
            "name": f"{split.name}-table",
            "description": "A row for each image.",
            "contentUrl": f"{split.name}/{METADATA}",
            "contentSize": f"{path.stat().st_size} B",
            "encodingFormat": "application/x-parquet",
            "sha256": digest,
        },
        {
            "@type": "cr:FileSet",
            "@id": f"{split.name}-files",
            "name": f"{split.name}-files",
            "description": "The images.",
            "encodingFormat": "image/png",
            "includes": [f"{split.name}/*.png", f"{split.name}/**/*.png"],
        },
    ]


def _records(image_set: ImageSet, split: Split) -> dict[str, Any]:
    table, files = {"@id": f"{split.name}-table"}, {"@id": f"{split.name}-files"}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{split.name}/{'_'.join(column.name.split())}",  # which can have no blanks
            "name": column.name,
            "description": COLUMNS.get(column.name, ATTRIBUTE),
            "dataType": TYPES[column.type],
            "source": {"fileObject": table, "extract": {"column": column.name}},
        }
        for column in image_set.schema
    ]
    if not pc.any(pc.match_substring(split.image_ids, "/")).as_py():  # a join can compare the last part of a path alone
        fields[0]["references"] = {"fileSet": files, "extract": {"fileProperty": "filename"}}
        fields.append(
            {
                "@type": "cr:Field",
                "@id": f"{split.name}/image",
                "name": "image",
                "description": "the image",
                "dataType": "sc:ImageObject",
                "source": {"fileSet": files, "extract": {"fileProperty": "content"}},
            }
        )
    return {
        "@type": "cr:RecordSet",
        "@id": split.name,
        "name": split.name,
        "description": f"The images of the split {split.name}, with all that is known of each.",
        "field": fields,
    }
