"""The first stage, which writes image shards, labels and part masks from a dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd

from pipeline_lib.config import Data
from pipeline_lib.data.copies import Copies, digest_of_pixels
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.sources import IN_TRAINING, BadImageError, Item, Record, Source
from pipeline_lib.data.tables import SCHEMAS, table_writer, write_table
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of
from pipeline_lib.runtime.overlap import map_ahead
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

CHUNK = 128
CHUNKS_AHEAD = 64  # that are read, or being read, before they are written


@stage(revision=4)
def prepare_dataset(
    *,
    settings: Data,
    run: str,
    images: list[Path],
    labels: Path,
    masks: Path,
    held_out: list[Path],
    held_out_labels: Path,
    held_out_masks: Path,
    quarantine: Path,
    notes: Path,
    threads: int,
) -> None:
    """Read the training and the held-out set.

    An image that cannot be used is skipped and listed in the quarantine table with the reason. So are all copies of a
    picture whose labels say the opposite of each other. Held-out images of what training shows, which are other copies
    and people of whom a copy tells that they are in both, are left out. Images are read twice if they may be copies, so
    that all of this is known before the first is written.

    Args:
        settings: the config section.
        run: name of the run, stored in the files.
        images: shards of the training set to write.
        labels: table of its labels to write.
        masks: table of its part codes to write; empty if the dataset has no masks.
        held_out: shards of the held-out set to write.
        held_out_labels: table of its labels to write.
        held_out_masks: table of its part codes to write.
        quarantine: table of the skipped images to write.
        notes: table to write of what was left out, converted, or a copy of another image.
        threads: worker processes.

    Raises:
        DataError: labels cannot be read, or more images are unusable than the config tolerates.
    """
    source = open_source(settings)
    metadata = {
        "run": run,
        "config_digest": digest_of(settings.model_dump()),
        "preprocessing": source.preprocessing,
    }
    remarks = [_note(left.name, None, "left out", left.reason) for left in source.left_out]
    with ProcessPoolExecutor(threads) as pool:
        copies = _find_copies(source, pool)
        fill = partial(_fill_split, source, settings.resolution, metadata, pool, copies, remarks)
        bad = fill("train", source.train, images, labels, masks)
        bad += fill("held_out", source.held_out, held_out, held_out_labels, held_out_masks)
    write_table(quarantine, "quarantine", pd.DataFrame(bad, columns=SCHEMAS["quarantine"].names), metadata)
    remarked = pd.DataFrame(remarks, columns=SCHEMAS["notes"].names)
    for kind, rows in remarked.groupby("kind", sort=False):
        first = rows.iloc[0]
        logger.info("%s: %d, such as %s (%s); all are in %s", kind, len(rows), first["name"], first["reason"], notes)
    write_table(notes, "notes", remarked, metadata)


def open_source(settings: Data) -> Source:
    """Open a dataset, both splits of which have images.

    Raises:
        DataError: labels or files cannot be read, or a split is empty.
    """
    source = settings.open()
    for split, items in (("train", source.train), ("held_out", source.held_out)):
        if not items:
            shown = sum(left.reason == IN_TRAINING for left in source.left_out) if split == "held_out" else 0
            but = f" but {shown} of people who are also in training" if shown else ""
            raise DataError(f"data: no images in the split {split}{but}; add images or change `held_out`")
    return source


def shard_of(position: int, count: int, shards: int) -> int:
    """Return the shard of the image at `position` of `count`; shards are contiguous and of nearly equal length."""
    return min(position * shards // count, shards - 1)


def _fill_split(
    source: Source,
    resolution: int,
    metadata: dict[str, str],
    pool: ProcessPoolExecutor,
    copies: Copies,
    remarks: list[dict[str, str | None]],
    split: str,
    items: Sequence[Item],
    images: list[Path],
    labels: Path,
    masks: Path,
) -> list[dict[str, str]]:
    bad: list[dict[str, str]] = []
    kept: list[Item] = []
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with ExitStack() as stack:
        writers = [stack.enter_context(shard_writer(path, resolution, metadata)) for path in images]
        codes = stack.enter_context(table_writer(masks, "masks", metadata))
        progress = stack.enter_context(Progress(f"prepare_dataset ({split})", len(items)))
        for number, records in enumerate(map_ahead(pool, partial(_read_chunk, source.read), chunks, CHUNKS_AHEAD)):
            for place, (item, record) in enumerate(zip(chunks[number], records, strict=True)):
                record = copies.contradictions.get(item.image_id, record)
                if isinstance(record, str):
                    logger.warning("%s is skipped: %s", item.image_id, record)
                    bad.append({"image_id": item.image_id, "split": split, "reason": record})
                    continue
                out = item.image_id in copies.in_training
                if original := copies.originals.get(item.image_id):
                    reason = f"a copy of {original}; {'left out, for the same is in training' if out else 'kept'}"
                    remarks.append(_note(item.image_id, split, "duplicate", reason))
                elif out:
                    remarks.append(_note(item.image_id, split, "left out", IN_TRAINING))
                if out:
                    continue
                remarks += [_note(item.image_id, split, "converted", conversion) for conversion in record.conversions]
                shard = shard_of(number * CHUNK + place, len(items), len(writers))
                writers[shard].add([item.image_id], record.image[None])
                kept.append(item)
                if record.codes is not None:
                    codes.add([{"image_id": item.image_id, "codes": record.codes.tobytes()}])
            progress.advance(len(records))
        _check_bad(bad, split, len(items), source.tolerated)
        if not kept:
            raise DataError(
                f"data: every {split} image is a copy of a training image or of a person in training; add images or "
                "change the split"
            )
        people = [copies.person_of(item) for item in kept]
        columns = ["image_id", "split", *(["person"] if any(people) else []), *kept[0].attributes]
        table = stack.enter_context(table_writer(labels, "labels", metadata, columns))
        for item, person in zip(kept, people, strict=True):
            table.add([{"image_id": item.image_id, "split": split, "person": person, **item.attributes}])
    return bad


def _note(name: str, split: str | None, kind: str, reason: str) -> dict[str, str | None]:
    return {"name": name, "split": split, "kind": kind, "reason": reason}


def _check_bad(bad: list[dict[str, str]], split: str, count: int, tolerated: float) -> None:
    if len(bad) > tolerated * count or len(bad) == count:
        raise DataError(
            f"data: {len(bad)} of {count} {split} images cannot be used, more than `data.bad_images` tolerates; "
            f"the first is {bad[0]['image_id']} ({bad[0]['reason']})"
        )


def _read_chunk(read: Callable[[Item], Record], items: Sequence[Item]) -> list[Record | str]:
    """Read items in a worker process; an image that cannot be used is replaced by the reason."""
    records: list[Record | str] = []
    for item in items:
        try:
            records.append(read(item))
        except BadImageError as reason:
            records.append(str(reason))
    return records


def _find_copies(source: Source, pool: ProcessPoolExecutor) -> Copies:
    """Read all images once to compare their pixels, if equal ones are copies."""
    images = [(item, split) for split in ("train", "held_out") for item in getattr(source, split)]
    if not source.equal_are_copies:
        return Copies([])
    chunks = [[item for item, _ in images[start : start + CHUNK]] for start in range(0, len(images), CHUNK)]
    digests: list[bytes | None] = []
    with Progress("prepare_dataset (copies)", len(images)) as progress:
        for found in map_ahead(pool, partial(_digest_chunk, source.read), chunks, CHUNKS_AHEAD):
            digests += found
            progress.advance(len(found))
    return Copies([(item, split, digest) for (item, split), digest in zip(images, digests, strict=True)])


def _digest_chunk(read: Callable[[Item], Record], items: Sequence[Item]) -> list[bytes | None]:
    """Return a digest of the pixels of each item that can be used."""
    return [None if isinstance(record, str) else digest_of_pixels(record.image) for record in _read_chunk(read, items)]
