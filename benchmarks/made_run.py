"""A run with the files of a finished one but made-up content, to test and to time exports without any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.config import Config, parse_config
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.evaluation.results import Counterfactual
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.release.cards import front_matter
from pipeline_lib.release.provenance import record_provenance
from pipeline_lib.runtime.files import digest_of, digest_of_files, write_json
from pipeline_lib.stages import at_revision

SHARDS = 2
#: What is known of the edits of a made-up run by the closest clean rendering.
TRUTH = Counterfactual(
    n=0,
    planned=0,
    counts=True,
    check={},
    least_accuracy=0.95,
    succeeded_by_truth=0,
    share_by_truth=None,
    share_identical_outside=None,
    median_psnr_ideal=None,
    median_psnr_inside=None,
)
VALUES: dict[str, Any] = {
    "run": "made-up",
    "seed": 3,
    "data": {"reader": "avatars", "images": 64, "held_out": 64, "resolution": 32},
    "rebalance": {
        "targets": [
            {"where": {"long_hair": True}, "attribute": "smiling", "rate": 0.5},
            {"where": {"long_hair": False}, "attribute": "smiling", "rate": 0.5},
        ],
        "edit": {"editor": "poisson"},
    },
    "jobs": SHARDS,
    "retrain": None,
}


def make_run(
    folder: Path,
    names: Sequence[str],
    held_out: Sequence[str],
    pixels: np.ndarray,
    values: dict[str, Any] | None = None,
    edited: Sequence[int] = (),
    shows: Sequence[bool] | None = None,
) -> Config:
    """Write a run whose rebalanced dataset differs from the dataset in the images edited alone.

    An edit makes smiling unknown, and nothing else. The referee finds every edit to have succeeded, and of avatars the
    drawings show what `shows` says.

    Args:
        folder: folder of the run.
        names: names of the images of the dataset.
        held_out: names of those held out.
        pixels: images, uint8 (n, side, side, 3), which are repeated as often as needed; an edited image is inverted.
        values: the config; None for `VALUES`.
        edited: places of the edited images; the donor of each is the next image.
        shows: whether each of them smiles; None: as the edit was to make it.
    """
    config = parse_config(parse_config(values or VALUES).model_dump(mode="json"))  # as stages get it, from JSON
    settings, metadata = config.rebalance, {"run": config.run}
    of_data = metadata | {"config_digest": digest_of(config.data.model_dump())}
    labels = _labels(names, "train")
    prepared, assembled = ({"made_by": at_revision(stage)} for stage in ("prepare_dataset", "assemble_rebalanced"))
    _write_images(folder, "dataset", names, pixels, of_data | prepared)
    _write_images(folder, "held_out", held_out, pixels, of_data | prepared)
    _write_images(folder, "dataset_rebalanced", names, pixels, metadata | assembled, edited)
    write_table(folder / "labels/dataset.parquet", "labels", labels, of_data)
    write_table(folder / "labels/held_out.parquet", "labels", _labels(held_out, "held_out"), of_data)
    after = labels.drop(columns="split").astype({"smiling": "boolean", "long_hair": "boolean"})
    after.insert(1, "edited", np.isin(np.arange(len(names)), edited))
    after.loc[after["edited"], "smiling"] = pd.NA
    write_table(folder / "labels/dataset_rebalanced.parquet", "assembled", after, metadata)
    aimed = np.where(after["edited"], ~labels["smiling"], labels["smiling"])
    write_table(
        folder / "scores/referee/dataset_rebalanced.parquet",
        "scores",
        labels[["image_id"]].assign(smiling=np.where(aimed, 0.9, 0.1), long_hair=0.5),
        metadata,
    )
    if config.knows_ideal_edits:
        truth = labels.assign(smiling=aimed)
        truth.loc[list(edited), "smiling"] = truth.loc[list(edited), "smiling"] if shows is None else list(shows)
        write_table(folder / "labels/dataset_rebalanced_true.parquet", "labels", truth, metadata)
        TRUTH.write(folder / "evaluation/counterfactual.json")

    edits = pd.DataFrame({"image_id": [names[place] for place in edited], "position": list(edited), "target": 0})
    edits = edits.assign(attribute="smiling", wanted=~labels["smiling"].to_numpy()[list(edited)])
    write_table(folder / "plan/dataset.parquet", "plan", edits, metadata)
    (folder / "models").mkdir(exist_ok=True)
    editor, roles = settings.edit.editor, ["encoder", "source/generator"] if config.uses_encoder else []
    models = [folder / f"models/{role}.safetensors" for role in [*roles, "selector"]]
    given = [path / "unet.safetensors" for path in editor.files]
    for path in given:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.stem)  # not read, but its digest is
    for path in models:
        save_weights(path, PlainClassifier([path.stem], width=4), {"made_by": at_revision("train_detector")})
    made_by = metadata | {
        "config_digest": settings.candidates_digest(),
        "models_digest": digest_of_files(*given, *models),
    }
    tried = edits[["image_id"]].assign(donor_id=[names[(place + 1) % len(names)] for place in edited], chosen=True)
    others = tried.assign(donor_id=names[0], chosen=False)  # another candidate each, which was not chosen
    tried = pd.concat([others, tried]).assign(
        candidate=0, logit=0.0, in_group=True, seam=0.0, success=True, masked_l1=0.0
    )
    for shard in range(SHARDS):
        path = folder / f"swaps/dataset/{shard}.candidates.parquet"
        write_table(path, "candidates", tried.iloc[shard::SHARDS], made_by)
    write_json(folder / "evaluation/metrics.json", {})
    (folder / "report").mkdir()
    front = front_matter("Made up", len(names), config.data.reader, "edited")
    (folder / "report/datasheet.md").write_text(f"---\n{front}---\n\n# Made up\n")
    record_provenance(
        settings=config.model_dump(mode="json"),
        images=sorted(folder.glob("images/*/*.parquet")),
        models=models,
        given=[*given, *(config.certify.labels or [])],
        provenance=folder / "provenance.json",
    )
    return config


def _labels(names: Sequence[str], split: str) -> pd.DataFrame:
    places = np.arange(len(names))
    return pd.DataFrame({"image_id": names, "split": split, "smiling": places % 2 == 0, "long_hair": places % 3 == 0})


def _write_images(
    folder: Path,
    name: str,
    names: Sequence[str],
    pixels: np.ndarray,
    metadata: dict[str, str],
    edited: Sequence[int] = (),
) -> None:
    """Write the shards of an image set, a few images at a time."""
    changed = np.isin(np.arange(len(names)), edited)
    for shard, places in enumerate(np.array_split(np.arange(len(names)), SHARDS)):
        with shard_writer(folder / f"images/{name}/{shard}.parquet", pixels.shape[1], metadata) as writer:
            for some in np.array_split(places, len(places) // 512 + 1):
                images = pixels[some % len(pixels)]
                images[changed[some]] = 255 - images[changed[some]]
                writer.add([names[place] for place in some], images)
