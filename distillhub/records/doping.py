"""How a set was filled up with real images: a block of `eval.json`."""

from typing import Literal

from pydantic import Field

from distillhub.data.specs import Digest
from distillhub.spec import Fraction, Spec


class SizeRecord(Spec):
    """One size of the synthetic part that was looked at."""

    base: str
    """Stem of its recipe."""
    images: int = Field(gt=0)
    """M_k."""
    recognised: float | None = Field(default=None, ge=0)
    """N_k: real training images that a student of it recognises, mean over students; None: not
    measured."""
    gain: float | None = None
    """g_k: more images recognised per image added on the way to the next size."""


class DopingBlock(Spec):
    """Base, choice and real images of a doped set."""

    base: str
    """Stem of the recipe of the synthetic part."""
    bases: dict[str, Digest] = Field(default_factory=dict)
    """Digests of all builds that it rests on."""
    base_real_share: Fraction | None = None
    """Share of real pixels in the base; None: not known."""
    trigger: Literal["auto", "fixed", "off"]
    quota: Literal["global", "classwise"]
    label_source: Literal["teacher", "true"]
    student: str | None
    """Architecture; None: none was trained."""
    protocol: str | None
    averaged: int = Field(ge=0)
    """Students behind each N_k."""
    train_images: int = Field(gt=0)
    """Real training images that were shown to them."""
    sizes: tuple[SizeRecord, ...]
    kept: int = Field(ge=0)
    """Images of the base."""
    doped: int = Field(ge=0)
    """Real images."""
    confusion: tuple[float, float] | None = None
    """Lowest and highest of the real images that were chosen."""

    @property
    def doped_share(self) -> float:
        """Real images of the whole."""
        return self.doped / (self.kept + self.doped)


class ReferenceBlock(Spec):
    """Real images that a set names by file and digest."""

    rows: int = Field(gt=0)
    source: str
    split: str
    materialized_from: Digest | None = None
    """Digest of the set whose missing pixels were filled in; None: they are missing."""
