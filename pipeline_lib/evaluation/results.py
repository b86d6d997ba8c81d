"""What a run found: a class for the JSON of each stage, and one for `metrics.json`, which is made of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline_lib.audit.certificate import DatasetCertificate, SamplesCertificate
from pipeline_lib.audit.estimate import Interval
from pipeline_lib.config.names import BASELINES, IMAGE_SETS
from pipeline_lib.evaluation.gain import Comparison
from pipeline_lib.runtime.results import Result

Source = Literal["truth", "referee", "corrected", "selector"]  # of labels


class Rate(Interval):
    """A rate in `n` images of a group."""

    n: int


class Kappa(Result):
    """Of how many of `n` images the detectors say the same, and Cohen's kappa."""

    n: int
    agree: int
    kappa: float | None


class Measured(Result):
    """A measure of image quality, and with what it was measured."""

    value: float | None
    extractor: str
    reference: str
    n: int
    n_reference: int


class Change(Result):
    """Share of the edits that changed another attribute by the referee, and the change of its rate."""

    share: float
    towards: float


class EditsOfTarget(Result):
    """What the edits of one target cost and changed besides; see `ledger_of`."""

    group: str
    attribute: str
    planned: int
    made: int
    share_confirmed: float | None
    share_without_success: float | None
    share_successful: float | None
    share_vetoed: float | None
    donors: int
    effective_donors: float
    most_uses: int
    changed: dict[str, Change]

    @property
    def succeeded(self) -> int:
        """Number of the planned edits of which a candidate succeeded; the others of `made` are spares."""
        return self.planned - round(self.planned * (self.share_without_success or 0))


class PlannedTarget(Result):
    """What was planned for one target."""

    group: str
    attribute: str
    rate_before: float | None
    rate_wanted: float
    edits: int
    size: int
    unknown: int = 0


class Edits(Result):
    """How many planned edits of an image set succeeded, by the selector and by the referee."""

    planned: int
    candidates: int
    candidates_successful: int
    succeeded_by_selector: int
    replaced: int
    succeeded_by_referee: int
    share_by_selector: float
    share_by_referee: float
    share_in_their_group_by_referee: float | None
    masked_l1: float | None
    targets: list[PlannedTarget]
    ledger: list[EditsOfTarget]


class Check(Interval):
    """How often the closest clean rendering is right about edits of known truth."""

    n: int
    right: int
    softness: float


class Counterfactual(Result):
    """What edited avatars show by the closest clean rendering, and how far they are from the ideal edit."""

    n: int
    planned: int
    counts: bool
    check: dict[str, Check]
    least_accuracy: float
    succeeded_by_truth: int
    share_by_truth: float | None
    share_identical_outside: float | None
    median_psnr_ideal: float | None
    median_psnr_inside: float | None


class Counts(Result):
    """Numbers of images of a cell."""

    edited: int
    unedited: int


class Pooled(Result):
    """How well a classifier tells edited from unedited images that show the same."""

    auc: Interval
    frechet_distance: float | None
    frechet_distance_of_halves: float | None


class LeakageOfCell(Pooled, Counts):
    """Likewise in one cell of group and value."""

    n_of_frechet_distance: int


class Crop(Result):
    """Part of the images that was looked at, in pixels."""

    top: int
    bottom: int
    left: int
    right: int


class Leakage(Result):
    """How well edited images are told from unedited ones that show the same, by cell and pooled."""

    cells: dict[str, LeakageOfCell]
    left_out: dict[str, Counts]
    pooled: Pooled
    crop: Crop
    extractor: str


class EditedSet(Result):
    """What was found of an image set that was edited."""

    edits: Edits
    leakage: Leakage


class Method(Result):
    """A classifier by what it was trained on, tested on held-out images of which each cell counts alike."""

    images: dict[str, int]
    label_error: float | None
    cells: dict[str, float | None]
    worst_group: Interval
    balanced_accuracy: Interval
    parity_gap: Interval
    equalized_odds: Interval


class Gain(Interval):
    """What the best method with edits gains in worst-group accuracy over the best without."""

    with_edits: str | None
    without: str | None
    margin: float
    verdict: Comparison
    held_out_needed: int | None


class Utility(Result):
    """Whether a classifier trained on the rebalanced dataset is fairer than baselines without edits."""

    attribute: str
    seeds: int
    held_out: dict[str, int]
    left_out: list[str]
    untrained: list[str]
    methods: dict[str, Method]
    gain: Gain


class Robustness(Interval):
    """Gap in changed samples, and the share of them of which the detector says the same as before."""

    same: float


class CellAccuracy(Result):
    """Accuracy in a cell of group and value."""

    accuracy: float
    n: int


