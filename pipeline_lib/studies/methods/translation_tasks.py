"""Tasks of the networks that the paper compares itself with (4.2): CycleGAN, SPADE, inpainting, in-domain encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config import MaskSampling
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.devices import precision_on
from pipeline_lib.studies.methods.translation import LayoutGenerator, PatchDiscriminator, ResNetTranslator, layout_of
from pipeline_lib.training.batches import batch_positions

CYCLE, IDENTITY = 10.0, 5.0  # weights of L1 after a cycle and of leaving real images alone (Zhu et al. 2017)
FEATURES, PERCEPTUAL = 10.0, 10.0  # weights of feature matching and of the perceptual loss (Park et al. 2019)
PIXELS, ADVERSARIAL = 10.0, 0.1  # weights of L1 and of the discriminator in reconstructions of masked images


class AdversarialTask:
    """Steps of Adam for networks and for the discriminators against them, with a rate that falls in the second half.

    A task has `draw`, which returns the examples of a step by kind, and `make`, which returns what the networks make of
    them and their weighted losses.

    Args:
        networks: trained in place.
        discriminators: likewise.
        counts: number of examples of each kind that a step draws from.
        batch: examples of each kind in a step.
        kimg: length of training in thousands of examples of a kind.
        learning_rate: peak rate.
        seed: seed of the run; every draw of step i depends only on (seed, name, i).
        device: where to train.
        name: name of the stage.
    """

    def __init__(
        self,
        networks: nn.Module,
        discriminators: nn.Module,
        counts: dict[str, int],
        *,
        batch: int,
        kimg: float,
        learning_rate: float,
        seed: int,
        device: torch.device,
        name: str,
    ):
        self.networks, self.discriminators = networks.to(device).train(), discriminators.to(device).train()
        self.counts, self.images_per_step = counts, batch
        self.total_steps = max(1, round(kimg * 1000 / batch))
        self.seed, self.device, self.name = seed, device, name
        self._rate = learning_rate
        self._precision = precision_on(device)
        self._optimisers = {
            kind: torch.optim.Adam(weights.parameters(), learning_rate, betas=(0.5, 0.999), fused=True)
            for kind, weights in (("networks", networks), ("discriminators", discriminators))
        }

    def step(self, index: int) -> dict[str, Tensor]:
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self._rate * min(1.0, 2 * (1 - index / self.total_steps))
        batch = self.draw(index)
        self.discriminators.requires_grad_(False)
        with self._autocast():
            made, losses = self.make(batch)
        self._update("networks", losses.values())
        self.discriminators.requires_grad_(True)
        with self._autocast():
            against = self.discriminate(batch, made)
        self._update("discriminators", [against])
        return losses | {"loss_discriminator": against}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16")

    def positions(self, kind: str, index: int) -> Tensor:
        """Return which examples of a kind a step uses."""
        return batch_positions(index, self.images_per_step, self.counts[kind], self.seed, f"{self.name} {kind}")

    def known(self, images: Tensor, masks: MaskSampling, index: int) -> Tensor:
        """Draw the known pixels of images (n, 3, H, W) in a step, (n, 1, H, W)."""
        random = seeding.torch_generator(self.seed, self.name, "masks", index)
        return random_masks(masks, len(images), images.shape[-1], random).to(images.device)

    def features(self, batch: dict[str, Tensor], images: Tensor) -> list[Tensor]:
        """Return the discriminator's features of real or made images, of which the last are scores."""
        return self.discriminators(images)

    def discriminate(self, batch: dict[str, Tensor], made: dict[str, Tensor]) -> Tensor:
        """Return the hinge loss of the discriminator."""
        return hinge_loss(*(self.features(batch, each)[-1] for each in (batch["images"], made["images"].detach())))

    def _update(self, kind: str, losses: Iterable[Tensor]) -> None:
        self._optimisers[kind].zero_grad(set_to_none=True)
        sum(losses).backward()
        self._optimisers[kind].step()

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        return None

    def snapshot(self, path: Path) -> None:
        """Write nothing, since the figure of the comparison shows what they make."""

    def state_dict(self) -> dict[str, Any]:
        optimisers = {kind: optimiser.state_dict() for kind, optimiser in self._optimisers.items()}
        networks = {"networks": self.networks.state_dict(), "discriminators": self.discriminators.state_dict()}
        return networks | {"optimisers": optimisers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.discriminators.load_state_dict(state["discriminators"])
        for kind, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["optimisers"][kind])


