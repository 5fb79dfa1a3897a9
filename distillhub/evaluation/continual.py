"""Class-incremental learning from a distilled set: classes come in stages, nothing is forgotten.

The memory of a stage is all images of the classes seen so far, and a fresh student is trained on it
from scratch: GDumb (Prabhu et al., ECCV 2020), which is how distilled sets are compared for
continual learning in DM (Zhao and Bilen, WACV 2023, section on continual learning) and EDC (Shao et
al., NeurIPS 2024, Figure 4).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distillhub.evaluation.arms import run_id
from distillhub.evaluation.feed import ImageSet, SoftSet
from distillhub.evaluation.intervals import spread
from distillhub.evaluation.series import Series, accuracy, across
from distillhub.records.report import Arm, Metric, PlannedRun, Run, Unit, regime_of
from distillhub.records.uses import Stage
from distillhub.units import derive_seed


def class_order(classes: int, seed: int) -> tuple[int, ...]:
    """The order in which classes come, drawn from a seed alone."""
    generator = torch.Generator().manual_seed(derive_seed("continual", "order", seed))
    order: list[int] = torch.randperm(classes, generator=generator).tolist()
    return tuple(order)


def split_stages(order: Sequence[int], steps: int) -> tuple[tuple[int, ...], ...]:
    """The classes that are new at each of `steps` stages; the first ones get what is left over.

    Raises:
        ValueError: If there are fewer classes than stages, or no stage.
    """
    if not 1 <= steps <= len(order):
        raise ValueError(f"{len(order)} classes cannot come in {steps} steps")
    each, rest = divmod(len(order), steps)
    sizes = [each + (number < rest) for number in range(steps)]
    ends = [sum(sizes[: number + 1]) for number in range(steps)]
    return tuple(tuple(order[end - size : end]) for end, size in zip(ends, sizes, strict=True))


def seen_classes(stages: Sequence[Sequence[int]], stage: int) -> tuple[int, ...]:
    """All classes that have come by the end of a stage, counted from 0."""
    return tuple(label for new in stages[: stage + 1] for label in new)


@dataclass(frozen=True, eq=False)
class Seen:
    """The images of some classes of a set.

    A label is the position of its class in `classes`; stored logits are those of these classes, so
    that their softmax is the teacher's belief among them.
    """

    whole: ImageSet
    classes: tuple[int, ...]

    @cached_property
    def rows(self) -> Tensor:
        """Of the whole set, ascending, [n] int64."""
        return torch.nonzero(torch.isin(self.whole.labels, torch.tensor(self.classes))).flatten()

    @cached_property
    def labels(self) -> Tensor:
        """[n] int64."""
        position = torch.full((max(self.classes) + 1,), -1)
        position[torch.tensor(self.classes)] = torch.arange(len(self.classes))
        return position[self.whole.labels[self.rows]]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Tensor) -> Tensor:
        """[n, C, H, W] float32 in [0, 1]."""
        return self.whole.images(self.rows[rows])


@dataclass(frozen=True, eq=False)
class SeenSoft(Seen):
    """The same with the stored labels of the classes."""

    whole: SoftSet

    @property
    def views(self) -> object | None:
        """Geometry of the views; None: one whole-image label per image."""
        return self.whole.views

    @property
    def views_per_image(self) -> int:
        """K."""
        return self.whole.views_per_image

    def view_batch(
        self,
        rows: Tensor,
        views: Tensor,
        temperature: float | None,
        *,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """View images [n, C, h, w] in [0, 1] and the logits of the classes, [n, len(classes)]."""
        shown, logits = self.whole.view_batch(self.rows[rows], views, temperature, device=device)
        return shown, logits[:, torch.tensor(self.classes, device=logits.device)]


def planned_stage(
    protocol: str, arch: str, arms: Sequence[Arm], seeds: Sequence[int], stage: int
) -> Iterator[PlannedRun]:
    """The trainings of one stage, arm by arm; run ids end in the number of the stage."""
    for arm in arms:
        for seed in seeds:
            yield PlannedRun(
                id=f"{run_id(protocol, arch, arm, seed)}.c{stage}",
                protocol=protocol,
                arm=arm,
                arch=arch,
                regime=regime_of(arm),
                seed=seed,
                subset_seed=seed if arm.startswith("rnd") else None,
            )


def judged_stage(
    new: Sequence[int], seen: int, arms: tuple[Arm, Arm], runs: Sequence[Run]
) -> Stage:
    """A finished stage.

    Args:
        new: Classes that came with it.
        seen: Classes so far.
        arms: Distilled, random.
        runs: Of both.
    """
    series = [Series(arm, {run.seed: run for run in runs if run.arm == arm}) for arm in arms]
    return Stage(
        new=tuple(new),
        seen=seen,
        top1={arm: accuracy(each) for arm, each in zip(arms, series, strict=True)},
        gain=across(series, lambda ours, theirs: ours - theirs, "difference"),
        runs=tuple(runs),
    )


def mean_over_stages(stages: Sequence[Stage], arms: tuple[Arm, Arm]) -> dict[Arm, Metric]:
    """Mean top-1 of the stages, per arm: of every seed first, then over the seeds."""
    means = {arm: _means(stages, arm) for arm in arms}
    return {arm: measured(list(found.values())) for arm, found in means.items()}


def mean_gain(stages: Sequence[Stage], arms: tuple[Arm, Arm]) -> Metric:
    """The same of distilled minus random, paired by seed."""
    ours, theirs = (_means(stages, arm) for arm in arms)
    return measured([ours[seed] - theirs[seed] for seed in ours], "difference")


def _means(stages: Sequence[Stage], arm: Arm) -> Mapping[int, float]:
    """Seed -> mean over the stages."""
    found: dict[int, list[float]] = {}
    for stage in stages:
        for run in stage.runs:
            if run.arm == arm:
                found.setdefault(run.seed, []).append(run.top1)
    return {seed: math.fsum(values) / len(values) for seed, values in found.items()}


def measured(values: Sequence[float], unit: Unit = "fraction") -> Metric:
    """Mean with interval of one figure per seed."""
    found = spread(values)
    return Metric(
        value=found.mean, ci95=found.ci95, std=found.std, n=found.n, unit=unit, status="measured"
    )
