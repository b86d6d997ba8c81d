"""The config section `data`, one class for each reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from pipeline_lib.config.base import Count, Folder, RateRule, Section, Share
from pipeline_lib.config.columns import text_of
from pipeline_lib.config.names import AVATAR_PARTS, CELEBA_HQ_PARTS

Resolution = Annotated[
    Literal[32, 64, 128, 256, 512, 1024],
    Field(description="side in pixels to which the centre crop of each image is resized"),
]
BadImages = Annotated[Share, Field(description="largest tolerated share of unusable images; more is an error")]
Identities = Annotated[
    Path | None, Field(description="CelebA's identity_CelebA.txt; identities are then split between the two detectors")
]
HeldOutFrom = Annotated[
    Literal["both", "validation", "test"], Field(description="part of CelebA's partition that is held out")
]


def _as_text(cell: Any) -> Any:
    """Return a cell as it is compared with those of a table; `yes` without quotes is no text but true in YAML."""
    if isinstance(cell, bool):
        raise ValueError("put it in quotes, as in 'no', since without them YAML takes yes and no for true and false")
    return text_of(cell) if isinstance(cell, str | int | float) else cell


#: A cell of a label table, as text; a number needs no quotes.
Cell = Annotated[str, BeforeValidator(_as_text), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})]
Labelled = Annotated[
    list[str],
    Field(
        min_length=1,
        description="columns that are true or false (1 or 0, yes or no), or `column=value`, true where a cell has it",
    ),
]
TABLE = "label table, .csv or .tsv (or these with .gz), .parquet or .pq"
UNKNOWN = "cells that mean unknown, such as -1; blank ones always do"
PersonColumn = Annotated[
    str | None, Field(description="column that says who is shown; nobody is then both in training and held out")
]


class FilesWithoutMasks(Section):
    """A dataset without part masks."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """No names, since there are no masks."""
        return ()


class AvatarData(Section):
    """The embedded dataset of rendered cartoon faces with known ground truth."""

    #: Left, top and side of the square crop, in units of the 264 by 280 drawing: the face with its hair.
    crop: ClassVar[tuple[float, float, float]] = (54, 30, 156)

    reader: Literal["avatars"] = Field("avatars", description="reader of the dataset")
    images: Annotated[int, Field(ge=64)] = Field(5000, description="training images")
    held_out: Annotated[int, Field(ge=64)] = Field(2000, description="held-out images")
    resolution: Literal[32, 64, 128, 256] = Field(64, description="side of the images in pixels")
    seed: int = Field(0, description="seed of the faces; each is a function of (seed, index)")
    rates: list[RateRule] = Field(
        [
            RateRule(where={"long_hair": True}, attribute="smiling", rate=0.8),
            RateRule(where={"long_hair": False}, attribute="smiling", rate=0.2),
        ],
        description="rates in the dataset, including its bias; a later rule overrides an earlier one",
    )
    held_out_rates: list[RateRule] | None = Field(
        None, description="rates among held-out images, such as even ones; null: those of the dataset"
    )

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first."""
        return AVATAR_PARTS


