"""The sections of the paper's studies."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from pipeline_lib.config.base import Count, Positive, Section
from pipeline_lib.config.sections import PLAIN, Encoder

OptimizationMethod = Literal[
    "lbfgs", "encode-lbfgs", "in-domain", "im2stylegan", "stylegan-projection", "multi-code", "deep-image-prior"
]
TranslationMethod = Literal["cyclegan", "spade", "inpainting-network"]
OnePass = Literal["poisson", "latent-regression", "finished", "all_losses", "pyramid", "in_domain"]
Method = OnePass | OptimizationMethod | TranslationMethod
METHODS = (*get_args(OnePass), *get_args(OptimizationMethod), *get_args(TranslationMethod))
#: Methods that need w, which a ProGAN has not, and one for latents in z.
OF_W, OF_Z = ("im2stylegan", "stylegan-projection", "pyramid"), ("multi-code",)
Variant = Literal["all_losses", "no_latent", "no_perceptual", "rgb", "pyramid", "in_domain"]
#: Weights of the losses of each encoder; those of Eq. 3 are all 1.
WEIGHTS = dict.fromkeys(("mse", "perceptual", "latent"), 1.0)
LEFT_OUT: dict[Variant, dict[str, float]] = {"no_latent": {"latent": 0.0}, "no_perceptual": {"perceptual": 0.0}}


def impossible_methods(family: str | None) -> tuple[str, ...]:
    """Return the methods for which a generator of this family, "stylegan2" or "progan", lacks the latents."""
    return {"progan": OF_W, "stylegan2": OF_Z}.get(family or "", ())


class Encoders(Section):
    """Encoders trained alike from scratch, to be compared with each other.

    They have all losses, lack one of two (A.2.3), lack the mask channel (4.1), are a feature pyramid (4.2, pSp), or are
    trained on real images with a discriminator (4.2, in-domain). The losses of the others are those of Eq. 3. All else,
    such as architecture, masks and batch size, is as in `encoder`.
    """

    kimg: Positive = Field(
        10,
        description="length of each training in thousands of images, which are real for in_domain alone; short, so "
        "that all studies take three quarters of an hour on two cores",
    )
    learning_rate: Positive = Field(2e-3, description="peak learning rate of Adam")

    def like(self, encoder: Encoder, variant: Variant) -> Encoder:
        """Return the section of one of them, given that of the run's encoder."""
        alike = WEIGHTS | self.model_dump() | PLAIN
        training = encoder.training.model_copy(update=alike | LEFT_OUT.get(variant, {}))
        mask = encoder.mask.model_copy(update={"kind": "none" if variant == "rgb" else "random"})
        return encoder.model_copy(update={"weights": None, "mask": mask, "training": training})


class Translators(Section):
    """Networks that are trained on real images and collages of them, without a pretrained generator (4.2)."""

    kimg: Positive = Field(5, description="length of each training in thousands of images")
    batch: Count = Field(8, description="images in a step")
    learning_rate: Positive = Field(2e-4, description="rate of Adam, which falls to zero in the second half")
    width: Annotated[int, Field(ge=4, multiple_of=2)] = Field(16, description="channels of their first layers")


class Composition(Section):
    """Collages of parts of several samples, and what makes whole images of them (paper 4.1)."""

    collages: Annotated[int, Field(ge=50)] = Field(1000, description="collages, 50,000 in the paper")


class Independence(Section):
    """How much of an image changes when one of its parts is replaced (paper 4.4)."""

    images: Annotated[int, Field(ge=2)] = Field(100, description="images whose parts are replaced, 100 in the paper")
    replacements: Annotated[int, Field(ge=2)] = Field(
        20, description="samples that replace each part in turn, 20 in the paper"
    )


class Interpolation(Section):
    """Composition against blends in latent and pixel space (paper 4.3)."""

    pairs: Annotated[int, Field(ge=2)] = Field(500, description="pairs of images, 500 in the paper")


