"""Random: real images drawn uniformly without replacement within each class.

The baseline that every distilled set must beat, and the source of the random twins that
evaluation compares with.

Symbols: T_c -> rows of class c; n -> ipc.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from distillhub.data.real import RealData
from distillhub.methods._base import Cost, Method, Paper, Synthesis, Workbench
from distillhub.ops.progress import Progress, State
from distillhub.ops.selection import sample
from distillhub.units import Group, Target, WorkUnit, by_class


def draw(data: RealData, ipc: int, generator_for: Callable[[int], torch.Generator]) -> Tensor:
    """Rows of `ipc` images of each class, class after class.

    Args:
        data: The training split.
        ipc: Images per class.
        generator_for: The CPU generator of a class; a class with the same generator gets the same
            rows, and a smaller ipc gets the first of them.

    Returns:
        [num_classes * ipc] int64.

    Raises:
        ValueError: If a class has fewer images.
    """
    return torch.cat(
        [_draw_class(data, label, ipc, generator_for(label)) for label in range(data.num_classes)]
    )


def _draw_class(data: RealData, label: int, ipc: int, generator: torch.Generator) -> Tensor:
    rows = data.rows_of(label)
    if len(rows) < ipc:
        raise ValueError(f"class {label} has {len(rows)} images, {ipc} are asked for")
    return sample(rows, ipc, generator)


class Random(Method):
    """Uniform selection; has no settings."""

    name: Literal["random"] = "random"
    version: Literal[1] = 1

    paper: ClassVar[Paper] = Paper("Random real images", "baseline", "none")
    real_pixels: ClassVar[bool] = True

    def plan(self, target: Target) -> Iterator[Group]:
        """One class at a time."""
        return by_class(target)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """Draw the rows of each unit and read them; there is nothing to save between."""
        del state
        picked = []
        for done, unit in enumerate(units, start=1):
            label = unit.slots[0].label
            generator = bench.generator("random", label)
            picked.append(_draw_class(bench.data, label, len(unit.slots), generator))
            yield Progress(done, len(units), {}, None)
        rows = torch.cat(picked)
        return Synthesis(bench.data.images(rows), rows)

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """Every class must hold `ipc` images."""
        for label, count in enumerate(counts):
            if count < target.ipc:
                yield f"ipc is {target.ipc} but class {label} has {count} training images"

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """One step per class, without a network."""
        del counts
        return Cost(target.num_classes)


METHOD = Random
