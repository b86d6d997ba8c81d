"""What edited images show, and who says so: an audit, a drawing, or of values aimed at the referee."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.audit.labels import read_edits
from pipeline_lib.config import Config
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.evaluation.run import Run
from pipeline_lib.release.provenance import FILE
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files

AUDIT, DRAWING, REFEREE = "audit", "drawing", "referee"


def confirm_edits(
    run: Run,
    name: str,
    config: Config,
    provenance: dict[str, Any],
    names: set[str],
    edits: pd.DataFrame,
    labels: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the labels of edited images with what an audit or a drawing shows, and where each comes from.

    Somebody who labelled an image by eye is believed before its nearest drawing, and both before a label that was
    carried over from the original. Where they cannot tell, nothing is known.

    Args:
        run: the run.
        name: name of the rebalanced set.
        config: config of the run.
        provenance: what made the run.
        names: names of all images of the set.
        edits: `attribute` and `wanted` of each edited image, by image.
        labels: of the same images by the run's label table, nullable bool, null where the edit made them unknown.

    Returns:
        The labels; and for each image `confirmed_by`, who says that it shows the value aimed at (`AUDIT`, `DRAWING`, or
        `REFEREE` where neither says anything; None: nobody), with `carried_over`, the attributes whose labels are those
        of the original, as a JSON list.

    Raises:
        DataError: a file of labels is missing, or not the one that the run was made with.
    """
    seen, drawn = _by_eye(config, provenance, names, name), _by_drawing(run, config, name)
    by_eye = labels.notna() & False
    by_eye.loc[seen.index.intersection(labels.index), seen.columns.intersection(labels.columns)] = True
    seen, drawn = (found.reindex(index=labels.index, columns=labels.columns) for found in (seen, drawn))
    told = seen.where(by_eye, drawn.where(labels.isna())).astype("boolean")
    carried = labels.notna() & told.isna()
    made_by = pd.DataFrame({"confirmed_by": None, "carried_over": None}, labels.index, dtype=object)
    made_by["carried_over"] = [
        json.dumps(list(labels.columns[row]), ensure_ascii=False) if row.any() else None
        for row in carried.to_numpy(bool)
    ]
    path = run.scores("referee", name)
    scores = read_table(path, "scores").set_index("image_id").loc[labels.index] if path.is_file() else None
    for attribute, own in edits.groupby("attribute"):
        wanted, names = own["wanted"].astype("boolean"), own.index
        shows = told.loc[names, attribute] if attribute in told else wanted & pd.NA
        looked = by_eye.loc[names, attribute] if attribute in told else wanted.isna()
        opinion = wanted.isna() if scores is None else (scores.loc[names, attribute] > 0.5) == wanted
        made_by.loc[names, "confirmed_by"] = np.select(
            [(shows == wanted).fillna(False), looked | shows.notna(), opinion],
            [np.where(looked, AUDIT, DRAWING), None, REFEREE],
            None,
        )
    return told.fillna(labels), made_by


def _by_eye(config: Config, provenance: dict[str, Any], names: set[str], name: str) -> pd.DataFrame:
    """Return what an audit of the edited images shows, nullable bool; null where it could not be determined."""
    audit = (config.certify.labels or []) if name == "dataset_rebalanced" else []
    if not audit:
        return pd.DataFrame()
    for path in audit:
        if not path.is_file() or digest_of_files(path) != provenance["given"].get(path.as_posix()):
            raise DataError(
                f"{path}: labels of edited images (`certify.labels`), but not the file that the run was made with; put "
                f"that back, or run the workflow again, which also records it in {FILE}"
            )
    return read_edits(audit, names, config.rebalance)[0]


def _by_drawing(run: Run, config: Config, name: str) -> pd.DataFrame:
    """Return what the nearest drawings of edited avatars show; empty where that is unknown or does not count."""
    if name != "dataset_rebalanced" or not config.knows_ideal_edits:
        return pd.DataFrame()
    truth = run.need(run.labels(name, true=True))
    if not run.counterfactual.counts:
        return pd.DataFrame()
    shown = read_table(truth, "labels").set_index("image_id")
    return shown[attribute_columns(shown, "labels")].astype("boolean")
