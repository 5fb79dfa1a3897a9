"""`distillhub sweep`: one recipe with other values and seeds, built, scored and laid side by side.

A variant is a recipe of its own under `.distillhub/sweeps/<stem>/`, named by a digest of what it
says. So a sweep that was cut goes on where it was, and one that asks for more values or seeds
reuses what an earlier one built.
"""

import itertools
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from distillhub.digests import fingerprint
from distillhub.errors import DistillhubError, Fault, RecipeError, UsageError
from distillhub.evaluation.intervals import spread
from distillhub.pipeline.building import build
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.project import Project
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.resolve import to_yaml
from distillhub.recipe.loading import load_recipe
from distillhub.records.report import Comparison, EvalReport, loads
from distillhub.spec import Spec

SEED_STRIDE = 1000
"""Between the seeds of a sweep: the runs of an evaluation count on from the recipe's seed."""
METRICS = (
    "top1.syn_hard",
    "top1.rnd_hard",
    "gain_images_hard",
    "top1.syn_soft",
    "top1.rnd_soft",
    "gain_images_soft",
)

Setting = Mapping[str, object]
"""Dotted keys of a recipe and the values that a variant gives them."""


class Variant(NamedTuple):
    """One recipe of a sweep."""

    setting: Setting
    seed: int
    path: Path


class Figure(Spec):
    """A mean over the seeds of a sweep."""

    value: float
    ci95: tuple[float, float] | None
    """t interval over the seeds; None for fewer than three."""
    n: int


class Row(Spec):
    """One setting under one protocol and student."""

    setting: dict[str, str]
    protocol: str
    arch: str
    figures: dict[str, Figure]
    """By metric: fractions, and differences of fractions."""
    bytes_images: int
    bytes_labels: int
    seconds: Figure
    """Wall time of the synthesis on the machine that ran it."""
    builds: tuple[str, ...]
    """Content digests of the datasets behind the row."""


class SweepTable(Spec):
    """The outcome of a sweep."""

    recipe: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    rows: tuple[Row, ...]
    device: str


def parse_setting(text: str) -> tuple[str, list[object]]:
    """`method.iterations=100,500` as a key and its values, each read as YAML.

    Raises:
        UsageError: If there is no `=`, no value, or a value is not YAML.
    """
    key, separator, values = text.partition("=")
    if not separator or not key.strip() or not values.strip():
        raise UsageError(f"'{text}' is not a setting", where="--set", mend="write key=value,value")
    try:
        content = YAML(typ="safe", pure=True).load(f"[{values}]")
    except YAMLError as error:
        raise UsageError(
            f"'{values}' cannot be read: {str(error).splitlines()[0]}", where=f"--set {key}"
        ) from error
    return key.strip(), list(content)


def plan_sweep(
    recipe: Path, state: Path, *, seeds: int, settings: Mapping[str, Sequence[object]]
) -> list[Variant]:
    """Write and validate the recipes of all variants; nothing is built.

    Args:
        recipe: The recipe that the variants start from.
        state: The scratch folder of the project.
        seeds: How many synthesis seeds, counted on from the recipe's.
        settings: Values to try per dotted key; every combination is one row.

    Raises:
        RecipeError: With the faults of all variants.
        UsageError: If a key leads nowhere.
    """
    first = load_recipe(recipe).seed
    base = YAML(typ="safe", pure=True).load(recipe)
    folder = state / "sweeps" / recipe.stem
    base = _moved(base, recipe.parent, folder)
    variants, faults = [], []
    for values in itertools.product(*settings.values()):
        setting = dict(zip(settings, values, strict=True))
        for number in range(seeds):
            content = _with(base, setting, recipe)
            seed = first + SEED_STRIDE * number
            content["seed"] = seed
            path = folder / f"{recipe.stem}-{fingerprint(content)[:10]}.yaml"
            label = ", ".join(f"{k}={_word(v)}" for k, v in setting.items())
            with storage_errors(folder):
                write_text(
                    path, f"# {recipe.stem} with {label or 'its own values'}.\n{to_yaml(content)}"
                )
            try:
                load_recipe(path)
            except RecipeError as error:
                faults += [Fault(f.what, f"{label}: {f.where}", f.mend) for f in error.faults]
            variants.append(Variant(setting, seed, path))
    if faults:
        raise RecipeError.of(dict.fromkeys(faults))
    return variants


def _moved(content: dict[str, object], home: Path, folder: Path) -> dict[str, object]:
    """The recipe as seen from another folder: its relative paths lead to the same places."""

    def moved(block: object, key: str, suffix: str = "") -> object:
        path = block.get(key) if isinstance(block, dict) else None
        if not isinstance(path, str) or not path.endswith(suffix) or Path(path).is_absolute():
            return block
        return {**block, key: os.path.relpath((home / path).resolve(), folder)}  # type: ignore[dict-item]

    dataset = content.get("dataset")
    if isinstance(dataset, dict) and str(dataset.get("id", "")).startswith("."):
        content = {**content, "dataset": moved(dataset, "id")}
    observers = content.get("observers")
    if isinstance(observers, list):
        content = {**content, "observers": [moved(o, "weights", ".safetensors") for o in observers]}
    return {**content, "teacher": moved(content.get("teacher"), "weights", ".safetensors")}


