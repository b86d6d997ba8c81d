"""The sections of a config but for `data`; with it the one source of defaults, JSON schema and reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline_lib.config.backends import (
    DetectorBackend,
    DetectorNetwork,
    Deviation,
    Mean,
    SupervisedTraining,
    fill_backend,
)
from pipeline_lib.config.base import Count, Folder, Positive, RateRule, Section, Share
from pipeline_lib.config.domains import DOMAINS, Domain
from pipeline_lib.config.messages import check_name

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]
PerceptualName = Literal["stlpips-alex", "stlpips-vgg", "lpips-alex", "lpips-vgg", "lpips-squeeze"]


class Detectors(Section):
    """Two attribute detectors: the selector chooses edits, the referee only judges."""

    attributes: list[str] = Field(
        ["smiling", "mouth_open", "long_hair", "eyeglasses", "dark_skin"],
        min_length=1,
        description="attributes that both learn; those of the targets must be among them",
    )
    selector: DetectorBackend = Field(
        DetectorNetwork(architecture="plain", width=24, seed=1, half=0), description="chooses which images are edited"
    )
    referee: DetectorBackend = Field(
        DetectorNetwork(architecture="residual", width=16, seed=2, half=1),
        description="judges the result, never steers",
    )
    training: SupervisedTraining = Field(SupervisedTraining(kimg=18, batch=32), description="how both are trained")
    mirror: bool = Field(True, description="learn from and judge mirror images too; false if an attribute has a side")
    blur: Positive = Field(1.5, description="largest Gaussian blur in training, in pixels")
    noise: Share = Field(0.2, description="largest noise in training, standard deviation on [-1, 1]")
    color: Share = Field(0.2, description="largest shift of each colour channel in training")
    least_agreement: Share = Field(0.95, description="agreement on a set under which the report rejects its gaps")

    @model_validator(mode="after")
    def _detectors_differ(self) -> Detectors:
        for key in ("architecture", "name", "path", "seed", "half"):
            values = [getattr(network, key, None) for network in (self.selector, self.referee)]
            if values[0] == values[1] is not None:
                raise ValueError(f"selector.{key} equals referee.{key}; a referee must be independent of the selector")
        return self

    @model_validator(mode="after")
    def _given_networks_know_the_attributes(self) -> Detectors:
        for judge in ("selector", "referee"):
            network = getattr(self, judge)
            key = {"onnx": "columns", "transformers": "classes"}.get(network.backend)
            missing = [name for name in self.attributes if key and name not in getattr(network, key)]
            if missing:
                raise ValueError(f"{judge}.{key} says nothing of {', '.join(missing)}; add it")
        return self

    @model_validator(mode="before")
    @classmethod
    def _trained_unless_said_otherwise(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return values | {judge: fill_backend(values[judge]) for judge in ("selector", "referee") if judge in values}


class GrowthPhase(Section):
    """A phase of progressive growing."""

    resolution: Annotated[int, Field(ge=4)] = Field(description="side of the images trained in this phase, in pixels")
    kimg: Positive = Field(description="length of the phase in thousands of images")


class Augmentation(Section):
    """How images vary before the discriminator, real and generated ones alike."""

    brightness: Share = Field(0.2, description="largest shift of all pixels on [-1, 1]")
    contrast: Share = Field(0.4, description="largest relative change of contrast")
    shift: Share = Field(0.0625, description="largest translation as a share of the image's side")
    until: Share = Field(1.0, description="share of the training after which images vary no more")


class Square(Section):
    """A square of the image that matters more than its few pixels weigh in the whole."""

    top: Share = Field(description="upper edge of the square, as a share of the image's side")
    left: Share = Field(description="left edge, likewise")
    side: Annotated[float, Field(gt=0, lt=1)] = Field(description="its side, likewise")

    @model_validator(mode="after")
    def _inside(self) -> Square:
        if max(self.top, self.left) + self.side > 1:
            raise ValueError("the square reaches beyond the image: `top` + `side` and `left` + `side` are at most 1")
        return self

    def window(self, resolution: int) -> tuple[slice, slice]:
        """Return rows and columns of the square in an image of `resolution` pixels."""
        top, left, side = (round(share * resolution) for share in (self.top, self.left, self.side))
        return slice(top, top + side), slice(left, left + side)


class LocalDiscriminator(Square):
    """A second discriminator that sees one square alone; a power of two of pixels at each resolution trained."""

    channels: list[Count] = Field(description="feature channels from 4 pixels to the square's resolution")


class LocalLoss(Square):
    """Pixel and perceptual loss once more, over one square alone."""

    weight: Positive = Field(1.0, description="of their sum in the whole loss")


class GanTraining(Section):
    """One adversarial training: relativistic loss with R1 and R2."""

    kimg: Positive = Field(description="thousands of real images shown")
    batch: Annotated[int, Field(ge=4)] = Field(16, description="images a step")
    learning_rate: Positive = Field(2e-3, description="of both networks, by Adam")
    mapping_rate: Positive = Field(
        1.0, description="factor on the learning rate of the mapping network, which decides who is made how often"
    )
    gamma: Positive = Field(3.0, description="weight of both gradient penalties at full resolution")
    penalty_every: Count = Field(8, description="steps between two penalties, which count that many times")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        100, description="steps over which the learning rate rises from 0"
    )
    decay_share: Share = Field(0.3, description="last share of the steps, trained at a lower learning rate")
    decay_factor: Share = Field(0.3, description="factor on the learning rate in that share")
    ema_kimg: Positive = Field(10, description="half-life of the averaged generator in thousands of images")
    ema_rampup: bool = Field(True, description="shorten that half-life to a tenth of the images seen so far")
    growth: list[GrowthPhase] = Field([], description="progressive growing: phases before the full resolution")
    fade_kimg: Annotated[float, Field(ge=0)] = Field(0, description="images over which a new resolution fades in")
    blur_sigma: Annotated[float, Field(ge=0)] = Field(
        0, description="blur before the discriminator at the start, pixels"
    )
    blur_share: Share = Field(0.25, description="share of the training over which that blur falls to none")
    augment: Augmentation = Field(Augmentation(), description="how images vary before the discriminator")
    local: LocalDiscriminator | None = Field(
        None, description="where a second discriminator looks closer; none: as the given discriminator has it"
    )
    precision: PrecisionChoice = Field(
        "auto", description="bfloat16 autocasts the step but for its penalty; auto: where the device is faster in it"
    )
    compile: bool | None = Field(None, description="compile the networks, which takes minutes on a CPU; null: on a GPU")
    collapse_loss: Annotated[float, Field(ge=0)] = Field(
        0.02, description="discriminator loss that, ten log rows in a row, stops the training as collapsed"
    )


class Generator(Section):
    """The source generator: weights as they are, trained further on this dataset, or trained from nothing."""

    architecture: Literal["stylegan2", "progan"] = Field("stylegan2", description="family of the network")
    channels: list[Count] = Field(
        [128, 128, 64, 48, 16], description="feature channels from 4 pixels to the resolution"
    )
    z_dim: Count = Field(128, description="size of the Gaussian input")
    mapping_layers: Count = Field(4, description="depth of the mapping network (stylegan2 only)")
    weights: Path | None = Field(
        None, description="generator weights to start from, .safetensors or a published .pth or .pt; none: random ones"
    )
    discriminator: Path | None = Field(None, description="its discriminator, which any further training starts from")
    training: GanTraining | None = Field(None, description="how to train it; none: the weights are used as they are")

    @model_validator(mode="after")
    def _has_an_origin(self) -> Generator:
        if self.weights is None and self.training is None:
            raise ValueError("give `weights`, `training` or both (train the weights further)")
        return self


class MaskSampling(Section):
    """Random masks that teach the encoder unknown pixels (paper 3.2 and A.1.1)."""

    kind: Literal["random", "none"] = Field("random", description="none trains the RGB variant, without a mask channel")
    cells: Count = Field(6, description="side of the uniform noise that is upsampled to a mask")
    least: Share = Field(0.3, description="lower end of the threshold t ~ U(least, 1)")
    keep: Literal["below", "above"] = Field(
        "below", description="known pixels: noise below t (the published code) or above t (the paper's Eq. 11)"
    )


class IdentityLoss(Section):
    """Whether a rebuilt face is still the same person's, as a face embedding sees it (paper A.1.1, for FFHQ)."""

    path: Path = Field(description="the embedding network, images (n, 3, side, side) to vectors: TorchScript or .onnx")
    weight: Positive = Field(1.0, description="of the loss, one minus the cosine of both embeddings")
    crop: Square | None = Field(None, description="the square that the network sees; none: the whole image")
    side: Count = Field(112, description="to which the square is scaled, in pixels")
    mean: Mean = (0.5, 0.5, 0.5)
    std: Deviation = (0.5, 0.5, 0.5)


