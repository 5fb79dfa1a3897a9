"""How soft labels are made and stored: `relabel:` of a recipe."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from distillhub.spec import Fraction, GrownSpec

ALL_UP_TO = 200
"""Most classes whose logits are all kept by `top_k: auto`."""
AUTO_TOP_K = 50


class ViewSpec(GrownSpec):
    """Which augmented looks at an image the teacher sees and the student replays."""

    LATER: ClassVar[frozenset[str]] = frozenset({"batch"})
    scale: tuple[Fraction, Fraction] = (0.5, 1.0)
    """Share of the image's area that a crop covers, drawn uniformly."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Width / height of a crop, drawn log-uniformly."""
    flip: bool = False
    """Horizontal flips with probability 1/2."""
    randaugment: bool = False
    """Two RandAugment operations per view, magnitude 9."""
    cutmix: bool = False
    """Paste a box of the partner's view of the same index; box share drawn from Beta(1, 1)."""
    size: int | None = Field(default=None, ge=4)
    """Side of a view in pixels; None: the image's own."""
    batch: int | None = Field(default=None, ge=2)
    """Images that share crop, flip and mixed box and mix with one another, as in labels after FKD;
    other images for every view. None: every image has its own."""

    @model_validator(mode="after")
    def _ranges_rise_from_above_zero(self) -> "ViewSpec":
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(
                    f"{name} is [{low}, {high}]; the first above 0, the second not below it"
                )
        return self


class RelabelSpec(GrownSpec):
    """Soft labels from the recipe's networks."""

    LATER: ClassVar[frozenset[str]] = frozenset({"observers"})
    by: Literal["teacher", "observers"] = "teacher"
    """`observers`: the mean of their logits. Labels made online come from the same networks."""
    observers: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = "all"
    """Which of the recipe's observers, counted from 0."""
    views: ViewSpec | None = None
    """None: one whole-image view without geometry."""
    count: Annotated[int, Field(gt=0, le=1024)] | Literal["budget"] = "budget"
    """Views per image; `budget`: as many as the byte budget holds, at most `max_count`."""
    max_count: int = Field(default=100, gt=0, le=1024)
    codec: Literal["auto", "float16", "uint8"] = "auto"
    """`auto`: uint8 where it buys more views, float16 for a single view."""
    top_k: Annotated[int, Field(gt=0)] | Literal["auto", "all"] = "auto"
    """Classes kept; `auto`: all up to 200 classes, else 50."""
    budget: float = Field(default=1.0, gt=0)
    """Bytes of labels and views allowed, as a multiple of the image bytes."""
    seed: int = Field(default=0, ge=0)

    def kept(self, classes: int) -> int:
        """Classes stored per label."""
        if isinstance(self.top_k, int):
            return min(self.top_k, classes)
        return classes if self.top_k == "all" or classes <= ALL_UP_TO else AUTO_TOP_K

    @model_validator(mode="after")
    def _observers_once(self) -> "RelabelSpec":
        if self.observers == "all":
            return self
        if self.by != "observers":
            raise ValueError("observers are named, but by is teacher; set by: observers")
        if not self.observers or len(set(self.observers)) < len(self.observers):
            raise ValueError(f"observers is {list(self.observers)}; name each at most once, or all")
        return self

    @model_validator(mode="after")
    def _views_for_many(self) -> "RelabelSpec":
        if self.views is None and self.count not in (1, "budget"):
            raise ValueError(
                f"{self.count} views per image need a views: block; without one there is one view"
            )
        return self


def labelling_roles(relabel: RelabelSpec | None, roles: Sequence[str]) -> tuple[str, ...]:
    """The networks that give soft labels, stored and online.

    Args:
        relabel: None: no labels are stored; a teacher gives labels online nevertheless.
        roles: Of all networks of the recipe: "teacher", "observer-0", ...

    Returns:
        Roles in the order in which their logits are averaged; none where nothing can give labels.
    """
    if relabel is None or relabel.by == "teacher":
        return tuple(role for role in roles if role == "teacher")
    if relabel.observers != "all":
        return tuple(f"observer-{index}" for index in relabel.observers)
    found = (role for role in roles if role.startswith("observer-"))
    return tuple(sorted(found, key=lambda role: int(role.removeprefix("observer-"))))