class DetectorReport(Result):
    """A detector's opinions of one attribute on held-out images with known labels."""

    n: int
    positives: int
    negatives: int
    true_positives: int
    false_positives: int
    accuracy: float
    calibration_error: float
    cells: dict[str, CellAccuracy] = Field(default_factory=dict)


class SegmenterReport(Result):
    """How well a segmenter finds parts in held-out images."""

    n: int
    intersection_over_union: dict[str, float]
    mean: float | None


class CheckedCell(Result):
    """Reconstructed renderings of a group and value, see `check_bank`."""

    group: str
    value: bool
    n: int
    told: int
    right: int
    accuracy: float | None


class CheckedBank(Result):
    """Whether the closest renderings of a bank are right often enough to count."""

    cells: list[CheckedCell]
    uncertain: float
    least_accuracy: float
    counts: bool


class BoundedRate(Interval):
    """A rate or a gap of the samples that are not ambiguous, and its bounds whatever the others show."""

    bounds: tuple[float | None, float | None]


class SamplesOfGroup(BoundedRate):
    """Rate of a group by the closest rendering, and counts by what the selector says and what the rendering shows."""

    n: int
    ambiguous: int
    selector: dict[Literal["yes", "no"], dict[Literal["shows", "shows not", "ambiguous"], int]]


class ShownBySamples(Result):
    """What the samples of a GAN show by the closest rendering."""

    groups: dict[str, SamplesOfGroup]
    gap: BoundedRate

    def share_confirmed(self, said: Literal["yes", "no"]) -> float | None:
        """Return the share of the samples of which the selector says this that show it; None without samples."""
        found = [group.selector[said] for group in self.groups.values()]
        shows, shows_not = (sum(counts[answer] for counts in found) for answer in ("shows", "shows not"))
        return (shows if said == "yes" else shows_not) / (shows + shows_not) if shows + shows_not else None


class ClosestRenderings(Result):
    """What samples show by the closest rendering of a bank, by image set, and whether that counts."""

    attribute: str
    bank: dict[Literal["faces", "renders"], int]
    largest_ratio: float
    check: CheckedBank
    sets: dict[str, ShownBySamples]


class ImageSets(Result):
    """What was measured of every image set, a key of `IMAGE_SETS` or `BASELINES`.

    Attributes:
        rate: by attribute, image set, source of labels and group.
        gap: by attribute, image set and source of labels, of attributes with targets in two groups or more.
        agreement: share of images of which the two detectors say the same, by image set and attribute.
        kappa: by image set, attribute and group by the referee.
        quality: by image set and measure.
    """

    rate: dict[str, dict[str, dict[Source, dict[str, Rate]]]]
    gap: dict[str, dict[str, dict[Source, Interval]]]
    agreement: dict[str, dict[str, float]]
    kappa: dict[str, dict[str, dict[str, Kappa]]]
    quality: dict[str, dict[str, Measured]]


class Metrics(ImageSets):
    """Every figure of a run, as in `evaluation/metrics.json`.

    Attributes:
        edits: by image set that was edited.
        counterfactual: None if the truth of edits is unknown.
        leakage: by image set that was edited.
        utility: None if no classifiers were trained.
        robustness: by GAN, change of its samples and detector.
        certificate_samples: None if no GAN was retrained.
        detectors: by detector and attribute.
        segmenter: None if there is none.
        timing: seconds by job.
        closest_renderings: None if samples were not compared with renderings.
    """

    edits: dict[str, Edits]
    counterfactual: Counterfactual | None
    leakage: dict[str, Leakage]
    utility: Utility | None
    robustness: dict[str, dict[str, dict[str, Robustness]]]
    certificate: DatasetCertificate
    certificate_samples: SamplesCertificate | None
    detectors: dict[str, dict[str, DetectorReport]]
    segmenter: SegmenterReport | None
    timing: dict[str, float]
    closest_renderings: ClosestRenderings | None

    @property
    def gaps_by_rendering(self) -> dict[str, tuple[Interval, Interval]]:
        """Group gaps of the retrained and the control GAN by the closest rendering, by attribute, where they count."""
        found = self.closest_renderings
        if found is None or not found.check.counts or not self.retrained:
            return {}
        gaps = found.sets["retrained"].gap, found.sets["control"].gap
        return {} if any(gap.value is None for gap in gaps) else {found.attribute: gaps}

    @property
    def retrained(self) -> bool:
        """Whether a GAN was retrained, beside a control."""
        return "retrained" in self.agreement

    @property
    def image_sets(self) -> list[str]:
        """The image sets in the order in which a run makes them."""
        return in_order(self.agreement)


def in_order(names: Any) -> list[str]:
    """Return image sets in the order in which a run makes them, since JSON files sort them alphabetically."""
    return sorted(names, key=(*IMAGE_SETS, *BASELINES).index)
