"""Training of the masked encoder of a frozen generator (paper Eq. 3 and A.1.1)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import LocalLoss
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
from pipeline_lib.runtime.devices import compiled
from pipeline_lib.runtime.errors import ConfigError, WeightsError
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.training.loop import Task, descend, run

MIXING = 0.9  # share of images with style mixing from a second latent (W+ alone)
GRID_IMAGES = 12
PROBED = 64  # images on which both precisions are measured


class EncoderTask(Task):
    """Trains `encoder` to regress the latents of generated images from part of their pixels.

    Args:
        encoder: the encoder, trained in place.
        generator: the generator, frozen.
        perceptual: the perceptual distance in the loss.
        settings: the config section.
        seed: seed of the run.
        device: where to train.
        name: name of the training, for logs and random streams.

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
        super().__init__(settings.training, seed, device, name)
        self.masks = settings.mask
        self.encoder = encoder.to(device).train()
        if ranks.count() > 1 and device.type == "cuda":  # torch does not support it on the CPU
            self.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(self.encoder)
        self.generator = generator.to(device)
        self.perceptual = perceptual.to(device)
        self._encode, self._synthesize, self._distance = (
            compiled(network, device) for network in (self.encoder, self.generator.synthesize, self.perceptual)
        )
        weights = self.training.model_dump(include={"mse", "perceptual", "latent"})
        weights |= {"local": self.training.local.weight if self.training.local else 0.0}
        self._weights = {name: weight for name, weight in weights.items() if weight}  # of the losses that are used
        self._optimiser = torch.optim.Adam(self.encoder.parameters(), self.training.learning_rate, fused=True)
        self.stateful = {"encoder": self.encoder, "optimiser": self._optimiser}

    def step(self, index: int) -> dict[str, Tensor]:
        training = self.training
        latents, images, mask = self.draw(training.batch, "step", index, shared=True)
        in_all = round(training.collages * training.batch)
        collages = len(range(ranks.rank(), in_all, ranks.count()))  # in the own rows of the batch
        seam = torch.zeros_like(images[:, :1])
        if collages:
            images, mask, seam = self._make_collages(images, mask, in_all, collages, index)
        with self.autocast():
            predicted = self._encode(images, mask).float()
            rebuilt = self._synthesize(predicted).float() if self._weights.keys() - {"latent"} else None
        losses = {}
        if "latent" in self._weights:
            losses["latent"] = self._share_of_latent_loss(predicted[collages:], latents[collages:], in_all)
        if rebuilt is not None:
            losses |= self._image_losses(rebuilt, images, seam, index)
        objective = sum(weight * losses[name].float() for name, weight in self._weights.items())
        descend(self._optimiser, objective, self.falling_rate(index))
        return losses

    def _share_of_latent_loss(self, predicted: Tensor, latents: Tensor, collages: int) -> Tensor:
        """Return the loss on the own images whose latents are known, weighted so that processes average to that of all.

        With `collages` in a whole batch, processes have one more or one fewer of such images, or even none.
        """
        if not len(latents):
            return 0 * predicted.sum()
        share = len(latents) * ranks.count() / (self.training.batch - collages)
        return share * latent_loss(predicted, latents)

    def _image_losses(self, rebuilt: Tensor, images: Tensor, seam: Tensor, index: int) -> dict[str, Tensor]:
        """Return the losses of rebuilt images, without those of weight 0, which cost most of a step."""
        images = torch.where(seam.bool(), rebuilt.detach(), images)  # the seam has no ground truth
        losses = {}
        if "mse" in self._weights:
            losses["mse"] = F.mse_loss(rebuilt, images)
        if "perceptual" in self._weights:
            losses["perceptual"] = self._distance(*self._crop(rebuilt, images, index)).mean()
        if self.training.local is not None:
            losses["local"] = self._local_loss(rebuilt, images, self.training.local)
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
        rows, columns = self.training.local.window(size)
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
        side = round(images.shape[-1] * self.training.perceptual_crop)
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
        if self.masks.kind == "none":
            return latents, images, None
        return latents, images, own_rows(random_masks(self.masks, count, images.shape[-1], random))

    def _random(self, *stream: str | int) -> torch.Generator:
        return seeding.torch_generator(self.seed, self.name, *stream, device=self.device)

    @torch.no_grad()
    def snapshot(self, path: Path) -> None:
        self.encoder.eval()
        _, images, mask = self.draw(GRID_IMAGES, "snapshot")
        rebuilt = self.generator.decode(self.encoder(images, mask))
        shown = images if mask is None else images * mask
        save_grid(path, torch.cat([images, shown, rebuilt]), columns=GRID_IMAGES)
        self.encoder.train()


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
    source: Path | None,
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
        source: initial encoder weights; if None, training starts from scratch.
        seed: seed of the run.
        checkpoints: folder of resumable checkpoints.
        encoder: weight file to write.
        report: JSON of the results of `probe_precision`, on images and masks as in training, to write.
        device: where to train.
    """
    key = key_of(train_encoder, locals(), without=("checkpoints", "encoder", "report", "device"))
    frozen = load_weights(generator, Generator)
    if source is not None:
        network, _ = load_given(source, ResNetEncoder, frozen.resolution)
        network.requires_grad_(True)
        _check_fit(network, source, frozen, settings)
    else:
        network = new_encoder(frozen, settings, seed)
    task = EncoderTask(network, frozen, open_distance(settings.training.distance), settings, seed, device)
    fit_encoder(task, settings, checkpoints, key)
    if ranks.rank():
        return
    save_weights(encoder, network, {"training": settings.model_dump(mode="json"), "key": key})
    _, images, known = task.draw(batch_for(frozen.resolution, PROBED), "probe")
    write_json(report, {"inversion": probe_precision(network.eval(), frozen, images, known, device)})


def fit_encoder(task: EncoderTask, settings: EncoderSection, checkpoints: Path, key: str) -> None:
    """Train the encoder of a task in place, on latents alone first if the config says so."""
    if first := settings.training.of_latents():
        alone = settings.model_copy(update={"training": first})
        networks = task.encoder, task.generator, task.perceptual
        latents = EncoderTask(*networks, alone, task.seed, task.device, name="train_encoder_latents")
        run(latents, checkpoints / f"{latents.name}-{key}")
    if settings.training.kimg:
        run(task, checkpoints / f"{task.name}-{key}")


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
