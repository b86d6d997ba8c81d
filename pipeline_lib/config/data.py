"""The section `data`: one class for each reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline_lib.config.base import Count, Folder, Positive, RateRule, Section, Share
from pipeline_lib.config.names import AVATAR_PARTS, CELEBA_HQ_PARTS

Resolution = Annotated[
    Literal[32, 64, 128, 256, 512, 1024],
    Field(description="side in pixels to which the middle square of each image is scaled"),
]
BadImages = Annotated[Share, Field(description="share of unusable images that is left out rather than an error")]
Identities = Annotated[
    Path | None, Field(description="CelebA's identity_CelebA.txt: the two detectors then learn from different people")
]
Shards = Annotated[Count, Field(description="files that each image set is spread over")]


class FilesWithoutMasks(Section):
    """Images of which no part is known."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """No names: there are no masks."""
        return ()


class AvatarData(Section):
    """The embedded dataset: rendered cartoon faces whose truth is known."""

    reader: Literal["avatars"] = Field("avatars", description="what reads the images")
    images: Annotated[int, Field(ge=64)] = Field(5000, description="training images")
    held_out: Annotated[int, Field(ge=64)] = Field(2000, description="further images that no network is trained on")
    resolution: Literal[32, 64, 128, 256] = Field(64, description="side of the images in pixels")
    seed: int = Field(0, description="of the drawing; a face is a function of (seed, index)")
    crop: tuple[float, float, Positive] = Field(
        (54, 30, 156), description="left, top and side of the square seen, in units of the 264 by 280 drawing"
    )
    rates: list[RateRule] = Field(
        [
            RateRule(where={"long_hair": True}, attribute="smiling", rate=0.8),
            RateRule(where={"long_hair": False}, attribute="smiling", rate=0.2),
        ],
        description="the dataset's own rates, its bias among them; a later rule overrides an earlier one",
    )
    shards: Shards = 2

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first."""
        return AVATAR_PARTS


class FolderData(Section):
    """A folder of images with a table of labels, and part masks if there are any."""

    reader: Literal["folder"] = Field(description="what reads the images")
    folder: Folder = Field(description="where the images lie; others in it are left alone")
    labels: Path = Field(description="table of labels, .csv or .parquet, a row an image")
    id_column: str = Field("image", description="column that names the image's file, relative to `folder`")
    attributes: list[str] = Field(min_length=1, description="columns that are true or false of each image: 1 or 0")
    split_column: str | None = Field(None, description="column that says `train` or `held_out`; none: drawn at random")
    held_out: Share = Field(0.1, description="share that no network is trained on, where no column says which")
    masks: Folder | None = Field(
        None, description="folder of part masks, <image>.png, whose pixel values are part codes; none: swap a box"
    )
    parts: list[str] = Field([], description="names of the part codes, from 0 on")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    seed: int = Field(0, description="of the split")
    shards: Shards = 2

    @model_validator(mode="after")
    def _masks_have_names(self) -> FolderData:
        if (self.masks is None) != (not self.parts):
            raise ValueError("`masks` and `parts` go together: a folder of masks and the names of its codes")
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks; empty without masks."""
        return tuple(self.parts)


class CelebAData(FilesWithoutMasks):
    """CelebA's aligned images as they were published; validation and test are held out."""

    reader: Literal["celeba"] = Field(description="what reads the images")
    folder: Folder = Field(description="holds img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt")
    identities: Identities = None
    attributes: list[str] = Field(["Smiling", "Male"], min_length=1, description="attributes that come along")
    images: Count | None = Field(None, description="training images, the first ones; none: all")
    held_out: Count | None = Field(None, description="held-out images, the first ones; none: all")
    resolution: Literal[32, 64, 128] = Field(
        128, description="side in pixels to which the middle square of 178 is scaled"
    )
    bad_images: BadImages = 0.01
    shards: Shards = 8


class CelebAHQData(Section):
    """CelebA-HQ as CelebAMask-HQ was published, with its part masks; CelebA's validation and test are held out."""

    reader: Literal["celeba-hq"] = Field(description="what reads the images")
    folder: Folder = Field(description="of CelebAMask-HQ: CelebA-HQ-img/, CelebAMask-HQ-mask-anno/ and two lists")
    partition: Path = Field(description="CelebA's list_eval_partition.txt")
    identities: Identities = None
    attributes: list[str] = Field(["Smiling", "Male"], min_length=1, description="attributes that come along")
    images: Count | None = Field(None, description="training images, the first ones; none: all")
    held_out: Count | None = Field(None, description="held-out images, the first ones; none: all")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    shards: Shards = 8

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first."""
        return CELEBA_HQ_PARTS


class HuggingFaceData(FilesWithoutMasks):
    """A Hugging Face dataset of images, saved to disk or as Parquet files; it needs no package of theirs."""

    reader: Literal["huggingface"] = Field(description="what reads the images")
    folder: Folder = Field(description="holds <split>/*.arrow, as saved to disk, or <split>-*.parquet, as on the Hub")
    image_column: str = Field("image", description="column that holds the images")
    attributes: list[str] = Field(min_length=1, description="columns that are true or false: booleans, 1 and 0 or -1")
    train: str = Field("train", description="split that networks learn from")
    held_out: str = Field("test", description="split that no network is trained on")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    shards: Shards = 8


class FFHQData(FilesWithoutMasks):
    """FFHQ as it was published, with a table of labels; its validation images are held out."""

    reader: Literal["ffhq"] = Field(description="what reads the images")
    folder: Folder = Field(description="holds images1024x1024/ or thumbnails128x128/")
    metadata: Path = Field(description="ffhq-dataset-v2.json")
    files: Literal["images", "thumbnails"] = Field("images", description="of 1024 pixels, or of 128")
    images: Count | None = Field(None, description="training images, the first that have labels; none: all")
    held_out: Count | None = Field(None, description="held-out images, likewise; none: all")
    labels: Path = Field(description="table of labels, .csv or .parquet, a row an image; FFHQ itself has none")
    id_column: str = Field("image_number", description="column that holds the image's number")
    attributes: list[str] = Field(min_length=1, description="columns that are true or false of each image: 1 or 0")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    shards: Shards = 8


class ClassFolderData(FilesWithoutMasks):
    """One folder for each class, as LSUN's scenes are exported: the folder's name is the label."""

    reader: Literal["class-folders"] = Field(description="what reads the images")
    folder: Folder = Field(description="holds a folder for each class")
    attributes: dict[str, list[str]] = Field(
        min_length=1, description="folders in which an attribute holds, by its name"
    )
    others: list[str] = Field([], description="further folders, in which no attribute holds")
    held_out: Share = Field(0.1, description="share that no network is trained on, drawn at random")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01
    seed: int = Field(0, description="of the split")
    shards: Shards = 8


Data = AvatarData | FolderData | CelebAData | CelebAHQData | FFHQData | ClassFolderData | HuggingFaceData
