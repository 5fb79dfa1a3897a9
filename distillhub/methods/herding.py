"""Herding: real images whose mean feature follows that of their class, picked one by one.

Symbols: phi -> features (of the teacher, or the pixels themselves); mu -> mean of phi over the
class; p_k -> k-th pick.

Source: Welling, Herding Dynamical Weights to Learn (ICML 2009); the greedy form is Algorithm 4 of
Rebuffi et al., iCaRL (CVPR 2017), here without its normalisation of the features to length 1.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from distillhub.methods._base import Cost, Method, Paper, Synthesis, Workbench
from distillhub.ops.progress import Progress, State
from distillhub.ops.selection import herd
from distillhub.units import Group, Target, WorkUnit, by_class

FORWARD = 256  # images that pass through the teacher at a time


class Herding(Method):
    """Greedy matching of the class mean with real images."""

    name: Literal["herding"] = "herding"
    version: Literal[1] = 1
    features: Literal["teacher", "pixels"] = "teacher"
    """What the means are taken of: what the teacher's last layer sees, or raw pixels."""

    paper: ClassVar[Paper] = Paper("Herding Dynamical Weights to Learn", "Max Welling", "ICML 2009")
    real_pixels: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The teacher, unless pixels are herded."""
        return ("teacher",) if self.features == "teacher" else ()

    def plan(self, target: Target) -> Iterator[Group]:
        """One class at a time."""
        return by_class(target)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """Herd each class; a class is quick, so there is nothing to save between."""
        del state
        picked = []
        for done, unit in enumerate(units, start=1):
            rows = bench.data.rows_of(unit.slots[0].label)  # [n_c]
            picked.append(rows[herd(self._features(bench, rows), len(unit.slots)).cpu()])
            yield Progress(done, len(units), {}, None)
        chosen = torch.cat(picked)
        return Synthesis(bench.data.images(chosen), chosen)

    @torch.no_grad()
    def _features(self, bench: Workbench, rows: Tensor) -> Tensor:
        """Features of the rows, [n_c, D]."""
        if self.features == "pixels":
            return bench.data.images(rows).flatten(1).to(bench.device)
        teacher = bench.network("teacher")
        return torch.cat(
            [
                teacher.features(bench.data.images(part).to(bench.device))
                for part in torch.split(rows, FORWARD)
            ]
        )

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """Every class must hold `ipc` images."""
        for label, count in enumerate(counts):
            if count < target.ipc:
                yield f"ipc is {target.ipc} but class {label} has {count} training images"

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """One step per class, each with all its images."""
        if self.features == "pixels":
            return Cost(target.num_classes)
        return Cost(target.num_classes, "teacher", forward=sum(counts) // target.num_classes)


METHOD = Herding
