"""Export of image sets as PNG files with a label table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from pipeline_lib.data.images import SUFFIXES
from pipeline_lib.data.shards import count_images, iterate_shards
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path
from pipeline_lib.runtime.progress import Progress

TABLE = "labels.csv"


def export_images(run: Path, name: str, target: Path) -> int:
    """Write an image set as PNG files with `labels.csv`, ready for the reader `folder`.

    The table is written last, so a folder without it is incomplete. Attributes are 1, 0, or empty where unknown, as for
    edited images.

    Args:
        run: folder of the run, such as results/avatars.
        name: name of the image set, such as dataset_rebalanced.
        target: output folder; must be empty if it exists.

    Returns:
        Number of images written.

    Raises:
        DataError: the run has no such set, or the target is not empty.
    """
    shards = sorted((run / "images" / name).glob("*.parquet"), key=lambda path: int(path.stem))
    if not shards:
        known = ", ".join(sorted(path.name for path in run.glob("images/*"))) or "none"
        raise DataError(f"{run}: no image set {name}; it has {known}")
    if target.exists() and any(target.iterdir()):
        raise DataError(f"{target}: not empty; use another folder, so that nothing is overwritten")
    files: dict[str, str] = {}
    with Progress("export", count_images(shards)) as progress:
        for image_ids, pixels in iterate_shards(shards):
            for image_id, image in zip(image_ids, pixels, strict=True):
                files[image_id] = _file_name(image_id)
                path = target / files[image_id]
                if path.exists():
                    raise DataError(f"{path}: two images of {name} would get this name; rename one in the source")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
            progress.advance(len(image_ids))
    table = _labels(run, name)
    if table is None:
        table = pd.DataFrame({"image_id": list(files)})
    table.insert(0, "image", table.pop("image_id").map(files))
    with atomic_path(target / TABLE) as beside:
        table.to_csv(beside, index=False)
    return len(files)


def _file_name(image_id: str) -> str:
    named = Path(image_id)
    return (named.with_suffix("") if named.suffix.lower() in SUFFIXES else named).as_posix() + ".png"


def _labels(run: Path, name: str) -> pd.DataFrame | None:
    path = run / "labels" / f"{name}.parquet"
    if not path.exists():
        return None
    assembled = name.endswith("_rebalanced")
    kind = "assembled" if assembled else "labels"
    table = read_table(path, kind)
    for column in [*attribute_columns(table, kind), *({"edited", "touched"} & set(table))]:
        table[column] = table[column].astype("boolean").astype("Int8")
    return table
