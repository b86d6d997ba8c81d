"""The studies, what each needs and how large it is; rules read it without loading torch."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from pipeline_lib.config import Encoder, Size, StudyName
from pipeline_lib.config.sections import PLAIN

INVERSION = ("encoder", "generator", "precision")
Variant = Literal["all_losses", "no_latent", "no_perceptual", "rgb", "pyramid", "in_domain"]
ENCODER_RATE = 2e-3  # peak learning rate of Adam, of the encoders that are compared
#: Weights of the losses of each encoder; those of Eq. 3 are all 1.
WEIGHTS = dict.fromkeys(("mse", "perceptual", "latent"), 1.0)
LEFT_OUT: dict[Variant, dict[str, float]] = {"no_latent": {"latent": 0.0}, "no_perceptual": {"perceptual": 0.0}}


class Entry(NamedTuple):
    """A study: `measure` in the module of its name takes a `Study` with the inputs that it needs."""

    title: str  # with the paper's section
    images: tuple[int, int, int]  # images, collages or pairs at the sizes toy, quick and paper
    needs: tuple[str, ...]  # fields of `Study`
    in_paper: bool = True  # whether the paper makes its comparisons

    def count(self, size: Size) -> int:
        """Return the number of images at a size."""
        return self.images[get_args(Size).index(size)]


STUDIES: dict[StudyName, Entry] = {
    "ablation": Entry(
        "An encoder without one of its losses (A.2.3, Table 2)", (20, 1000, 1000),
        ("held_out", "generator", "all_losses", "no_latent", "no_perceptual"),
    ),
    "adaptation": Entry(
        "An encoder fine-tuned on the image (A.2.4, Fig. 23)", (3, 30, 30),
        ("images", "parts", "encoder", "generator"),
    ),
    "comparison": Entry(
        "One pass against other methods (4.2, Tables 4 and 5)", (10, 16, 200), ("made", "held_out"),
    ),
    "completion": Entry(
        "Holes in real images (A.2.1, Fig. 9)", (50, 1000, 1000),
        ("images", "held_out", "generator", "rgb", "all_losses"),
    ),
    "composition": Entry(
        "Collages and what is made of them (4.1, Table 3)", (50, 1000, 50_000),
        ("samples", "sample_parts", "held_out", *INVERSION, "rgb", "all_losses"),
    ),
    "direction": Entry(
        "An attribute by composition and by a learned direction (A.2.2, Fig. 15)", (8, 200, 200),
        ("images", "parts", "scores", "referee", *INVERSION), in_paper=False,
    ),
    "discovery": Entry(
        "Parts found by superpixels (4.4, Fig. 8 and 27)", (6, 100, 100),
        ("images", "parts", "samples", *INVERSION), in_paper=False,
    ),
    "illumination": Entry("Less light on one half (A.2.4, Fig. 22)", (6, 200, 200), ("images", *INVERSION)),
    "independence": Entry(
        "Independence of parts (4.4, Table 1)", (4, 100, 100), ("images", "parts", "samples", *INVERSION),
    ),
    "interpolation": Entry(
        "Composition against blends (4.3, Fig. 7)", (6, 500, 500), ("images", "parts", *INVERSION),
    ),
    "multimodal": Entry(
        "Several examples of a part (A.2.1, Fig. 10)", (3, 100, 100), ("images", "parts", *INVERSION),
    ),
}  # fmt: skip


class Scale(NamedTuple):
    """What the size of the studies says besides their numbers of images."""

    encoder_kimg: float  # training of each encoder that is compared, in thousands of images
    translator_kimg: float  # training of each network without a pretrained generator (4.2), likewise
    translator_width: int  # channels of the first layers of these networks
    optimization_steps: int  # for each collage, of the methods that optimise something
    adaptation_steps: int  # of fine-tuning (A.2.4), 30 in the paper
    direction_fit: int  # images whose latents the direction is learned from
    donors: int  # of each image in multimodal
    replacements: int  # samples that replace each part or superpixel in turn, in independence and discovery


SCALES: dict[Size, Scale] = {
    "toy": Scale(0.3, 0.1, 4, 2, 2, 100, 2, 3),
    "quick": Scale(10, 5, 16, 200, 30, 2000, 5, 20),
    "paper": Scale(1000, 1000, 64, 1000, 30, 2000, 5, 20),
}


def encoder_section(like: Encoder, variant: Variant, size: Size) -> Encoder:
    """Return the section of an encoder that is compared, given that of the run's encoder.

    They have all losses, lack one of two (A.2.3), lack the mask channel (4.1), are a feature pyramid (4.2, pSp), or are
    trained on real images with a discriminator (4.2, in-domain). All else, such as masks and batch size, is as in
    `encoder`.
    """
    alike = WEIGHTS | {"kimg": SCALES[size].encoder_kimg, "learning_rate": ENCODER_RATE} | PLAIN
    training = like.training.model_copy(update=alike | LEFT_OUT.get(variant, {}))
    mask = like.mask.model_copy(update={"kind": "none" if variant == "rgb" else "random"})
    return like.model_copy(update={"weights": None, "mask": mask, "training": training})
