"""An image set of a finished run with the lineage of each image, for export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.config import Config, PartRegion
from pipeline_lib.data.shards import iterate_shards, open_shard, resolution_of
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.release.provenance import FILE, config_of, read_provenance
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files

_COLUMNS = (
    ("file_name", pa.string(), "path of the image file, from the folder of its table"),
    ("original_id", pa.string(), "name of the image in the run: that of the source's image, or of a GAN's sample"),
    (
        "synthetic",
        pa.bool_(),
        "whether the image as it is was not taken by a camera: true for every avatar, every sample of a GAN, and every "
        "photograph that was edited or touched",
    ),
    ("edited", pa.bool_(), "whether a region was exchanged, so that the image shows another value of an attribute"),
    ("touched", pa.bool_(), "whether the image passed through the editor with its own region, and shows what it did"),
    ("donor_id", pa.string(), "of an edited image: name of the image that the region was taken from, or its shape"),
    ("target_attribute", pa.string(), "of an edited image: the attribute that the edit aimed at"),
    ("target_value", pa.bool_(), "of an edited image: the value aimed at, which is no ground truth"),
    ("region", pa.string(), "what was exchanged"),
    ("editor", pa.string(), "how the exchanged region was fitted in"),
    ("finish", pa.string(), "what was kept of the editor's output; none: all of it"),
    ("selector_digest", pa.string(), "digest of the detector that chose among the composites"),
    ("encoder_digest", pa.string(), "digest of the editor's encoder"),
    ("generator_digest", pa.string(), "digest of the editor's generator, or of the GAN that the image is a sample of"),
    ("run", pa.string(), "name of the run"),
    ("seed", pa.int64(), "seed of the run"),
)
#: Columns of an image's lineage, before those of its attributes, and what each is.
LINEAGE = pa.schema([(name, kind) for name, kind, _ in _COLUMNS])
COLUMNS = {name: text for name, _, text in _COLUMNS}
ATTRIBUTE = "whether the image has this attribute; null where unknown, as in every edited image"
METRICS = "evaluation/metrics.json"  # what a run makes last
FROM_DATA = ("dataset", "held_out")  # sets of images that no GAN has drawn
HELD_OUT, TRAIN, TEST = "held_out", "train", "test"


@dataclass(frozen=True)
class Split:
    """Images that stay together: those to train with, or those that were held out.

    Attributes:
        name: "train" or "test".
        shards: their image shards.
        image_ids: their names, in the order of the shards.
        labels: their attributes by name, boolean with missing values; no columns if nothing is known.
        flags: whether each is `edited` and `touched`, by name.
        edits: donor_id, attribute and wanted of the edited images, by name.
        drawn_by: digest of the GAN that drew them; None for other images.
    """

    name: str
    shards: list[Path]
    image_ids: list[str]
    labels: pd.DataFrame
    flags: pd.DataFrame
    edits: pd.DataFrame
    drawn_by: str | None


@dataclass(frozen=True)
class ImageSet:
    """An image set of a finished run.

    Attributes:
        run: folder of the run.
        name: name of the set.
        provenance: what made the run.
        config: its config.
        splits: the set itself and, if it was made from the dataset, the images that were held out.
        models: digest of each network that takes part in an edit, by its role.
    """

    run: Path
    name: str
    provenance: dict[str, Any]
    config: Config
    splits: list[Split]
    models: dict[str, str] = field(default_factory=dict)

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes of which something is known."""
        return list(self.splits[0].labels)

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
        path = self.run / "models/retrained/generator.safetensors"
        return path if self.config.retrain and self.name == "dataset_rebalanced" else None

    def iterate(self, split: Split) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
        """Yield rows of lineage, without file names, and uint8 images (n, H, W, 3), of one row group after another."""
        for image_ids, pixels in iterate_shards(split.shards):
            yield self._rows(split, image_ids), pixels

    def _rows(self, split: Split, image_ids: Sequence[str]) -> list[dict[str, Any]]:
        settings = self.config.rebalance
        photographs = self.config.data.reader != "avatars" and split.drawn_by is None
        regions = {name: _region_text(settings.region_of(name)) for name in settings.edited}
        constant = {"run": self.config.run, "seed": self.config.seed}
        labels = split.labels.loc[image_ids]
        known = {name: labels[name].to_numpy(object, na_value=None) for name in labels}
        edits = split.edits.reindex(image_ids) if len(split.edits) else None
        rows = []
        for place, (image_id, flags) in enumerate(zip(image_ids, split.flags.loc[image_ids].itertuples(), strict=True)):
            changed = flags.edited or flags.touched
            row = dict.fromkeys(LINEAGE.names) | constant | {name: column[place] for name, column in known.items()}
            row |= {
                "original_id": image_id,
                "synthetic": bool(changed or not photographs),
                "edited": bool(flags.edited),
                "touched": bool(flags.touched),
                "generator_digest": split.drawn_by,
            }
            if changed:
                attribute = settings.edited[0]
                if flags.edited:
                    attribute = edits["attribute"].iat[place]
                    row |= {"donor_id": edits["donor_id"].iat[place], "target_attribute": attribute}
                    row |= {"target_value": bool(edits["wanted"].iat[place])}
                row |= {"region": regions[attribute], "editor": settings.editor.kind, "finish": settings.finish}
                row |= {f"{role}_digest": digest for role, digest in self.models.items()}
            rows.append(row)
        return rows


