"""`distillhub sweep`: recipes with other values and seeds, built, scored and laid side by side."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from pydantic import Field

from distillhub.errors import DistillhubError
from distillhub.evaluation import protocols
from distillhub.evaluation.arms import PACKED
from distillhub.evaluation.intervals import spread, spread_within
from distillhub.pipeline.building import build
from distillhub.pipeline.project import Project
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.variants import Choices, Variant, plan_sweep, said, word
from distillhub.records.report import Arm, Comparison, EvalReport, Regime, loads
from distillhub.spec import Spec

COMPARED: tuple[tuple[Regime, Arm, Arm, str], ...] = (
    ("hard", "syn_hard", "rnd_hard", "gain_images_hard"),
    ("soft_stored", "syn_soft", "rnd_soft", "gain_images_soft"),
    ("soft_online", "syn_soft_online", "rnd_soft_online", "gain_images_soft_online"),
    ("hard", "syn_hard", "rnd_packed_hard", "gain_packed_hard"),
    ("soft_stored", "syn_soft", "rnd_packed_soft", "gain_packed_soft"),
)
"""Distilled and random images with the same labels, and the name of their difference."""
Kind = Literal["distilled", "random", "packed"]
BESIDE: tuple[tuple[Kind, str, tuple[Arm, ...]], ...] = (
    ("random", "random", tuple(rnd for _, _, rnd, _ in COMPARED if rnd not in PACKED)),
    ("packed", "random, packed", PACKED),
)
"""The rows of random images, in their order: kind, name and arms; packed ones are mosaics."""

Runs = Mapping[int, float]
"""By the seed of the run."""


class Figure(Spec):
    """A mean over the runs of a sweep, every synthesis seed weighing the same."""

    value: float
    ci95: tuple[float, float] | None
    """t interval over the means of the synthesis seeds, so that it holds for images made anew; of
    random images, which every run draws anew, over all runs. None for fewer than three."""
    ci95_runs: tuple[float, float] | None = None
    """t interval over the runs within the seeds: for these images, trained on anew."""
    n: int
    """Seeds."""
    runs: int = 1
    """Per seed."""


class Row(Spec):
    """One setting under one protocol and student, or the random images beside it."""

    kind: Kind
    recipe: str
    """Stem; of random images `random`, of mosaics of random images `random, packed`."""
    source: str
    ipc: int
    setting: dict[str, str]
    """Of random images what all rows have in common that they stand beside."""
    protocol: str
    arch: str
    figures: dict[str, Figure]
    """By metric (`top1.syn_hard`, `gain_images_hard`, ...): fractions and their differences."""
    bytes_images: int | None = None
    bytes_labels: int | None = None
    seconds: Figure | None = None
    """Wall time of the synthesis on the machine that ran it."""
    builds: tuple[str, ...]
    """Content digests of the datasets behind the row."""


class SweepTable(Spec):
    """The outcome of a sweep."""

    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    alone: tuple[str, ...] = ()
    """Keys of which a row changes at most one."""
    base: dict[str, str] = Field(default_factory=dict)
    """Of those keys, values that the recipes were set to where nothing is changed."""
    rows: tuple[Row, ...]
    full: dict[str, Figure] = Field(default_factory=dict)
    """Accuracy on all real images, by `<data set>, <student>, <protocol>`."""
    device: str


class _Measured(NamedTuple):
    """A distilled row, and the runs behind it."""

    row: Row
    runs: Mapping[Arm, tuple[Runs, ...]]
    """Per synthesis seed."""
    full: tuple[str, tuple[Runs, ...]] | None


def run_sweep(
    recipes: Sequence[Path],
    project: Project,
    *,
    seeds: int,
    settings: Choices,
    alone: Choices = MappingProxyType({}),
    reporter: Reporter,
    on_built: Callable[[Variant, Path], None] | None = None,
) -> SweepTable:
    """Build and score every variant, then lay them side by side.

    Args:
        recipes: The recipes that the variants start from.
        project: Whose scratch space, networks and sources are used.
        seeds: How many synthesis seeds.
        settings: Values to try per dotted key, in every recipe.
        alone: Values that are tried one at a time.
        reporter: Told how it goes.
        on_built: Called with each finished dataset.

    Raises:
        RecipeError: If a variant cannot be built; nothing was started.
        PipelineError: If a stage failed; what was finished is kept.
    """
    variants = plan_sweep(recipes, project.state, seeds=seeds, settings=settings, alone=alone)
    built: list[tuple[Variant, Path]] = []
    for number, variant in enumerate(variants, 1):
        words = [variant.recipe, *filter(None, [said(variant.setting)]), f"seed {variant.seed}"]
        reporter.note(f"variant {number} of {len(variants)}: {', '.join(words)}")
        workspace = project.state / "sweeps" / variant.recipe / "builds"
        try:
            folder = build(variant.path, reporter=reporter, direct=True, workspace=workspace)
        except DistillhubError as error:
            error.faults = tuple(
                f._replace(where=f"{variant.path.stem}: {f.where}") for f in error.faults
            )
            raise
        built.append((variant, folder))
        if on_built is not None:
            on_built(variant, folder)
    base = {key: word(settings[key][0]) for key in alone if key in settings}
    return tabulate(tuple(settings), built, alone=tuple(alone), base=base)


def tabulate(
    keys: tuple[str, ...],
    built: Sequence[tuple[Variant, Path]],
    *,
    alone: tuple[str, ...] = (),
    base: Mapping[str, str] = MappingProxyType({}),
) -> SweepTable:
    """Means over seeds and runs, from the reports of finished datasets.

    Rows that can be compared stand together, the random images first: same data, images per class,
    protocol and student.
    """
    groups: dict[str, list[tuple[Variant, Path]]] = {}
    for variant, folder in built:
        key = json.dumps([variant.recipe, dict(variant.setting)])
        groups.setdefault(key, []).append((variant, folder))
    measured = [row for group in groups.values() for row in _measure(group)]
    sources = list(dict.fromkeys(m.row.source for m in measured))
    scales = list(dict.fromkeys((m.row.protocol, m.row.arch) for m in measured))
    beside: dict[tuple[int, int, int], list[_Measured]] = {}
    for m in measured:
        place = (sources.index(m.row.source), m.row.ipc, scales.index((m.row.protocol, m.row.arch)))
        beside.setdefault(place, []).append(m)
    rows: list[Row] = []
    for place in sorted(beside):
        for kind, name, arms in BESIDE:
            rows += _random_rows(beside[place], kind, name, arms)
        rows += [m.row for m in beside[place]]
    return SweepTable(
        recipes=tuple(dict.fromkeys(variant.recipe for variant, _ in built)),
        seeds=tuple(dict.fromkeys(variant.seed for variant, _ in built)),
        keys=keys,
        alone=alone,
        base=dict(base),
        rows=tuple(rows),
        full={m.full[0]: _drawn_anew(m.full[1]) for m in measured if m.full is not None},
        device=", ".join(sorted({_device(folder) for _, folder in built})),
    )


def _measure(group: Sequence[tuple[Variant, Path]]) -> list[_Measured]:
    """The rows of one recipe and setting: one for every comparison of its reports."""
    variant = group[0][0]
    reports = [loads((folder / "eval.json").read_bytes(), where=str(folder)) for _, folder in group]
    seconds = _over_seeds([{0: _synthesis_seconds(folder)} for _, folder in group])
    storage = [report.storage for report in reports if report.storage is not None]
    first = reports[0]
    found = []
    for comparison in first.comparisons:
        runs = {
            arm: _runs(reports, comparison, regime, arm)
            for regime, syn, rnd, _ in COMPARED
            for arm in (syn, rnd)
        }
        row = Row(
            kind="distilled",
            recipe=variant.recipe,
            source=first.source.id,
            ipc=first.dataset.ipc,
            setting={key: word(value) for key, value in variant.setting.items()},
            protocol=" + ".join(dict.fromkeys(comparison.protocols.values())),
            arch=comparison.arch,
            figures=_figures(runs),
            bytes_images=_rounded([s.bytes_images for s in storage]),
            bytes_labels=_rounded([s.bytes_labels for s in storage]),
            seconds=seconds,
            builds=tuple(str(report.dataset.manifest_sha256) for report in reports),
        )
        found.append(
            _Measured(row, {a: r for a, r in runs.items() if r}, _full(reports, comparison))
        )
    return found


def _runs(
    reports: Sequence[EvalReport], comparison: Comparison, regime: Regime, arm: Arm
) -> tuple[Runs, ...]:
    """Accuracies of an arm, per synthesis seed; empty where one of them lacks it."""
    protocol = comparison.protocols.get(regime)
    found = [
        {
            run.seed: run.top1
            for run in report.runs
            if (run.arm, run.arch, run.protocol) == (arm, comparison.arch, protocol)
        }
        for report in reports
    ]
    return tuple(found) if all(found) else ()


def _full(
    reports: Sequence[EvalReport], comparison: Comparison
) -> tuple[str, tuple[Runs, ...]] | None:
    """The runs on all real images, and what they are of; None where there are none."""
    for protocol in dict.fromkeys(comparison.protocols.values()):
        name = protocols.REFERENCE + protocol
        found = [
            {
                run.seed: run.top1
                for run in report.runs
                if (run.arm, run.arch, run.protocol) == ("full_hard", comparison.arch, name)
            }
            for report in reports
        ]
        if all(found):
            return f"{reports[0].source.id}, {comparison.arch}, {name}", tuple(found)
    return None


def _figures(runs: Mapping[Arm, tuple[Runs, ...]]) -> dict[str, Figure]:
    found = {}
    for _, syn, rnd, gain in COMPARED:
        if runs[syn]:
            found[f"top1.{syn}"] = _over_seeds(runs[syn])
        if runs[rnd]:
            found[f"top1.{rnd}"] = _drawn_anew(runs[rnd])
        if runs[syn] and runs[rnd]:
            pairs = [
                {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
                for ours, theirs in zip(runs[syn], runs[rnd], strict=True)
            ]
            if all(pairs):
                found[gain] = _over_seeds(pairs)
    return found


def _random_rows(
    group: Sequence[_Measured], kind: Kind, name: str, arms: Sequence[Arm]
) -> list[Row]:
    """The random images of rows that stand together: one row where all drew and scored the same."""
    merged: list[tuple[dict[Arm, tuple[Runs, ...]], list[Row]]] = []
    for row, runs, _ in group:
        twins = {arm: runs[arm] for arm in arms if arm in runs}
        if not twins:
            continue
        for known, rows in merged:
            if all(known[arm] == twins[arm] for arm in known.keys() & twins.keys()):
                known |= twins
                rows.append(row)
                break
        else:
            merged.append((twins, [row]))
    found = []
    for twins, rows in merged:
        first = rows[0]
        found.append(
            Row(
                kind=kind,
                recipe=name if len(merged) == 1 else f"{name} beside {first.recipe}",
                source=first.source,
                ipc=first.ipc,
                setting={
                    key: value
                    for key, value in first.setting.items()
                    if all(row.setting.get(key) == value for row in rows)
                },
                protocol=first.protocol,
                arch=first.arch,
                figures={f"top1.{arm}": _drawn_anew(runs) for arm, runs in twins.items()},
                builds=tuple(dict.fromkeys(build for row in rows for build in row.builds)),
            )
        )
    return found


def _over_seeds(groups: Sequence[Runs]) -> Figure:
    """What depends on images of a seed: the interval is over the means of the seeds."""
    values = [list(runs.values()) for runs in groups]
    means = spread([math.fsum(runs) / len(runs) for runs in values])
    return Figure(
        value=means.mean,
        ci95=means.ci95,
        ci95_runs=spread_within(values).ci95,
        n=len(groups),
        runs=len(values[0]),
    )


def _drawn_anew(groups: Sequence[Runs]) -> Figure:
    """What every run has of its own: the interval is over all runs, each counted once."""
    different = {seed: value for runs in groups for seed, value in runs.items()}
    found = spread(list(different.values()))
    return Figure(value=found.mean, ci95=found.ci95, n=len(groups), runs=len(groups[0]))


def _rounded(values: Sequence[int]) -> int | None:
    return round(statistics.fmean(values)) if values else None


def _synthesis_seconds(folder: Path) -> float:
    return float(_stats(folder)["wall_seconds"])


def _device(folder: Path) -> str:
    return str(_stats(folder)["device"])


def _stats(folder: Path) -> dict[str, float | str]:
    path = folder.parent / "stats" / "synthesize.json"
    content: dict[str, float | str] = json.loads(path.read_text(encoding="utf-8"))
    return content