class CycleTask(AdversarialTask):
    """Translates between collages and real images, without pairs (Zhu et al. 2017)."""

    def __init__(self, images: Tensor, collages: Tensor, width: int, **options: Any):
        networks = nn.ModuleDict({"to_images": ResNetTranslator(3, width), "to_collages": ResNetTranslator(3, width)})
        against = nn.ModuleDict({f"of_{kind}": PatchDiscriminator(3, width) for kind in ("images", "collages")})
        self.images, self.collages = images, collages
        super().__init__(networks, against, {"images": len(images), "collages": len(collages)}, **options)

    def draw(self, index: int) -> dict[str, Tensor]:
        return {
            kind: to_float(examples[self.positions(kind, index)], self.device)
            for kind, examples in (("images", self.images), ("collages", self.collages))
        }

    def make(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        to_images, to_collages = self.networks["to_images"], self.networks["to_collages"]
        made = {"images": to_images(batch["collages"]), "collages": to_collages(batch["images"])}
        back = {"images": to_images(made["collages"]), "collages": to_collages(made["images"])}
        same = {"images": to_images(batch["images"]), "collages": to_collages(batch["collages"])}
        return made, {
            "loss_adversarial": sum((self._scores(kind, made[kind]) - 1).square().mean() for kind in made),
            "loss_cycle": CYCLE * sum(F.l1_loss(back[kind], batch[kind]) for kind in made),
            "loss_identity": IDENTITY * sum(F.l1_loss(same[kind], batch[kind]) for kind in made),
        }

    def discriminate(self, batch: dict[str, Tensor], made: dict[str, Tensor]) -> Tensor:
        losses = [
            (self._scores(kind, batch[kind]) - 1).square().mean() + self._scores(kind, fake.detach()).square().mean()
            for kind, fake in made.items()
        ]
        return 0.5 * sum(losses)

    def _scores(self, kind: str, images: Tensor) -> Tensor:
        return self.discriminators[f"of_{kind}"](images)[-1]


class LayoutTask(AdversarialTask):
    """Draws images from their parts, some of which are unknown (Park et al. 2019)."""

    def __init__(
        self, network: LayoutGenerator, images: Tensor, codes: Tensor, masks: MaskSampling, width: int, **options: Any
    ):
        self.images, self.codes, self.masks = images, codes, masks
        discriminator = PatchDiscriminator(3 + len(network.parts) + 1, width)
        super().__init__(network, discriminator, {"images": len(images)}, **options)
        self.perceptual = load_perceptual("alex").to(self.device)

    def draw(self, index: int) -> dict[str, Tensor]:
        chosen = self.positions("images", index)
        images = to_float(self.images[chosen], self.device)
        known = self.known(images, self.masks, index)
        codes = self.codes[chosen].long().to(self.device)
        return {"images": images, "layout": layout_of(codes, known, len(self.networks.parts))}

    def make(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        made = self.networks(batch["layout"])
        with torch.no_grad():
            real = self.features(batch, batch["images"])
        fake = self.features(batch, made)
        return {"images": made}, {
            "loss_adversarial": -fake[-1].mean(),
            "loss_features": FEATURES * sum(map(F.l1_loss, fake[:-1], real[:-1])),
            "loss_perceptual": PERCEPTUAL * self.perceptual(made, batch["images"]).mean(),
        }

    def features(self, batch: dict[str, Tensor], images: Tensor) -> list[Tensor]:
        return self.discriminators(torch.cat([images, batch["layout"]], dim=1))


class ReconstructionTask(AdversarialTask):
    """Reconstructs real images from their known pixels, with pixel, perceptual and adversarial losses.

    Args:
        network: what is trained.
        reconstruct: how the network maps masked images (n, 3, H, W) and known pixels (n, 1, H, W) to images.
        images: uint8 (n, 3, H, W).
        masks: how known pixels are drawn.
        width: channels of the first layer of the discriminator.
        options: those of `AdversarialTask`.
    """

    def __init__(
        self,
        network: nn.Module,
        reconstruct: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        masks: MaskSampling,
        width: int,
        **options: Any,
    ):
        self.images, self.masks, self._reconstruct = images, masks, reconstruct
        super().__init__(network, PatchDiscriminator(3, width), {"images": len(images)}, **options)
        self.perceptual = load_perceptual("alex").to(self.device)

    def draw(self, index: int) -> dict[str, Tensor]:
        images = to_float(self.images[self.positions("images", index)], self.device)
        return {"images": images, "known": self.known(images, self.masks, index)}

    def make(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        images, known = batch["images"], batch["known"]
        made = self._reconstruct(images * known, known)
        return {"images": made}, {
            "loss_pixels": PIXELS * F.l1_loss(made, images),
            "loss_perceptual": self.perceptual(made, images).mean(),
            "loss_adversarial": -ADVERSARIAL * self.discriminators(made)[-1].mean(),
        }


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator with these scores."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