class FolderData(Section):
    """A folder of images with a label table and optional part masks."""

    reader: Literal["folder"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder of the images; those without a row in the label table are left out")
    labels: Path = Field(description=f"{TABLE}, one row per image")
    id_column: str = Field("image", description="column with the path of the image, relative to `folder`")
    attributes: Labelled
    unknown: list[Cell] = Field([], description=UNKNOWN)
    edited_labels: Literal["known", "confirmed"] = Field(
        "known",
        description="what edited images of an export of this library are taken to show; known: what was labelled, "
        "drawn or carried over, and else nothing; confirmed: else the value aimed at, if `confirmed_by` names anybody",
    )
    split_column: str | None = Field(None, description="column with `train` or `held_out`; null: split at random")
    split_values: dict[Cell, Literal["train", "held_out"]] | None = Field(
        None, description="what the cells of `split_column` mean, such as {0: train, 2: held_out}; null: as written"
    )
    person_column: PersonColumn = None
    held_out: Share = Field(0.1, description="share of held-out images in a random split")
    masks: Folder | None = Field(
        None, description="folder of part masks <image>.png whose pixel values are part codes; null: swap a box"
    )
    parts: list[str] = Field([], description="names of the part codes, starting at 0")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    seed: int = Field(0, description="seed of the random split")

    @model_validator(mode="after")
    def _masks_have_names(self) -> FolderData:
        if (self.masks is None) != (not self.parts):
            raise ValueError("`masks` and `parts` must be set together, a folder of masks and the names of its codes")
        return self

    @model_validator(mode="after")
    def _split_values_have_a_column(self) -> FolderData:
        if self.split_values and self.split_column is None:
            raise ValueError("`split_values` are cells of `split_column`, which is not set; set it")
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks; empty without masks."""
        return tuple(self.parts)


class CelebAData(FilesWithoutMasks):
    """CelebA's aligned images as published; its validation images, test images or both are held out."""

    reader: Literal["celeba"] = Field(description="reader of the dataset")
    folder: Folder = Field(
        description="folder with img_align_celeba/, list_attr_celeba and list_eval_partition, both .txt or .csv"
    )
    identities: Identities = None
    attributes: list[str] = Field(["Smiling", "Male"], min_length=1, description="attributes to read")
    unknown: list[Cell] = Field([], description=UNKNOWN)
    images: Count | None = Field(None, description="number of training images, taken from the first on; null: all")
    held_out: Count | None = Field(None, description="number of held-out images, taken from the first on; null: all")
    held_out_from: HeldOutFrom = "both"
    resolution: Literal[32, 64, 128] = Field(
        128, description="side in pixels to which the centre crop of 178 pixels is resized"
    )
    bad_images: BadImages = 0.01


class CelebAHQData(Section):
    """CelebA-HQ with the part masks of CelebAMask-HQ; CelebA's validation images, test images or both are held out."""

    reader: Literal["celeba-hq"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder with CelebA-HQ-img/, CelebAMask-HQ-mask-anno/ and two text files")
    partition: Path = Field(description="CelebA's list_eval_partition, .txt or .csv")
    identities: Identities = None
    attributes: list[str] = Field(["Smiling", "Male"], min_length=1, description="attributes to read")
    unknown: list[Cell] = Field([], description=UNKNOWN)
    images: Count | None = Field(None, description="number of training images, taken from the first on; null: all")
    held_out: Count | None = Field(None, description="number of held-out images, taken from the first on; null: all")
    held_out_from: HeldOutFrom = "both"
    resolution: Resolution = 256
    bad_images: BadImages = 0.01

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first."""
        return CELEBA_HQ_PARTS


class HuggingFaceData(FilesWithoutMasks):
    """A Hugging Face image dataset, saved to disk or as Parquet files, whose layout the package `datasets` reads."""

    reader: Literal["huggingface"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder of a dataset saved to disk, or of a snapshot of the Hub")
    configuration: Annotated[str, Field(coerce_numbers_to_str=True)] | None = Field(
        None, description="configuration (subset) to read; null: there is only one"
    )
    image_column: str = Field("image", description="column with the images")
    attributes: Labelled
    unknown: list[Cell] = Field([], description=UNKNOWN)
    person_column: PersonColumn = None
    train: str = Field("train", description="training split")
    held_out: str = Field("test", description="held-out split")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01


class FFHQData(FilesWithoutMasks):
    """FFHQ as published, with a label table; its validation images are held out."""

    reader: Literal["ffhq"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder with images1024x1024/ or thumbnails128x128/")
    metadata: Path = Field(description="path of ffhq-dataset-v2.json")
    files: Literal["images", "thumbnails"] = Field(
        "images", description="files to read: images of 1024 pixels or thumbnails of 128"
    )
    images: Count | None = Field(
        None, description="number of training images, taken from the first labelled one on; null: all"
    )
    held_out: Count | None = Field(None, description="number of held-out images, likewise; null: all")
    labels: Path = Field(description=f"{TABLE}, one row per image; FFHQ itself has none")
    id_column: str = Field("image_number", description="column with the image's number")
    attributes: Labelled
    unknown: list[Cell] = Field([], description=UNKNOWN)
    person_column: PersonColumn = None
    resolution: Resolution = 256
    bad_images: BadImages = 0.01


class ClassFolderData(FilesWithoutMasks):
    """One folder for each class, as in exported LSUN scenes, where the folder's name is the label."""

    reader: Literal["class-folders"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder with a subfolder for each class")
    attributes: dict[str, list[str]] = Field(
        min_length=1, description="class folders whose images have the attribute, by attribute"
    )
    others: list[str] = Field([], description="further class folders, whose images have no attribute")
    held_out: Share = Field(0.1, description="share of held-out images, split off at random")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    seed: int = Field(0, description="seed of the random split")


Data = AvatarData | FolderData | CelebAData | CelebAHQData | FFHQData | ClassFolderData | HuggingFaceData
