"""Where optimised images start: noise, real images, crops that observers find clear, another build.

Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024, arXiv
2404.13733), real-image initialisation, and the authors' code for the crops (`kind: patches`).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from distillhub.errors import DataError
from distillhub.methods._base import Workbench
from distillhub.methods._realism import scored
from distillhub.models.tensorfile import read_tensors, write_tensors
from distillhub.ops.patches import cut, draw_whole_boxes, lowest, spans, tile
from distillhub.ops.pixels import normalize, resize
from distillhub.ops.progress import Progress
from distillhub.spec import Spec
from distillhub.units import Slot, Target

CROPS = "crops.safetensors"


class StartSpec(Spec):
    """What the images are before the first step."""

    kind: Literal["noise", "real", "patches", "build"] = "noise"
    """`noise`: N(0, 1) in normalised space; `real`: training images of the class; `patches`:
    collages of the crops that all guiding observers together recognise best; `build`: the images
    of another build."""
    build: str | None = None
    """Recipe of that build: a name beside this one, or a path; for `kind: build` alone."""
    sampling: Literal["without_replacement", "with_replacement"] = "without_replacement"
    """Of `real` and `build`; the authors' code draws with replacement."""
    flip: bool = True
    """Mirror each with probability 1/2; noise stays as it is."""
    factor: int = Field(default=2, gt=0)
    """Crops per side of a collage."""
    pool: int = Field(default=300, gt=0)
    """Images per class that are cut: those that the observers recognise best."""
    crops: int = Field(default=4, gt=0)
    """Boxes per image."""
    box_group: int = Field(default=64, gt=0)
    """Images, best first, that share their boxes."""

    @model_validator(mode="after")
    def _build_for_its_kind(self) -> Self:
        if (self.build is None) == (self.kind == "build"):
            raise ValueError("build: names the recipe of kind: build, and of no other")
        if self.kind == "patches" and self.sampling == "with_replacement":
            raise ValueError(
                "sampling: with_replacement is for kind: real and kind: build; of patches there "
                "are as many collages as images"
            )
        return self

    @property
    def bases(self) -> tuple[str, ...]:
        """For `Method.bases`."""
        return () if self.build is None else (self.build,)

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """For `Method.check`: every slot needs an image, or crops, of its own."""
        if self.kind == "real" and self.sampling == "without_replacement":
            for label, count in enumerate(counts):
                if count < target.ipc:
                    yield (
                        f"ipc is {target.ipc} but class {label} has {count} images to start from; "
                        "sampling: with_replacement may repeat them"
                    )
        if self.kind == "patches":
            if self.factor > min(target.height, target.width):
                yield f"{target.height} x {target.width} pixels have no {self.factor} parts a side"
            wanted = target.ipc * self.factor**2
            for label, count in enumerate(counts):
                if wanted > min(self.pool, count) * self.crops:
                    yield (
                        f"{target.ipc} images of {self.factor} x {self.factor} crops are {wanted} "
                        f"crops per class, {self.crops} of each of {min(self.pool, count)} images "
                        f"of class {label} do not suffice; raise init.crops or init.pool"
                    )

    def check_bases(self, target: Target, ipcs: Mapping[str, int]) -> Iterator[str]:
        """For `Method.check_bases`: the build must have enough images per class."""
        if self.build is not None and self.sampling == "without_replacement":
            ipc = ipcs[self.build]
            if ipc < target.ipc:
                yield (
                    f"ipc is {target.ipc} but build {self.build} has {ipc} images per class to "
                    "start from; sampling: with_replacement may repeat them"
                )

    def scored(self, counts: Sequence[int]) -> int:
        """For `Method.cost`: images and crops that each observer sees before the first step.

        Args:
            counts: Training images per class.
        """
        if self.kind != "patches":
            return 0
        return sum(count + min(self.pool, count) * self.crops for count in counts)


def scoring(
    spec: StartSpec, slots: Sequence[Slot], bench: Workbench, observers: Sequence[str]
) -> Generator[Progress, None, None]:
    """Score what `kind: patches` cuts, which may take long; other kinds have nothing to score.

    `starting_images` of the same arguments then finds the scores.

    Yields:
        Progress per class. A class that was scored before is not scored again.
    """
    if spec.kind != "patches":
        return
    labels = sorted({slot.label for slot in slots})
    for place, label in enumerate(labels):
        _ranked(spec, label, bench, observers)
        yield Progress(place + 1, len(labels), {"classes_scored": place + 1}, None)


