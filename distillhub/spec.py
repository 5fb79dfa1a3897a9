"""The base of everything that is read from a recipe or written beside an artifact."""

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Spec(BaseModel):
    """A frozen record whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _not_a_percentage(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 < value <= 100:
        raise ValueError(f"{value} looks like a percentage; a fraction is meant: {value / 100:g}")
    return value


Fraction = Annotated[float, BeforeValidator(_not_a_percentage), Field(ge=0, le=1)]
"""A number in [0, 1]; 69.8 is refused with the fraction that was meant."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that offers the closest known name and lists the others."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"
