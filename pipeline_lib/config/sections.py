"""All config sections except `data`; the source of the defaults, the JSON schema and the config reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline_lib.config.backends import (
    DetectorBackend,
    DetectorNetwork,
    LibraryNetwork,
    SupervisedTraining,
    fill_backend,
)
from pipeline_lib.config.base import Count, Positive, Section, Share
from pipeline_lib.config.domains import DOMAINS, Domain
from pipeline_lib.config.messages import check_name

Precision = Literal["float32", "bfloat16"]
PerceptualName = Literal["stlpips-alex", "stlpips-vgg", "lpips-alex", "lpips-vgg", "lpips-squeeze"]


def shared(one: DetectorBackend, other: DetectorBackend, key: str) -> bool:
    """Return whether two detectors have the same value of a key, such as their file."""
    values = [getattr(network, key, None) for network in (one, other)]
    return values[0] == values[1] is not None


def refuse_unknown_attributes(name: str, network: DetectorBackend, attributes: list[str]) -> None:
    """Refuse a given network that has no output for an attribute.

    Raises:
        ValueError: names the key and the attributes.
    """
    key = {"onnx": "columns", "transformers": "classes"}.get(network.backend)
    missing = [attribute for attribute in attributes if key and attribute not in getattr(network, key)]
    if missing:
        raise ValueError(f"{name}.{key} has no entry for {', '.join(missing)}; add it")


class Detectors(Section):
    """Two attribute detectors; the selector chooses edits, the referee only evaluates."""

    #: Agreement of the detectors on an image set below which a report rejects its gaps.
    least_agreement: ClassVar[float] = 0.95

    attributes: list[str] = Field(
        ["smiling", "mouth_open", "long_hair", "eyeglasses", "dark_skin"],
        min_length=1,
        description="attributes of both detectors; must include those of the targets",
    )
    selector: DetectorBackend = Field(
        DetectorNetwork(width=24),
        description="detector that chooses among the candidates of each edit",
    )
    referee: DetectorBackend = Field(
        DetectorNetwork(width=16),
        description="detector that evaluates the results and takes no part in the edits",
    )
    training: SupervisedTraining = Field(
        SupervisedTraining(kimg=18, batch=32), description="training of each trained detector"
    )
    mirror: bool = Field(
        True, description="horizontal flips in training and inference; false if an attribute is not symmetric"
    )
    collages: Share = Field(
        0.0,
        description="share of training images whose region comes from another image, with its value of the targets' "
        "attribute; the targets' attributes are learnt from these alone, so that none is told by another",
    )
    least_cell_accuracy: Share = Field(
        0.75,
        description="accuracy for the targets' attributes that each detector needs in every combination of them, on "
        "held-out images; with less it tells one attribute by another, and the run is refused",
    )

    @model_validator(mode="after")
    def _detectors_differ(self) -> Detectors:
        for key in ("name", "path"):
            if shared(self.selector, self.referee, key):
                raise ValueError(f"selector.{key} equals referee.{key}; the two detectors must differ in it")
        return self

    @model_validator(mode="after")
    def _given_networks_know_the_attributes(self) -> Detectors:
        for role in ("selector", "referee"):
            refuse_unknown_attributes(role, getattr(self, role), self.attributes)
        return self

    @model_validator(mode="before")
    @classmethod
    def _trained_unless_said_otherwise(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return values | {role: fill_backend(values[role]) for role in ("selector", "referee") if role in values}


class GrowthPhase(Section):
    """A phase of progressive growing."""

    resolution: Annotated[int, Field(ge=4)] = Field(description="side of the images trained in this phase, in pixels")
    kimg: Positive = Field(description="length of the phase in thousands of images")


class Square(Section):
    """A square of the image that is trained on separately."""

    top: Share = Field(description="upper edge of the square, as a share of the image's side")
    left: Share = Field(description="left edge, likewise")
    side: Annotated[float, Field(gt=0, lt=1)] = Field(description="side of the square, likewise")

    @model_validator(mode="after")
    def _inside(self) -> Square:
        if max(self.top, self.left) + self.side > 1:
            raise ValueError("the square exceeds the image; `top` + `side` and `left` + `side` must be at most 1")
        return self

    def window(self, resolution: int) -> tuple[slice, slice]:
        """Return rows and columns of the square in an image of `resolution` pixels."""
        top, left, side = (round(share * resolution) for share in (self.top, self.left, self.side))
        return slice(top, top + side), slice(left, left + side)


class LocalDiscriminator(Square):
    """A second discriminator for one square, whose side must be a power of two in pixels at each trained resolution."""

    channels: list[Count] = Field(description="feature channels from 4 pixels to the square's resolution")


class LocalLoss(Square):
    """Additional pixel and perceptual loss over one square."""

    weight: Positive = Field(1.0, description="weight of their sum in the total loss")


class GanTraining(Section):
    """Adversarial training with a relativistic loss and R1 and R2 gradient penalties."""

    kimg: Positive = Field(description="length of the training in thousands of real images")
    batch: Annotated[int, Field(ge=4)] = Field(16, description="batch size")
    learning_rate: Positive = Field(2e-3, description="learning rate of both networks, with Adam")
    mapping_rate: Positive = Field(
        1.0,
        description="learning rate multiplier of the mapping network, which determines the rates of the attributes",
    )
    gamma: Positive = Field(3.0, description="weight of both gradient penalties at full resolution")
    penalty_every: Count = Field(8, description="interval of the lazy gradient penalty in steps, by which it is scaled")
    decay_factor: Share = Field(0.3, description="learning rate multiplier in the last 30 % of the steps")
    ema_kimg: Positive = Field(10, description="half-life of the generator's moving average in thousands of images")
    growth: list[GrowthPhase] = Field([], description="phases of progressive growing before the full resolution")
    augment_until: Share = Field(
        1.0, description="share of the training after which the discriminator's inputs are no longer augmented"
    )
    local: LocalDiscriminator | None = Field(
        None, description="local discriminator; null: that of the given discriminator weights, if any"
    )


class Generator(Section):
    """The source generator: given weights, given weights trained further on this dataset, or trained from scratch."""

    architecture: Literal["stylegan2", "progan"] = Field("stylegan2", description="family of the network")
    channels: list[Count] = Field(
        [128, 128, 64, 48, 16], description="feature channels of each resolution, from 4 pixels on"
    )
    z_dim: Count = Field(128, description="size of the latent z")
    mapping_layers: Count = Field(4, description="depth of the mapping network (stylegan2 only)")
    weights: Path | None = Field(
        None, description="initial weights, .safetensors or a published .pth or .pt; null: random initialisation"
    )
    discriminator: Path | None = Field(None, description="its discriminator's weights, required for further training")
    training: GanTraining | None = Field(None, description="training; null: the weights are used unchanged")

    @model_validator(mode="after")
    def _has_an_origin(self) -> Generator:
        if self.weights is None and self.training is None:
            raise ValueError("set `weights`, `training` or both (to train the weights further)")
        return self


class MaskSampling(Section):
    """Random masks of known pixels in encoder training (paper 3.2 and A.1.1)."""

    kind: Literal["random", "none"] = Field("random", description="none: the RGB variant, without a mask channel")
    least: Share = Field(0.3, description="lower limit of the threshold t ~ U(least, 1)")


#: Fields of a training without anything but the losses of Eq. 3.
PLAIN: dict[str, Any] = {"local": None, "collages": 0.0, "latents_kimg": 0.0}


class EncoderTraining(Section):
    """Latent regression by the paper's Eq. 3; with a kimg of 0 the weights are used unchanged."""

    kimg: Annotated[float, Field(ge=0)] = Field(description="length of the training in thousands of generated images")
    batch: Count = Field(16, description="batch size")
    learning_rate: Positive = Field(1e-3, description="peak learning rate of Adam")
    mse: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the pixel loss")
    perceptual: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the perceptual loss")
    distance: PerceptualName = Field(
        "stlpips-alex", description="the perceptual distance; the published encoders were trained with lpips-vgg"
    )
    perceptual_crop: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="side of the random crop for the perceptual loss, as a share of the image's side"
    )
    latent: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the latent loss")
    latents_kimg: Annotated[float, Field(ge=0)] = Field(
        0,
        description="thousands of images of a training by the latent loss alone before this one, for latents in z, "
        "which the losses of images hardly teach; then set a low `learning_rate`, or what it has learned is lost",
    )
    local: LocalLoss | None = Field(None, description="square with an additional loss, such as around the mouth")
    collages: Share = Field(
        0.0, description="share of training images in which a box within the square of `local` is pasted from another"
    )

    @model_validator(mode="after")
    def _collages_have_a_place(self) -> EncoderTraining:
        if self.collages and self.local is None:
            raise ValueError("`collages` needs `local`, the square in which they are made")
        if round(self.collages * self.batch) == self.batch:
            raise ValueError("`collages` leaves no image with known latents in a batch; use a smaller share")
        return self

    def of_latents(self) -> EncoderTraining | None:
        """Return the training by the latent loss alone, if there is one; weights that are used unchanged have none."""
        if not (self.latents_kimg and self.kimg):
            return None
        alone = {"kimg": self.latents_kimg, "batch": 32, "learning_rate": 2e-3}
        return self.model_copy(update=PLAIN | {"mse": 0.0, "perceptual": 0.0, "latent": 1.0} | alone)

    @model_validator(mode="after")
    def _something_is_learned(self) -> EncoderTraining:
        if not (self.mse or self.perceptual or self.latent or self.local):
            raise ValueError("every loss has a weight of 0; set `mse`, `perceptual` or `latent`")
        return self


