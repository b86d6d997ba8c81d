"""Labels by eye: CSVs that the pages of an audit save, each of which says what its images are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.audit.estimate import cohens_kappa
from pipeline_lib.config import Rebalance
from pipeline_lib.config.names import AUDITED, readable
from pipeline_lib.data.shards import digest_of_images
from pipeline_lib.rebalance.groups import attributes_of, counts_for, in_group
from pipeline_lib.rebalance.plan import Audited
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files

VALUES = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False, "?": None}
FIRST_SAMPLES = 16  # by which samples of one generator differ from another's; further samples change none of these
#: Columns of a CSV beside the attributes: the image set, the digest of its images, and by which settings an image was
#: edited (`Rebalance.edits_digest`; empty for unedited images and samples).
COLUMNS = ("image_id", "image_set", "digest", "edit")


@dataclass(frozen=True)
class Sheet:
    """Labels of one file: nullable bool, a column for each attribute, by image; and what they are of, likewise."""

    path: Path
    labels: pd.DataFrame
    digests: pd.Series
    edits: pd.Series

    def of_edits(self, digests: Mapping[str, str]) -> tuple[pd.DataFrame, pd.Series]:
        """Return the labels of edited images, of this dataset or an earlier one, and the attribute that was edited.

        Args:
            digests: edited attributes by their `Rebalance.edits_digest`.

        Raises:
            DataError: the edits were made with other settings.
        """
        edits = self.edits[self.edits != ""]
        if not edits.isin(list(digests)).all():
            raise DataError(
                f"{self.path}: labels of edits made with other settings, since `rebalance` has changed; audit the "
                "present edits"
            )
        return self.labels.loc[edits.index], edits.map(dict(digests))


def read_sheets(paths: Sequence[Path], image_set: str, names: set[str], attributes: Sequence[str]) -> list[Sheet]:
    """Read those of several CSVs that are of an image set.

    A CSV has the columns `COLUMNS`, and one for each attribute, of 1 or 0, true or false, yes or no, or ? for what
    could not be determined.

    Args:
        paths: the files.
        image_set: a key of `AUDITED`.
        names: names of the images that the sheet can have.
        attributes: names of the attributes of the targets and their conditions.

    Raises:
        DataError: a column or a value is missing, an image is not of this set, or has two different rows; or two files
            are the same.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(digest_of_files(path), path)
        if other != path or paths.count(path) > 1:
            raise DataError(f"{path}: the same labels as in {other}; name each file once")
    read = [(path, _read_rows(path, attributes)) for path in paths]
    return [
        _sheet(path, rows, image_set, names, attributes)
        for path, rows in read
        if rows["image_set"].iloc[:1].eq(image_set).all()
    ]


def read_present_labels(
    paths: Sequence[Path], image_set: str, names: set[str], attributes: Sequence[str], shards: Sequence[Path]
) -> dict[str, pd.DataFrame]:
    """Read labels of the present images of a set, by file; see `read_sheets`.

    Raises:
        DataError: as there, or an audit is of other images than those in these shards.
    """
    sheets = read_sheets(paths, image_set, names, attributes)
    for sheet in sheets:
        if (sheet.digests != digest_of_set(image_set, shards)).any():
            raise DataError(
                f"{sheet.path}: an audit of other images, since the {readable(image_set)} has changed; draw a new one"
            )
    return {str(sheet.path): sheet.labels for sheet in sheets}


def count_successes(
    paths: Sequence[Path], names: Sequence[str], holds: Mapping[str, np.ndarray], settings: Rebalance
) -> list[Audited]:
    """Count for each target the audited edits, and those that show the target value in their group.

    Args:
        paths: CSV files, of one round or of several. An edit whose success could not be determined, or about which two
            of them differ, is not counted.
        names: names of the images.
        holds: whether each image had each attribute before the edit, by `holds_of`.
        settings: the config section.

    Raises:
        DataError: a file cannot be used.
    """
    known, edited = read_edits(paths, set(names), settings)
    before = pd.DataFrame(holds, index=pd.Index(names)).loc[known.index]
    counted = []
    for target in settings.targets:
        rises = target.rate > holds[target.attribute][counts_for(holds, target)].mean()
        made_for = counts_for(dict(before.items()), target) & (before[target.attribute] != rises)
        made_for &= edited == target.attribute
        succeeded = in_group(dict(known.items()), target.where) & (known[target.attribute] == rises)
        made_for &= succeeded.notna()
        counted.append(Audited(int(made_for.sum()), int((made_for & succeeded).sum())))
    return counted


