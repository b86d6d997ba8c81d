"""The keys of `rebalance`: target rates, the region that is swapped, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from pipeline_lib.config.base import Count, RateRule, Section, Share
from pipeline_lib.config.columns import column_of, text_of
from pipeline_lib.config.kinds import find_kinds
from pipeline_lib.runtime.files import digest_of


def _from_name(value: Any) -> Any:
    """Let the name of an editor stand for its section with every default."""
    return {"kind": value} if isinstance(value, str) else value


class PartRegion(Section):
    """A segmented part to swap."""

    kind: Literal["part"] = Field("part", description="a part that is segmented in each image")
    name: str | Annotated[list[str], Field(min_length=1)] = Field(
        "mouth", description="name of the part, or of several that are swapped together"
    )
    grow: Share = Field(0.04, description="dilation of the donor's part mask, as a share of the image's side")
    buffer: Share = Field(0.02, description="width of the unknown ring around it, as a share of the image's side")

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts whose masks make up the region."""
        return (self.name,) if isinstance(self.name, str) else tuple(self.name)

    def __str__(self) -> str:
        """Name the region in running text."""
        return " and ".join(self.parts)


class BoxRegion(Section):
    """A fixed box to swap, by default the paper's, in shares of the image's sides."""

    kind: Literal["box"] = Field("box", description="the same box in every image")
    top: Share = Field(0.65, description="upper edge, from the top")
    bottom: Share = Field(0.93, description="lower edge, from the top")
    left: Share = Field(0.25, description="left edge, from the left")
    right: Share = Field(0.75, description="right edge, from the left")
    buffer: Share = Field(0.0, description="width of the unknown ring around it, as a share of the image's side")
    shows: str | None = Field(
        "mouth", description="part that a donor must have; null: any image can be a donor, and no segmenter is trained"
    )

    @property
    def parts(self) -> tuple[str, ...]:
        """Name of the part that a donor must have, if one is named."""
        return (self.shows,) if self.shows else ()

    @model_validator(mode="after")
    def _has_an_inside(self) -> BoxRegion:
        if self.top >= self.bottom or self.left >= self.right:
            raise ValueError("the box is empty; `top` must be less than `bottom`, and `left` less than `right`")
        return self


EDITORS = find_kinds("pipeline_lib.editing.editors")
EditorSection = Annotated[Union[EDITORS], Field(discriminator="kind")]  # noqa: UP007  of a tuple
#: Names of the editors that need no other key.
EditorName = Literal[
    tuple(
        fields["kind"].default
        for fields in (editor.model_fields for editor in EDITORS)
        if not any(field.is_required() for field in fields.values())
    )
]
Editor = Annotated[EditorSection, BeforeValidator(_from_name, json_schema_input_type=EditorName | EditorSection)]


Region = Annotated[PartRegion | BoxRegion, Field(discriminator="kind")]


class Target(Section):
    """A target as a config has it, with values of columns where a rule names attributes alone."""

    where: dict[str, bool | int | str] = Field(
        {},
        description="conditions that must all hold: `attribute: true`, or of a column of the label table `column: "
        "value`, as the table has it, or `column: each` for a target in the group of each value; empty: every image",
    )
    attribute: str = Field(description="name of the attribute, or of a column with `value`")
    value: bool | int | str = Field(
        True, description="value of the column that is the attribute, as the table has it; true: the column is binary"
    )
    rate: Share = Field(description="share of these images with the attribute")


def _name_values(targets: Any) -> Any:
    """Name each value of a column as the attribute `column=value`; see `pipeline_lib.config.values`."""
    if not isinstance(targets, list):
        return targets
    return [_name_values_of(target) if isinstance(target, dict) else target for target in targets]


def _name_values_of(target: dict[str, Any]) -> dict[str, Any]:
    named = {key: value for key, value in target.items() if key != "value"}
    value = target.get("value", True)
    if value is False or value is None:
        raise ValueError("`value` is what counts as having the attribute; remove it, and give 1 minus the rate")
    if value is not True and "attribute" in target:
        named["attribute"] = f"{target['attribute']}={text_of(value)}"
    if isinstance(target.get("where"), dict):
        named["where"] = dict(_name_value(name, value) for name, value in target["where"].items())
    return named


