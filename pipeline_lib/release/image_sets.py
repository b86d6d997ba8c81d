"""An image set of a finished run with the lineage of each image, for export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_lib.config import Config, Inpainting, PartRegion
from pipeline_lib.data.shards import iterate_shards, open_shard, resolution_of
from pipeline_lib.data.tables import SCHEMAS, read_arrow
from pipeline_lib.evaluation.run import Run
from pipeline_lib.release.confirmed import confirm_edits
from pipeline_lib.release.provenance import FILE, config_of, read_provenance
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files, files_below

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
        "`drawing`: the nearest drawing of its face; `referee`: a detector without part in the edit, where neither of "
        "them was asked; null: nobody",
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
#: Those of them that differ from image to image.
KNOWN = (
    *("original_id", "edited", "donor_id"),
    *("target_attribute", "target_value", "confirmed_by", "carried_over"),
)
FROM_DATA = ("dataset", "held_out")  # sets of images that no GAN has drawn
HELD_OUT, TRAIN, TEST = "held_out", "train", "test"


@dataclass(frozen=True)
class Split:
    """Images that stay together: those to train with, or those that were held out.

    Attributes:
        name: "train" or "test".
        shards: their image shards.
        known: a row for each image, in the order of the shards, with the columns of `KNOWN` and a bool per attribute.
        drawn_by: digest of the GAN that drew them; None for other images.
    """

    name: str
    shards: list[Path]
    known: pa.Table
    drawn_by: str | None

    def __len__(self) -> int:
        return self.known.num_rows

    @property
    def image_ids(self) -> pa.ChunkedArray:
        """Names of the images."""
        return self.known.column("original_id")

    @property
    def edits(self) -> int:
        """Number of edited images."""
        return pc.sum(self.known.column("edited")).as_py() or 0


@dataclass(frozen=True)
class ImageSet:
    """An image set of a finished run.

    Attributes:
        run: the run.
        name: name of the set.
        provenance: what made the run.
        config: its config.
        splits: the set itself and, if it was made from the dataset, the images that were held out.
        models: digest of each network that takes part in an edit, by its role.
    """

    run: Run
    name: str
    provenance: dict[str, Any]
    config: Config
    splits: list[Split]
    models: dict[str, str] = field(default_factory=dict)

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes of which something is known."""
        return [name for name in self.splits[0].known.column_names if name not in KNOWN]

    @property
    def schema(self) -> pa.Schema:
        """Columns of the table of lineage."""
        return pa.schema([*LINEAGE, *((name, pa.bool_()) for name in self.attributes)])

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return resolution_of(self.splits[0].shards[0])

    @property
    def retrained(self) -> Path | None:
        """Weight file of the retrained generator, if the run has one and this is the set that it was trained on."""
        path = self.run.model("retrained/generator")
        return path if self.config.retrain and self.name == "dataset_rebalanced" else None

    def iterate(self, split: Split) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
        """Yield rows of lineage, without file names, and uint8 images (n, H, W, 3), of one row group after another."""
        start = 0
        for image_ids, pixels in iterate_shards(split.shards):
            known = split.known.slice(start, len(image_ids)).to_pylist()
            start += len(image_ids)
            yield [self._row(split, found) for found in known], pixels

    def _row(self, split: Split, known: dict[str, Any]) -> dict[str, Any]:
        """Return the lineage of an image, from what is known of it."""
        settings, edited = self.config.rebalance, known["edited"]
        photograph = self.config.data.reader != "avatars" and split.drawn_by is None
        row = dict.fromkeys(LINEAGE.names) | known
        row |= {"synthetic": edited or not photograph, "generator_digest": split.drawn_by}
        row |= {"run": self.config.run, "seed": self.config.seed}
        if edited:
            region = settings.edit.region_of(known["target_attribute"])
            row |= {"region": _region_text(region), "editor": settings.edit.editor.kind, "finish": settings.edit.finish}
            row |= {f"{role}_digest": digest for role, digest in self.models.items()}
        return row


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
    base = name.removesuffix("_rebalanced")
    models = _models(run, config, base) if base != name else {}
    splits = [_open_split(run, config, provenance, name, TEST if name == HELD_OUT else TRAIN)]
    if base == "dataset":
        splits.append(_open_split(run, config, provenance, HELD_OUT, TEST))
    return ImageSet(run, name, provenance, config, splits, models)


def _open_split(run: Run, config: Config, provenance: dict[str, Any], name: str, split: str) -> Split:
    shards = run.images(name, config.jobs)
    run.need(*shards)
    metadata = open_shard(shards[0]).schema_arrow.metadata
    if name in FROM_DATA:
        _check_config(shards[0], digest_of(config.data.model_dump()), metadata)
    image_ids = pa.chunked_array(
        [chunk for path in shards for chunk in pq.read_table(path, columns=["image_id"]).column("image_id").chunks]
    )
    base = name.removesuffix("_rebalanced")
    known = _labels(run.labels(name), "labels" if base == name else "assembled", image_ids)
    if base != name:
        known = _confirmed(run, config, provenance, name, _edits(run, config, base, known))
    drawn_by = None
    if not base.startswith("dataset") and base != HELD_OUT:
        source = open_shard(run.images(base, 1)[0]).schema_arrow.metadata
        drawn_by = source.get(b"generator_digest", b"unknown").decode()
    return Split(split, shards, known, drawn_by)


