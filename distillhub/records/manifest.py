"""`manifest.json`: every file of an artifact with its digest, and the artifact's own digest.

The latter is the sha256 of the `content` block alone: recipe, Parquet files, weights and labels.
Times, device and accuracies are outside it, so that two builds of one recipe have one digest.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from distillhub.data.specs import Digest
from distillhub.digests import digest_of, sha256_of
from distillhub.records.references import REFERENCE
from distillhub.spec import Spec

MANIFEST = "manifest.json"
NOT_OURS = (".git", ".gitattributes", ".cache")
"""Entries at the root that git and the Hub's client put there; no part of an artifact."""


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or "\\" in name or str(path) != name:
        raise ValueError(f"{name!r} is no plain path inside the artifact")
    return name


FileName = Annotated[str, Field(min_length=1), AfterValidator(_inside)]
"""Path of a file relative to the artifact's root, with forward slashes."""
RowDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class FileEntry(Spec):
    """Content of one file."""

    sha256: Digest
    bytes: int = Field(ge=0)


class Content(Spec):
    """What the artifact is; its digest is the artifact's."""

    recipe_sha256: Digest
    """Of the resolved recipe's text."""
    parquet: dict[FileName, Digest] = Field(min_length=1)
    weights: dict[str, Digest]
    """Networks that took part, by role."""
    labels_sha256: Digest | None
    """Over the digests of the soft-label and view columns; None: hard labels only."""
    rows: int = Field(gt=0)
    classes: tuple[str, ...] = Field(min_length=1)
    """Class names in label order."""
    ipc: int = Field(gt=0)

    @property
    def digest(self) -> str:
        """Identity of the artifact."""
        return digest_of(self.model_dump(mode="json"))


class Manifest(Spec):
    """The whole of `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    layout: Literal["distillhub.manifest/1"] = Field(
        default="distillhub.manifest/1", alias="schema"
    )
    digest: Digest
    """sha256 of `content`."""
    content: Content
    runs_sha256: Digest
    """Over what the evaluation runs measured, without times and devices."""
    files: dict[FileName, FileEntry]
    """Every file but the manifest itself."""
    columns: dict[str, Digest]
    """Of every Parquet column, over all rows."""
    rows: tuple[RowDigest, ...]
    """Of every row, over all its columns; the first 16 digits."""

    def text(self) -> str:
        """The file's text; equal for equal manifests."""
        return (
            json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
            + "\n"
        )


def labels_digest(columns: Mapping[str, str]) -> str | None:
    """Digest over the columns that hold soft labels and views; None if there are none."""
    others = ("image", "label", *REFERENCE)
    kept = {name: value for name, value in columns.items() if name not in others}
    return digest_of(kept) if kept else None


def entry_of(path: Path) -> FileEntry:
    """Size and digest of a file."""
    return FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)


def files_of(folder: Path) -> Iterator[Path]:
    """All of the artifact but folders, sorted by relative path; links are not followed."""
    pending = [path for path in folder.iterdir() if path.name not in NOT_OURS]
    found = []
    while pending:
        path = pending.pop()
        if path.is_dir() and not path.is_symlink():
            pending.extend(path.iterdir())
        else:
            found.append(path)
    yield from sorted(found, key=lambda path: path.relative_to(folder).as_posix())
