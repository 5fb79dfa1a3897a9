"""Is an artifact what its manifest says, and does its card say what was measured?

All faults are collected; each names file, row, column or line, and both digests or figures.
Whatever bytes are in a file, the result is a verdict and never a traceback.

What a folder alone cannot tell: a change of everything at once (rows, manifest, report, card,
Croissant, provenance) that leaves plausible labels is another artifact, with another digest.
Compare `Verdict.digest` with the published one to notice it.
"""

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from distillhub.errors import Fault, VerificationError
from distillhub.packaging import verify_figures, verify_mixed, verify_rows
from distillhub.packaging.card import (
    CARD,
    CONTACT_SHEET,
    CROISSANT,
    IMPORTED,
    PROVENANCE,
    REPORT,
    RESOLVED,
)
from distillhub.packaging.provenance import SIGNATURE
from distillhub.records.manifest import (
    MANIFEST,
    Manifest,
    entry_of,
    files_of,
    labels_digest,
)
from distillhub.records.report import loads

T = TypeVar("T")
REBUILD = "fetch or build the data set again"
MAX_TEXT_BYTES = 256_000_000
"""Larger manifests and reports are not read: 10 million row digests take 190 MB."""


class Verdict(NamedTuple):
    """What a verification found."""

    faults: tuple[Fault, ...]
    checks: tuple[str, ...]
    """What was looked at; without a readable manifest or report, less."""
    digest: str | None
    """Of the artifact, as its manifest says; None where that cannot be read."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass
class _Inspection:
    """Faults and checks so far."""

    faults: list[Fault]
    checks: list[str]

    def run(self, name: str, where: str, check: Callable[[], Iterator[Fault]]) -> None:
        """Do one check; an error of any kind is a fault of what was read."""
        try:
            self.faults.extend(check())
        except VerificationError as error:
            self.faults.extend(error.faults)
        except Exception as error:  # noqa: BLE001 - any bytes may be in a file
            self.faults.append(Fault(f"{name} cannot be checked: {_reason(error)}", where, REBUILD))
        self.checks.append(name)


def verify(folder: Path) -> Verdict:
    """Check files, recipe, rows, labels, images, columns, report, card and descriptions."""
    if not folder.is_dir():
        fault = Fault("no such folder", str(folder), "give the folder that holds manifest.json")
        return Verdict((fault,), (), None)
    found = _Inspection([], [])
    manifest = _read(found, folder / MANIFEST, MANIFEST, _manifest)
    report = _read(found, folder / REPORT, REPORT, loads)
    if manifest is not None:
        found.run("manifest", MANIFEST, lambda: _consistent(manifest))
        found.run("files", MANIFEST, lambda: _files(folder, manifest))
        found.run("rows", "data", lambda: verify_rows.rows(folder, manifest))
    found.run("images", "data", lambda: verify_rows.images(folder, report))
    if report is not None:
        found.run("columns", "data", lambda: verify_rows.columns(folder, report))
        found.run("labels", "data", lambda: verify_rows.labels(folder, report))
        found.run("real images", "data", lambda: verify_mixed.named(folder, report))
        found.run("doping", REPORT, lambda: verify_mixed.doping(report))
        found.run("storage", REPORT, lambda: verify_figures.storage(folder, report))
        found.run("figures", REPORT, lambda: verify_figures.figures(report))
        found.run("runs", REPORT, lambda: verify_figures.runs(folder, report))
        found.run("card", CARD, lambda: verify_figures.card(folder, report))
        found.run(
            "contact sheet", CONTACT_SHEET, lambda: verify_figures.contact_sheet(folder, report)
        )
    if report is not None and manifest is not None:
        found.run("identity", REPORT, lambda: verify_figures.identity(report, manifest))
        found.run("croissant", CROISSANT, lambda: verify_figures.croissant(folder, report))
        found.run(
            "provenance", PROVENANCE, lambda: verify_figures.provenance(folder, report, manifest)
        )
    faults = tuple(dict.fromkeys(found.faults))
    return Verdict(faults, tuple(found.checks), manifest.digest if manifest else None)


def verify_texts(folder: Path) -> Verdict:
    """Check what needs no rows: manifest, report, figures, card and provenance agree.

    Args:
        folder: Holds the files of a set; its Parquet files may be missing.
    """
    found = _Inspection([], [])
    manifest = _read(found, folder / MANIFEST, MANIFEST, _manifest)
    report = _read(found, folder / REPORT, REPORT, loads)
    if manifest is not None:
        found.run("manifest", MANIFEST, lambda: _consistent(manifest))
    if report is not None:
        found.run("figures", REPORT, lambda: verify_figures.figures(report))
        found.run("card", CARD, lambda: verify_figures.card(folder, report))
    if report is not None and manifest is not None:
        found.run("identity", REPORT, lambda: verify_figures.identity(report, manifest))
        found.run(
            "provenance", PROVENANCE, lambda: verify_figures.provenance(folder, report, manifest)
        )
    return Verdict(
        tuple(dict.fromkeys(found.faults)),
        tuple(found.checks),
        manifest.digest if manifest else None,
    )


def _read(found: _Inspection, path: Path, name: str, parse: Callable[[bytes], T]) -> T | None:
    kept: list[T] = []

    def attempt() -> Iterator[Fault]:
        mode = path.lstat().st_mode if path.exists() else 0
        if not stat.S_ISREG(mode):
            yield Fault("missing" if not mode else "not a regular file", name, REBUILD)
        elif path.stat().st_size > MAX_TEXT_BYTES:
            yield Fault(f"larger than {MAX_TEXT_BYTES:,} bytes", name, REBUILD)
        else:
            kept.append(parse(path.read_bytes()))

    found.run(name, name, attempt)
    return kept[0] if kept else None


def _manifest(text: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise VerificationError.of(
            Fault(fault["msg"], f"{MANIFEST}: {'.'.join(map(str, fault['loc']))}", REBUILD)
            for fault in error.errors()
        ) from error


def _consistent(manifest: Manifest) -> Iterator[Fault]:
    content = manifest.content
    if manifest.digest != content.digest:
        yield _differs(
            f"{MANIFEST}: digest", content.digest, manifest.digest, "the content block has"
        )
    for name, digest in content.parquet.items():
        entry = manifest.files.get(name)
        if entry is None:
            yield Fault("is not among the files", f"{MANIFEST}: content.parquet: {name}", REBUILD)
        elif entry.sha256 != digest:
            yield _differs(
                f"{MANIFEST}: content.parquet: {name}", entry.sha256, digest, "files has"
            )
    origin = RESOLVED if RESOLVED in manifest.files else IMPORTED
    made = manifest.files.get(origin)
    if made is not None and made.sha256 != content.recipe_sha256:
        where = f"{MANIFEST}: content.recipe_sha256"
        yield _differs(where, made.sha256, content.recipe_sha256, f"{origin} has")
    labels = labels_digest(manifest.columns)
    if labels != content.labels_sha256:
        where = f"{MANIFEST}: content.labels_sha256"
        yield _differs(where, str(labels), str(content.labels_sha256), "the label columns have")
    if len(manifest.rows) != content.rows:
        what = f"{len(manifest.rows)} row digests for {content.rows} rows"
        yield Fault(what, f"{MANIFEST}: rows", REBUILD)


def _files(folder: Path, manifest: Manifest) -> Iterator[Fault]:
    present = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    for name in sorted(set(manifest.files) - set(present)):
        recorded = manifest.files[name].sha256
        yield Fault(f"missing; its sha256 in the manifest is {recorded}", name, REBUILD)
    for name in sorted(set(present) - set(manifest.files) - {MANIFEST, SIGNATURE}):
        yield Fault("not in the manifest", name, "remove it")
    for name, entry in sorted(manifest.files.items()):
        if name not in present:
            continue
        if not stat.S_ISREG(present[name].lstat().st_mode):
            yield Fault("not a regular file", name, REBUILD)
            continue
        seen = entry_of(present[name])
        if seen.bytes != entry.bytes:
            yield Fault(f"{seen.bytes} bytes, the manifest says {entry.bytes}", name, REBUILD)
        if seen.sha256 != entry.sha256:
            yield _differs(name, seen.sha256, entry.sha256, "the file has")


def _differs(where: str, seen: str, recorded: str, subject: str) -> Fault:
    return Fault(f"{subject} sha256 {seen}, recorded is {recorded}", where, REBUILD)


def _reason(error: Exception) -> str:
    """The first line of a message, short enough to read."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