def _name_value(name: Any, value: Any) -> tuple[Any, Any]:
    is_value = isinstance(value, str | int | float) and not isinstance(value, bool)
    return (f"{name}={text_of(value)}", True) if is_value else (name, value)


Targets = Annotated[
    list[RateRule],
    BeforeValidator(_name_values, json_schema_input_type=Annotated[list[Target], Field(min_length=1)]),
    Field(min_length=1),
]


class Edit(Section):
    """How an edit is made: what is swapped, by which editor, and how it is chosen among candidates."""

    region: Region = Field(PartRegion(), description="region to swap")
    regions: dict[str, Region] = Field(
        {}, description="regions by the attribute that they show, where it is another one than `region`"
    )
    alters: dict[str, list[str]] = Field(
        {},
        description="further attributes that the region of an edited one can show, such as `smiling: [mouth_open]`; an "
        "edit makes them unknown, and all others keep their labels. Without an entry only those that targets name do, "
        "which an edit must not change, and of avatars all that no drawing of the part changes",
    )
    editor: Editor = Field(
        "latent-regression", validate_default=True, description="turns a collage into a composite; its name or section"
    )
    finish: Literal["none", "region", "detail"] = Field(
        "detail",
        description="what is kept of a composite; none: all of it, as in the paper; region: the region alone, blended "
        "into the original image; detail: the donor's own pixels, blended likewise, where the composite does not "
        "contradict them",
    )
    donors: Literal["any", "with-attribute"] = Field(
        "any", description="images that donors are drawn from; with-attribute: those that have the target value"
    )
    choose: Literal["strongest", "seam"] = Field(
        "seam",
        description="which successful candidate is taken; strongest: the one that the selector is surest of, as in the "
        "paper; seam: of those that it is sure of, the one whose donor differs least from the image around the region",
    )
    seam_tolerance: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0,
        description="difference around the region (root mean square of pixels in [-1, 1]) up to which donors count as "
        "equally close; of these the first that was drawn is taken, so that edits are as varied as their donors",
    )
    candidates: Count = Field(16, description="donors tried for each edit (paper A.2.1)")
    pool: Count | None = Field(
        None,
        description="random donors from which those to be tried are selected, because they differ least from the image "
        "around the region; this only compares pixels; null: as many as `candidates`, as in the paper",
    )

    def region_key(self, attribute: str) -> str | None:
        """Return the key in `regions` of an attribute, which may be its column; None: it is shown by `region`."""
        return next((name for name in (attribute, column_of(attribute)) if name in self.regions), None)

    def alters_key(self, attribute: str) -> str | None:
        """Return the key in `alters` of an attribute, which may be its column; None: there is none."""
        return next((name for name in (attribute, column_of(attribute)) if name in self.alters), None)

    def region_of(self, attribute: str) -> PartRegion | BoxRegion:
        """Return the region whose swap gives an image the attribute."""
        return self.regions.get(self.region_key(attribute), self.region)

    def for_attribute(self, attribute: str) -> Edit:
        """Return this section with the region of one attribute alone."""
        return self.model_copy(update={"region": self.region_of(attribute), "regions": {}})

    @model_validator(mode="after")
    def _pool_holds_the_candidates(self) -> Edit:
        if self.pool is not None and self.pool < self.candidates:
            raise ValueError(f"`pool`: {self.pool} donors are fewer than the {self.candidates} `candidates`")
        return self

    @model_validator(mode="after")
    def _only_pixels_of_a_donor_are_kept(self) -> Edit:
        if self.finish == "detail" and not self.editor.takes_donor:
            raise ValueError(
                f"`finish: detail` keeps the donor's pixels, which {self.editor.kind} does not use; set `region` or "
                "`none`"
            )
        return self


