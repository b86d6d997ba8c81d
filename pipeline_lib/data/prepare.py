"""The first stage: a reader fills image shards, the table of true attributes and the true part masks."""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config import AvatarData
from pipeline_lib.data.avatars import draw_face, render_face
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.runtime.files import digest_of
from pipeline_lib.runtime.progress import Progress

logger = logging.getLogger(__name__)

HELD_OUT_FROM = 10_000_000  # index of the first held-out face: no training set, however large, reaches it
CHUNK = 128


def prepare_dataset(
    *,
    settings: AvatarData,
    run: str,
    images: list[Path],
    labels: Path,
    masks: Path,
    held_out: list[Path],
    held_out_labels: Path,
    held_out_masks: Path,
    threads: int,
) -> None:
    """Render the training and the held-out set.

    Args:
        settings: the config section.
        run: name of the run, kept in the files.
        images: shards of the training set to make.
        labels: its table of true attributes to make.
        masks: its table of part codes to make.
        held_out: shards of the held-out set to make.
        held_out_labels: its table of true attributes to make.
        held_out_masks: its table of part codes to make.
        threads: processes that render.
    """
    metadata = {"run": run, "config_digest": digest_of(settings.model_dump())}
    with ProcessPoolExecutor(threads) as pool:
        train = range(settings.images)
        _render_split("train", train, settings, images, labels, masks, metadata, pool)
        unseen = range(HELD_OUT_FROM, HELD_OUT_FROM + settings.held_out)
        _render_split("held_out", unseen, settings, held_out, held_out_labels, held_out_masks, metadata, pool)


def shard_of(position: int, count: int, shards: int) -> int:
    """Return the shard that the image at `position` of `count` lies in: shards are runs of nearly equal length."""
    return min(position * shards // count, shards - 1)


def _render_split(
    split: str,
    indices: range,
    settings: AvatarData,
    images: list[Path],
    labels: Path,
    masks: Path,
    metadata: dict[str, str],
    pool: ProcessPoolExecutor,
) -> None:
    rows, codes = [], []
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    with ExitStack() as stack:
        writers = [stack.enter_context(shard_writer(path, settings.resolution, metadata)) for path in images]
        progress = stack.enter_context(Progress(f"prepare_dataset ({split})", len(indices)))
        for chunk, rendered in zip(chunks, pool.map(partial(_render_chunk, settings), chunks), strict=True):
            for index, (image, part_codes, attributes) in zip(chunk, rendered, strict=True):
                name = f"avatar-{index:08d}"
                position = index - indices.start
                writer = writers[shard_of(position, len(indices), len(writers))]
                writer.add([name], image[None])
                rows.append({"image_id": name, "split": split, **attributes})
                codes.append({"image_id": name, "codes": part_codes.tobytes()})
            progress.advance(len(chunk))
        write_table(labels, "labels", pd.DataFrame(rows), metadata)
        write_table(masks, "masks", pd.DataFrame(codes), metadata)


def _render_chunk(settings: AvatarData, indices: range) -> list[tuple[np.ndarray, np.ndarray, dict[str, bool]]]:
    faces = [draw_face(settings.seed, index, settings.rates) for index in indices]
    return [(*render_face(face, settings.resolution, settings.crop), face.attributes) for face in faces]
