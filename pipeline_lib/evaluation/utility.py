"""Does it help? Classifiers of the target attribute, trained on the result and on what one would use instead of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline_lib.audit.estimate import UNKNOWN, Estimate, estimate_json
from pipeline_lib.config import Data, Evaluate, Rebalance
from pipeline_lib.data.avatars.drawing import render_image
from pipeline_lib.data.avatars.faces import face_of
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.avatars.truth import ideal_edit
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.classifiers import TrainingSet, reduced, train_and_predict
from pipeline_lib.evaluation.gain import MARGIN, Comparison, images_needed, judge_gain, least_of
from pipeline_lib.evaluation.rates import gap, truth_counts
from pipeline_lib.evaluation.results import Gain, Method, Utility
from pipeline_lib.rebalance.groups import counts_for, group_name, holds_of
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

logger = logging.getLogger(__name__)

LEAST_TESTED = 2  # held-out images of a cell; with fewer it has no accuracy
ACCURACIES = ("worst_group", "balanced_accuracy")  # no less if an accuracy in a cell is higher
FIGURES = (*ACCURACIES, "parity_gap", "equalized_odds")
#: Methods that need no edit, and those that do, of which the better ones are compared.
BASELINES = ("original", "reweighted", "resampled", "group_dro")
EDITED = ("rebalanced", "rebalanced_reweighted", "rebalanced_confirmed")


class Cells(NamedTuple):
    """The group and the value of the target attribute of n images."""

    group: np.ndarray  # int64 (n,), number of the target; -1 in none of them
    value: np.ndarray  # bool (n,)

    @property
    def number(self) -> np.ndarray:
        """Number of each image's cell, int64 (n,): twice that of its group, and one more with the attribute; -1."""
        return np.where(self.group < 0, -1, 2 * self.group + self.value)

    def with_value(self, value: np.ndarray) -> Cells:
        """Return the same groups with another value."""
        return Cells(self.group, value)


@stage(revision=4)
def evaluate_utility(
    *,
    images: list[Path],
    labels: Path,
    rebalanced: list[Path],
    assembled: Path,
    plan: Path,
    referee: Path,
    held_out: list[Path],
    held_out_labels: Path,
    truth: list[Path],
    checked: list[Path],
    counterfactuals: list[Path],
    data: Data,
    settings: Rebalance,
    evaluate: Evaluate,
    seed: int,
    utility: Path,
    device: torch.device,
) -> None:
    """Train a small classifier of the target attribute in each way, and test all of them on the same held-out images.

    A cell is a group with a value of the attribute. On held-out images each cell counts alike. An edited image has the
    value that the edit was to give it, which the selector confirmed.

    Args:
        images: shards of the dataset.
        labels: its labels.
        rebalanced: shards of the rebalanced dataset.
        assembled: its table, with the flag of edited images.
        plan: table of edits of the dataset.
        referee: the referee's scores of the rebalanced dataset, for one row alone.
        held_out: shards of the held-out images.
        held_out_labels: their labels.
        truth: true labels of the rebalanced dataset; empty if they are unknown.
        checked: JSON of `evaluate_counterfactuals`, which says whether they count; likewise.
        counterfactuals: table of ideal edits; likewise.
        data: the config section of the dataset.
        settings: the config section of the edits.
        evaluate: the config section of the evaluation.
        seed: seed of the run.
        utility: JSON to write. For each method it has the number of training images by cell, the share of false labels
            where the truth is known, the accuracy in each cell, and worst-group accuracy, balanced accuracy, difference
            of selection rates (`parity_gap`) and equalised-odds difference with intervals over seeds and held-out
            images; then what the best method with edits gains in worst-group accuracy over the best without (`gain`),
            with a `Comparison`. The figures are null where a cell has too few held-out images (`left_out`). Then, and
            where a cell of the dataset or of the rebalanced one has no image (`untrained`), so that weights and even
            batches are undefined, the gain is null too.
        device: where to compute.

    Raises:
        DataError: labels lack the attribute or a condition, or no cell has held-out images.
    """
    side = evaluate.utility.side
    names, pixels = read_shards(images)
    cells = _cells(labels, names, settings)
    edits = _edits(assembled, plan, referee, names)
    truly = _truth(truth if truth and truth_counts(*checked) else [], names, settings, cells)
    small = reduced(pixels, side)
    sets = _training_sets(small, reduced(read_shards(rebalanced)[1], side), cells, edits)
    if counterfactuals and isinstance(data, AvatarData):
        ideal = _ideal_pixels(pixels, names, counterfactuals[0], data, settings)
        sets["ideal"] = TrainingSet(
            reduced(ideal, side), cells.with_value(cells.value ^ edits["edited"].to_numpy()).number
        )
    test_names, test_pixels = read_shards(held_out)
    test_pixels = reduced(test_pixels, side)
    tested = _cells(held_out_labels, test_names, settings)
    names_of_cells = cell_names(settings)
    left_out = _untested(tested, names_of_cells, held_out_labels)
    untrained = _untrained([sets["original"], sets["rebalanced"]], names_of_cells)

    correct = {}
    with Progress("evaluate_utility", len(sets) * evaluate.utility.seeds, unit="classifiers") as progress:
        for method, training in sets.items():
            said = []
            for number in range(evaluate.utility.seeds):
                own_seed = seeding.derive(seed, "utility", number)
                said.append(train_and_predict(training, test_pixels, evaluate.utility, own_seed, device))
                progress.advance(1)
            correct[method] = np.stack(said) == tested.value
    draws = resampled(correct, tested, len(names_of_cells), evaluate.resamples, seed)
    accuracies = {method: cell_accuracies(rows, tested, len(names_of_cells)) for method, rows in correct.items()}

    def by_cell(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(names_of_cells, values, strict=True))

    Utility(
        attribute=settings.targets[0].attribute,
        seeds=evaluate.utility.seeds,
        held_out=by_cell(_counts(tested.number, len(names_of_cells))),
        left_out=left_out,
        untrained=untrained,
        methods={
            method: Method(
                images=by_cell(_counts(sets[method].cell, len(names_of_cells))),
                label_error=_label_error(method, sets[method], truly),
                cells=by_cell(_rounded(found.mean(axis=0))),
                **_estimates(found, draws[method], evaluate.confidence),
            )
            for method, found in accuracies.items()
        },
        gain=gain_of(accuracies, draws, evaluate.confidence, tested, complete=not left_out and not untrained),
    ).write(utility)


