"""What edited images show, and who says so: an audit, a drawing, or of values aimed at the referee."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_lib.audit.labels import read_edits
from pipeline_lib.config import Config
from pipeline_lib.config.names import RESERVED
from pipeline_lib.data.tables import attribute_columns, read_table
from pipeline_lib.evaluation.run import Run
from pipeline_lib.release.provenance import FILE
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of_files

AUDIT, DRAWING, REFEREE = "audit", "drawing", "referee"


def confirm_edits(
    edits: pd.DataFrame, run: Run, config: Config, given: Mapping[str, str], name: str, image_ids: pa.ChunkedArray
) -> None:
    """Fill in what an audit or a drawing shows of edited images, and where each label comes from.

    Somebody who labelled an image by eye is believed before its closest clean rendering, and both before a label that
    was carried over from the original. Where they cannot tell, nothing is known.

    Args:
        edits: a row for each edited image, by its name, with `target_attribute`, `target_value` and a column for each
            attribute, nullable bool, null where the edit made it unknown. Filled in are the attributes; `confirmed_by`,
            who says that it shows the value aimed at (`AUDIT`, `DRAWING`, or `REFEREE` where neither says anything;
            None: nobody); and `carried_over`, the attributes whose labels are those of the original, as a JSON list.
        run: the run.
        config: its config.
        given: digests of the files that the config names, from its provenance.
        name: name of the rebalanced set.
        image_ids: names of all its images.

    Raises:
        DataError: a file of labels is missing, or not the one that the run was made with.
    """
    attributes = [column for column in edits if column not in RESERVED]
    labels = edits[attributes]
    seen = drawn = pd.DataFrame()
    if name == "dataset_rebalanced":
        seen, drawn = _by_eye(config, given, image_ids), _by_drawing(run, config)
    by_eye = labels.notna() & False
    by_eye.loc[seen.index.intersection(labels.index), seen.columns.intersection(attributes)] = True
    seen, drawn = (found.reindex(index=labels.index, columns=attributes) for found in (seen, drawn))
    told = seen.where(by_eye, drawn.where(labels.isna())).astype("boolean")
    edits[attributes] = told.fillna(labels)
    carried = (labels.notna() & told.isna()).to_numpy(bool)
    edits["carried_over"] = [
        json.dumps(list(labels.columns[row]), ensure_ascii=False) if row.any() else None for row in carried
    ]
    path = run.scores("referee", name)
    scores = read_table(path, "scores").set_index("image_id") if path.is_file() else None
    for attribute, own in edits.groupby("target_attribute"):
        wanted, names = own["target_value"].astype("boolean"), own.index
        shows = told.loc[names, attribute] if attribute in told else wanted & pd.NA
        looked = by_eye.loc[names, attribute] if attribute in told else wanted.isna()
        opinion = wanted.isna() if scores is None else (scores.loc[names, attribute] > 0.5) == wanted
        edits.loc[names, "confirmed_by"] = np.select(
            [(shows == wanted).fillna(False), looked | shows.notna(), opinion],
            [np.where(looked, AUDIT, DRAWING), None, REFEREE],
            None,
        )


def _by_eye(config: Config, given: Mapping[str, str], image_ids: pa.ChunkedArray) -> pd.DataFrame:
    """Return what an audit of the edited images shows, nullable bool; null where it could not be determined."""
    audit = config.certify.labels or []
    for path in audit:
        if not path.is_file() or digest_of_files(path) != given.get(path.as_posix()):
            raise DataError(
                f"{path}: labels of edited images (`certify.labels`), but not the file that the run was made with; put "
                f"that back, or run the workflow again, which also records it in {FILE}"
            )
    return read_edits(audit, set(image_ids.to_pylist()) if audit else set(), config.rebalance)[0]


def _by_drawing(run: Run, config: Config) -> pd.DataFrame:
    """Return what the closest clean renderings of edited avatars show; empty where unknown or not counted."""
    if not config.knows_ideal_edits:
        return pd.DataFrame()
    truth = run.need(run.labels("dataset_rebalanced", true=True))
    if not run.counterfactual.counts:
        return pd.DataFrame()
    shown = read_table(truth, "labels").set_index("image_id")
    return shown[attribute_columns(shown, "labels")].astype("boolean")