class Encoder(Section):
    """The masked encoder into the generator's latent space."""

    width: Count = Field(
        24, description="channels of the first stage, if trained from scratch; 64 in the published networks"
    )
    depth: Literal[18, 34] = Field(
        18, description="depth of the ResNet, if trained from scratch; 34 in the published W+ encoders"
    )
    weights: Path | None = Field(
        None, description="initial weights, .safetensors or a published .pth; null: from scratch"
    )
    mask: MaskSampling = Field(MaskSampling(), description="masks of known pixels in training")
    training: EncoderTraining = Field(description="training, from scratch or from the given weights")


PRETRAINED = Path("pretrained")  # folder of published files and their checksums


class Published(Section):
    """Weights of the paper's own generators and encoders, downloaded on first use."""

    family: Literal["progan", "stylegan2"] = Field(description="family of the generator")
    domain: str = Field(
        description="celebahq, celebahq-small, church or livingroom (progan); ffhq, church, car or horse (stylegan2)"
    )

    @model_validator(mode="after")
    def _is_published(self) -> Published:
        check_name("published.domain", self.domain, list(DOMAINS[self.family]))
        return self

    def of_domain(self) -> Domain:
        """Return the published domain."""
        return DOMAINS[self.family][self.domain]

    def files(self) -> dict[str, Path]:
        """Return the paths of `generator` and `encoder`."""
        return {role: PRETRAINED / Path(getattr(self.of_domain(), role)).name for role in ("generator", "encoder")}


