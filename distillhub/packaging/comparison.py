"""`distillhub diff`: two sets side by side: recipe, images, labels, metrics, bytes.

Both are read from their folders alone and taken at their word: verify them first where that
matters. B is compared with A: what B has more is added, a difference is B - A.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from distillhub.errors import UsageError
from distillhub.packaging import figures, stored
from distillhub.packaging.card import IMPORTED, REPORT, RESOLVED
from distillhub.packaging.comparison_rows import (
    Divergence,
    ImageDifference,
    Pair,
    Rows,
    compare_images,
    compare_labels,
)
from distillhub.records.label_statistics import LabelStatistics
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import Comparison, EvalReport, Metric, loads

MAX_CLASSES = figures.MAX_CLASSES // 2
"""Of a picture of changed images; each has a line before and one after."""


class FieldDifference(NamedTuple):
    """One key of the resolved recipes."""

    key: str
    """Dotted; places of a list by their number: `evaluate.0.runs`."""
    a: object
    """None: the recipe does not have the key, or has null."""
    b: object


class MetricDifference(NamedTuple):
    """One figure of two reports."""

    protocols: tuple[str, ...]
    arch: str
    name: str
    a: Metric | None
    b: Metric | None

    @property
    def difference(self) -> float | None:
        """B - A; None where either was not measured."""
        if self.a is None or self.b is None or self.a.value is None or self.b.value is None:
            return None
        return self.b.value - self.a.value


class Side(NamedTuple):
    """One of the two sets."""

    folder: Path
    manifest: Manifest
    report: EvalReport

    @classmethod
    def read(cls, folder: Path) -> "Side":
        """Manifest and report of a set.

        Raises:
            UsageError: If the folder holds no set of distillhub's.
        """
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            raise UsageError(
                f"holds no set of distillhub's: {MANIFEST} is missing or of another layout",
                where=str(folder),
                mend="sets of others come in with distillhub import",
            ) from None
        report = folder / REPORT
        return cls(folder, manifest, loads(report.read_bytes(), where=str(report)))

    @property
    def bytes(self) -> dict[str, int]:
        """What the set takes: columns where the report knows them, and all files."""
        storage = self.report.storage
        parts = {}
        if storage is not None:
            parts = {
                "images": storage.bytes_images,
                "labels": storage.bytes_labels,
                "other columns": storage.bytes_aux,
            }
        files = sum(entry.bytes for entry in self.manifest.files.values())
        return {**parts, "all files": files}


class SetDifference(NamedTuple):
    """Everything that differs between two sets."""

    a: Side
    b: Side
    recipe: tuple[FieldDifference, ...]
    images: ImageDifference
    statistics: tuple[LabelStatistics | None, LabelStatistics | None]
    """Of the stored soft labels of either set."""
    divergence: Divergence | None
    """Between the labels of unchanged images; None where they cannot be compared."""
    metrics: tuple[MetricDifference, ...]
    """Of equal protocols and students; the others are `apart`."""
    apart: tuple[str, ...]
    """Protocols and students that one report alone has, or another edition of."""

    @property
    def equal(self) -> bool:
        """Whether both are the same artifact with the same results."""
        a, b = self.a.manifest, self.b.manifest
        return (a.digest, a.runs_sha256) == (b.digest, b.runs_sha256)


def compare(a: Path, b: Path) -> SetDifference:
    """Compare the sets in two folders.

    Raises:
        UsageError: If a folder holds no set of distillhub's.
        VerificationError: If a report cannot be read.
    """
    left, right = Side.read(a), Side.read(b)
    rows_a = Rows.read(a, left.manifest.content.classes)
    rows_b = Rows.read(b, right.manifest.content.classes)
    images = compare_images(rows_a, rows_b)
    metrics, apart = _metrics(left.report, right.report)
    return SetDifference(
        a=left,
        b=right,
        recipe=tuple(differing(recipe_fields(a), recipe_fields(b))),
        images=images,
        statistics=(rows_a.statistics(), rows_b.statistics()),
        divergence=compare_labels(rows_a, rows_b, images.same),
        metrics=metrics,
        apart=apart,
    )


def recipe_fields(folder: Path) -> dict[str, object]:
    """Every key of the resolved recipe of a set, dotted; of an imported set, how it came in."""
    from ruamel.yaml import YAML

    path = folder / RESOLVED
    if path.is_file():
        return dict(flattened(YAML(typ="safe", pure=True).load(path.read_bytes())))
    path = folder / IMPORTED
    return dict(flattened(json.loads(path.read_bytes()))) if path.is_file() else {}


def flattened(content: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Plain content as dotted keys and values; empty lists and mappings are values."""
    parts: Iterator[tuple[object, object]]
    if isinstance(content, Mapping) and content:
        parts = iter(content.items())
    elif isinstance(content, list) and content and any(isinstance(v, dict | list) for v in content):
        parts = iter(enumerate(content))
    else:
        yield key, content
        return
    for name, value in parts:
        yield from flattened(value, f"{key}.{name}" if key else str(name))


