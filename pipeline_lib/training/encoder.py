"""Training of the masked encoder of a frozen generator (paper Eq. 3 and A.1.1)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import EncoderTraining, LocalLoss
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.masks import grow, random_masks
from pipeline_lib.imaging.transfer import batch_for
from pipeline_lib.networks.checkpoints import load_given, load_weights, save_weights
from pipeline_lib.networks.distances import PerceptualDistance, open_distance
from pipeline_lib.networks.encoder import SMALL_BELOW, ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.inversion import probe_precision
from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.runtime.devices import compiled, precision_on
from pipeline_lib.runtime.errors import ConfigError, WeightsError
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.training.loop import run

MIXING = 0.9  # share of images with style mixing from a second latent (W+ alone)
GRID_IMAGES = 12
PROBED = 64  # images on which both precisions are measured


class EncoderTask:
    """Trains `encoder` to regress the latents of generated images from part of their pixels.

    Args:
        encoder: the encoder, trained in place.
        generator: the generator, frozen.
        perceptual: the perceptual distance in the loss.
        settings: the config section.
        seed: seed of the run; every draw of step i depends only on (seed, name, i).
        device: where to train.
        name: name of the training, in its log.

    Raises:
        ConfigError: collages are wanted, and a process has fewer than two images of a batch.
    """

    def __init__(
        self,
        encoder: ResNetEncoder,
        generator: Generator,
        perceptual: PerceptualDistance,
        settings: EncoderSection,
        seed: int,
        device: torch.device,
        name: str = "train_encoder",
    ):
        if settings.training.collages and settings.training.batch < 2 * ranks.count():
            raise ConfigError(
                f"{name}: a batch of {settings.training.batch} over {ranks.count()} processes leaves no two images for "
                f"a collage; set `batch` to at least {2 * ranks.count()}, or use fewer processes"
            )
        self.name = name
        self.settings = settings
        self.seed = seed
        self.device = device
        self.images_per_step = settings.training.batch
        self.total_steps = round(settings.training.kimg * 1000 / settings.training.batch)
        self.encoder = encoder.to(device).train()
        if ranks.count() > 1 and device.type == "cuda":  # torch does not support it on the CPU
            self.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(self.encoder)
        self.generator = generator.to(device)
        self.perceptual = perceptual.to(device)
        self._precision = precision_on(device)
        self._encode, self._synthesize, self._distance = (
            compiled(network, device) for network in (self.encoder, self.generator.synthesize, self.perceptual)
        )
        self._weights = _weights_of(settings.training)
        self._optimiser = torch.optim.Adam(self.encoder.parameters(), settings.training.learning_rate, fused=True)

    def step(self, index: int) -> dict[str, Tensor]:
        training = self.settings.training
        for group in self._optimiser.param_groups:  # cosine decay to zero
            group["lr"] = training.learning_rate * 0.5 * (1 + math.cos(math.pi * index / self.total_steps))
        latents, images, mask = self.draw(training.batch, "step", index, shared=True)
        in_all = round(training.collages * training.batch)
        collages = len(range(ranks.rank(), in_all, ranks.count()))  # in the own rows of the batch
        seam = torch.zeros_like(images[:, :1])
        if collages:
            images, mask, seam = self._make_collages(images, mask, in_all, collages, index)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            predicted = self._encode(images, mask).float()
            rebuilt = self._synthesize(predicted).float() if self._weights.keys() - {"latent"} else None
        losses = {}
        if "latent" in self._weights:
            losses["latent"] = self._share_of_latent_loss(predicted[collages:], latents[collages:], in_all)
        if rebuilt is not None:
            losses |= self._image_losses(rebuilt, images, seam, index)
        objective = sum(weight * losses[name].float() for name, weight in self._weights.items())
        self._optimiser.zero_grad(set_to_none=True)
        objective.backward()
        ranks.average(weight.grad for weight in self.encoder.parameters())
        self._optimiser.step()
        return losses

    def _share_of_latent_loss(self, predicted: Tensor, latents: Tensor, collages: int) -> Tensor:
        """Return the loss on the own images whose latents are known, weighted so that processes average to that of all.

        With `collages` in a whole batch, processes have one more or one fewer of such images, or even none.
        """
        if not len(latents):
            return 0 * predicted.sum()
        share = len(latents) * ranks.count() / (self.settings.training.batch - collages)
        return share * latent_loss(predicted, latents)

    def _image_losses(self, rebuilt: Tensor, images: Tensor, seam: Tensor, index: int) -> dict[str, Tensor]:
        """Return the losses of rebuilt images, without those of weight 0, which cost most of a step."""
        images = torch.where(seam.bool(), rebuilt.detach(), images)  # the seam has no ground truth
        losses = {}
        if "mse" in self._weights:
            losses["mse"] = F.mse_loss(rebuilt, images)
        if "perceptual" in self._weights:
            losses["perceptual"] = self._distance(*self._crop(rebuilt, images, index)).mean()
        if self.settings.training.local is not None:
            losses["local"] = self._local_loss(rebuilt, images, self.settings.training.local)
        return losses

    def _make_collages(
        self, images: Tensor, mask: Tensor | None, in_all: int, count: int, index: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Paste a random box of the next image, within the local square, into the first images, with an unknown seam.

        The generator's images are biased, and an encoder trained only on them learns to infer the mouth from the hair.
        In a collage the two are independent. The latents of a collage are unknown. If several processes train, the next
        image is the next of the own ones.

        Args:
            images: the own images of the batch.
            mask: their masks.
            in_all: collages in the whole batch, whose first images they are.
            count: collages among the own images.
            index: of the step.
        """
        size = images.shape[-1]
        rows, columns = self.settings.training.local.window(size)
        most = (rows.stop - rows.start) * 7 // 16  # so that boxes can be as small as a mouth
        random = self._random("collage", index)
        boxes = torch.randint(0, most + 1, (4, in_all, 1), generator=random, device=self.device)
        top, bottom, left, right = boxes[:, ranks.rank() :: ranks.count()]
        pixel = torch.arange(size, device=self.device)
        tall = (pixel >= rows.start + top) & (pixel < rows.stop - bottom)
        wide = (pixel >= columns.start + left) & (pixel < columns.stop - right)
        pasted = torch.zeros_like(images[:, :1])
        pasted[:count, 0] = (tall[:, :, None] & wide[:, None, :]).to(pasted)
        seam = grow(pasted, 1) - pasted
        images = make_collage(images, images.roll(-1, dims=0), pasted)
        return images, None if mask is None else torch.maximum(mask, pasted) * (1 - seam), seam

    def _local_loss(self, rebuilt: Tensor, images: Tensor, square: LocalLoss) -> Tensor:
        """Return the loss over one square, because a mouth has little weight in the loss over the whole image."""
        window = (..., *square.window(images.shape[-1]))
        return F.mse_loss(rebuilt[window], images[window]) + self._distance(rebuilt[window], images[window]).mean()

    def _crop(self, rebuilt: Tensor, images: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the same random crop of both, because the perceptual loss dominates the time of a step on a CPU."""
        side = round(images.shape[-1] * self.settings.training.perceptual_crop)
        random = seeding.torch_generator(self.seed, self.name, "crop", index)
        top, left = torch.randint(0, images.shape[-1] - side + 1, (2,), generator=random).tolist()
        window = (..., slice(top, top + side), slice(left, left + side))
        return rebuilt[window], images[window]

    @torch.no_grad()
    def draw(self, count: int, *stream: str | int, shared: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw latents, their generated images and random masks of known pixels.

        Args:
            count: number of images.
            stream: name of the random stream.
            shared: whether several processes split the images.
        """
        own_rows = ranks.own_rows if shared else lambda rows: rows
        random = self._random(*stream)
        z = torch.randn(2, count, self.generator.z_dim, generator=random, device=self.device)
        latents = self.generator.map_latents(z[0])
        if latents.ndim == 3:
            latents = _mix_layers(latents, self.generator.map_latents(z[1]), MIXING, random)
        latents = own_rows(latents)
        images = self.generator.decode(latents)
        if self.settings.mask.kind == "none":
            return latents, images, None
        return latents, images, own_rows(random_masks(self.settings.mask, count, images.shape[-1], random))

    def _random(self, *stream: str | int) -> torch.Generator:
        return seeding.torch_generator(self.seed, self.name, *stream, device=self.device)

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        return None

    @torch.no_grad()
    def snapshot(self, path: Path) -> None:
        self.encoder.eval()
        _, images, mask = self.draw(GRID_IMAGES, "snapshot")
        rebuilt = self.generator.decode(self.encoder(images, mask))
        shown = images if mask is None else images * mask
        save_grid(path, torch.cat([images, shown, rebuilt]), columns=GRID_IMAGES)
        self.encoder.train()

    def state_dict(self) -> dict[str, Any]:
        return {"encoder": self.encoder.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self._optimiser.load_state_dict(state["optimiser"])


def _weights_of(training: EncoderTraining) -> dict[str, float]:
    """Return the weight of each loss that is used."""
    weights = training.model_dump(include={"mse", "perceptual", "latent"})
    weights |= {"local": training.local.weight if training.local else 0.0}
    return {name: weight for name, weight in weights.items() if weight}


def latent_loss(predicted: Tensor, latents: Tensor) -> Tensor:
    """Return the mean square error in W+, or one minus the cosine similarity in z, whose norm is discarded (A.1.1)."""
    if latents.ndim == 3:
        return F.mse_loss(predicted, latents)
    return (1 - F.cosine_similarity(predicted, latents, dim=1)).mean()


def _mix_layers(first: Tensor, second: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Mix styles: replace the layers after a random one in `share` of the W+ latents (n, layers, dim) by a second's."""
    count, layers, _ = first.shape
    place = {"generator": random, "device": first.device}
    crossover = torch.randint(1, layers, (count, 1), **place)
    crossover = crossover.masked_fill(torch.rand(count, 1, **place) >= share, layers)
    keep = torch.arange(layers, device=first.device) < crossover
    return torch.where(keep[..., None], first, second)


@stage(revision=2)
def train_encoder(
    *,
    generator: Path,
    settings: EncoderSection,
    source: list[Path],
    seed: int,
    checkpoints: Path,
    encoder: Path,
    report: Path,
    device: torch.device,
) -> None:
    """Train the encoder of a frozen generator and choose the precision of later inversions.

    Args:
        generator: weight file of the generator.
        settings: the config section.
        source: initial encoder weights; if empty, training starts from scratch.
        seed: seed of the run.
        checkpoints: folder of resumable checkpoints.
        encoder: weight file to write.
        report: JSON of the results of `probe_precision`, on images and masks as in training, to write.
        device: where to train.
    """
    key = key_of(train_encoder, locals(), without=("checkpoints", "encoder", "report", "device"))
    frozen = load_weights(generator, Generator)
    if source:
        network, _ = load_given(source[0], ResNetEncoder, frozen.resolution)
        network.requires_grad_(True)
        _check_fit(network, source[0], frozen, settings)
    else:
        network = new_encoder(frozen, settings, seed)
    task = fit_encoder(network, frozen, settings, seed, checkpoints, key, device)
    if ranks.rank():
        return
    save_weights(encoder, network, {"training": settings.model_dump(mode="json"), "key": key})
    _, images, known = task.draw(batch_for(frozen.resolution, PROBED), "probe")
    write_json(report, {"inversion": probe_precision(network.eval(), frozen, images, known, device)})


def fit_encoder(
    network: ResNetEncoder,
    generator: Generator,
    settings: EncoderSection,
    seed: int,
    checkpoints: Path,
    key: str,
    device: torch.device,
) -> EncoderTask:
    """Train an encoder in place, on latents alone first if the config says so; returns the task of the training."""
    distance = open_distance(settings.training.distance)
    if first := settings.training.of_latents():
        alone = settings.model_copy(update={"training": first})
        task = EncoderTask(network, generator, distance, alone, seed, device, name="train_encoder_latents")
        run(task, checkpoints / f"{task.name}-{key}")
    task = EncoderTask(network, generator, distance, settings, seed, device)
    if task.total_steps:
        run(task, checkpoints / f"{task.name}-{key}")
    return task


def _check_fit(encoder: ResNetEncoder, path: Path, generator: Generator, settings: EncoderSection) -> None:
    found = {"latent shape": encoder.latent_shape, "masked": encoder.masked}
    wanted = {"latent shape": generator.latent_shape, "masked": settings.mask.kind != "none"}
    for name, value in wanted.items():
        if found[name] != value:
            raise WeightsError(
                f"{path}: an encoder of {name} {found[name]}, but generator and config require {value}; "
                "change `encoder` in the config or use other weights"
            )


def new_encoder(
    generator: Generator, settings: EncoderSection, seed: int, network: type[ResNetEncoder] = ResNetEncoder
) -> ResNetEncoder:
    """Return an untrained encoder for a generator."""
    torch.manual_seed(seeding.derive(seed, "encoder weights"))
    encoder = network(
        generator.latent_shape,
        width=settings.width,
        masked=settings.mask.kind != "none",
        mask_offset=0.0 if len(generator.latent_shape) == 2 else 0.5,
        small=generator.resolution < SMALL_BELOW,
        depth=settings.depth,
    )
    if len(generator.latent_shape) == 2:
        encoder.start_from(generator.latent_avg)
    return encoder
