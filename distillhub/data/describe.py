"""A folder of images -> the `dataset:` block that fits it; for `distillhub init`."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillhub.data.folders import LocalFolder
from distillhub.data.looks import sample
from distillhub.data.pictures import CANNOT_DECODE, natural_channels, upright
from distillhub.data.rows import EncodedRows
from distillhub.data.specs import Channels, SourceSpec
from distillhub.errors import RecipeError

TEST_SHARE = 0.2
"""Proposed where a folder has no test split."""
SIDES = (16, 28, 32, 64, 96, 128, 160, 224, 256)
"""Sizes that are proposed for images of several sizes."""

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "validation", "valid", "val")


class Description(NamedTuple):
    """What a folder holds, and how a recipe would name it."""

    spec: SourceSpec
    images: int
    """Of the training split."""
    classes: int
    smallest: tuple[str, int]
    """The class with the fewest training images, and how many it has."""
    channels: Channels
    sides: tuple[int, int]
    """Shortest and longest side of the images looked at, in pixels."""


def describe(folder: Path) -> Description:
    """Look at a folder in Hub layout or with image files by class, and propose a source for it.

    Args:
        folder: As it shall stand in the recipe.

    Raises:
        RecipeError: If it is no such folder, or has no image that can be decoded.
    """
    if not folder.is_dir():
        raise RecipeError(f"there is no folder '{folder}'", mend="give the folder of a data set")
    known = LocalFolder(SourceSpec(id=str(folder)), folder).splits()
    train = next((name for name in _TRAIN if name in known), known[0] if known else "train")
    test = next((name for name in _TEST if name in known and name != train), TEST_SHARE)
    spec = SourceSpec(id=str(folder), train=train, test=test)
    rows = LocalFolder(spec, folder).rows(train)

    counts = np.bincount(rows.labels, minlength=len(rows.names))
    sizes, channels = _sizes(rows)
    if not sizes:
        raise RecipeError(
            "no image could be decoded", where=str(folder), mend="check the files of the folder"
        )
    if len(sizes) > 1:
        spec = spec.model_copy(update={"size": _proposed_side(sizes)})
    least = int(counts.argmin())
    return Description(
        spec=spec,
        images=len(rows.labels),
        classes=len(rows.names),
        smallest=(rows.names[least], int(counts[least])),
        channels=channels,
        sides=(min(min(size) for size in sizes), max(max(size) for size in sizes)),
    )


def _sizes(rows: EncodedRows) -> tuple[Counter[tuple[int, int]], Channels]:
    """How often each (height, width) occurs among sampled images, and whether all are grey."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for stored in rows.take(sample(rows.labels)):
        try:
            with rows.open(stored) as image:
                width, height = upright(image).size
                grey = grey and natural_channels(image) == 1
        except CANNOT_DECODE:
            continue
        sizes[height, width] += 1
    return sizes, 1 if grey else 3


def _proposed_side(sizes: Counter[tuple[int, int]]) -> int:
    """The largest usual side that at least half of the images reach with their shorter one."""
    shorter = sorted(min(size) for size in sizes.elements())
    median = shorter[len(shorter) // 2]
    return max((side for side in SIDES if side <= median), default=max(median, 4))
