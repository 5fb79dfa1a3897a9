"""Real images that a set names instead of holding them: where they are, and what they must be.

Columns of the image rows, null for images that the set holds by itself:

| column | |
|---|---|
| `source_row` | row of the source's training split |
| `source_file` | its file, or table and row, relative to the source |
| `source_sha256` | of the image as the source stores it |
| `pixels_sha256` | of its pixels as the set has them: uint8 [C, H, W], sized as the recipe says |
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCE = ("source_row", "source_file", "source_sha256", "pixels_sha256")


class Reference(NamedTuple):
    """One real image."""

    row: int
    file: str
    sha256: str
    pixels: str


def pixels_digest(pixels: NDArray[np.uint8]) -> str:
    """sha256 over the pixels of an image, [C, H, W], row-major."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def reference_columns(references: Sequence[Reference | None]) -> "dict[str, pa.Array]":
    """The columns of a table with one row per image."""
    import pyarrow as pa

    kinds = (pa.int64(), pa.string(), pa.string(), pa.string())
    return {
        name: pa.array([None if one is None else one[place] for one in references], kind)
        for place, (name, kind) in enumerate(zip(REFERENCE, kinds, strict=True))
    }


def read_references(table: "pa.Table") -> list[Reference | None]:
    """The references of a table's rows; all None where it has no such columns.

    Raises:
        ValueError: If a row has some of the columns and lacks others.
    """
    if not set(REFERENCE) & set(table.column_names):
        return [None] * table.num_rows
    lost = [name for name in REFERENCE if name not in table.column_names]
    if lost:
        raise ValueError(f"column {lost[0]} is missing")
    cells: list[tuple[Any, ...]] = list(
        zip(*(table[name].to_pylist() for name in REFERENCE), strict=True)
    )
    found: list[Reference | None] = []
    for row, values in enumerate(cells):
        known = [value is not None for value in values]
        if any(known) and not all(known):
            raise ValueError(f"row {row} has no {REFERENCE[known.index(False)]}")
        found.append(Reference(*values) if all(known) else None)
    return found
