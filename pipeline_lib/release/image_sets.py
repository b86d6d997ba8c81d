"""An image set of a finished run with the lineage of each image, for export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_lib.config import Config, PartRegion
from pipeline_lib.data.shards import iterate_shards, open_shard, resolution_of
from pipeline_lib.data.tables import SCHEMAS, read_arrow, read_table
from pipeline_lib.evaluation.run import Run
from pipeline_lib.release.confirmed import confirm_edits
from pipeline_lib.release.provenance import FILE, config_of, read_provenance
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files, files_below

_COLUMNS = (
    ("file_name", pa.string(), "path of the image file, from the folder of its table"),
    ("original_id", pa.string(), "name of the image in the run: that of the source's image, or of a GAN's sample"),
    (
        "synthetic",
        pa.bool_(),
        "whether the image as it is was not taken by a camera: true for every avatar, every sample of a GAN, and every "
        "photograph that was edited",
    ),
    ("edited", pa.bool_(), "whether a region was exchanged, so that the image shows another value of an attribute"),
    ("donor_id", pa.string(), "of an edited image: name of the image that the region was taken from, or its shape"),
    ("target_attribute", pa.string(), "of an edited image: the attribute that the edit aimed at"),
    ("target_value", pa.bool_(), "of an edited image: the value aimed at, which is no ground truth"),
    (
        "confirmed_by",
        pa.string(),
        "of an edited image: who says that it shows the value aimed at; `audit`: somebody who labelled it by eye; "
        "`drawing`: the closest clean rendering of its face; `referee`: a detector without part in the edit, where "
        "neither of them was asked; null: nobody",
    ),
    (
        "carried_over",
        pa.string(),
        "of an edited image: the attributes whose labels are those of the image before the edit, as a JSON list",
    ),
    ("region", pa.string(), "what was exchanged"),
    ("editor", pa.string(), "how the exchanged region was fitted in"),
    ("finish", pa.string(), "what was kept of the editor's output; none: all of it"),
    ("selector_digest", pa.string(), "digest of the detector that chose among the composites"),
    ("encoder_digest", pa.string(), "digest of the editor's encoder"),
    ("editor_digest", pa.string(), "digest of the editor's own model, if it is neither of these nor a formula"),
    ("generator_digest", pa.string(), "digest of the editor's generator, or of the GAN that the image is a sample of"),
    ("run", pa.string(), "name of the run"),
    ("seed", pa.int64(), "seed of the run"),
)
#: Columns of an image's lineage, before those of its attributes, and what each is.
LINEAGE = pa.schema([(name, kind) for name, kind, _ in _COLUMNS])
COLUMNS = {name: text for name, _, text in _COLUMNS}
ATTRIBUTE = (
    "whether the image has this attribute; null where unknown. Of an edited image it is what an audit or a drawing "
    "shows, or carried over from the image before the edit"
)
HELD_OUT, TRAIN, TEST = "held_out", "train", "test"


@dataclass(frozen=True)
class Split:
    """Images that stay together: those to train with, or those that were held out.

    Attributes:
        name: "train" or "test".
        shards: their image shards.
        table: a row for each image, in the order of the shards, with the columns of `LINEAGE`, of which the file name
            is null, and a bool per attribute.
    """

    name: str
    shards: list[Path]
    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def image_ids(self) -> pa.ChunkedArray:
        """Names of the images."""
        return self.table.column("original_id")

    @property
    def edits(self) -> int:
        """Number of edited images."""
        return pc.sum(self.table.column("edited")).as_py() or 0

    def iterate(self) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
        """Yield rows of the table and uint8 images (n, H, W, 3), of one row group of a shard after another."""
        start = 0
        for image_ids, pixels in iterate_shards(self.shards):
            yield self.table.slice(start, len(image_ids)).to_pylist(), pixels
            start += len(image_ids)


@dataclass(frozen=True)
class ImageSet:
    """An image set of a finished run.

    Attributes:
        run: the run.
        name: name of the set.
        provenance: what made the run.
        config: its config.
        splits: the set itself and, if it was made from the dataset, the images that were held out.
    """

    run: Run
    name: str
    provenance: dict[str, Any]
    config: Config
    splits: list[Split]

    @property
    def schema(self) -> pa.Schema:
        """Columns of the table of a split."""
        return self.splits[0].table.schema

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes of which something is known."""
        return self.schema.names[len(LINEAGE) :]

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return resolution_of(self.splits[0].shards[0])

    @property
    def retrained(self) -> Path | None:
        """Weight file of the retrained generator, if the run has one and this is the set that it was trained on."""
        path = self.run.model("retrained/generator")
        return path if self.config.retrain and self.name == "dataset_rebalanced" else None