class EncoderTraining(Section):
    """Latent regression by the paper's Eq. 3; a kimg of 0 takes the weights as they are."""

    kimg: Annotated[float, Field(ge=0)] = Field(description="thousands of generated images shown")
    batch: Count = Field(16, description="images a step")
    learning_rate: Positive = Field(1e-3, description="largest step of Adam")
    mse: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the pixel loss")
    perceptual: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the perceptual loss")
    distance: PerceptualName = Field(
        "stlpips-alex", description="the perceptual distance; the published encoders were trained with lpips-vgg"
    )
    trunk: Path | None = Field(
        None, description="weights of an LPIPS trunk, as torchvision publishes them; none: torchvision's cache"
    )
    perceptual_crop: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="side of the random crop that the perceptual loss sees, as a share of the image's side"
    )
    latent: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the latent loss")
    identity: IdentityLoss | None = Field(None, description="identity loss, for faces; none: left out")
    local: LocalLoss | None = Field(None, description="where images must match more closely, such as round the mouth")
    collages: Share = Field(
        0.0, description="share of images that get the square of `local` from another, so that it is seen by itself"
    )
    mixing: Share = Field(0.9, description="share of images whose layers come from two different latents (W+ only)")
    precision: PrecisionChoice = Field(
        "auto", description="bfloat16 autocasts the step; auto: where the device is faster in it"
    )

    compile: bool | None = Field(None, description="compile the networks, which takes minutes on a CPU; null: on a GPU")

    @model_validator(mode="after")
    def _collages_have_a_place(self) -> EncoderTraining:
        if self.collages and self.local is None:
            raise ValueError("`collages` needs `local`, the square that they exchange")
        if round(self.collages * self.batch) == self.batch:
            raise ValueError("`collages` leaves no image of known latents in a batch; take a smaller share")
        return self


