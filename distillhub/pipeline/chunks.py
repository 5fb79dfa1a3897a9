"""What is kept of a finished chunk of work, and how it becomes encoded images."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from distillhub.data import codec
from distillhub.data.sources import RealData
from distillhub.data.specs import ImageFormat
from distillhub.methods._base import Assembly, Synthesis
from distillhub.units import Slot

ENCODED = 256
"""Real images that are read and encoded at a time."""


def kept_tensors(synthesis: Synthesis | Assembly) -> dict[str, Tensor]:
    """What is kept of a finished chunk: images, or files and rows of what exists already."""
    if isinstance(synthesis, Synthesis):
        rows = {} if synthesis.rows is None else {"rows": synthesis.rows}
        return {"images": synthesis.images, **rows}
    joined = np.frombuffer(b"".join(synthesis.files), np.uint8).copy()
    return {
        "files": torch.from_numpy(joined),
        "sizes": torch.tensor([len(file) for file in synthesis.files], dtype=torch.int64),
        "rows": synthesis.real.origin,
        "labels": synthesis.labels,
    }


def encoded(
    tensors: Mapping[str, Tensor], slots: Sequence[Slot], data: RealData, images: ImageFormat
) -> Iterator[tuple[Slot, bytes, int]]:
    """Slot, file and row of the training split (-1: no copy) of every image of a chunk."""
    if "images" in tensors:
        rows = tensors["rows"].tolist() if "rows" in tensors else [-1] * len(slots)
        yield from zip(slots, codec.encode(tensors["images"], images), rows, strict=True)
        return
    sizes = tensors["sizes"].tolist()
    ends = list(itertools.accumulate(sizes, initial=0))
    files = tensors["files"].numpy()
    for slot, (start, end) in zip(slots, itertools.pairwise(ends), strict=False):
        yield slot, files[start:end].tobytes(), -1
    rest = iter(slots[len(sizes) :])
    for part in torch.split(tensors["rows"], ENCODED):
        contents = codec.encode(data.images(part), images)
        yield from zip(itertools.islice(rest, len(part)), contents, part.tolist(), strict=True)


def numbered(labels: Sequence[int]) -> list[Slot]:
    """Slots of images that came in the order of `labels`: each class counts its own."""
    seen: dict[int, int] = {}
    slots = []
    for label in labels:
        seen[label] = seen.get(label, -1) + 1
        slots.append(Slot(label, seen[label]))
    return slots