def cell_names(settings: Rebalance) -> list[str]:
    """Return the names of the cells in their order, such as `long_hair, not smiling`."""
    return [
        f"{group_name(target.where)}, {group_name({target.attribute: value})}"
        for target in settings.targets
        for value in (False, True)
    ]


def cell_accuracies(correct: np.ndarray, tested: Cells, cells: int) -> np.ndarray:
    """Return the accuracy in each cell, (seeds, cells), of predictions (seeds, n); NaN in one with too few images."""
    number = tested.number
    found = np.full((len(correct), cells), np.nan)
    for cell in range(cells):
        inside = number == cell
        if inside.sum() >= LEAST_TESTED:
            found[:, cell] = correct[:, inside].mean(axis=1)
    return found


def figures(accuracies: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of `FIGURES`, (...,), from the accuracies (..., cells), in which each cell counts alike.

    Parity gap and equalised odds are the largest difference between two groups: of the rate of positive predictions,
    and of the rates of true or of false positives, whichever is larger. All figures are NaN if a cell's accuracy is,
    and these two with less than two groups.
    """
    return {
        name: terms.min(axis=-1) if name in ACCURACIES else terms.max(axis=-1)
        for name, terms in _terms(accuracies).items()
    }


def _terms(accuracies: np.ndarray) -> dict[str, np.ndarray]:
    """Return the accuracies or differences between groups, (..., k), of which each figure is the least or largest."""
    negatives, positives = accuracies[..., 0::2], accuracies[..., 1::2]
    return {
        "worst_group": accuracies,
        "balanced_accuracy": accuracies.mean(axis=-1, keepdims=True),
        "parity_gap": _differences((positives + 1 - negatives) / 2),  # each cell counts alike
        "equalized_odds": np.concatenate([_differences(positives), _differences(negatives)], axis=-1),
    }


def resampled(
    correct: Mapping[str, np.ndarray], tested: Cells, cells: int, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the accuracies (3, resamples, seeds, cells) of each method with seeds and held-out images drawn again.

    Images get random weights within each cell (the Bayesian bootstrap, Rubin 1981), the same for every method, so that
    methods can be compared. The first of the three leans down and the last up, by the weight of one more image that is
    classified wrongly or rightly. Quantiles of these are the limits of Clopper and Pearson (1934) for one cell and one
    seed, so that a cell without an error is not certain to have none. Of the seeds one less is drawn than there are,
    which makes the variance of their mean unbiased (Rao and Wu 1988).
    """
    random = seeding.numpy_generator(seed, "utility", "resamples")
    seeds = len(next(iter(correct.values())))
    drawn_seeds = random.integers(0, seeds, (resamples, max(1, seeds - 1)))
    found = {method: np.full((3, *drawn_seeds.shape, cells), np.nan) for method in correct}
    for cell in range(cells):
        inside = np.flatnonzero(tested.number == cell)
        if len(inside) < LEAST_TESTED:
            continue
        weights = random.standard_exponential((resamples, len(inside) + 1))
        weights /= weights.sum(axis=1, keepdims=True)
        added = weights[:, -1:]
        for method, rows in correct.items():
            low = np.take_along_axis(weights[:, :-1] @ rows[:, inside].T, drawn_seeds, axis=1)
            found[method][..., cell] = low, low / (1 - added), low + added
    return found


def _training_sets(
    pixels: np.ndarray, rebalanced: np.ndarray, cells: Cells, edits: pd.DataFrame
) -> dict[str, TrainingSet]:
    """Return what the classifier of each method learns from."""
    edited, confirmed = edits["edited"].to_numpy(), edits["confirmed"].to_numpy()
    made = np.where(edited[:, None, None, None], rebalanced, pixels)
    after = cells.with_value(np.where(edited, edits["wanted"].to_numpy(), cells.value))
    kept = ~edited | confirmed
    sets = {
        "original": TrainingSet(pixels, cells.number),
        "reweighted": TrainingSet(pixels, cells.number, weights=independence_weights(cells)),
        "resampled": TrainingSet(pixels, cells.number, by_cell=True),
        "group_dro": TrainingSet(pixels, cells.number, by_cell=True, worst_case=True),
        "rebalanced": TrainingSet(made, after.number),
        "rebalanced_reweighted": TrainingSet(made, after.number, weights=independence_weights(after)),
        "rebalanced_confirmed": TrainingSet(made, np.where(kept, after.number, -1)),
    }
    return sets


def independence_weights(cells: Cells) -> np.ndarray:
    """Return the weights of Kamiran and Calders (2012), float64 (n,), with which group and value are independent.

    A weight is P(group) P(value) / P(group, value), and 0 for an image in no group.
    """
    inside = cells.group >= 0
    table = pd.DataFrame({"group": cells.group[inside], "value": cells.value[inside]})
    share = {
        columns: table.groupby(list(columns))["group"].transform("size") / len(table)
        for columns in (("group",), ("value",), ("group", "value"))
    }
    weights = np.zeros(len(inside))
    weights[inside] = share["group",] * share["value",] / share["group", "value"]
    return weights


def _cells(labels: Path, names: Sequence[str], settings: Rebalance) -> Cells:
    """Return the cells of images by their labels; an image is in none if a label is unknown."""
    table = read_table(labels, "labels").set_index("image_id").loc[names]
    attribute = settings.targets[0].attribute
    wanted = sorted({attribute, *(name for target in settings.targets for name in target.where)})
    missing = [name for name in wanted if name not in table or table[name].isna().all()]
    if missing:
        raise DataError(
            f"{labels}: no label `{missing[0]}` of any image, which a classifier needs; add it, or set "
            "`evaluate.utility: null`"
        )
    holds = holds_of(table, wanted)
    group = np.full(len(table), -1)
    for number, target in enumerate(settings.targets):
        group[counts_for(holds, target)] = number
    return Cells(group, holds[attribute] == 1)


def _edits(assembled: Path, plan: Path, referee: Path, names: Sequence[str]) -> pd.DataFrame:
    """Return, for each image: whether it was edited, the wanted value, and whether the referee confirms."""
    flags = read_table(assembled, "assembled").set_index("image_id").loc[names]
    planned = read_table(plan, "plan").set_index("image_id")
    found = pd.DataFrame({"edited": flags["edited"].to_numpy(bool)}, index=pd.Index(names))
    wanted = planned["wanted"].reindex(names)
    found["wanted"] = wanted.fillna(False).astype(bool).to_numpy()
    scores = read_table(referee, "scores").set_index("image_id").loc[names]
    attribute = planned["attribute"].iloc[0] if len(planned) else scores.columns[0]
    found["confirmed"] = (scores[attribute].to_numpy() > 0.5) == found["wanted"].to_numpy()
    return found


def _truth(truth: list[Path], names: Sequence[str], settings: Rebalance, cells: Cells) -> dict[bool, np.ndarray] | None:
    """Return the true values of the images as they were (False) and as they are after the edits (True), if known."""
    return {False: cells.value, True: _cells(truth[0], names, settings).value} if truth else None


def _label_error(method: str, training: TrainingSet, truly: Mapping[bool, np.ndarray] | None) -> float | None:
    """Return the share of a set's labels that are false; None where the truth of edits is unknown."""
    if method == "ideal":
        return 0.0
    if truly is None:
        return None if method in EDITED else 0.0
    used = training.cell >= 0
    return float(((training.cell % 2 == 1) != truly[method in EDITED])[used].mean())


def _ideal_pixels(
    pixels: np.ndarray, names: Sequence[str], counterfactuals: Path, data: AvatarData, settings: Rebalance
) -> np.ndarray:
    """Return the dataset with the ideal edit of each edited face."""
    ideal = pixels.copy()
    position = {name: number for number, name in enumerate(names)}
    for row in read_table(counterfactuals, "counterfactuals").itertuples():
        parts = settings.edit.region_of(row.attribute).parts
        face = ideal_edit(face_of(data, row.image_id), parts, row.closest, row.attribute, row.wanted)
        ideal[position[row.image_id]] = render_image(face, data.resolution, data.crop)
    return ideal


def _untested(tested: Cells, names: Sequence[str], labels: Path) -> list[str]:
    """Return the names of the cells with too few held-out images, which are in no figure."""
    few = [name for name, count in zip(names, _counts(tested.number, len(names)), strict=True) if count < LEAST_TESTED]
    if len(few) == len(names):
        raise DataError(f"{labels}: no held-out images in {', '.join(names)}; hold out more, or other, images")
    for name in few:
        logger.warning("%s: fewer than %d held-out images in `%s`; its accuracy is unknown", labels, LEAST_TESTED, name)
    return few


def _counts(number: np.ndarray, cells: int) -> list[int]:
    return np.bincount(number[number >= 0], minlength=cells).tolist()


def _untrained(sets: Sequence[TrainingSet], names: Sequence[str]) -> list[str]:
    """Return the names of the cells of which one of the sets has no image, so that weights are undefined."""
    counts = np.array([_counts(training.cell, len(names)) for training in sets])
    empty = [name for name, least in zip(names, counts.min(axis=0), strict=True) if not least]
    for name in empty:
        logger.warning("no training image is in `%s`; weights and even batches are undefined", name)
    return empty


def _estimates(found: np.ndarray, drawn: np.ndarray, confidence: float) -> dict[str, object]:
    """Return each figure of a method, the mean over seeds, with its interval; see `least_of` on what bias it has."""
    terms, of_draws = _terms(found), _terms(drawn)
    said = {}
    for name in FIGURES:
        draws = of_draws[name].mean(axis=-2)
        if name in ACCURACIES:
            estimate = least_of(terms[name], draws, confidence)
        else:  # the largest of differences, of which there is each with its negative
            value, low, high = least_of(-terms[name], -draws[[1, 1, 1]], confidence, floor=-1)
            estimate = Estimate(-value, max(-high, 0.0), -low)
        said[name] = estimate_json(estimate)
    return said


def gain_of(
    accuracies: Mapping[str, np.ndarray],
    draws: Mapping[str, np.ndarray],
    confidence: float,
    tested: Cells,
    complete: bool,
) -> Gain:
    """Return the gain in worst-group accuracy of the best method with edits over the best without, and a verdict.

    The best of several methods has the largest of their limits. Of the lower limits that is valid at an n-th of the
    error (Bonferroni), and of the upper ones as it is, since the true best is a single method. The interval of the
    difference is that of Newcombe as of `rates.gap` (MOVER, Zou and Donner 2008), as if methods were tested on
    different images, which makes it wider than it need be. It is unknown unless the cells are complete.
    """
    if not complete:
        unknown = dict.fromkeys(("with_edits", "without", "held_out_needed"))
        return Gain(**unknown, **estimate_json(UNKNOWN), margin=MARGIN, verdict=Comparison.UNKNOWN)
    worst = [
        {
            method: least_of(accuracies[method], draws[method].mean(axis=-2), confidence, among=len(methods))
            for method in methods
        }
        for methods in ([method for method in kind if method in accuracies] for kind in (EDITED, BASELINES))
    ]
    edited, plain = (max(found, key=found.__getitem__) for found in worst)
    gain = gap(*(Estimate(*np.max(list(found.values()), axis=0)) for found in worst))
    verdict, needed = judge_gain(gain), None
    if verdict is Comparison.UNDECIDED:
        needed = images_needed(gain, int((tested.group >= 0).sum()), confidence)
    return Gain(
        with_edits=edited,
        without=plain,
        **estimate_json(gain),
        margin=MARGIN,
        verdict=verdict,
        held_out_needed=needed,
    )


def _differences(values: np.ndarray) -> np.ndarray:
    """Return the differences of any two groups, (..., k), of values (..., groups); NaN with less than two groups."""
    if values.shape[-1] < 2:
        return np.full((*values.shape[:-1], 1), np.nan)
    first, second = np.transpose(list(permutations(range(values.shape[-1]), 2)))
    return values[..., first] - values[..., second]


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