def differing(a: Mapping[str, object], b: Mapping[str, object]) -> Iterator[FieldDifference]:
    """Keys whose values differ, in the order of the recipes."""
    for key in dict.fromkeys([*a, *b]):
        if a.get(key) != b.get(key):
            yield FieldDifference(key, a.get(key), b.get(key))


def _metrics(a: EvalReport, b: EvalReport) -> tuple[tuple[MetricDifference, ...], tuple[str, ...]]:
    left, right = (dict(_comparisons(report)) for report in (a, b))
    found = []
    for key in left:
        if key not in right:
            continue
        ours, theirs = left[key], right[key]
        protocols = tuple(dict.fromkeys(ours.protocols.values()))
        for name in dict.fromkeys([*ours.metrics, *theirs.metrics]):
            pair = ours.metrics.get(name), theirs.metrics.get(name)
            if any(metric is not None and metric.value is not None for metric in pair):
                found.append(MetricDifference(protocols, ours.arch, name, *pair))
    apart = [_told(part) + " in A alone" for key, part in left.items() if key not in right]
    apart += [_told(part) + " in B alone" for key, part in right.items() if key not in left]
    return tuple(found), tuple(apart)


def _comparisons(report: EvalReport) -> Iterator[tuple[tuple[str, ...], Comparison]]:
    """Every comparison by its network, its protocols and what these were when it was made."""
    for part in report.comparisons:
        names = sorted(part.protocols.items())
        editions = [
            report.protocols[name].sha256 if name in report.protocols else "" for _, name in names
        ]
        yield (part.arch, *(f"{regime} {name}" for regime, name in names), *editions), part


def _told(part: Comparison) -> str:
    return f"{', '.join(dict.fromkeys(part.protocols.values()))} with {part.arch}"


def draw(found: SetDifference, path: Path) -> bool:
    """Draw changed images, before and after, one class under the other, as PNG.

    Images that a set names without holding them are left out.

    Returns:
        Whether there was anything to draw.
    """
    lines: list[figures.Row] = []
    for name, pairs in _by_class(found):
        if len(lines) == 2 * MAX_CLASSES:
            break
        columns = [
            stored.images(s.folder, rows) for s, rows in zip((found.a, found.b), pairs, strict=True)
        ]
        shown = [
            (before, after)
            for before, after in zip(*columns, strict=True)
            if before is not None and after is not None
        ]
        for word, files in zip(("A", "B"), zip(*shown, strict=True), strict=False):
            lines.append(figures.Row(f"{word} {name}", figures.decoded(files)))
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.contact_sheet(lines, path)
    return bool(lines)


def _by_class(found: SetDifference) -> Iterator[tuple[str, tuple[list[int], list[int]]]]:
    """Rows of changed images in either set, class by class, as many as a line shows."""
    names = found.a.manifest.content.classes
    labels = stored.read(found.a.folder).labels
    by_class: dict[int, list[Pair]] = {}
    for pair in found.images.changed:
        by_class.setdefault(int(labels[pair.a]), []).append(pair)
    for label, pairs in by_class.items():
        kept = pairs[: figures.MAX_COLUMNS]
        yield names[label], ([pair.a for pair in kept], [pair.b for pair in kept])
