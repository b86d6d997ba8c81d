"""Names of image sets, of groups, and of attributes and parts by dataset, in a module that imports no reader."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Image sets that a run can compare, in the order of the paper's Fig. 12, with the control last.
IMAGE_SETS = ("dataset", "samples", "samples_rebalanced", "dataset_rebalanced", "retrained", "control")

#: Samples of further GANs that the retrained one can be compared with, after those in the order of a report.
BASELINES = ("resampled", "sham")

#: Readable names of image sets, sources of labels and metrics, where replacing underscores is not enough.
NAMES = {
    "dataset": "original dataset",
    "samples": "samples of the source GAN",
    "samples_rebalanced": "rebalanced samples",
    "dataset_rebalanced": "rebalanced dataset",
    "retrained": "retrained GAN",
    "control": "control GAN",
    "resampled": "GAN of resampled originals",
    "sham": "GAN of sham edits",
    "truth": "ground truth",
    "corrected": "referee, corrected",
    "masked_l1": "masked L1",
    "perceptual_distance_to_context_outside": "perceptual distance to the context outside",
}

#: Image sets that can be audited.
AUDITED = ("dataset_rebalanced", "retrained")

#: Columns of tables, exports and sheets that also have one for each attribute, which can have none of these names.
RESERVED = frozenset(
    {
        *("image_id", "split", "person", "edited", "donor_id"),  # of tables
        *("file_name", "original_id", "synthetic", "region", "editor", "finish"),
        *("target_attribute", "target_value", "confirmed_by", "carried_over"),
        *("selector_digest", "encoder_digest", "editor_digest", "generator_digest", "run", "seed"),  # of the lineage
        *("image", "image_set", "digest", "edit"),  # of exported labels and of audits
    }
)

#: Part labels of the masks, in the order of their integer code.
AVATAR_PARTS = ("background", "skin", "hair", "brows", "eyes", "nose", "mouth", "facial_hair", "glasses", "hat")

#: Parts of which a face can be drawn with every possible drawing, so that the truth of an edit is known.
AVATAR_EXCHANGEABLE = ("mouth", "eyes", "brows", "glasses", "facial_hair")

#: Attributes that another drawing of such a part can change.
AVATAR_SHOWN_BY = {
    "mouth": ("smiling", "mouth_open"),
    "eyes": ("eyes_closed",),
    "brows": (),
    "glasses": ("eyeglasses", "sunglasses", "eyes_closed"),
    "facial_hair": ("beard",),
}

#: The columns of ground truth in `labels.parquet`.
AVATAR_ATTRIBUTES = (
    "smiling",
    "mouth_open",
    "long_hair",
    "blond_hair",
    "bald",
    "hat",
    "eyeglasses",
    "sunglasses",
    "beard",
    "dark_skin",
    "eyes_closed",
)

#: Attributes whose rate can be set, with their default rate, in sampling order. A rate can be conditioned on the
#: attributes before it.
AVATAR_SETTABLE = {
    "long_hair": 0.5,
    "hat": 0.06,
    "beard": 0.12,
    "eyeglasses": 0.25,
    "dark_skin": 0.4,
    "smiling": 0.5,
}

#: CelebA's forty attributes, as its list names them.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)

#: Parts of CelebAMask-HQ in the order of their integer code; left and right parts and the two lips are merged.
CELEBA_HQ_PARTS = (
    "background",
    "skin",
    "hair",
    "brows",
    "eyes",
    "nose",
    "mouth",
    "ears",
    "glasses",
    "hat",
    "earrings",
    "neck",
    "necklace",
    "clothes",
)


def group_name(where: Mapping[str, bool]) -> str:
    """Return the name of a group, such as `long_hair and not hat`, or `all` without conditions."""
    return " and ".join(name if value else f"not {name}" for name, value in where.items()) or "all"


def readable(name: str) -> str:
    """Return the readable form of a name in the tables."""
    return NAMES.get(name, re.sub(r"(?<=\S)=(?=\S)", " ", name.replace("_", " ")))  # race=East Asian: race East Asian
