"""Figures of an arm by seed, and metrics made of several arms; what is missing says so."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from distillhub.evaluation.intervals import spread
from distillhub.evaluation.specs import Cited
from distillhub.records.report import Arm, Metric, PlannedRun, Run, Unit


class Series(NamedTuple):
    """The complete runs of an arm, or a cited figure in their place."""

    arm: Arm
    runs: Mapping[int, Run]
    """By seed; empty for a cited figure."""
    cited: Cited | None = None


class Missing(NamedTuple):
    """Why an arm cannot be used."""

    note: str
    applicable: bool = True


def collect(
    arm: Arm, planned: Sequence[PlannedRun], runs: Mapping[str, Run], *, cited: Cited | None = None
) -> Series | Missing:
    """The runs of one arm; a single run that is missing makes the arm unusable.

    Args:
        arm: Its name.
        planned: Of this arm.
        runs: All runs there are, by id.
        cited: Stands in where nothing is planned.
    """
    if not planned:
        return Missing(f"arm {arm} was not run") if cited is None else Series(arm, {}, cited)
    absent = [run.id for run in planned if run.id not in runs]
    if absent:
        return Missing(f"{len(absent)} of {len(planned)} runs of arm {arm} are missing")
    return Series(arm, {run.seed: runs[run.id] for run in planned})


def not_had(missing: Missing, unit: Unit) -> Metric:
    """The metric that says why there is no figure."""
    return Metric(
        unit=unit, status="not_run" if missing.applicable else "not_applicable", note=missing.note
    )


def of_arm(series: Series | Missing, figure: Callable[[Run], float | None], unit: Unit) -> Metric:
    """The mean over the runs of one arm.

    Args:
        series: The arm.
        figure: Of one run; None where it does not apply.
        unit: Of the figure.
    """
    if isinstance(series, Missing):
        return not_had(series, unit)
    if series.cited is not None:
        return not_had(Missing("the accuracy of this arm is cited, nothing else is known"), unit)
    values = [figure(run) for run in series.runs.values()]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return not_had(Missing("does not apply to this data set", applicable=False), unit)
    found = spread(known)
    return Metric(
        value=found.mean,
        ci95=found.ci95,
        std=found.std,
        n=found.n,
        unit=unit,
        status="measured",
        runs=tuple(sorted(run.id for run in series.runs.values())),
    )


def accuracy(series: Series | Missing) -> Metric:
    """Mean top-1 of an arm, or the cited one."""
    if isinstance(series, Series) and series.cited is not None:
        return Metric(value=series.cited.top1, status="cited", source=series.cited.source)
    return of_arm(series, lambda run: run.top1, "fraction")


def across(
    arms: Sequence[Series | Missing],
    combine: Callable[..., float],
    unit: Unit,
    *,
    figure: Callable[[Run], float] = lambda run: run.top1,
    mapped: Callable[[float], float] = lambda value: value,
    alike: bool = True,
) -> Metric:
    """A metric of several arms: combined per seed, then averaged over the seeds that all have.

    A cited arm is a constant, and the metric then counts as cited. So is the mean of arm full_hard
    where it has fewer runs than the others: the value stays that of the means of the arms, the
    interval knows the spread of the others alone.

    Args:
        arms: In the order of `combine`'s arguments.
        combine: From one figure per arm to one number.
        unit: Of the result.
        figure: What is taken of a run; a cited arm always gives its top1.
        mapped: A rising function put on the mean, and on the ends of the interval.
        alike: Whether all arms must agree in steps (arms of one protocol do).
    """
    there = [arm for arm in arms if isinstance(arm, Series)]
    missing = [arm for arm in arms if isinstance(arm, Missing)]
    if missing:
        notes = "; ".join(dict.fromkeys(arm.note for arm in missing))
        return not_had(Missing(notes, all(arm.applicable for arm in missing)), unit)
    paired = [arm for arm in there if arm.cited is None and arm.arm != "full_hard"]
    seeds = sorted(set.intersection(*(set(arm.runs) for arm in paired))) if paired else []
    if not seeds:
        return not_had(Missing("the arms share no seed"), unit)
    constants = [_constant(arm, seeds, figure) for arm in there]
    short = [
        arm
        for arm, constant in zip(there, constants, strict=True)
        if arm.cited is None and constant is not None
    ]
    used = [run for arm in short for run in arm.runs.values()]
    used += [arm.runs[seed] for arm in there for seed in seeds if arm not in short and arm.runs]
    if difference := _unlike(used, steps=alike):
        return not_had(Missing(f"the arms differ in {difference}"), unit)

    def at(number: int, seed: int) -> float:
        constant = constants[number]
        return figure(there[number].runs[seed]) if constant is None else constant

    raw = [combine(*(at(number, seed) for number in range(len(there)))) for seed in seeds]
    found = spread(raw)
    values = [mapped(value) for value in raw]
    sources = [arm.cited.source for arm in there if arm.cited is not None]
    return Metric(
        value=mapped(found.mean),
        ci95=None if found.ci95 is None else (mapped(found.ci95[0]), mapped(found.ci95[1])),
        std=spread(values).std,
        n=found.n,
        unit=unit,
        status="cited" if sources else "measured",
        source=sources[0] if sources else None,
        note="the interval leaves out the spread of arm full_hard" if short else "",
        runs=tuple(sorted({run.id for run in used})),
    )


def _constant(arm: Series, seeds: Sequence[int], figure: Callable[[Run], float]) -> float | None:
    """What stands for an arm at every seed, where it does not have them all."""
    if arm.cited is not None:
        return arm.cited.top1
    if set(seeds) <= set(arm.runs):
        return None
    return math.fsum(figure(run) for run in arm.runs.values()) / len(arm.runs)


def _unlike(runs: Sequence[Run], *, steps: bool) -> str:
    """What keeps runs from being compared, or nothing."""
    if len({run.resolution for run in runs}) > 1:
        return "resolution"
    if len({run.test_images for run in runs}) > 1:
        return "the test set"
    if steps and len({run.steps for run in runs}) > 1:
        return "steps"
    return ""


def mean_recalls(series: Series | Missing) -> tuple[float | None, ...] | None:
    """Mean recall per class over the runs; None where the arm has none."""
    if isinstance(series, Missing) or series.cited is not None:
        return None
    columns = zip(*(run.class_acc for run in series.runs.values()), strict=True)
    return tuple(_mean(column) for column in columns)


def _mean(column: Sequence[float | None]) -> float | None:
    known = [value for value in column if value is not None]
    return min(1.0, math.fsum(known) / len(known)) if len(known) == len(column) else None
