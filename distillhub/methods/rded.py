"""RDED: the crops of real images that an observer recognises best, put together.

Symbols: phi -> observer; S -> side of an image; f -> factor; m -> crops; mipc -> pool; n -> ipc.

Nothing is optimised. Source: Sun et al., On the Diversity and Realism of Distilled Dataset (CVPR
2024). The paper's realism score combines observer and label; the authors' code takes the
cross-entropy of the class for a crop that is padded to S, and so do we. Crops are cut from images
at the data set's size, the authors' from files at their own.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from distillhub.methods._base import Cost, Method, Paper, Synthesis, Workbench
from distillhub.methods._realism import scored
from distillhub.ops.patches import cut, draw_whole_boxes, lowest, tile
from distillhub.ops.progress import Progress, State
from distillhub.ops.selection import sample
from distillhub.spec import Fraction
from distillhub.units import Group, Target, WorkUnit, by_class


class RDED(Method):
    """Realistic and diverse collages."""

    name: Literal["rded"] = "rded"
    version: Literal[1] = 1
    observer: int = Field(default=0, ge=0)
    """Which of the recipe's `observers` is phi."""
    factor: int = Field(default=1, gt=0)
    """Crops per side of an image; the authors take 1 up to 64 pixels, 2 above."""
    pool: int = Field(default=300, gt=0)
    """Real images per class that are cut; a smaller class gives all that it has."""
    crops: int = Field(default=5, gt=0)
    """Boxes per real image."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Share of the image that a box covers."""
    dedupe: bool = True
    """Whether only the best crop of a real image is used."""
    upscale: bool = False
    """Enlarge a crop to the side of an image for phi, instead of padding it."""

    paper: ClassVar[Paper] = Paper(
        "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation "
        "Paradigm",
        "Peng Sun, Bei Shi, Daiwei Yu, Tao Lin",
        "CVPR 2024",
        arxiv="2312.03526",
        code="https://github.com/LINs-lab/RDED",
    )
    real_pixels: ClassVar[bool] = True
    label: ClassVar[str | None] = "RDED"
    notes: ClassVar[tuple[str, ...]] = (
        "Every image is made of crops of real images: the set has the license and the privacy of "
        "its source, and cannot be published by naming real images.",
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """The observer."""
        return ("observers",)

    def plan(self, target: Target) -> Iterator[Group]:
        """One class at a time."""
        return by_class(target)

    @torch.no_grad()
    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """Score, choose, cut and tile, class by class; between classes there is nothing to save."""
        del state
        data = bench.data
        net = bench.network(f"observer-{self.observer}")
        size = (data.height, data.width)
        side = (data.height // self.factor, data.width // self.factor)  # s = S // f
        images = []
        for done, unit in enumerate(units, start=1):
            label, n = unit.slots[0].label, len(unit.slots)
            rows, boxes = self._candidates(label, bench)  # [mipc], [mipc, m, 4]
            losses = scored(
                [net], data, rows, boxes, label, side, bench.device, pad=not self.upscale
            )
            best = lowest(losses, n * self.factor**2, one_per_image=self.dedupe)
            chosen = cut(data.images(rows[best.image]), boxes[best.image, best.crop], side)
            # Tile k of image i is survivor k * n + i.
            ranks = chosen.view(-1, n, *chosen.shape[1:]).transpose(0, 1)
            images.append(tile(ranks, size).clamp(0, 1))
            yield Progress(done, len(units), {"loss": best.loss.mean().item()}, None)
        return Synthesis(torch.cat(images))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """Every part of every image needs a crop of its own."""
        if self.factor > min(target.height, target.width):
            yield f"{target.height} x {target.width} pixels have no {self.factor} parts per side"
        if self.scale[0] > self.scale[1] or self.scale[1] == 0:
            yield f"scale is {list(self.scale)}, its ends must rise and reach above 0"
        wanted = target.ipc * self.factor**2
        what = f"{wanted} crops per class ({target.ipc} images of {self.factor} x {self.factor})"
        each = 1 if self.dedupe else self.crops
        if wanted > self.pool * each:
            yield f"{what} are more than pool: {self.pool} gives; set pool to {-(-wanted // each)}"
        for label, count in enumerate(counts):
            if wanted > count * each:
                yield f"{what} are more than the {count} training images of class {label} give"

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """One step per class, with all its crops."""
        seen = sum(min(self.pool, count) for count in counts) * self.crops
        return Cost(
            target.num_classes, f"observer-{self.observer}", forward=seen // target.num_classes
        )

    def _candidates(self, label: int, bench: Workbench) -> tuple[Tensor, Tensor]:
        """Rows of a class that are cut, ascending, and their boxes."""
        data = bench.data
        every = data.rows_of(label)
        picked = sample(torch.arange(len(every)), self.pool, bench.generator("pool", label))
        picked = picked.sort().values
        aspect = data.width / data.height
        boxes = draw_whole_boxes(
            len(every) * self.crops,
            data.height,
            data.width,
            generator=bench.generator("crops", label),
            scale=self.scale,
            ratio=(aspect, aspect),
        )
        return every[picked], boxes.view(len(every), self.crops, 4)[picked]


METHOD = RDED