class Sample(Section):
    """Sampling from each generator."""

    images: Annotated[int, Field(ge=16)] = Field(2000, description="images sampled from each generator")
    truncation: Share = Field(1.0, description="truncation psi; 1: no truncation, 0: the mean latent")


class AttributeLoss(Section):
    """A small discriminator on the selector's logits, which matches the joint rates of the attributes."""

    weight: Positive = Field(3.0, description="weight of its loss in the generator's total loss")


class Retrain(Section):
    """The retrained GAN, and the control GAN trained with the same settings on the original dataset."""

    init: Literal["source", "scratch"] = Field("source", description="initial weights, of the source GAN or random")
    training: GanTraining = Field(description="training of both the retrained GAN and the control GAN")
    attributes: AttributeLoss | None = Field(
        None,
        description="additional discriminator on the selector's logits; null: retraining as in the paper",
    )
    baselines: list[Literal["resampled", "sham"]] = Field(
        [],
        description="further GANs to compare with, of the same seed and steps; resampled: trained on original images "
        "alone, drawn so that they have the target rates; sham: trained on the dataset with the same images edited, "
        "but to the value that they have",
    )
    samples: Annotated[int, Field(ge=16)] | None = Field(
        None,
        description="images sampled from each of these GANs, which make what is known of its rates more certain; null: "
        "as many as `sample.images`",
    )

    @model_validator(mode="after")
    def _baselines_differ(self) -> Retrain:
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError("`baselines` names one twice; name each once")
        return self