class Rebalance(Section):
    """What is wanted, and the edits that reach it."""

    targets: Targets = Field(
        description="target rate of an attribute in each group; the group gap is first minus second, and of more than "
        "two groups the largest difference between two of them, beyond that of their targets. Several attributes are "
        "rebalanced together, and a condition may name one that has targets itself",
    )
    spares: Share = Field(
        0.0,
        description="share of the edits that are planned beyond those needed, to take the place of failed ones of the "
        "same target",
    )
    labels: Annotated[list[Path], Field(min_length=1)] | None = Field(
        None,
        description="CSVs with labels of earlier edits of this run, from the sheets of `python -m pipeline_lib audit`; "
        "each target then has as many more edits of the dataset as make up for the share that fails",
    )
    edit: Edit = Field(Edit(), description="how an edit is made")

    @property
    def edited(self) -> tuple[str, ...]:
        """Names of the attributes that are edited, in the order in which the targets name them."""
        return tuple(dict.fromkeys(target.attribute for target in self.targets))

    def alone(self, attribute: str) -> Rebalance:
        """Return this section with region and targets of one attribute, as if no other were edited."""
        targets = [target for target in self.targets if target.attribute == attribute]
        return self.model_copy(update={"targets": targets, "edit": self.edit.for_attribute(attribute)})

    def first_attribute(self) -> Rebalance:
        """Return this section for the attribute of the first target alone."""
        return self.alone(self.edited[0])

    @property
    def related(self) -> list[str]:
        """Names of the attributes of the targets and of their conditions, which no target rate changes."""
        return sorted({name for target in self.targets for name in (target.attribute, *target.where)})

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the attributes that have a group gap, because they have targets in two groups or more."""
        return tuple(name for name in self.edited if len(self.alone(name).targets) > 1)

    @property
    def regions_by_attribute(self) -> dict[str, PartRegion | BoxRegion]:
        """Region of each attribute that is edited."""
        return {attribute: self.edit.region_of(attribute) for attribute in self.edited}

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of all regions."""
        return tuple(dict.fromkeys(part for region in self.regions_by_attribute.values() for part in region.parts))

    def carries(self, attribute: str, other: str) -> bool:
        """Return whether an image keeps its label of another attribute when `attribute` is edited."""
        if self.edit.finish == "none" or column_of(other) == column_of(attribute):
            return False  # all pixels are new, or it is the attribute itself or another value of its column
        if key := self.edit.alters_key(attribute):
            return other not in self.edit.alters[key]
        return any(other in (target.attribute, *target.where) for target in self.targets)

    def candidates_digest(self) -> str:
        """Digest of all that decides which candidates an edit has and which of them is chosen."""
        how = self.edit.model_dump(mode="json", exclude={"alters"})
        return digest_of([how, [target.model_dump() for target in self.targets]])

    def edits_digest(self, attribute: str) -> str:
        """Digest of all that decides how the edits of an attribute look, and of nothing that decides how many."""
        how = self.edit.for_attribute(attribute).model_dump(mode="json", exclude={"alters"})
        return digest_of([how, attribute])

    @model_validator(mode="after")
    def _regions_are_used_and_alike(self) -> Rebalance:
        regions = self.regions_by_attribute.values()
        if len({bool(region.parts) for region in regions}) > 1:
            raise ValueError("`edit.regions`: some show parts and others none; let each box show one, or none of them")
        if unused := sorted(set(self.edit.regions) - {self.edit.region_key(attribute) for attribute in self.edited}):
            raise ValueError(f"`edit.regions` names `{unused[0]}`, which has no target; remove it, or add a target")
        return self

    @model_validator(mode="after")
    def _alters_what_no_edit_must_keep(self) -> Rebalance:
        if unused := sorted(set(self.edit.alters) - {self.edit.alters_key(attribute) for attribute in self.edited}):
            raise ValueError(f"`edit.alters` names `{unused[0]}`, which has no target; remove it, or add a target")
        for target in self.targets:
            key = self.edit.alters_key(target.attribute)
            if kept := sorted(set(self.edit.alters.get(key, ())) & set(target.where)):
                raise ValueError(
                    f"`edit.alters.{key}` names `{kept[0]}`, a condition of its target, which no edit must "
                    "change; remove it, or use another region or condition"
                )
        return self

    @model_validator(mode="after")
    def _the_editor_can_make_them(self) -> Rebalance:
        self.edit.editor.check(self)
        return self
