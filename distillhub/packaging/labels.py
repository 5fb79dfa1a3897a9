"""What stored soft labels and views must satisfy whoever made them, and their figures.

Columns are those of the published set, each as an array [rows, width] of its stored type.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Columns = Mapping[str, Array]

WHOLE_VIEW = 4
"""Numbers of a crop or a box."""
ENDS = 2
"""Numbers of a range, or of a rest."""


class Finding(NamedTuple):
    """Rows of a column that cannot be right."""

    column: str
    rows: NDArray[np.int64]
    what: str


class Shape(NamedTuple):
    """What label columns say of themselves."""

    views: int
    """Per image, sub-images included."""
    kept: int
    """Classes per view."""


def shape_of(columns: Columns) -> Shape:
    """Views per image and classes per view, from the widths of the columns.

    Raises:
        ValueError: If the widths do not fit together.
    """
    width = columns["soft_val"].shape[1]
    views = {
        name: columns[name].shape[1] / per for name, per in _PER_VIEW.items() if name in columns
    }
    if len(set(views.values())) > 1:
        told = ", ".join(f"{name} {count:g}" for name, count in views.items())
        raise ValueError(f"columns disagree on the views per image: {told}")
    count = next(iter(views.values()), 1)
    if count < 1 or count != int(count) or width % int(count):
        raise ValueError(f"{width} values per image cannot be split over {count:g} views")
    return Shape(int(count), width // int(count))


_PER_VIEW = {
    "view_crop": WHOLE_VIEW,
    "view_flip": 1,
    "view_ops": WHOLE_VIEW,
    "mix_partner": 1,
    "mix_box": WHOLE_VIEW,
    "soft_range": ENDS,
    "soft_rest": ENDS,
}


def findings(
    columns: Columns, *, num_classes: int, image: tuple[int, int], view: tuple[int, int]
) -> Iterator[Finding]:
    """Rows whose labels or views are impossible.

    Args:
        columns: The soft-label and view columns.
        num_classes: Of the set.
        image: Height and width of a stored image, pixels.
        view: Height and width of a view, pixels.

    Raises:
        ValueError: If the widths of the columns do not fit together.
    """
    views, kept = shape_of(columns)
    rows = len(columns["soft_val"])
    for name in ("soft_val", "soft_range", "soft_rest"):
        if name in columns and columns[name].dtype.kind == "f":
            yield from _where(name, ~np.isfinite(columns[name]), "holds NaN or Infinity")
    if "soft_idx" in columns:
        classes = columns["soft_idx"].reshape(rows, views, kept)
        yield from _where(
            "soft_idx", classes >= num_classes, f"names a class beyond {num_classes - 1}"
        )
        ordered = np.sort(classes, axis=2)
        yield from _where("soft_idx", ordered[..., 1:] == ordered[..., :-1], "names a class twice")
        values = columns["soft_val"].reshape(rows, views, kept)
        yield from _where("soft_val", values[..., 1:] > values[..., :-1], "is not highest first")
    elif kept != num_classes:
        raise ValueError(f"{kept} values per view for {num_classes} classes, and no soft_idx")
    if "soft_range" in columns:
        ends = columns["soft_range"].reshape(rows, views, ENDS)
        yield from _where("soft_range", ends[..., 0] > ends[..., 1], "starts above its end")
    if "soft_rest" in columns:
        spread = columns["soft_rest"].reshape(rows, views, ENDS)[..., 1]
        yield from _where("soft_rest", spread < 0, "has a negative spread")
    if "view_crop" in columns:
        top, left, height, width = _parts(columns["view_crop"], views)
        outside = (top + height > image[0]) | (left + width > image[1])
        yield from _where(
            "view_crop", outside, f"leaves the image of {image[0]} x {image[1]} pixels"
        )
        yield from _where("view_crop", (height < 1) | (width < 1), "is empty")
    if "mix_box" in columns:
        top, left, end_row, end_column = _parts(columns["mix_box"], views)
        outside = (end_row > view[0]) | (end_column > view[1])
        yield from _where("mix_box", outside, f"leaves the view of {view[0]} x {view[1]} pixels")
        yield from _where("mix_box", (top > end_row) | (left > end_column), "ends before it starts")
    if "mix_partner" in columns:
        partner = columns["mix_partner"].astype(np.int64)
        yield from _where(
            "mix_partner", (partner < 0) | (partner >= rows), f"is no row below {rows}"
        )


def view_size(front_matter: Mapping[str, object], image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a view as the front matter says; those of an image where it does not."""
    block = front_matter.get("distillhub")
    views = block.get("views") if isinstance(block, dict) else None
    match views:
        case {"size": [int(height), int(width)]}:
            return height, width
    return image


def agreement(columns: Columns, labels: NDArray[np.int64]) -> float:
    """Share of views whose highest stored logit (the first of equals) is the image's class."""
    views, kept = shape_of(columns)
    best = columns["soft_val"].reshape(-1, views, kept).argmax(axis=2)  # [N, K]
    if "soft_idx" in columns:
        classes = columns["soft_idx"].reshape(-1, views, kept).astype(np.int64)
        best = np.take_along_axis(classes, best[..., None], axis=2)[..., 0]
    return float((best == labels[:, None]).mean())


def statistics(columns: Columns) -> dict[str, float]:
    """Means of the stored numbers and of the decoded logits; a changed number moves one of them."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Infinity are findings
        return _statistics(columns)


def _statistics(columns: Columns) -> dict[str, float]:
    _, kept = shape_of(columns)
    found = {
        f"mean_{name}": float(values.mean(dtype=np.float64))
        for name, values in sorted(columns.items())
    }
    if "soft_range" in columns:
        steps = columns["soft_val"].reshape(-1, kept).mean(axis=1, dtype=np.float64)
        low, high = columns["soft_range"].reshape(-1, ENDS).astype(np.float64).T
        found["mean_logit"] = float((low + steps * ((high - low) / 255)).mean())
    return found


def _where(column: str, wrong: NDArray[np.bool_], what: str) -> Iterator[Finding]:
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    if len(rows):
        yield Finding(column, rows.astype(np.int64), what)


def _parts(values: Array, views: int) -> NDArray[np.int64]:
    """The four numbers of each box, [4, N, K]."""
    return np.moveaxis(values.astype(np.int64).reshape(-1, views, WHOLE_VIEW), 2, 0)