class Comparison(Section):
    """What several methods make of the same collages (paper 4.2)."""

    collages: Annotated[int, Field(ge=10)] = Field(16, description="collages of real images, 200 in the paper")
    methods: list[Method] | None = Field(
        None,
        description="methods, of which latent-regression is one; finished is that with the known pixels kept; "
        "all_losses, pyramid and in_domain are encoders of the studies; null: all that the generator has",
    )
    steps: Count = Field(200, description="steps for each collage, of the methods that optimise something")

    @model_validator(mode="after")
    def _has_one_pass(self) -> Comparison:
        if self.methods is not None and "latent-regression" not in self.methods:
            raise ValueError("`methods` lacks latent-regression, with whose time the others are compared; add it")
        return self

    def wanted(self, family: str | None) -> list[str]:
        """Return the methods to compare for a generator of this family, "stylegan2" or "progan"."""
        impossible = impossible_methods(family)
        return [method for method in METHODS if method not in impossible and method in (self.methods or METHODS)]


class Direction(Section):
    """Composition against a direction in latent space that is learned from labels (paper A.2.2)."""

    images: Annotated[int, Field(ge=2)] = Field(200, description="images that are given the attribute")
    fit: Annotated[int, Field(ge=2)] = Field(2000, description="images whose latents the direction is learned from")


class Ablation(Section):
    """Encoders trained without one of the losses (paper A.2.3)."""

    images: Annotated[int, Field(ge=2)] = Field(1000, description="masked real images that are reconstructed")


class Adaptation(Section):
    """The encoder fine-tuned on single images before they are edited (paper A.2.4)."""

    images: Annotated[int, Field(ge=2)] = Field(30, description="real images, each with an encoder of its own")
    steps: Count = Field(30, description="steps on each image, 30 in the paper")


class Completion(Section):
    """Real images with holes, completed with and without a mask channel (paper A.2.1)."""

    images: Annotated[int, Field(ge=50)] = Field(1000, description="real images in which holes are made")


class Multimodal(Section):
    """Several examples of a part for the same image (paper A.2.1)."""

    images: Annotated[int, Field(ge=2)] = Field(100, description="images that are edited")
    donors: Annotated[int, Field(ge=2, le=12)] = Field(5, description="donors of each image")


class Illumination(Section):
    """Less light on one half of an image (paper A.2.4)."""

    images: Annotated[int, Field(ge=2)] = Field(200, description="real images, of which one half is darkened")


class Discovery(Section):
    """Parts found by what changes with a superpixel (paper 4.4)."""

    images: Annotated[int, Field(ge=2)] = Field(100, description="images of which one superpixel is replaced")
    replacements: Annotated[int, Field(ge=2)] = Field(20, description="samples that replace it in turn")


class Regions(Section):
    """The same donors swapped by part and by the paper's box."""

    images: Count = Field(96, description="samples that are edited")


class Studies(Section):
    """The paper's studies, which the target `studies` runs; the default run does not."""

    encoders: Encoders = Field(Encoders(), description="encoders that are trained for the studies alone")
    translators: Translators = Field(
        Translators(), description="networks without a pretrained generator, for the comparison"
    )
    composition: Composition = Field(Composition(), description="the quality of collages and of what is made of them")
    comparison: Comparison = Field(Comparison(), description="one pass against optimisation and other methods")
    independence: Independence = Field(Independence(), description="how much else changes with a part")
    interpolation: Interpolation = Field(Interpolation(), description="composition against blends of two images")
    direction: Direction = Field(Direction(), description="an attribute by composition and by a learned direction")
    ablation: Ablation = Field(Ablation(), description="what each of the encoder's losses is good for")
    adaptation: Adaptation = Field(Adaptation(), description="what fine-tuning on the edited image is good for")
    completion: Completion = Field(Completion(), description="holes in real images, filled with and without a mask")
    multimodal: Multimodal = Field(Multimodal(), description="the same image with several examples of a part")
    illumination: Illumination = Field(Illumination(), description="what follows a change of the light on one half")
    regions: Regions = Field(Regions(), description="part against box")
    discovery: Discovery = Field(Discovery(), description="parts found without labels, by superpixels")