def _with(base: Mapping[str, object], setting: Setting, recipe: Path) -> dict[str, object]:
    """The content of a recipe with some of its keys set; blocks on the way must be there."""
    content: dict[str, object] = json.loads(json.dumps(base))
    for key, value in setting.items():
        *way, last = key.split(".")
        block: object = content
        for depth, part in enumerate(way):
            if isinstance(block, dict) and part in block:
                block = block[part]
            elif isinstance(block, list) and part.isdigit() and int(part) < len(block):
                block = block[int(part)]
            else:
                raise _nowhere(key, ".".join(way[: depth + 1]), recipe)
        if isinstance(block, dict):
            block[last] = value
        elif isinstance(block, list) and last.isdigit() and int(last) < len(block):
            block[int(last)] = value
        else:
            raise _nowhere(key, key, recipe)
    return content


def _nowhere(key: str, part: str, recipe: Path) -> UsageError:
    return UsageError(
        f"the recipe has no block '{part}'",
        where=f"--set {key}",
        mend=f"write the block into {recipe} first",
    )


def run_sweep(
    recipe: Path,
    project: Project,
    *,
    seeds: int,
    settings: Mapping[str, Sequence[object]],
    reporter: Reporter,
    on_built: Callable[[Variant, Path], None] | None = None,
) -> SweepTable:
    """Build and score every variant, then lay them side by side.

    Args:
        recipe: The recipe that the variants start from.
        project: Whose scratch space, networks and sources are used.
        seeds: How many synthesis seeds.
        settings: Values to try per dotted key.
        reporter: Told how it goes.
        on_built: Called with each finished dataset.

    Raises:
        RecipeError: If a variant cannot be built; nothing was started.
        PipelineError: If a stage failed; what was finished is kept.
    """
    variants = plan_sweep(recipe, project.state, seeds=seeds, settings=settings)
    workspace = project.state / "sweeps" / recipe.stem / "builds"
    built: list[tuple[Variant, Path]] = []
    for number, variant in enumerate(variants, 1):
        said = ", ".join(f"{k}={_word(v)}" for k, v in variant.setting.items())
        reporter.note(
            f"variant {number} of {len(variants)}: {said or recipe.stem}, seed {variant.seed}"
        )
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
    return tabulate(recipe.stem, tuple(settings), built)


def tabulate(stem: str, keys: tuple[str, ...], built: Sequence[tuple[Variant, Path]]) -> SweepTable:
    """Rows of means over seeds, from the reports of finished datasets."""
    rows: list[Row] = []
    groups: dict[str, list[tuple[Variant, Path]]] = {}
    for variant, folder in built:
        groups.setdefault(fingerprint(dict(variant.setting)), []).append((variant, folder))
    for group in groups.values():
        reports = [
            loads((folder / "eval.json").read_bytes(), where=str(folder)) for _, folder in group
        ]
        setting = {key: _word(value) for key, value in group[0][0].setting.items()}
        seconds = _mean([_synthesis_seconds(folder) for _, folder in group])
        count = len(reports[0].comparisons)
        rows += [_row(setting, reports, index, seconds) for index in range(count)]
    devices = {name for _, folder in built for name in _devices(folder)}
    return SweepTable(
        recipe=stem,
        seeds=tuple(dict.fromkeys(variant.seed for variant, _ in built)),
        keys=keys,
        rows=tuple(rows),
        device=", ".join(sorted(devices)),
    )


def _row(
    setting: dict[str, str], reports: Sequence[EvalReport], index: int, seconds: Figure
) -> Row:
    comparisons = [report.comparisons[index] for report in reports]
    first = comparisons[0]
    figures = {}
    for name in METRICS:
        values = [value for value in (_value(c, name) for c in comparisons) if value is not None]
        if len(values) == len(comparisons):
            figures[name] = _mean(values)
    storage = [report.storage for report in reports if report.storage is not None]
    return Row(
        setting=setting,
        protocol=" + ".join(dict.fromkeys(first.protocols.values())),
        arch=first.arch,
        figures=figures,
        bytes_images=round(statistics.fmean(s.bytes_images for s in storage)) if storage else 0,
        bytes_labels=round(statistics.fmean(s.bytes_labels for s in storage)) if storage else 0,
        seconds=seconds,
        builds=tuple(str(report.dataset.manifest_sha256) for report in reports),
    )


def _value(comparison: Comparison, name: str) -> float | None:
    metric = comparison.metrics.get(name)
    return None if metric is None else metric.value


def _mean(values: Sequence[float]) -> Figure:
    """Mean and t interval over the seeds."""
    found = spread(values)
    return Figure(value=found.mean, ci95=found.ci95, n=found.n)


def _synthesis_seconds(folder: Path) -> float:
    return float(_stats(folder, "synthesize").get("wall_seconds", math.nan))


def _devices(folder: Path) -> set[str]:
    return {str(_stats(folder, "synthesize").get("device", ""))}


def _stats(folder: Path, stage: str) -> dict[str, float | str]:
    content: dict[str, float | str] = json.loads(
        (folder.parent / "stats" / f"{stage}.json").read_text(encoding="utf-8")
    )
    return content


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