def open_image_set(folder: Path, name: str) -> ImageSet:
    """Open an image set of a finished run and check that its files belong together.

    Args:
        folder: that of the run, such as results/avatars.
        name: name of the image set, such as dataset_rebalanced.

    Raises:
        DataError: the run is not finished, has no such set, or its files were not made with one config.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run; correct the path")
    run = Run(folder)
    if name not in run.image_sets:
        raise DataError(f"{folder}: no image set {name}; it has {', '.join(run.image_sets) or 'none'}")
    run.need(folder / "evaluation/metrics.json", run.provenance)
    provenance = read_provenance(run.provenance)
    config = config_of(provenance)
    splits = [_open_split(run, config, provenance, name, TEST if name == HELD_OUT else TRAIN)]
    if name in ("dataset", "dataset_rebalanced"):
        splits.append(_open_split(run, config, provenance, HELD_OUT, TEST))
    return ImageSet(run, name, provenance, config, splits)


def _open_split(run: Run, config: Config, provenance: dict[str, Any], name: str, split: str) -> Split:
    shards, base = run.images(name, config.jobs), name.removesuffix("_rebalanced")
    _check_recorded(run, provenance, "images", *shards)
    image_ids = pa.concat_tables(pq.read_table(path, columns=["image_id"]) for path in shards)["image_id"]
    labels = _read_labels(run.labels(name), "labels" if name == base else "assembled", image_ids)
    schema = pa.schema([*LINEAGE, *(field for field in labels.schema if field.name != "edited")])
    columns = {field.name: pa.nulls(len(image_ids), field.type) for field in schema}
    columns |= {"original_id": image_ids} | dict(zip(labels.column_names, labels.columns, strict=True))
    of_data = base in ("dataset", HELD_OUT)
    drawn = config.data.reader == "avatars" or not of_data
    columns |= {
        "synthetic": pc.or_(columns["edited"], drawn),
        "run": pa.repeat(config.run, len(image_ids)),
        "seed": pa.repeat(config.seed, len(image_ids)),
    }
    if not of_data:
        source = open_shard(run.images(base, 1)[0]).schema_arrow.metadata
        columns["generator_digest"] = pa.repeat(source.get(b"generator_digest", b"unknown").decode(), len(image_ids))
    if base != name:
        edits = _open_edits(run, config, provenance, base, pa.table(columns, schema).filter(columns["edited"]))
        confirm_edits(edits, run, config, provenance["given"], name, image_ids)
        rows = pc.index_in(image_ids, pa.array(edits.index, pa.string()))
        for column in edits:
            given = pa.array(edits[column], schema.field(column).type, from_pandas=True).take(rows)
            columns[column] = pc.if_else(columns["edited"], given, columns[column])
        donors = columns["donor_id"].drop_null()
        # no image of another split may show through
        if strangers := donors.filter(pc.invert(pc.is_in(donors, image_ids.combine_chunks()))).to_pylist():
            raise DataError(f"{run.folder}: the donor {min(strangers)} is not in images/{base}; run the workflow again")
    return Split(split, shards, pa.table(columns, schema))


def _read_labels(path: Path, kind: str, image_ids: pa.ChunkedArray) -> pa.Table:
    """Return the attributes of images, none without the table, and whether each is edited."""
    columns = {"edited": pa.repeat(False, len(image_ids))}
    if path.exists():
        table = read_arrow(path, kind)
        order = pc.index_in(image_ids, table["image_id"].combine_chunks())
        if order.null_count or table.num_rows != len(image_ids):
            raise DataError(f"{path}: its rows are not those of the images; run the workflow again")
        fixed = set(SCHEMAS[kind].names) - {"edited"}
        columns |= {name: table[name].take(order) for name in table.column_names if name not in fixed}
    return pa.table(columns)


def _open_edits(run: Run, config: Config, provenance: dict[str, Any], base: str, edited: pa.Table) -> pd.DataFrame:
    """Return the rows of edited images by name, filled in with how each was made."""
    tables, settings = run.candidates(base, config.jobs), config.rebalance
    run.need(*tables)
    if pq.read_schema(tables[0]).metadata.get(b"config_digest", b"").decode() != settings.candidates_digest():
        raise DataError(f"{tables[0]}: made with another config than {FILE} says; run the workflow again")
    chosen = pa.concat_tables(
        read_arrow(path, "candidates", columns=["image_id", "donor_id"], filters=[("chosen", "=", True)])
        for path in tables
    )
    plan = read_table(run.plan(base), "plan", ["image_id", "attribute", "wanted"]).set_index("image_id")
    made = plan.join(chosen.to_pandas().set_index("image_id"))
    edits = edited.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get).set_index("original_id")
    for column, given in (("donor_id", "donor_id"), ("target_attribute", "attribute"), ("target_value", "wanted")):
        edits[column] = made[given].reindex(edits.index)
    if unknown := list(edits.index[edits["donor_id"].isna()]):
        raise DataError(f"{run.folder}: nothing is known of the edit of {unknown[0]}; run the workflow again")
    edits["region"] = edits["target_attribute"].map(lambda name: _region_text(settings.edit.region_of(name)))
    edits["editor"], edits["finish"] = settings.edit.editor.kind, settings.edit.finish
    for role, digest in _models(run, config, provenance).items():
        edits[f"{role}_digest"] = digest
    return edits


def _models(run: Run, config: Config, provenance: dict[str, Any]) -> dict[str, str]:
    """Return the digest of each network that takes part in an edit, by its role."""
    names = {"selector": "selector"}
    if config.uses_encoder:
        names |= {"encoder": "encoder", "generator": "source/generator"}
    paths = {role: run.model(name) for role, name in names.items()}
    _check_recorded(run, provenance, "models", *paths.values())
    found = {role: digest_of_files(path) for role, path in paths.items()}
    # the files of an editor's own model are no part of the run, and may be gone
    if own := files_below(config.rebalance.edit.editor.files):
        found["editor"] = digest_of_files(*own)
    return found


def _check_recorded(run: Run, provenance: dict[str, Any], kind: str, *paths: Path) -> None:
    """Check that files of the run are there, and those that were recorded with it where they were."""
    run.need(*paths)
    for path in paths:
        recorded = provenance[kind].get(path.relative_to(run.folder).as_posix())
        if recorded not in (None, digest_of_files(path)):
            raise DataError(f"{path}: not the file that {FILE} records; run the workflow again")


def _region_text(region: Any) -> str:
    """Name a region in a cell: the parts, or the edges of a box in shares of the side."""
    if isinstance(region, PartRegion):
        return "+".join(region.parts)
    return f"box rows {region.top:g}-{region.bottom:g} columns {region.left:g}-{region.right:g}"
