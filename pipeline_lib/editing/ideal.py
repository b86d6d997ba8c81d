"""The dataset with every planned edit drawn as it should be, which no editor can surpass; only of avatars."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline_lib.config import AvatarData, Rebalance
from pipeline_lib.data.avatars import Face, draw_variants, face_of, render_image
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.assemble import replace_images
from pipeline_lib.rebalance.groups import attributes_of
from pipeline_lib.rebalance.plan import needed_edits
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.revisions import stage


@stage(revision=1)
def draw_ideal(
    *,
    images: list[Path],
    plan: Path,
    counterfactuals: Path,
    data: AvatarData,
    settings: Rebalance,
    run: str,
    seed: int,
    ideal: list[Path],
) -> None:
    """Draw the images of a plan with the attribute that they were to get, so that the target rates are met exactly.

    An edit that shows this by truth is replaced by its ideal edit, the nearest drawing. For any other a drawing that
    does is picked at random.

    Args:
        images: shards of the dataset.
        plan: its table of edits.
        counterfactuals: the drawings that the edits made are nearest to.
        data: the config section of the dataset.
        settings: the config section of the edits.
        run: name of the run, stored in the files.
        seed: seed of the run.
        ideal: shards to write, one for each of `images`.
    """
    nearest = read_table(counterfactuals, "counterfactuals").set_index("image_id")["nearest"].to_dict()
    known = attributes_of(settings.targets)
    drawn = {}
    for edit in needed_edits(read_table(plan, "plan")).itertuples():
        parts = settings.edit.region_of(edit.attribute).parts
        face = face_of(data, edit.image_id)
        variants = successful_variants(face, parts, edit.attribute, edit.wanted, known)
        name = nearest.get(edit.image_id)
        if name not in variants:
            names = sorted(variants)
            name = names[seeding.numpy_generator(seed, "ideal", edit.image_id).integers(len(names))]
        drawn[edit.image_id] = render_image(variants[name], data.resolution, data.crop)
    replace_images(images, ideal, drawn, run)


def successful_variants(
    face: Face, parts: Sequence[str], attribute: str, wanted: bool, known: Collection[str]
) -> dict[str, Face]:
    """Return a face with each drawing of some parts that gives an attribute a value and keeps the others.

    Args:
        face: the face.
        parts: names of the parts whose drawings are exchanged.
        attribute: the attribute that is edited.
        wanted: its value in the result.
        known: names of the attributes of all targets and their conditions, which keep their values.
    """
    kept = {name: value for name, value in face.attributes.items() if name in known}
    aim = kept | {attribute: bool(wanted)}
    return {
        name: variant
        for name, variant in draw_variants(face, parts)
        if all(variant.attributes[key] == value for key, value in aim.items())
    }