def read_edits(paths: Sequence[Path], names: set[str], settings: Rebalance) -> tuple[pd.DataFrame, pd.Series]:
    """Read labels of edits that were made with these settings; returns them, and the attribute that was edited."""
    attributes = attributes_of(settings.targets)
    digests = {settings.edits_digest(attribute): attribute for attribute in settings.edited}
    read = [sheet.of_edits(digests) for sheet in read_sheets(paths, "dataset_rebalanced", names, attributes)]
    known = combine_labels([labels for labels, _ in read], attributes)
    if not read:
        return known, pd.Series(dtype=str)
    return known, pd.concat([edited for _, edited in read]).groupby(level=0).first().loc[known.index]


def check_fresh(audit: Sequence[Path], planned_with: Sequence[Path]) -> None:
    """Refuse labels that the edits were planned by, or the same sheet once more: neither can certify these edits."""
    used = {frozenset(_read_csv(path)["image_id"]): path for path in planned_with}
    for path in audit:
        if other := used.get(frozenset(_read_csv(path)["image_id"])):
            raise DataError(
                f"{path}: the images of {other}, by which the edits were planned (`rebalance.labels`); certify with a "
                "sheet of its own, which `python -m pipeline_lib audit --sheet 2` draws"
            )


def combine_labels(sheets: Sequence[pd.DataFrame], attributes: Sequence[str]) -> pd.DataFrame:
    """Return one row for each image of several sheets; where two differ, the image could not be determined."""
    if not sheets:
        return pd.DataFrame(columns=list(attributes), dtype="boolean")
    rows = pd.concat(sheets)
    names = rows.index
    same = (rows.groupby(names).nunique(dropna=False) == 1).loc[names]
    return rows.where(same.to_numpy())[~names.duplicated()].astype("boolean")


def agreement_of(sheets: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Return for each two sheets of the same images and each attribute on how many they agree, and Cohen's kappa.

    "Could not be determined" is an answer too.

    Args:
        sheets: labels by the name of their file.
    """
    found = []
    for (one, first), (other, second) in combinations(sheets.items(), 2):
        shared = first.index.intersection(second.index)
        for attribute in first if len(shared) else ():
            answers = [
                sheet.loc[shared, attribute].astype("string").fillna("?").to_numpy(str) for sheet in (first, second)
            ]
            agree, kappa = cohens_kappa(*answers)
            counts = {"images": len(shared), "agree": agree, "kappa": kappa}
            found.append({"files": [one, other], "attribute": attribute} | counts)
    return found


def sealed_name(image_id: str) -> str:
    """Return the name of a sample in an audit, which does not reveal whose sample it is."""
    return digest_of([image_id])


def digest_of_set(image_set: str, shards: Sequence[Path]) -> str:
    """Return the digest that an audit of an image set has: of all images of a dataset, or the first of a generator.

    Args:
        image_set: a key of `AUDITED`.
        shards: its shards, in the order of their numbers.
    """
    return digest_of_images(shards, FIRST_SAMPLES if image_set == "retrained" else None)


def _sheet(path: Path, rows: pd.DataFrame, image_set: str, names: set[str], attributes: Sequence[str]) -> Sheet:
    rows = rows.drop_duplicates()
    repeated = rows.loc[rows["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise DataError(f"{path}: {repeated.iloc[0]} has two rows with different labels; keep one")
    if strangers := [name for name in rows["image_id"] if name not in names]:
        raise DataError(
            f"{path}: {strangers[0]} is no image of this run's {readable(image_set)}; draw a new audit for it"
        )
    rows = rows.set_index("image_id")
    return Sheet(path, _values(path, rows[list(attributes)]), rows["digest"], rows["edit"])


def _read_rows(path: Path, attributes: Sequence[str]) -> pd.DataFrame:
    """Read the columns of a CSV as they are written."""
    rows = _read_csv(path)
    if missing := [name for name in (*COLUMNS, *attributes) if name not in rows]:
        raise DataError(f"{path}: no column `{missing[0]}`; it has {', '.join(rows.columns)}")
    sets = rows["image_set"].unique()
    if len(sets) != 1 or sets[0] not in AUDITED:
        raise DataError(f"{path}: `image_set` is {', '.join(sets)}; it must be one of {', '.join(AUDITED)}")
    return rows[[*COLUMNS, *attributes]]


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable CSV ({' '.join(str(error).split())})") from None
    if "image_id" not in rows:
        raise DataError(f"{path}: no column `image_id`; it has {', '.join(rows.columns)}")
    return rows


def _values(path: Path, answers: pd.DataFrame) -> pd.DataFrame:
    """Return answers as nullable bool."""
    values = answers.apply(lambda column: column.str.strip().str.lower())
    usable = values.isin(list(VALUES))
    if not usable.all(axis=None):
        name, attribute = usable.stack().idxmin()
        raise DataError(f"{path}: {name} has `{values.loc[name, attribute]}` for `{attribute}`; 1, 0 or ? is needed")
    return values.apply(lambda column: column.map(VALUES)).astype("boolean")
