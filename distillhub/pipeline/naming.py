"""Real images that are published by name and digest instead of pixels."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distillhub.data.real import RealData
from distillhub.data.rows import BLOCK
from distillhub.data.sources import open_split, stored_rows
from distillhub.data.specs import SourceSpec
from distillhub.records.distilled import DistilledSet
from distillhub.records.filled import FilledImages
from distillhub.records.references import Reference, pixels_digest


def named_images(
    copies: Tensor, dataset: SourceSpec, sources: Mapping[str, Path]
) -> list[Reference | None]:
    """File, row and digests of the real images of a set.

    Args:
        copies: [N] int64: row of the training split that each image copies; -1 where it is none.
        dataset: Pinned.
        sources: Local copies by Hub id.

    Raises:
        DataError: If the source is no longer what was pinned.
    """
    real = open_split(dataset, "train", sources)
    rows = stored_rows(dataset, sources)
    found: list[Reference | None] = [None] * len(copies)
    for part in torch.split((copies >= 0).nonzero().squeeze(1), BLOCK):
        numbers = real.source_rows[copies[part]]
        files = rows.take(numbers.numpy())
        for place, number, file, pixels in zip(
            part.tolist(), numbers.tolist(), files, real.pixels(copies[part]).numpy(), strict=True
        ):
            digest = hashlib.sha256(file).hexdigest()
            found[place] = Reference(number, rows.where(number), digest, pixels_digest(pixels))
    return found


def with_pixels(opened: DistilledSet, real: RealData) -> DistilledSet:
    """A set whose named images are read from the real data they are of."""
    if opened.named is None:
        return opened
    where = str(opened.meta.get("name", "the set"))
    return replace(opened, source=FilledImages(opened.source, opened.named, real, where=where))