class Encoder(Section):
    """The masked regressor into the generator's latent space."""

    width: Count = Field(
        24, description="channels of the first stage, if trained from scratch; the published networks have 64"
    )
    depth: Literal[18, 34] = Field(18, description="of the ResNet, if trained from scratch; published: 34 into W+")
    weights: Path | None = Field(
        None, description="encoder weights to start from, .safetensors or a published .pth; none: from scratch"
    )
    mask: MaskSampling = Field(MaskSampling(), description="how unknown pixels are drawn in training")
    training: EncoderTraining = Field(description="how it is trained, or trained on")


class Published(Section):
    """Weights of the paper's own generators and encoders, fetched when they are not there yet."""

    family: Literal["progan", "stylegan2"] = Field(description="of the generator")
    domain: str = Field(description="celebahq, celebahq-small, church, livingroom; or ffhq, church, car, horse")
    folder: Folder = Field(Path("pretrained"), description="where the files are kept, with their checksums")

    @model_validator(mode="after")
    def _is_published(self) -> Published:
        check_name("published.domain", self.domain, list(DOMAINS[self.family]))
        return self

    def of_domain(self) -> Domain:
        """Return what is published."""
        return DOMAINS[self.family][self.domain]

    def files(self) -> dict[str, Path]:
        """Return the paths of `generator` and `encoder`."""
        return {role: self.folder / Path(getattr(self.of_domain(), role)).name for role in ("generator", "encoder")}


