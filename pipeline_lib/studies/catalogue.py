"""The studies, what each needs and what its figure shows; rules read it without loading torch."""

from __future__ import annotations

from dataclasses import dataclass

INVERSION = ("encoder", "generator", "precision")


@dataclass(frozen=True)
class Entry:
    """A study: `study_<name>` in the module of its name takes a `Study` with the inputs that it needs."""

    title: str  # with the paper's section
    shows: str  # its figure
    needs: tuple[str, ...]  # fields of `Study`
    size: int = 0  # images or collages in the paper
    in_paper: bool = True  # whether the paper makes its comparisons


STUDIES = {
    "ablation": Entry(
        "An encoder without one of its losses (A.2.3, Table 2)",
        "reconstructions by encoders without one loss",
        ("held_out", "generator", "all_losses", "no_latent", "no_perceptual"),
    ),
    "adaptation": Entry(
        "An encoder fine-tuned on the image (A.2.4, Fig. 23)",
        "edits by an encoder fine-tuned on the image",
        ("images", "parts", "encoder", "generator"),
    ),
    "comparison": Entry(
        "One pass against other methods (4.2, Tables 4 and 5)",
        "the same collages by several methods",
        ("made", "held_out"),
        size=200,
    ),
    "completion": Entry(
        "Holes in real images (A.2.1, Fig. 9)",
        "holes in real images",
        ("images", "held_out", "generator", "rgb", "all_losses"),
    ),
    "composition": Entry(
        "Collages and what is made of them (4.1, Table 3)",
        "collages and what is made of them",
        ("samples", "sample_parts", "held_out", *INVERSION, "rgb", "all_losses"),
        size=50_000,
    ),
    "direction": Entry(
        "An attribute by composition and by a learned direction (A.2.2, Fig. 15)",
        "an attribute by composition, blends and a learned direction",
        ("images", "parts", "scores", "referee", *INVERSION),
        in_paper=False,
    ),
    "discovery": Entry(
        "Parts found by superpixels (4.4, Fig. 8 and 27)",
        "what changes with a superpixel",
        ("images", "parts", "samples", *INVERSION),
        in_paper=False,
    ),
    "illumination": Entry(
        "Less light on one half (A.2.4, Fig. 22)",
        "less light on one half of an image",
        ("images", *INVERSION),
    ),
    "independence": Entry(
        "Independence of parts (4.4, Table 1)",
        "what changes with a part",
        ("images", "parts", "samples", *INVERSION),
        size=100,
    ),
    "interpolation": Entry(
        "Composition against blends (4.3, Fig. 7)",
        "composition against blends",
        ("images", "parts", *INVERSION),
        size=500,
    ),
    "multimodal": Entry(
        "Several examples of a part (A.2.1, Fig. 10)",
        "several examples of a part for one image",
        ("images", "parts", *INVERSION),
    ),
    "regions": Entry(
        "Part against box (A.2.1)",
        "part against box",
        ("samples", "sample_parts", "plan", "selector", "referee", *INVERSION),
        in_paper=False,
    ),
}
