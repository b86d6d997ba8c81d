"""The section of the paper's studies."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from pipeline_lib.config.base import Section

StudyName = Literal[
    "ablation", "adaptation", "comparison", "completion", "composition", "direction", "discovery", "illumination",
    "independence", "interpolation", "multimodal",
]  # fmt: skip
Size = Literal["toy", "quick", "paper"]
OptimizationMethod = Literal[
    "lbfgs", "encode-lbfgs", "in-domain", "im2stylegan", "stylegan-projection", "multi-code", "deep-image-prior"
]
TranslationMethod = Literal["cyclegan", "spade", "inpainting-network"]
OnePass = Literal["poisson", "latent-regression", "finished", "all_losses", "pyramid", "in_domain"]
Method = OnePass | OptimizationMethod | TranslationMethod
METHODS = (*get_args(OnePass), *get_args(OptimizationMethod), *get_args(TranslationMethod))
#: Methods that need w, which a ProGAN has not, and one for latents in z.
OF_W, OF_Z = ("im2stylegan", "stylegan-projection", "pyramid"), ("multi-code",)


def impossible_methods(family: str | None) -> tuple[str, ...]:
    """Return the methods for which a generator of this family, "stylegan2" or "progan", lacks the latents."""
    return {"progan": OF_W, "stylegan2": OF_Z}.get(family or "", ())


class Studies(Section):
    """The paper's studies, which the target `studies` runs; needs an encoder and parts."""

    only: list[StudyName] | None = Field(None, description="the studies to run; null: all of them")
    size: Size = Field(
        "quick",
        description="quick: short trainings, and all studies in three quarters of an hour on two cores; paper: numbers "
        "of images as in the paper, for a GPU; toy: for tests, figures mean nothing",
    )
    methods: list[Method] | None = Field(
        None,
        description="methods of the comparison, of which latent-regression is one; finished is that with the known "
        "pixels kept; all_losses, pyramid and in_domain are encoders of the studies; null: all that the generator has",
    )

    def compared(self, family: str | None) -> list[str]:
        """Return the methods to compare for a generator of this family, "stylegan2" or "progan"."""
        impossible = impossible_methods(family)
        return [method for method in METHODS if method not in impossible and method in (self.methods or METHODS)]

    @model_validator(mode="after")
    def _has_one_pass(self) -> Studies:
        if self.methods is not None and "latent-regression" not in self.methods:
            raise ValueError("`methods` lacks latent-regression, with whose time the others are compared; add it")
        return self