def starting_images(
    spec: StartSpec, slots: Sequence[Slot], bench: Workbench, observers: Sequence[str]
) -> Tensor:
    """The images that the slots start from.

    An image depends on the recipe's seed and its slot alone, not on the other slots of the call.

    Args:
        spec: Where they come from.
        slots: Any slots of the recipe.
        bench: Of the recipe.
        observers: Roles of the guiding networks, which score `patches`; others need none.

    Returns:
        [n, C, H, W] float32 in the data set's normalised space, on the CPU.

    Raises:
        DataError: If a class has fewer images than its slots need.
        PipelineError: If the observers give no finite score.
    """
    data = bench.data
    if spec.kind == "noise":
        shape = (data.channels, data.height, data.width)
        drawn = [torch.randn(shape, generator=bench.generator("start", *slot)) for slot in slots]
        return torch.stack(drawn)
    if spec.kind == "patches":
        images = _collages(spec, slots, bench, observers)
    elif spec.build is not None:
        base = bench.artifact(spec.build).unpacked()
        pools = {label: (base.labels == label).nonzero()[:, 0] for label, _ in set(slots)}
        images = base.images(_drawn(spec, slots, pools, bench))
    else:
        pools = {label: data.rows_of(label) for label, _ in set(slots)}
        images = data.images(_drawn(spec, slots, pools, bench))
    if spec.flip:
        draws = [torch.rand((), generator=bench.generator("start flip", *slot)) for slot in slots]
        mirrored = (torch.stack(draws) < 0.5).view(-1, 1, 1, 1)
        images = torch.where(mirrored, images.flip(-1), images)
    return normalize(images, data.mean, data.std)


def _drawn(
    spec: StartSpec, slots: Sequence[Slot], pools: Mapping[int, Tensor], bench: Workbench
) -> Tensor:
    """A row of its class's pool for every slot, [n] int64."""
    again = spec.sampling == "with_replacement"
    for label, number in slots:
        have, need = len(pools[label]), 1 if again else number + 1
        if have < need:
            raise DataError(
                f"class {label} has {have} images to start from, image {number + 1} needs {need}",
                where=f"init: kind {spec.kind}",
                mend="lower ipc, or set init.sampling: with_replacement",
            )
    if again:
        picks = [
            torch.randint(len(pools[slot.label]), (), generator=bench.generator("start", *slot))
            for slot in slots
        ]
        return torch.stack(
            [pools[slot.label][pick] for slot, pick in zip(slots, picks, strict=True)]
        )
    orders = {
        label: pool[torch.randperm(len(pool), generator=bench.generator("start", label))]
        for label, pool in pools.items()
    }
    return torch.stack([orders[label][number] for label, number in slots])


# ---- collages of crops


class _Ranked(NamedTuple):
    """Crops of a class, clearest first."""

    rows: Tensor
    """[k] int64."""
    boxes: Tensor
    """[k, 4] int64."""


def _collages(
    spec: StartSpec, slots: Sequence[Slot], bench: Workbench, observers: Sequence[str]
) -> Tensor:
    """Collage i of a class holds its crops of ranks f^2 i .. f^2 i + f^2 - 1, row by row."""
    data, parts = bench.data, spec.factor**2
    size = (data.height, data.width)
    part = (spans(data.height, spec.factor)[-1], spans(data.width, spec.factor)[-1])
    ranked = {label: _ranked(spec, label, bench, observers) for label, _ in set(slots)}
    images = []
    for label, number in slots:
        these = slice(parts * number, parts * (number + 1))
        rows, boxes = (found[these] for found in ranked[label])
        if len(rows) < parts:
            raise DataError(
                f"class {label} has {len(ranked[label].rows)} scored crops, image {number + 1} "
                f"needs {parts * (number + 1)}",
                where="init: kind patches",
                mend="lower ipc, or raise init.crops or init.pool",
            )
        crops = resize(cut(data.images(rows), boxes, size), part)
        images.append(tile(crops.unsqueeze(0), size))
    return torch.cat(images).clamp(0, 1)


def _ranked(spec: StartSpec, label: int, bench: Workbench, observers: Sequence[str]) -> _Ranked:
    """The scored crops of a class: a resource, so that a class is scored once."""
    generator = bench.generator("start crops", label)
    key: dict[str, object] = {
        "observers": [bench.weights(role) for role in observers],
        "label": label,
        "pool": spec.pool,
        "crops": spec.crops,
        "box_group": spec.box_group,
        "seed": generator.initial_seed(),
    }
    build = partial(_score, spec, label, bench, observers, generator)
    tensors, _ = read_tensors(bench.resource("start-crops", key, build) / CROPS)
    return _Ranked(tensors["rows"], tensors["boxes"].long())


@torch.no_grad()
def _score(
    spec: StartSpec,
    label: int,
    bench: Workbench,
    observers: Sequence[str],
    generator: torch.Generator,
    folder: Path,
) -> None:
    """Keep the clearest images of a class, cut them, and write their crops by rank."""
    data = bench.data
    nets = [bench.network(role) for role in observers]
    size = (data.height, data.width)
    every = data.rows_of(label)
    whole = torch.tensor([[0, 0, *size]]).expand(len(every), 1, 4)
    losses = scored(nets, data, every, whole, label, size, bench.device)
    rows = every[lowest(losses, min(spec.pool, len(every))).image]  # clearest first
    groups = -(-len(rows) // spec.box_group)
    drawn = draw_whole_boxes(groups * spec.crops, *size, generator=generator)
    boxes = drawn.view(groups, spec.crops, 4).repeat_interleave(spec.box_group, dim=0)[: len(rows)]
    losses = scored(nets, data, rows, boxes, label, size, bench.device)
    best = lowest(losses, losses.numel(), one_per_image=False)
    tensors = {
        "rows": rows[best.image],
        "boxes": boxes[best.image, best.crop].int(),
        "loss": best.loss,
    }
    write_tensors(folder / CROPS, tensors, {})
