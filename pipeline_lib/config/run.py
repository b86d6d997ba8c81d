"""The config of a run, with one section for each of its parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline_lib.config.backends import GivenNetwork, Parts, PartsBackend, TrainedHere, fill_backend
from pipeline_lib.config.base import Count, Section
from pipeline_lib.config.data import Data
from pipeline_lib.config.names import AVATAR_EXCHANGEABLE, AVATAR_PARTS, AVATAR_SHOWN_BY, BASELINES, IMAGE_SETS
from pipeline_lib.config.rebalance import PartRegion, Rebalance
from pipeline_lib.config.sections import Certify, Detectors, Encoder, Evaluate, Generator, Published, Retrain, Sample
from pipeline_lib.config.studies import Studies


class Config(Section):
    """The config of a run."""

    preset: Literal["avatars", "photos", "gpu-256"] | None = Field(
        None, description="values to begin with, in pipeline_lib/config/presets/; those given here go before them"
    )
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "avatars", description="name of the run; its output is written to results/<run>/"
    )
    seed: int = Field(0, description="random seed of the run")
    allow_cpu: bool = Field(
        False, description="use the CPU where `--resources gpu` or a cluster asks for a GPU and there is none"
    )
    jobs: Count = Field(
        2, description="jobs of the edits of each image set, which can run at a time; as many files hold its images"
    )
    data: Data = Field({"reader": "avatars"}, validate_default=True, description="the images")
    detectors: Detectors = Field(Detectors(), description="the two attribute detectors")
    parts: PartsBackend = Field(Parts(), description="the part segmenter")
    published: Published | None = Field(None, description="published weights for both `generator` and `encoder`")
    generator: Generator | None = Field(
        None, description="the source generator; needed by `editor: latent-regression` and by `retrain`"
    )
    encoder: Encoder | None = Field(
        None, description="the masked encoder into its latent space; needed by `editor: latent-regression`"
    )
    sample: Sample = Field(Sample(), description="sampling from the generators")
    rebalance: Rebalance = Field(description="what is wanted, and how edits are made")
    retrain: Retrain | None = Field(
        description="training of the retrained GAN and of the control GAN; null: only the images are rebalanced"
    )
    evaluate: Evaluate = Field(Evaluate(), description="the evaluation")
    certify: Certify = Field(Certify(), description="which target rates are met, by true labels")
    studies: Studies | None = Field(
        None, description="the paper's studies, which the target `studies` runs; null: their rules are left out"
    )

    @model_validator(mode="before")
    @classmethod
    def _avatars_and_training_unless_said_otherwise(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        if isinstance(values.get("data"), dict):
            filled["data"] = {"reader": "avatars"} | values["data"]
        if "parts" in values:
            filled["parts"] = fill_backend(values["parts"])
        return filled

    @model_validator(mode="before")
    @classmethod
    def _take_published_weights(cls, values: Any) -> Any:
        """Set the published files as weights of `generator` and `encoder` where none are given."""
        try:
            files = Published.model_validate(values["published"]).files()
            described = {role: path for role, path in files.items() if values.get(role) is not None}
            return values | {role: {"weights": str(path)} | values[role] for role, path in described.items()}
        except (KeyError, TypeError, ValidationError):  # reported when the section itself is validated
            return values

    @property
    def alters(self) -> dict[str, list[str]]:
        """What `rebalance.edit.alters` says, and of avatars what other drawings of the region's parts can change."""
        regions = self.rebalance.regions_by_attribute if self.data.reader == "avatars" else {}
        drawn = {
            attribute: sorted({name for part in region.parts for name in AVATAR_SHOWN_BY[part]} - {attribute})
            for attribute, region in regions.items()
            if isinstance(region, PartRegion) and set(region.parts) <= set(AVATAR_SHOWN_BY)
        }
        return drawn | self.rebalance.edit.alters

    @property
    def learns_selector(self) -> bool:
        """Whether the selector is trained on the dataset, and not given."""
        return isinstance(self.detectors.selector, TrainedHere)

    @property
    def given_detectors(self) -> bool:
        """Whether a detector is a network that is given."""
        return any(isinstance(network, GivenNetwork) for network in (self.detectors.selector, self.detectors.referee))

    @property
    def compares_with_renderings(self) -> bool:
        """Whether samples are compared with renderings of every drawing of what is edited."""
        parts = set(self.rebalance.first_attribute().parts)
        drawn = self.data.reader == "avatars" and set() < parts <= set(AVATAR_EXCHANGEABLE)
        return self.evaluate.judge_bank is not None and self.uses_encoder and drawn

    @property
    def uses_encoder(self) -> bool:
        """Whether the editor inverts collages with an encoder and a generator."""
        return self.rebalance.edit.editor.inverts

    @property
    def uses_generator(self) -> bool:
        """Whether there is a source generator, whose samples are then rebalanced too."""
        return self.uses_encoder or self.retrain is not None

    @property
    def source_family(self) -> str | None:
        """Family of the source generator, "stylegan2" or "progan"; None if there is none."""
        if self.published:
            return self.published.family
        return self.generator.architecture if self.generator else None

    @property
    def knows_ideal_edits(self) -> bool:
        """Whether every edited image can be drawn as it should be, which also gives the truth of the edits."""
        parts = set(self.rebalance.parts)
        return self.data.reader == "avatars" and set() < parts <= set(AVATAR_EXCHANGEABLE)

    @property
    def knows_ideal_collages(self) -> bool:
        """Whether an image can be drawn with every part that a collage takes from others."""
        return self.data.reader == "avatars" and set(self.part_names) == set(AVATAR_PARTS)

    @property
    def edited_sets(self) -> tuple[str, ...]:
        """Names of the image sets that are edited."""
        return ("dataset", "samples") if self.uses_generator else ("dataset",)

    @property
    def gans(self) -> tuple[str, ...]:
        """Names of the sets of samples of retrained GANs, with the control and further ones."""
        return ("retrained", "control", *self.retrain.baselines) if self.retrain else ()

    @property
    def samples_of_gans(self) -> int:
        """Number of samples of each retrained GAN."""
        return (self.retrain.samples if self.retrain else None) or self.sample.images

    @property
    def image_sets(self) -> tuple[str, ...]:
        """Names of the image sets that are compared, in the order of `IMAGE_SETS` and `BASELINES`."""
        present = {*self.edited_sets, *(f"{name}_rebalanced" for name in self.edited_sets), *self.gans}
        return tuple(name for name in (*IMAGE_SETS, *BASELINES) if name in present)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that can be found in an image, the background first; empty if there are none."""
        return self.data.part_names if isinstance(self.parts, Parts) else self.parts.part_names