def _labels(path: Path, kind: str, image_ids: pa.ChunkedArray) -> pa.Table:
    """Return what is known of images before their edits, with nulls where nothing is."""
    columns = {name: pa.nulls(len(image_ids), LINEAGE.field(name).type) for name in KNOWN}
    columns |= {"original_id": image_ids, "edited": pa.repeat(False, len(image_ids))}
    if path.exists():
        table = read_arrow(path, kind)
        order = pc.index_in(image_ids, table.column("image_id").combine_chunks())
        if order.null_count or table.num_rows != len(image_ids):
            raise DataError(f"{path}: its rows are not those of the images; run the workflow again")
        table = table.take(order)
        attributes = [name for name in table.column_names if name not in SCHEMAS[kind].names]
        if clash := set(LINEAGE.names) & set(attributes):
            raise DataError(f"{path}: an attribute is named {min(clash)}, as a column of an export is; rename it")
        given = [*attributes, *({"edited"} & set(table.column_names))]
        columns |= {name: table.column(name) for name in given}
    return pa.table(columns)


def _edits(run: Run, config: Config, base: str, known: pa.Table) -> pa.Table:
    """Return what is known of images with donor, attribute and value aimed at of the edited ones."""
    plan = read_arrow(run.plan(base), "plan", columns=["image_id", "attribute", "wanted"])
    chosen = pa.concat_tables(
        read_arrow(path, "candidates", columns=["image_id", "donor_id"], filters=[("chosen", "=", True)])
        for path in run.candidates(base, config.jobs)
    )
    image_ids = known.column("original_id")
    edited = pc.if_else(known.column("edited"), image_ids, None)
    for name, table, column in (
        ("donor_id", chosen, "donor_id"),
        ("target_attribute", plan, "attribute"),
        ("target_value", plan, "wanted"),
    ):
        rows = pc.index_in(edited, table.column("image_id").combine_chunks(), skip_nulls=True)
        if rows.null_count != edited.null_count:
            unknown = edited.filter(pc.and_(rows.is_null(), edited.is_valid()))[0]
            raise DataError(f"{run.folder}: nothing is known of the edit of {unknown}; run the workflow again")
        known = known.set_column(known.column_names.index(name), name, table.column(column).take(rows))
    donors = known.column("donor_id")
    # no image of another split may show through
    if strangers := donors.filter(pc.invert(pc.is_in(donors, image_ids.combine_chunks()))).drop_null().to_pylist():
        raise DataError(f"{run.folder}: the donor {min(strangers)} is not in images/{base}; run the workflow again")
    return known


def _confirmed(run: Run, config: Config, provenance: dict[str, Any], name: str, known: pa.Table) -> pa.Table:
    """Return what is known of images with what the edited ones show and who says so."""
    rows = known.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get).set_index("original_id")
    edited = rows.index[rows["edited"]]
    attributes = [column for column in rows if column not in KNOWN]
    edits = rows.loc[edited, ["target_attribute", "target_value"]].set_axis(["attribute", "wanted"], axis=1)
    labels, made_by = confirm_edits(run, name, config, provenance, set(rows.index), edits, rows.loc[edited, attributes])
    rows.loc[edited, attributes] = labels
    rows[list(made_by)] = made_by
    return pa.Table.from_pandas(rows.reset_index(), known.schema, preserve_index=False)


def _check_config(path: Path, expected: str, metadata: dict[bytes, bytes]) -> None:
    if metadata.get(b"config_digest", b"").decode() != expected:
        raise DataError(f"{path}: made with another config than {FILE} says; run the workflow again")


def _models(run: Run, config: Config, base: str) -> dict[str, str]:
    """Return the digest of each network that takes part in an edit, after checking that the edits were made by them."""
    roles = {"encoder": "encoder", "generator": "source/generator"} if config.uses_encoder else {}
    files = {role: [run.model(name)] for role, name in roles.items()}
    files |= {"editor": _own_files(run, config), "selector": [run.model("selector")]}
    tables = run.candidates(base, config.jobs)
    run.need(*(path for role in files.values() for path in role), *tables)
    metadata = pq.read_schema(tables[0]).metadata
    _check_config(tables[0], config.rebalance.candidates_digest(), metadata)
    given = isinstance(config.rebalance.edit.editor, Inpainting)  # its files are no part of the run, and may be gone
    made_by = digest_of_files(*(path for role in files.values() for path in role))
    if not given and metadata[b"models_digest"].decode() != made_by:
        raise DataError(
            f"{tables[0]}: made by other networks than are in {run.folder / 'models'}; run the workflow again"
        )
    return {role: digest_of_files(*paths) for role, paths in files.items() if paths}


def _own_files(run: Path, config: Config) -> list[Path]:
    """Return the files of an editor's own model, in the order in which the edits were made with them."""
    editor = config.rebalance.edit.editor
    if isinstance(editor, Inpainting):
        return files_below([editor.path])
    return []


def _region_text(region: Any) -> str:
    """Name a region in a cell: the parts, or the edges of a box in shares of the side."""
    if isinstance(region, PartRegion):
        return "+".join(region.parts)
    return f"box rows {region.top:g}-{region.bottom:g} columns {region.left:g}-{region.right:g}"
