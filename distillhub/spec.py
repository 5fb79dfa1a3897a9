"""The base of everything that is read from a recipe or written beside an artifact."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Spec(BaseModel):
    """A frozen record whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GrownSpec(Spec):
    """A record with fields that came later, which are written only where they say something.

    Keys and files made before there were such fields therefore stay as they are.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out at their default."""

    @model_serializer(mode="wrap")
    def _what_is_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {
            key: value
            for key, value in content.items()
            if key not in self.LATER
            or getattr(self, key) != fields[key].get_default(call_default_factory=True)
        }


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
    return f"{hint}known: {', '.join(names) or 'none'}"
