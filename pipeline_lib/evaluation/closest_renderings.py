"""What generated avatars show by the closest clean rendering, and whether the selector says the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.audit.estimate import Estimate, estimate_json, wilson_rate
from pipeline_lib.config import Evaluate, Rebalance
from pipeline_lib.data.avatars.closest import (
    LEAST_ACCURACY,
    Answers,
    answer,
    check_bank,
    crop_of,
    distances,
    draw_bank,
    features_of,
)
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.shards import iterate_batches
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.rates import gap, group_gap
from pipeline_lib.evaluation.results import ClosestRenderings
from pipeline_lib.imaging.transfer import to_float, to_uint8
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.rebalance.groups import group_name, in_group
from pipeline_lib.runtime.errors import ConfigError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

BATCH = 64  # images that pass through the networks at a time
COMPARED_AT_ONCE = 512  # samples


@dataclass(frozen=True)
class Samples:
    """Samples, and the networks that made them."""

    images: list[Path]  # all shards of all image sets, each in a folder named after its set
    selector: list[Path]  # the selector's scores, a table for each image set, under its name
    referee: list[Path]  # the referee's scores, likewise; they also give the group of a sample
    encoder: Path  # weight file
    generator: Path  # weight file of the source generator
    precision: Path  # report of the encoder, with the precision of the inversion


@stage(revision=2)
def compare_with_renderings(
    *,
    samples: Samples,
    data: AvatarData,
    settings: Rebalance,
    evaluate: Evaluate,
    seed: int,
    found: Path,
    device: torch.device,
    threads: int,
) -> None:
    """Find what samples show by the closest clean rendering, check that, and compare the selector with it.

    The bank has faces that are not of the dataset, as many of each group, each with every drawing of the region's
    parts. A sample is compared with all of them inside a crop outside of which the renderings of a face do not differ.
    Where the closest rendering that shows the attribute and the closest one that does not are about equally close, the
    answer is "ambiguous".

    The bank itself is passed through encoder and generator, without holes, for images as soft as samples. What such a
    reconstruction shows is known by the renderings of its own face, and is answered by those of other faces. The
    largest ratio that is no "ambiguous" is chosen on half of the faces, and checked on the others.

    Args:
        samples: what is compared.
        data: the config section of the dataset.
        settings: the config section of the edits, of which the first attribute counts.
        evaluate: the config section with the size of the bank.
        seed: seed of the run.
        found: JSON to write.
        device: where to reconstruct.
        threads: worker processes.

    Raises:
        ConfigError: there is to be no bank.
        DataError: the parts of the region have no drawings to exchange, or these do not differ.
    """
    if evaluate.judge_bank is None:
        raise ConfigError("evaluate.judge_bank: null, so there are no renderings to compare with; set a number")
    settings, attribute = settings.first_attribute(), settings.edited[0]
    wheres = {group_name(target.where): target.where for target in settings.targets}
    parts = settings.edit.region_of(attribute).parts
    bank = draw_bank(data, wheres, attribute, parts, evaluate.judge_bank, seed, threads)
    crop = crop_of(bank.images)
    inverter = open_inverter(samples.encoder, samples.generator, device, samples.precision, compile=False)
    largest, check = check_bank(bank, _reconstruct(bank.images, inverter), crop)
    if not check["counts"]:
        logger.warning(
            "the closest rendering of another face shows the wrong value of `%s` in more than %.2f of the "
            "reconstructions of a group; what it shows of samples does not count",
            attribute, 1 - LEAST_ACCURACY,
        )  # fmt: skip
    renderings, shows = features_of(bank.images, crop), bank.shows.ravel()
    by_selector = {path.stem: path for path in samples.selector}
    sets = {}
    for path in samples.referee:
        names, answers = [], []
        shards = [shard for shard in samples.images if shard.parent.name == path.stem]
        for batch_names, pixels in iterate_batches(shards, COMPARED_AT_ONCE):
            names += batch_names
            answers.append(answer(distances(features_of(pixels, crop), renderings), shows))
        of_set = Answers(*map(np.concatenate, zip(*answers, strict=True)))
        says, groups = _says(by_selector[path.stem], names)[attribute], _says(path, names)
        sets[path.stem] = compare(of_set.shows, of_set.ratio > largest, says, groups, settings, evaluate.confidence)
    values = {
        "attribute": attribute,
        "bank": {"renders": len(shows), "faces": len(bank.images)},
        "largest_ratio": largest,
        "check": check,
        "sets": sets,
    }
    ClosestRenderings.of(values, found).write(found)


def compare(
    shows: np.ndarray,
    ambiguous: np.ndarray,
    says: np.ndarray,
    referee: Mapping[str, np.ndarray],
    settings: Rebalance,
    confidence: float,
) -> dict[str, object]:
    """Return rates by closest renderings in each group, how the selector agrees with them, and the gap.

    Args:
        shows: whether the closest rendering of each image shows the attribute, bool (n,).
        ambiguous: of which images that does not count.
        says: what the selector says of the attribute, bool (n,).
        referee: what the referee says of every attribute, bool (n,), which makes the groups.
        settings: the config section with one attribute and its groups.
        confidence: level of the intervals.

    Returns:
        For JSON: `groups` by name, and `gap`. A rate is that of the images that are not ambiguous. Its bounds hold
        whatever the ambiguous ones show: in the lower one none of them has the attribute, and in the upper one all do.
    """
    answers = {"shows": shows & ~ambiguous, "shows not": ~shows & ~ambiguous, "ambiguous": ambiguous}
    groups, counted = {}, []
    for target in settings.targets:
        inside = in_group(referee, target.where)
        yes, unknown, n = (int((inside & which).sum()) for which in (answers["shows"], ambiguous, inside))
        counted.append({"rate": (yes, n - unknown), "least": (yes, n), "most": (yes + unknown, n)})
        rate, least, most = (estimate_json(wilson_rate(*counts, confidence)) for counts in counted[-1].values())
        selector = {
            said: {name: int((inside & of_selector & which).sum()) for name, which in answers.items()}
            for said, of_selector in (("yes", says), ("no", ~says))
        }
        bounds = {"bounds": [least["ci"][0], most["ci"][1]]}
        groups[group_name(target.where)] = rate | bounds | {"n": n, "ambiguous": unknown, "selector": selector}

    def gap_between(first: str, second: str) -> dict[str, object]:
        def gap_of(one: int, other: int, level: float) -> Estimate:
            return gap(wilson_rate(*counted[one][first], level), wilson_rate(*counted[other][second], level))

        return estimate_json(group_gap(gap_of, [target.rate for target in settings.targets], confidence))

    bounds = [gap_between("least", "most")["ci"][0], gap_between("most", "least")["ci"][1]]
    return {"groups": groups, "gap": gap_between("rate", "rate") | {"bounds": bounds}}


def _reconstruct(images: np.ndarray, inverter: Inverter) -> np.ndarray:
    """Pass images (..., H, W, 3) through encoder and generator, without holes."""
    flat = torch.from_numpy(images.reshape(-1, *images.shape[-3:])).permute(0, 3, 1, 2)

    def passed() -> Iterator[np.ndarray]:
        with Progress("compare_with_renderings (reconstructions)", len(flat)) as progress:
            for batch in flat.split(BATCH):
                yield to_uint8(inverter(to_float(batch, inverter.device))).numpy()
                progress.advance(len(batch))

    return np.concatenate(list(passed())).reshape(images.shape)


def _says(scores: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what a detector says of each image, in the order of `names`."""
    table = read_table(scores, "scores").set_index("image_id").loc[names]
    return {attribute: table[attribute].to_numpy() > 0.5 for attribute in table}
