"""Images that keep their own part, passed through the editor all the same, so that having been edited tells nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline_lib.config import Rebalance
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.editors import open_editor
from pipeline_lib.editing.swap import faces_at_a_time, swap
from pipeline_lib.imaging.transfer import to_uint8
from pipeline_lib.runtime.files import digest_of, digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage


@torch.no_grad()
@stage(revision=3)
def touch_images(
    *,
    images: list[Path],
    parts: Path,
    encoder: list[Path],
    generator: list[Path],
    precision: list[Path],
    model: list[Path],
    settings: Rebalance,
    shards: int,
    run: str,
    name: str,
    shard: int,
    touched: Path,
    device: torch.device,
) -> None:
    """Edit one shard of the images that have the part, each with itself as donor, and finish them as edits are.

    Whatever an edit leaves behind besides the part, such as softer colours, is then in all images alike. Images that
    are to be edited are among them, because an edit may fail.

    Args:
        images: all shards of the image set.
        parts: its table of parts.
        encoder: weight file; empty for an editor that needs none.
        generator: likewise.
        precision: report of the encoder, likewise.
        model: files of another editor's model, likewise.
        settings: the config section.
        shards: jobs that the images are divided among.
        run: name of the run, stored in the file.
        name: name of the image set.
        shard: index of the shard, of `shards`.
        touched: image shard to write.
        device: where to compute.
    """
    edit = settings.first_attribute().edit  # of the only one
    image_set = ImageSet(images, parts, parts_of(edit.region))
    editor = open_editor(edit, encoder, generator, precision, device)
    resolution = image_set.pixels.shape[1]
    count = faces_at_a_time(device, 1, resolution)
    # whole batches of one size, as for edits: rounding depends on the batch
    starts = range(0, len(image_set.with_part), count)[shard::shards]
    metadata = {
        "run": run,
        "config_digest": digest_of(settings.model_dump()),
        "models_digest": digest_of_files(*encoder, *generator, *model),
        "precision": editor.precision,
    }
    with (
        shard_writer(touched, resolution, metadata) as writer,
        Progress(f"touch_images ({name}, {shard})", len(starts) * count) as progress,
    ):
        for start in starts:
            positions = image_set.with_part[start : start + count]
            filled = positions[np.minimum(np.arange(count), len(positions) - 1)]
            looked = image_set.look(filled)
            finished = swap(looked, looked, edit, editor, device).finished
            writer.add([image_set.names[place] for place in positions], to_uint8(finished[: len(positions)]).numpy())
            progress.advance(count)
