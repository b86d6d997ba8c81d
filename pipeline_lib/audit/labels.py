"""Labels of an audit: a CSV of images that were labelled by eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.audit.estimate import cohens_kappa
from pipeline_lib.config import Rebalance
from pipeline_lib.data.shards import digest_of_images, open_shard
from pipeline_lib.rebalance.groups import attributes_of, counts_for, in_group
from pipeline_lib.rebalance.plan import Audited
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files

VALUES = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False, "?": None}
FIRST_SAMPLES = 16  # by which samples of one generator are told from another's


def read_audit(
    path: Path,
    names: set[str],
    attributes: Sequence[str],
    digests: Sequence[str],
    of: str = "the rebalanced dataset",
) -> pd.DataFrame:
    """Read the labels of an audit, a nullable bool column for each attribute, by image.

    Args:
        path: CSV with the columns `image_id` and `dataset`, and one for each attribute, of 1 or 0, true or false, yes
            or no, or ? for an image of which it cannot be told.
        names: names of the images that the audit can be of.
        attributes: names of the attributes of the targets and their conditions.
        digests: digests of these images, one of which is in the column `dataset`.
        of: what the images are, for messages.

    Raises:
        DataError: a column or a value is missing, the audit is of other images, or an image has two different rows.
    """
    rows = _read_rows(path, names, ("dataset", *attributes), of)
    if not rows["dataset"].isin(digests).all():
        raise DataError(f"{path}: an audit of other images, since {of} has changed; draw a new one")
    return _values(path, rows[list(attributes)])


def read_edits(
    path: Path, names: set[str], attributes: Sequence[str], digests: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.Series]:
    """Read the labels of the edited images of an audit of this dataset or an earlier one; see `read_audit`.

    Args:
        path: a CSV that also has the column `edit`, which is empty for unedited images.
        names: names of the images.
        attributes: names of the attributes of the targets and their conditions.
        digests: edited attributes by their `Rebalance.edits_digest`, which `edit` has for edited images.

    Returns:
        The labels, and the attribute that was edited, by image.

    Raises:
        DataError: as in `read_audit`, or the edits were made with other settings.
    """
    rows = _read_rows(path, names, ("edit", *attributes), "the rebalanced dataset")
    rows = rows[rows["edit"] != ""]
    if not rows["edit"].isin(list(digests)).all():
        raise DataError(
            f"{path}: labels of edits made with other settings, since `rebalance` has changed; audit the present edits"
        )
    return _values(path, rows[list(attributes)]), rows["edit"].map(dict(digests))


def audit_edits(
    audit: Sequence[Path], names: Sequence[str], holds: Mapping[str, np.ndarray], settings: Rebalance
) -> list[Audited]:
    """Count for each target the audited edits, and those that show the target value in their group.

    Args:
        audit: CSV files, of one round or of several. An edit of which it could not be told whether it succeeded, or
            about which two of them differ, is not counted.
        names: names of the images.
        holds: whether each image had each attribute before the edit, by `holds_of`.
        settings: the config section.

    Raises:
        DataError: a file cannot be used.
    """
    targets = settings.targets
    attributes = attributes_of(targets)
    digests = {settings.edits_digest(attribute): attribute for attribute in settings.edited}
    read = [read_edits(path, set(names), attributes, digests) for path in audit]
    known = combine_audits([values for values, _ in read])
    edited = pd.concat([edited for _, edited in read]).groupby(level=0).first().loc[known.index]
    before = pd.DataFrame(holds, index=pd.Index(names)).loc[known.index]
    counted = []
    for target in targets:
        rises = target.rate > holds[target.attribute][counts_for(holds, target)].mean()
        made_for = counts_for(dict(before.items()), target) & (before[target.attribute] != rises)
        made_for &= edited == target.attribute
        succeeded = in_group(dict(known.items()), target.where) & (known[target.attribute] == rises)
        made_for &= succeeded.notna()
        counted.append(Audited(int(made_for.sum()), int((made_for & succeeded).sum())))
    return counted


def check_fresh(audit: Sequence[Path], planned_with: Sequence[Path]) -> None:
    """Refuse labels that the edits were planned by, or the same sheet once more: neither can certify these edits."""
    used = {frozenset(_read_csv(path)["image_id"]): path for path in planned_with}
    for path in audit:
        if other := used.get(frozenset(_read_csv(path)["image_id"])):
            raise DataError(
                f"{path}: the images of {other}, by which the edits were planned (`rebalance.labels`); certify with a "
                "sheet of its own, which `python -m pipeline_lib audit --sheet 2` draws"
            )


def check_different(audit: Sequence[Path], key: str = "certify.labels") -> None:
    """Refuse two files with the same content, whose agreement would prove nothing, under the key that names them."""
    seen: dict[str, Path] = {}
    for path in audit:
        other = seen.setdefault(digest_of_files(path), path)
        if other != path or audit.count(path) > 1:
            raise DataError(f"{path}: the same labels as in {other}; name each file of `{key}` once")


def combine_audits(sheets: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each image of several audits; where two differ, it cannot be told what the image shows."""
    rows = pd.concat(sheets)
    names = rows.index
    same = (rows.groupby(names).nunique(dropna=False) == 1).loc[names]
    return rows.where(same.to_numpy())[~names.duplicated()].astype("boolean")


def sealed_name(image_id: str) -> str:
    """Return the name of a sample in an audit, which does not tell whose sample it is."""
    return digest_of([image_id])


def digests_of_dataset(shards: Sequence[Path]) -> list[str]:
    """Return the digest that a new audit of a dataset has, and that of earlier versions, which is of the files' bytes.

    Args:
        shards: all shards of the dataset.
    """
    return [digest_of_images(shards), digest_of_files(*sorted(shards))]


def digests_of_samples(shards: Sequence[Path], truncation: float, seed: int) -> list[str]:
    """Return the digest that a new audit of a generator's samples has, and that of earlier versions.

    The first samples count. How many there are does not matter, since further samples change none of the first. Earlier
    versions had a digest of the generator's file and the settings.

    Args:
        shards: their shards, in the order of their numbers.
        truncation: `sample.truncation` of the config.
        seed: seed of the run.
    """
    generator = (open_shard(shards[0]).schema_arrow.metadata or {}).get(b"generator_digest")
    if generator is None:
        raise DataError(f"{shards[0]}: no digest of a generator, so not a shard of samples; run the rule that makes it")
    return [digest_of_images(shards, FIRST_SAMPLES), digest_of([generator.decode(), truncation, seed])]


def agreement_of_audits(sheets: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Return for each two audits of the same images and each attribute on how many they agree, and Cohen's kappa.

    That it cannot be told is an answer too.

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


def _read_rows(path: Path, names: set[str], columns: Sequence[str], of: str) -> pd.DataFrame:
    """Read columns of a CSV as they are written, by image."""
    rows = _read_csv(path)
    if missing := [name for name in columns if name not in rows]:
        raise DataError(f"{path}: no column `{missing[0]}`; it has {', '.join(rows.columns)}")
    rows = rows.drop_duplicates()
    repeated = rows.loc[rows["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise DataError(f"{path}: {repeated.iloc[0]} has two rows with different labels; keep one")
    strangers = [name for name in rows["image_id"] if name not in names]
    if strangers:
        raise DataError(
            f"{path}: {strangers[0]} is no image of this run's {of.removeprefix('the ')}; draw a new audit for it"
        )
    return rows.set_index("image_id")[list(columns)]


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
