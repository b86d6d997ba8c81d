"""The published domains of Chai et al. 2021, with the addresses of their weights and the order of their parts."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "http://latent-composition.csail.mit.edu/pretrained_models/"
DISSECTION = "http://gandissect.csail.mit.edu/models/"  # ProGAN as converted by Bau et al. 2019

FACE = ("background", "skin", "eye", "mouth", "nose", "hair")
CHURCH = ("sky", "building", "tree", "foreground")
LIVINGROOM = ("floor", "ceiling", "wall", "painting", "window", "fireplace", "sofa", "coffee table")
CAR = ("sky", "building", "tree", "foreground", "car")


@dataclass(frozen=True)
class Domain:
    """Published weights of one generator and its encoder.

    Attributes:
        resolution: side of the images in pixels.
        latent_shape: (512,) for z, (layers, 512) for W+.
        depth: depth of the encoder's ResNet.
        mask_offset: value subtracted from the encoder's mask.
        parts: from back to front (paper A.1.2); empty where the paper names none and swaps boxes or salient regions.
        generator: URL of the published generator.
        encoder: URL of its published masked encoder.
    """

    resolution: int
    latent_shape: tuple[int, ...]
    depth: int
    mask_offset: float
    parts: tuple[str, ...]
    generator: str
    encoder: str


def _progan(name: str, resolution: int, parts: tuple[str, ...], generator: str) -> Domain:
    return Domain(resolution, (512,), 18, 0.5, parts, generator, f"{PAPER}pgan_encoders_{name}_RGBM_model_final.pth")


def _stylegan2(name: str, resolution: int, parts: tuple[str, ...]) -> Domain:
    layers = 2 * (resolution.bit_length() - 2)
    generator = f"{PAPER}sgans_stylegan2-{name}-config-f.pt"
    return Domain(
        resolution, (layers, 512), 34, 0.0, parts, generator, f"{PAPER}sgan_encoders_{name}_RGBM_model_final.pth"
    )


#: By family, then name.
DOMAINS: dict[str, dict[str, Domain]] = {
    "progan": {
        "celebahq": _progan("celebahq", 1024, FACE, f"{DISSECTION}proggan_celebhq-620d161c.pth"),
        "celebahq-small": _progan("celebahq-small", 128, FACE, f"{PAPER}pgans_celebahq-small_generator.pth"),
        "church": _progan("church", 256, CHURCH, f"{DISSECTION}proggan_churchoutdoor-7e701dd5.pth"),
        "livingroom": _progan("livingroom", 256, LIVINGROOM, f"{DISSECTION}proggan_livingroom-5ef336dd.pth"),
    },
    "stylegan2": {
        "ffhq": _stylegan2("ffhq", 1024, FACE),
        "church": _stylegan2("church", 256, CHURCH),
        "car": _stylegan2("car", 512, CAR),
        "horse": _stylegan2("horse", 256, ()),
    },
}
