"""The artifacts of a catalog: found in folders, read without their rows, and put in order.

A folder that cannot be read is named and left out; the others are listed.
"""

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from distillhub.errors import Fault, VerificationError
from distillhub.packaging.card import CARD, REPORT
from distillhub.packaging.completion import TOTAL
from distillhub.packaging.rendering import images_per_class
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import Arm, Comparison, EvalReport, Metric, loads

MAX_FILE_BYTES = 64_000_000
"""Larger manifests, reports, cards and pictures are not read."""
SLUG_LETTERS = 60
SHOWN: tuple[Arm, ...] = ("syn_hard", "rnd_hard", "syn_soft", "rnd_soft", "full_hard")
"""Arms of the table, in its order; those that no artifact has are left out."""
_SKIPPED = frozenset({".git", ".cache", "node_modules", "__pycache__"})


@dataclass(frozen=True)
class Entry:
    """One artifact of the catalog."""

    folder: Path
    report: EvalReport
    manifest: Manifest
    card: str
    """Text of its README.md."""
    slug: str = ""
    """Name of its page; unique in the catalog."""

    @property
    def title(self) -> str:
        """As on its card."""
        return self.report.card.title if self.report.card else self.report.dataset.name

    @property
    def name(self) -> str:
        """Short name, shared by the versions of a set."""
        return self.report.dataset.name

    @property
    def ipc(self) -> str:
        """`10`, or `8 to 12`."""
        return images_per_class(self.report)

    @property
    def bytes_total(self) -> int | None:
        """Images, labels and views as published."""
        return self.report.storage.bytes_total if self.report.storage else None

    @property
    def hours(self) -> float | None:
        """Wall time of all stages; None where nobody measured."""
        costs = self.report.compute
        if not costs:
            return None
        stages = [cost.wall_seconds for name, cost in costs.items() if name != TOTAL]
        return sum(stages) / 3600

    @property
    def headline(self) -> Comparison | None:
        """The comparison that the card opens with."""
        return self.report.headline

    @property
    def scored_with(self) -> str:
        """Protocols and student of the headline; empty where it was not scored."""
        part = self.headline
        if part is None:
            return ""
        return f"{', '.join(dict.fromkeys(part.protocols.values()))}, {part.arch}"

    def arm(self, name: Arm) -> Metric | None:
        """Accuracy of an arm of the headline; None where it was not planned."""
        return None if self.headline is None else self.headline.metrics.get(f"top1.{name}")

    @property
    def sold(self) -> Metric | None:
        """Accuracy with the labels that the set is sold with, where it was measured."""
        found = self.arm("syn_hard" if self.report.labels.dtype is None else "syn_soft")
        return found if found is not None and found.value is not None else None


class Catalog(NamedTuple):
    """What was found."""

    entries: tuple[Entry, ...]
    """By source, name, version and digest."""
    broken: tuple[Fault, ...]
    """Folders that hold an artifact that cannot be read, and those that hold none."""


def gather(folders: Sequence[Path]) -> Catalog:
    """Read all artifacts in and below some folders, without their rows.

    Args:
        folders: Artifacts, or folders that hold some at any depth.
    """
    entries: list[Entry] = []
    broken: list[Fault] = []
    seen: set[Path] = set()
    for folder in folders:
        found = list(artifact_folders(folder)) if folder.is_dir() else []
        if not found:
            mend = "give a folder that holds manifest.json, or folders that do"
            broken.append(Fault("holds no artifact", str(folder), mend))
        for place in found:
            if place.resolve() not in seen:
                seen.add(place.resolve())
                entry = _read(place)
                if isinstance(entry, Fault):
                    broken.append(entry)
                else:
                    entries.append(entry)
    entries.sort(key=_order)
    return Catalog(tuple(_named(entries)), tuple(broken))


def artifact_folders(folder: Path) -> Iterator[Path]:
    """A folder itself if it holds a manifest or a report, else those below, by name."""
    if (folder / MANIFEST).exists() or (folder / REPORT).exists():
        yield folder
        return
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return
    for path in below:
        if path.name not in _SKIPPED:
            yield from artifact_folders(path)


def plain_file(path: Path) -> bytes:
    """The bytes of a regular file of moderate size.

    Raises:
        OSError: If it is missing, a link or too large.
    """
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
        raise OSError(f"{path.name} is no regular file of at most {MAX_FILE_BYTES:,} bytes")
    return path.read_bytes()


def _read(folder: Path) -> Entry | Fault:
    mend = "see what is wrong: distillhub verify FOLDER; build or fetch it again"
    try:
        manifest = Manifest.model_validate_json(plain_file(folder / MANIFEST))
        report = loads(plain_file(folder / REPORT))
        card = plain_file(folder / CARD).decode()
        if report.dataset.manifest_sha256 != manifest.digest:
            return Fault(f"{REPORT} and {MANIFEST} speak of two artifacts", str(folder), mend)
        if report.card is None:
            return Fault(f"{REPORT} has no card block", str(folder), mend)
    except VerificationError as error:
        return Fault(f"cannot be read: {error.faults[0]}", str(folder), mend)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Fault(f"cannot be read: {MANIFEST}: {where}: {first['msg']}", str(folder), mend)
    except OSError as error:
        reason = f"{Path(str(error.filename)).name}: {error.strerror}" if error.strerror else error
        return Fault(f"cannot be read: {reason}", str(folder), mend)
    except ValueError as error:
        return Fault(f"cannot be read: {error}", str(folder), mend)
    return Entry(folder, report, manifest, card)


def _order(entry: Entry) -> tuple[object, ...]:
    data = entry.report.dataset
    version = tuple(int(part) if part.isdigit() else 0 for part in data.version.split("."))
    return entry.report.source.id, data.name, version, entry.manifest.digest, str(entry.folder)


def _named(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries with a page name each."""
    taken: dict[str, int] = {}
    for entry in entries:
        data = entry.report.dataset
        words = re.sub(r"[^a-z0-9]+", "-", f"{data.name}-{data.version}".lower()).strip("-")
        slug = f"{words[:SLUG_LETTERS]}-{entry.manifest.digest[:8]}".strip("-")
        taken[slug] = taken.get(slug, 0) + 1
        unique = slug if taken[slug] == 1 else f"{slug}-{taken[slug]}"
        yield Entry(entry.folder, entry.report, entry.manifest, entry.card, unique)
