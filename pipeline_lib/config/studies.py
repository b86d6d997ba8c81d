"""The section of the paper's studies."""

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
ENCODER_RATE = 2e-3  # peak learning rate of Adam, of the encoders that are compared
Several = Annotated[int, Field(ge=2)]
#: Methods that need w, which a ProGAN has not, and one for latents in z.
OF_W, OF_Z = ("im2stylegan", "stylegan-projection", "pyramid"), ("multi-code",)
Variant = Literal["all_losses", "no_latent", "no_perceptual", "rgb", "pyramid", "in_domain"]
#: Weights of the losses of each encoder; those of Eq. 3 are all 1.
WEIGHTS = dict.fromkeys(("mse", "perceptual", "latent"), 1.0)
LEFT_OUT: dict[Variant, dict[str, float]] = {"no_latent": {"latent": 0.0}, "no_perceptual": {"perceptual": 0.0}}


def impossible_methods(family: str | None) -> tuple[str, ...]:
    """Return the methods for which a generator of this family, "stylegan2" or "progan", lacks the latents."""
    return {"progan": OF_W, "stylegan2": OF_Z}.get(family or "", ())


class Studies(Section):
    """The paper's studies, which the target `studies` runs, with the size of each; needs an encoder and parts."""

    encoder_kimg: Positive = Field(
        10,
        description="length of the training of each encoder that is compared, in thousands of images, which are real "
        "for in_domain alone; short, so that all studies take three quarters of an hour on two cores",
    )
    translator_kimg: Positive = Field(
        5, description="length of the training of each network without a pretrained generator (4.2), likewise"
    )
    translator_width: Annotated[int, Field(ge=4, multiple_of=2)] = Field(
        16, description="channels of the first layers of these networks"
    )
    ablation: Several = Field(1000, description="masked real images, for encoders without one of their losses (A.2.3)")
    adaptation: Several = Field(30, description="real images, each with an encoder fine-tuned on it (A.2.4)")
    adaptation_steps: Count = Field(30, description="steps of fine-tuning, 30 in the paper")
    comparison: Annotated[int, Field(ge=10)] = Field(
        16, description="collages of real images, of which several methods make whole images (4.2), 200 in the paper"
    )
    methods: list[Method] | None = Field(
        None,
        description="methods of the comparison, of which latent-regression is one; finished is that with the known "
        "pixels kept; all_losses, pyramid and in_domain are encoders of the studies; null: all that the generator has",
    )
    optimization_steps: Count = Field(200, description="steps for each collage, of the methods that optimise something")
    completion: Annotated[int, Field(ge=50)] = Field(1000, description="real images in which holes are filled (A.2.1)")
    composition: Annotated[int, Field(ge=50)] = Field(
        1000, description="collages of parts of samples, and of what is made of them (4.1), 50,000 in the paper"
    )
    direction: Several = Field(200, description="images that are given the attribute in several ways (A.2.2)")
    direction_fit: Several = Field(2000, description="images whose latents the direction is learned from")
    discovery: Several = Field(100, description="images of which one superpixel is replaced (4.4)")
    illumination: Several = Field(200, description="real images, of which one half is darkened (A.2.4)")
    independence: Several = Field(100, description="images whose parts are replaced (4.4), 100 in the paper")
    interpolation: Several = Field(500, description="pairs of images, composed and blended (4.3), 500 in the paper")
    multimodal: Several = Field(100, description="images that are edited with several donors each (A.2.1)")
    donors: Annotated[int, Field(ge=2, le=12)] = Field(5, description="donors of each of these")
    regions: Count = Field(96, description="samples that are edited by part and by the paper's box")
    replacements: Several = Field(
        20, description="samples that replace each part or superpixel in turn, in independence and discovery"
    )

    def encoder(self, like: Encoder, variant: Variant) -> Encoder:
        """Return the section of an encoder that is compared, given that of the run's encoder.

        They have all losses, lack one of two (A.2.3), lack the mask channel (4.1), are a feature pyramid (4.2, pSp), or
        are trained on real images with a discriminator (4.2, in-domain). The losses of the others are those of Eq. 3.
        All else, such as masks and batch size, is as in `encoder`.
        """
        alike = WEIGHTS | {"kimg": self.encoder_kimg, "learning_rate": ENCODER_RATE} | PLAIN
        training = like.training.model_copy(update=alike | LEFT_OUT.get(variant, {}))
        mask = like.mask.model_copy(update={"kind": "none" if variant == "rgb" else "random"})
        return like.model_copy(update={"weights": None, "mask": mask, "training": training})

    def compared(self, family: str | None) -> list[str]:
        """Return the methods to compare for a generator of this family, "stylegan2" or "progan"."""
        impossible = impossible_methods(family)
        return [method for method in METHODS if method not in impossible and method in (self.methods or METHODS)]

    @model_validator(mode="after")
    def _has_one_pass(self) -> Studies:
        if self.methods is not None and "latent-regression" not in self.methods:
            raise ValueError("`methods` lacks latent-regression, with whose time the others are compared; add it")
        return self
