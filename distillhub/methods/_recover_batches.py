"""The batches of a recover loop: in which order images are cut into them."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from distillhub.methods._recover_specs import BatchSpec
from distillhub.units import Slot, Target, WorkUnit

BATCH = "batch-"
"""Of the names of units; the number of the batch follows."""
TIED = "all"
"""Name of the unit where running statistics tie all batches together."""


class Batch(NamedTuple):
    """Images that are optimised together."""

    number: int
    """b, over the whole set."""
    rows: slice
    """Of the images of a call."""
    labels: Tensor
    """y, [n] int64 on the CPU."""


def ordered(target: Target, spec: BatchSpec) -> tuple[Slot, ...]:
    """All slots, in the order in which they are cut."""
    classes, numbers = range(target.num_classes), range(target.ipc)
    if spec.order == "interleaved":
        return tuple(Slot(c, n) for n in numbers for c in classes)
    return tuple(Slot(c, n) for c in classes for n in numbers)


def cut(slots: Sequence[Slot], spec: BatchSpec) -> Iterator[tuple[Slot, ...]]:
    """Slots in their order, a batch at a time."""
    runs = [tuple(slots)]
    if spec.order == "one_class":
        runs = [tuple(run) for _, run in groupby(slots, key=lambda slot: slot.label)]
    for run in runs:
        size = len(run) if spec.size == "all" else spec.size
        yield from (run[start : start + size] for start in range(0, len(run), size))


def batches_of(units: Sequence[WorkUnit], spec: BatchSpec) -> Iterator[Batch]:
    """The batches of some units; each is one, but for that which ties them all."""
    first = 0
    for unit in units:
        number = 0 if unit.name == TIED else int(unit.name.removeprefix(BATCH))
        for offset, part in enumerate(cut(unit.slots, spec)):
            rows = slice(first, first + len(part))
            yield Batch(number + offset, rows, torch.tensor([slot.label for slot in part]))
            first += len(part)
