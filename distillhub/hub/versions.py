"""Versions of a published set, and which one a change calls for.

Major: schema or source data. Minor: images or labels. Patch: card, metadata, evaluation.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from distillhub.errors import UsageError
from distillhub.packaging.card import REPORT
from distillhub.packaging.stamping import stamped
from distillhub.records.columns import GEOMETRY, SOFT
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import EvalReport, loads

Kind = Literal["major", "minor", "patch"]
ORDER: tuple[Kind, ...] = ("major", "minor", "patch")
_VERSION = re.compile(r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_PARTS = {
    "README.md": "card",
    "eval.json": "evaluation report",
    "provenance.json": "provenance",
    "croissant.json": "Croissant description",
}
"""Files that are told by what they are; the manifest follows from the others."""


class Version(NamedTuple):
    """A semantic version; its tag on the Hub begins with `v`."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "Version | None":
        """From `1.2.3` or `v1.2.3`; None for anything else."""
        found = _VERSION.fullmatch(text)
        return cls(*map(int, found.groups())) if found else None

    @classmethod
    def of(cls, text: str, where: str) -> "Version":
        """Like `parse`.

        Raises:
            UsageError: If the text is no version.
        """
        found = cls.parse(text)
        if found is None:
            raise UsageError(f"'{text}' is no version", where=where, mend="write it as 1.0.0")
        return found

    def bumped(self, kind: Kind) -> "Version":
        """The next version for a change of this kind."""
        if kind == "major":
            return Version(self.major + 1, 0, 0)
        if kind == "minor":
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    @property
    def tag(self) -> str:
        """Its name on the Hub."""
        return f"v{self}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class Release(NamedTuple):
    """What a published version says of itself."""

    manifest: Manifest
    report: EvalReport


def restamped(release: Release, version: Version, repo: str) -> tuple[Release, Mapping[str, bytes]]:
    """The release under another version and address, and the files that differ for it."""
    files = stamped(release.manifest, release.report, version=str(version), repo_id=repo)
    if not files:
        return release, {}
    return Release(Manifest.model_validate_json(files[MANIFEST]), loads(files[REPORT])), files


class Change(NamedTuple):
    """One thing that differs between two versions."""

    kind: Kind
    what: str


def changes(old: Release, new: Release) -> tuple[Change, ...]:
    """What differs, the gravest first; empty for equal manifests."""
    found = [*_schema(old, new), *_source(old, new), *_rows(old, new), *_around(old, new)]
    return tuple(sorted(found, key=lambda change: ORDER.index(change.kind)))


def gravest(found: Iterable[Change]) -> Kind | None:
    """The part of the version that must grow; None where nothing changed."""
    return min((change.kind for change in found), key=ORDER.index, default=None)


def _schema(old: Release, new: Release) -> Iterator[Change]:
    before, after = _features(old.report), _features(new.report)
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            yield Change("major", f"column {name} is gone")
        elif name not in before:
            yield Change("major", f"column {name} is new")
        elif before[name] != after[name]:
            yield Change("major", f"column {name} has another type or length")


def _source(old: Release, new: Release) -> Iterator[Change]:
    a, b = old.report.source, new.report.source
    if a.id != b.id:
        yield Change("major", f"source data {b.id} instead of {a.id}")
    elif (a.split_hashes, a.test_hash) != (b.split_hashes, b.test_hash):
        yield Change("major", "source data")
    if old.manifest.content.classes != new.manifest.content.classes:
        yield Change("major", "class names")


def _rows(old: Release, new: Release) -> Iterator[Change]:
    a, b = old.manifest, new.manifest
    if len(a.rows) != len(b.rows):
        yield Change("minor", f"{len(b.rows):,} images instead of {len(a.rows):,}")
    parts = {"images": ("image",), "labels": ("label", *SOFT), "views": GEOMETRY}
    part_of = {column: part for part, columns in parts.items() for column in columns}
    differing = [
        column
        for column in dict.fromkeys([*part_of, *a.columns, *b.columns])
        if a.columns.get(column) != b.columns.get(column)
    ]
    told = dict.fromkeys(part_of.get(column, column) for column in differing)
    if told:
        differ = sum(x != y for x, y in zip(a.rows, b.rows, strict=False))
        yield Change("minor", f"{', '.join(told)}: {differ:,} of {len(b.rows):,} rows differ")
    elif a.content.parquet != b.content.parquet:
        yield Change("minor", "Parquet files written anew, with the same rows")


def _around(old: Release, new: Release) -> Iterator[Change]:
    """Files beside the rows."""
    a, b = old.manifest, new.manifest
    if a.runs_sha256 != b.runs_sha256:
        yield Change("patch", "evaluation runs")
    if a.content.weights != b.content.weights:
        yield Change("patch", "weights of the networks that took part")
    rows = {*a.content.parquet, *b.content.parquet}
    for name in sorted(({*a.files, *b.files}) - rows):
        if a.files.get(name) != b.files.get(name):
            yield Change("patch", _PARTS.get(name, name))


def _features(report: EvalReport) -> Mapping[str, object]:
    """Type of every column, as the front matter gives it."""
    infos = report.card.data.get("dataset_info") if report.card else None
    found: dict[str, object] = {}
    for info in infos if isinstance(infos, list) else [infos]:
        features = info.get("features") if isinstance(info, dict) else None
        if not isinstance(info, dict) or not isinstance(features, Sequence):
            continue
        config = str(info.get("config_name", "default"))
        prefix = "" if config == "default" else f"{config}."
        for feature in features:
            if isinstance(feature, dict):
                found[f"{prefix}{feature.get('name')}"] = feature
    return found