class Sample(Section):
    """What is sampled from each generator."""

    images: Annotated[int, Field(ge=16)] = Field(2000, description="images sampled from each generator")
    truncation: Share = Field(1.0, description="1 samples the whole distribution, less moves it to the mean latent")


class PartRegion(Section):
    """A region to swap that the segmenter finds in each image."""

    kind: Literal["part"] = Field("part", description="a part that the segmenter finds in each image")
    name: str = Field("mouth", description="name of the part")
    grow: Share = Field(0.04, description="how far the donor's part is grown, as a share of the image's side")
    buffer: Share = Field(0.02, description="width of the unknown ring round it, as a share of the image's side")


class BoxRegion(Section):
    """The paper's fixed rectangle, in shares of the image's sides."""

    kind: Literal["box"] = Field("box", description="the same rectangle in every image")
    top: Share = Field(0.65, description="upper edge, from the top")
    bottom: Share = Field(0.93, description="lower edge, from the top")
    left: Share = Field(0.25, description="left edge, from the left")
    right: Share = Field(0.75, description="right edge, from the left")
    buffer: Share = Field(0.0, description="width of the unknown ring round it, as a share of the image's side")
    shows: str | None = Field(
        "mouth", description="part that a donor must show; null: any image is a donor, and no segmenter is trained"
    )

    @model_validator(mode="after")
    def _has_an_inside(self) -> BoxRegion:
        if self.top >= self.bottom or self.left >= self.right:
            raise ValueError("the box is empty: top must lie above bottom, and left before right")
        return self


class Rebalance(Section):
    """Which rates are wanted, and how images are edited to reach them."""

    targets: list[RateRule] = Field(
        min_length=2, description="wanted rate of an attribute where a condition holds; the gap is first minus second"
    )
    region: Annotated[PartRegion | BoxRegion, Field(discriminator="kind")] = Field(
        PartRegion(), description="what is swapped"
    )
    candidates: Count = Field(16, description="random donors tried for each image (paper A.2.1)")
    precision: PrecisionChoice = Field(
        "auto", description="of the inversion; auto: bfloat16 where a probe found it faster and as faithful (45 dB)"
    )
    shards: Count = Field(2, description="jobs that the edits of one image set are spread over")
    compare: Count = Field(96, description="images on which part and box regions are compared")


class AttributeLoss(Section):
    """A small discriminator that sees images through the selector's logits alone, and so matches their joint rates."""

    weight: Positive = Field(3.0, description="of its loss in the generator's")
    learning_rate: Positive = Field(2e-3, description="of its own weights, by Adam")
    gamma: Annotated[float, Field(ge=0)] = Field(0.1, description="weight of both its gradient penalties")
    width: Count = Field(64, description="of its two hidden layers")


class Retrain(Section):
    """The secondary GAN, and the control trained alike on the dataset as it was."""

    init: Literal["source", "scratch"] = Field("source", description="start from the source weights, or anew")
    training: GanTraining = Field(description="of the retrained GAN and of the control alike")
    attributes: AttributeLoss | None = Field(
        None,
        description="match what the selector sees as well, which images teach slowly; null: the paper's retraining",
    )


class Evaluate(Section):
    """The final figures."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="level of the intervals")
    resamples: Annotated[int, Field(ge=100)] = Field(2000, description="bootstrap resamples behind an interval")
    images: Count = Field(
        2000, description="images of each set, the first ones, that quality is measured on; distances depend on it"
    )
    neighbours: Count = Field(5, description="k of density and coverage")
    distance: PerceptualName = Field(
        "stlpips-alex", description="perceptual distance of composites; the paper's is lpips-alex"
    )
    trunk: Path | None = Field(None, description="weights of an LPIPS trunk; none: torchvision's cache")