class Utility(Section):
    """Small classifiers of the target attribute, trained in each of the ways to deal with a biased dataset."""

    #: Images per step of a classifier.
    batch: ClassVar[int] = 64

    seeds: Count = Field(3, description="classifiers trained in each way")
    steps: Annotated[int, Field(ge=10)] = Field(500, description="training steps of a classifier")
    network: LibraryNetwork | None = Field(
        None, description="network of a library, as in a published benchmark; null: a small one of three layers"
    )
    learning_rate: Positive = Field(3e-3, description="largest learning rate")
    side: Annotated[int, Field(ge=16)] = Field(64, description="side to which larger images are reduced, in pixels")
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="standard deviation of Gaussian noise in the reduced images, in training and in the test, with "
        "values in [-1, 1]; it hides small parts, so that a shortcut over the group becomes tempting",
    )


class Certify(Section):
    """What decides whether a target rate is met by the rebalanced dataset and by the retrained GAN."""

    tolerance: Annotated[float, Field(gt=0, le=1)] | list[Annotated[float, Field(gt=0, le=1)]] = Field(
        0.03, description="largest distance from a target rate that counts as met; a list has one for each target"
    )
    labels: Annotated[list[Path], Field(min_length=1)] | None = Field(
        None,
        description="CSVs of labels by eye, from the sheets of `python -m pipeline_lib audit`: of edited images "
        "(not needed for avatars, of which the truth is known), and of samples of the retrained GAN, of which nothing "
        "but detectors' opinions is known without; of several sheets, or of several people for the same one",
    )

    def tolerances(self, count: int) -> list[float]:
        """Return the tolerance of each of `count` targets."""
        return self.tolerance if isinstance(self.tolerance, list) else [self.tolerance] * count


class Evaluate(Section):
    """The evaluation."""

    #: Bootstrap resamples of an interval; its ends then vary by a hundredth of its width.
    resamples: ClassVar[int] = 2000

    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="confidence level of the intervals")
    images: Count = Field(
        2000, description="number of images of each set for image quality; distances depend on this number"
    )
    leakage_steps: Count = Field(
        480, description="training steps of a probe that tells edited images from unedited ones"
    )
    utility: Utility | None = Field(
        Utility(),
        description="classifiers that show what the rebalanced dataset is good for; null: none are trained",
    )
    judge_bank: Annotated[int, Field(ge=1)] | None = Field(
        1500,
        description="drawings that generated avatars are compared with, so that not only detectors judge them; null: "
        "no such comparison",
    )
    distance: PerceptualName = Field(
        "stlpips-alex", description="perceptual distance of composites; lpips-alex in the paper"
    )

    @property
    def classifier_weights(self) -> str | None:
        """Path of the weights that the classifiers start from, if there are any."""
        network = self.utility.network if self.utility else None
        return str(network.weights) if network and network.weights else None