def open_image_set(run: Path, name: str, held_out: bool = True) -> ImageSet:
    """Open an image set of a finished run and check that its files belong together.

    Args:
        run: folder of the run, such as results/avatars.
        name: name of the image set, such as dataset_rebalanced.
        held_out: whether the held-out images belong to a set that was made from the dataset.

    Raises:
        DataError: the run is not finished, has no such set, or its files were not made with one config.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such run; correct the path")
    sets = sorted(path.name for path in run.glob("images/*"))
    if name not in sets:
        raise DataError(f"{run}: no image set {name}; it has {', '.join(sets) or 'none'}")
    for needed in (METRICS, FILE):
        if not (run / needed).is_file():
            raise DataError(f"{run}: the run is not finished, it lacks {needed}; run the workflow to its end")
    provenance = read_provenance(run / FILE)
    config = config_of(provenance)
    base = name.removesuffix("_rebalanced")
    assembled = base != name
    models = _models(run, config, base) if assembled else {}
    splits = [_open_split(run, config, name, TRAIN)]
    if assembled:
        _check_donors(run, config, base, splits[0])
    if base == "dataset" and held_out:
        splits.append(_open_split(run, config, HELD_OUT, TEST))
    if clash := set(LINEAGE.names) & set(splits[0].labels):
        raise DataError(f"{run}: an attribute is named {min(clash)}, which is a column of the export; rename it")
    return ImageSet(run, name, provenance, config, splits, models)


def _open_split(run: Path, config: Config, name: str, split: str) -> Split:
    shards = [run / f"images/{name}/{number}.parquet" for number in range(config.data.shards)]
    if missing := [path for path in shards if not path.is_file()]:
        raise DataError(f"{run}: the run is not finished, it lacks {missing[0].relative_to(run)}; run the workflow")
    metadata = open_shard(shards[0]).schema_arrow.metadata
    if name in FROM_DATA:
        _check_config(shards[0], config.data, metadata)
    image_ids = [
        image_id
        for path in shards
        for image_id in pq.read_table(path, columns=["image_id"]).column("image_id").to_pylist()
    ]
    assembled = name.endswith("_rebalanced")
    path = run / f"labels/{name}.parquet"
    table = pd.DataFrame({"image_id": image_ids})
    if path.exists():
        table = read_table(path, kind := "assembled" if assembled else "labels")
        labels = table.set_index("image_id")[attribute_columns(table, kind)].astype("boolean")
    else:
        labels = pd.DataFrame(index=pd.Index(image_ids, name="image_id"))
    table = table.set_index("image_id")
    if lacking := set(image_ids) ^ set(table.index):
        raise DataError(f"{path}: does not fit the images, of which {min(lacking)} is in one of both; run the workflow")
    flags = pd.DataFrame({flag: table.get(flag, False) for flag in ("edited", "touched")}, index=table.index)
    base = name.removesuffix("_rebalanced")
    edits = _edits(run, config, base, flags.index[flags["edited"]]) if assembled else pd.DataFrame()
    drawn_by = None
    if not base.startswith("dataset") and base != HELD_OUT:
        source = open_shard(run / f"images/{base}/0.parquet").schema_arrow.metadata
        drawn_by = source.get(b"generator_digest", b"unknown").decode()
    return Split(split, shards, image_ids, labels, flags, edits, drawn_by)


def _edits(run: Path, config: Config, base: str, edited: pd.Index) -> pd.DataFrame:
    """Return donor, attribute and value aimed at of every edited image."""
    plan = read_table(run / f"plan/{base}.parquet", "plan", columns=["image_id", "attribute", "wanted"])
    chosen = pd.concat(
        [
            read_table(path, "candidates", columns=["image_id", "donor_id"], filters=[("chosen", "=", True)])
            for path in _swaps(run, config, base)
        ]
    )
    edits = plan.merge(chosen, on="image_id", validate="one_to_one").set_index("image_id")
    if unknown := set(edited) - set(edits.index):
        raise DataError(f"{run}: nothing is known of the edit of {min(unknown)}; run the workflow again")
    return edits.loc[edited]


def _swaps(run: Path, config: Config, base: str) -> list[Path]:
    return [run / f"swaps/{base}/{shard}.candidates.parquet" for shard in range(config.rebalance.shards)]


def _check_donors(run: Path, config: Config, base: str, split: Split) -> None:
    """Check that every donor is of the split that its edits are in, so that no image of another one shows through."""
    if strangers := set(split.edits["donor_id"]) - set(split.image_ids):
        raise DataError(f"{run}: the donor {min(strangers)} is not in images/{base}; run the workflow again")


def _check_config(path: Path, section: Any, metadata: dict[bytes, bytes]) -> None:
    if metadata.get(b"config_digest", b"").decode() != digest_of(section.model_dump()):
        raise DataError(f"{path}: made with another config than {FILE} says; run the workflow again")


def _models(run: Path, config: Config, base: str) -> dict[str, str]:
    """Return the digest of each network that takes part in an edit, after checking that the edits were made by them."""
    files = {
        "encoder": run / "models/encoder.safetensors",
        "generator": run / "models/source/generator.safetensors",
        "selector": run / "models/selector.safetensors",
    }
    if not config.uses_encoder:
        files = {"selector": files["selector"]}
    if missing := [path for path in files.values() if not path.is_file()]:
        raise DataError(f"{run}: the run is not finished, it lacks {missing[0].relative_to(run)}; run the workflow")
    table = _swaps(run, config, base)[0]
    if not table.is_file():
        raise DataError(f"{run}: the run is not finished, it lacks {table.relative_to(run)}; run the workflow")
    metadata = pq.read_schema(table).metadata
    _check_config(table, config.rebalance, metadata)
    brought = config.rebalance.editor.kind in ("inpainting", "translation")  # it has files of its own, too
    if not brought and metadata[b"models_digest"].decode() != digest_of_files(*files.values()):
        raise DataError(f"{table}: made by other networks than are in {run / 'models'}; run the workflow again")
    return {role: digest_of_files(path) for role, path in files.items()}


def _region_text(region: Any) -> str:
    """Name a region in a cell: the parts, or the edges of a box in shares of the side."""
    if isinstance(region, PartRegion):
        return "+".join(region.parts)
    return f"box rows {region.top:g}-{region.bottom:g} columns {region.left:g}-{region.right:g}"
