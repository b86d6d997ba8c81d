"""Inversion by optimising something for each image, as the methods do that the paper compares itself with (4.2).

Every objective is masked, so that only known pixels are reconstructed and the rest is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import OptimizationMethod
from pipeline_lib.imaging.transfer import at_once
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime import seeding
from pipeline_lib.studies.methods.deep_image_prior import NOISE_CHANNELS, DeepImagePrior

SEED = 0  # of all random numbers, which are the same for every image
SAMPLED = 500  # latents, of which the best one is a starting point (paper A.2.4)
COMPARED = 128  # pixels to which larger images are reduced before the best one is found
FOR_MEAN = 10_000  # latents, for mean and deviation of w
IN_DOMAIN = 2.0  # weight of the distance to the encoder's latent of the result, lambda_dom of Zhu et al. (2020)
CODES = 20  # latents that are composed (Gu et al. 2020)
COMPOSED_AT = 16  # pixels of the features where they are, as Gu et al. do at 256 pixels
#: Learning rates of Adam in the publications of Zhu (2020), Abdal (2019), Karras (2020, appendix D) and Ulyanov (2018).
#: Gu et al. (2020) use plain gradient descent; the rate of multi-code was chosen here.
RATES = {
    "in-domain": 0.01, "im2stylegan": 0.01, "stylegan-projection": 0.1, "multi-code": 0.05, "deep-image-prior": 0.01,
}  # fmt: skip
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps of a projection in which its learning rate rises and falls
NOISE, NOISE_UNTIL = 0.05, 0.75  # of a projection, in deviations of w, and the share of its steps in which it fades
JITTER = 0.03  # deviation of the noise that is added to a deep image prior's input at each step


class OptimizingInverter:
    """Reconstructs each image from its known pixels by optimisation, with a call like that of an `Inverter`.

    - `lbfgs` starts from the best of 500 sampled latents, `encode-lbfgs` from that of the encoder. Both optimise a
      latent in z or W+ by L-BFGS.
    - `in-domain` starts from the encoder too, and is held near the latent that the encoder finds in the result, by Adam
      (Zhu et al. 2020, whose encoder was trained on real images as well).
    - `im2stylegan` optimises W+ from the mean latent by Adam (Abdal et al. 2019).
    - `stylegan-projection` optimises one w for all layers by Adam, with fading noise and the perceptual loss alone
      (Karras et al. 2020).
    - `multi-code` optimises several z by Adam, and for each of them a weight of each channel of the features where they
      are summed (Gu et al. 2020).
    - `deep-image-prior` trains a network without any generator, by the pixel loss (Ulyanov et al. 2018).

    The others have the pixel and perceptual losses of Eq. 3. Images are optimised one by one, so that a result does not
    depend on its batch.

    Args:
        encoder: weight file of the encoder.
        generator: weight file of the generator.
        method: one of the above.
        steps: steps for each image, or evaluations of the loss in L-BFGS.
        device: where to compute.
    """

    def __init__(self, encoder: Path, generator: Path, method: OptimizationMethod, steps: int, device: torch.device):
        self.method, self.steps, self.device = method, steps, device
        self.encoder = load_weights(encoder, ResNetEncoder, device)
        self.generator = load_weights(generator, Generator, device)
        self.perceptual = load_perceptual("alex").to(device)
        self._samples: tuple[Tensor, Tensor] | None = None

    def __call__(self, images: Tensor, known: Tensor) -> Tensor:
        """Reconstruct images (n, 3, H, W) in [-1, 1] from the pixels whose `known` (n, 1, H, W) is 1."""
        invert = {
            "lbfgs": self._from_best_sample,
            "encode-lbfgs": lambda image, known: self._by_lbfgs(self._encoded(image, known), image, known),
            "in-domain": self._in_domain,
            "im2stylegan": self._in_w_plus,
            "stylegan-projection": self._in_w,
            "multi-code": self._of_several_codes,
            "deep-image-prior": self._without_generator,
        }[self.method]
        with torch.enable_grad():
            made = [invert(image, mask) for image, mask in zip(images.split(1), known.split(1), strict=True)]
        return torch.cat(made).detach().clamp(-1, 1)

    def _from_best_sample(self, image: Tensor, known: Tensor) -> Tensor:
        latents, decoded = self._sampled()
        errors = ((decoded - _reduced(image)).square() * _reduced(known)).mean(dim=(1, 2, 3))
        return self._by_lbfgs(latents[errors.argmin()][None], image, known)

    @torch.no_grad()
    def _encoded(self, image: Tensor, known: Tensor) -> Tensor:
        return self.encoder(image, known if self.encoder.masked else None).float()

    def _in_domain(self, image: Tensor, known: Tensor) -> Tensor:
        latent = self._encoded(image, known).clone().requires_grad_()

        def objective(step: int) -> Tensor:
            made = self.generator.synthesize(latent)
            found = self.encoder(made, torch.ones_like(known) if self.encoder.masked else None)
            return self._loss(made, image, known) + IN_DOMAIN * (found - latent).square().mean()

        self._by_adam([latent], objective)
        return self.generator.synthesize(latent)

    def _by_lbfgs(self, start: Tensor, image: Tensor, known: Tensor) -> Tensor:
        latent = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([latent], max_iter=self.steps, max_eval=self.steps, line_search_fn="strong_wolfe")

        def objective() -> Tensor:
            optimiser.zero_grad()
            loss = self._loss(self.generator.synthesize(latent), image, known)
            loss.backward()
            return loss

        optimiser.step(objective)
        return self.generator.synthesize(latent)

    def _in_w_plus(self, image: Tensor, known: Tensor) -> Tensor:
        latent = self.generator.latent_avg.expand(1, *self.generator.latent_shape).clone().requires_grad_()
        self._by_adam([latent], lambda step: self._loss(self.generator.synthesize(latent), image, known))
        return self.generator.synthesize(latent)

    def _in_w(self, image: Tensor, known: Tensor) -> Tensor:
        with torch.no_grad():
            sampled = self.generator.sample_latents(range(FOR_MEAN), SEED)[:, 0]
            deviation = (sampled - sampled.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        w = self.generator.latent_avg[None].clone().requires_grad_()

        def in_all_layers(w: Tensor) -> Tensor:
            return self.generator.synthesize(w[:, None].expand(-1, *self.generator.latent_shape))

        def objective(step: int) -> Tensor:
            fade = max(0.0, 1 - step / (NOISE_UNTIL * self.steps)) ** 2
            noise = torch.randn(w.shape, generator=seeding.torch_generator(SEED, "projection", step)).to(self.device)
            made = in_all_layers(w + NOISE * deviation * fade * noise)
            return self.perceptual(made * known, image * known).sum()

        self._by_adam([w], objective)
        return in_all_layers(w)

    def _of_several_codes(self, image: Tensor, known: Tensor) -> Tensor:
        size = min(COMPOSED_AT, self.generator.resolution // 2)
        latents = self.generator.sample_latents(range(CODES), SEED).clone().requires_grad_()
        channels = self.generator.features_at(latents[:1], size).shape[1]
        weights = torch.full((CODES, channels, 1, 1), 1 / CODES, device=self.device, requires_grad=True)

        def composed() -> Tensor:
            features = self.generator.features_at(latents, size)
            return self.generator.synthesize_from((features * weights).sum(dim=0, keepdim=True), size)

        self._by_adam([latents, weights], lambda step: self._loss(composed(), image, known))
        return composed()

    def _without_generator(self, image: Tensor, known: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = DeepImagePrior().to(self.device)
        shape = (1, NOISE_CHANNELS, *image.shape[2:])
        fixed = 0.1 * torch.rand(shape, generator=seeding.torch_generator(SEED, "input")).to(self.device)

        def objective(step: int) -> Tensor:
            noise = torch.randn(shape, generator=seeding.torch_generator(SEED, "jitter", step)).to(self.device)
            return ((network(fixed + JITTER * noise) - image).square() * known).mean()

        self._by_adam(list(network.parameters()), objective)
        with torch.no_grad():
            return network(fixed)

    def _by_adam(self, parameters: list[Tensor], objective: Callable[[int], Tensor]) -> None:
        optimiser = torch.optim.Adam(parameters, RATES[self.method])
        for step in range(self.steps):
            if self.method == "stylegan-projection":
                optimiser.param_groups[0]["lr"] = RATES[self.method] * ramp(step / self.steps)
            optimiser.zero_grad()
            objective(step).backward()
            optimiser.step()

    def _loss(self, made: Tensor, image: Tensor, known: Tensor) -> Tensor:
        """Return the pixel and perceptual losses of Eq. 3, over the known pixels."""
        difference = ((made - image).square() * known).mean()
        return difference + self.perceptual(made * known, image * known).sum()

    @torch.no_grad()
    def _sampled(self) -> tuple[Tensor, Tensor]:
        """Return latents (500, *latent_shape) and their images, reduced, the same for every image to be inverted."""
        if self._samples is None:
            latents = self.generator.sample_latents(range(SAMPLED), SEED)
            batches = latents.split(at_once(self.generator.resolution))
            self._samples = latents, torch.cat([_reduced(self.generator.decode(batch)) for batch in batches])
        return self._samples


def _reduced(images: Tensor) -> Tensor:
    """Return images (n, ., H, W) reduced to at most `COMPARED` pixels by averages over areas."""
    side = min(COMPARED, images.shape[-1])
    return F.interpolate(images, size=(side, side), mode="area")


def ramp(progress: float) -> float:
    """Return the factor of a projection's learning rate at a share of its steps, in [0, 1] (Karras et al. 2020)."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - progress) / RAMP_DOWN))
    return down * min(1.0, progress / RAMP_UP)
