"""Names of the embedded dataset's attributes and parts, kept apart so that checking a config imports no renderer."""

#: Part labels of the masks, in the order of their integer code.
AVATAR_PARTS = ("background", "skin", "hair", "brows", "eyes", "nose", "mouth", "facial_hair", "glasses", "hat")

#: The columns of truth in `labels.parquet`.
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

#: Attributes whose rate can be set, with their default rate, in the order in which they are drawn: a rate can be
#: conditioned on what is drawn before it.
AVATAR_SETTABLE = {
    "long_hair": 0.5,
    "hat": 0.06,
    "beard": 0.12,
    "eyeglasses": 0.25,
    "dark_skin": 0.4,
    "smiling": 0.5,
}
