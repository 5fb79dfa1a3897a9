"""Digests of a source, read in one pass, and a cache of what was found out about its files."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from distillhub.data.looks import Look, look
from distillhub.data.parts import Part
from distillhub.data.rows import EncodedRows, Index
from distillhub.data.specs import SourceSpec


class Digester:
    """A running sha256 of (image bytes, label) in row order, however the rows are cut into chunks.

    Three streams are hashed (all image bytes; their lengths and the labels as little-endian int64),
    and their digests together once more, so no row can borrow bytes from its neighbor.
    """

    def __init__(self) -> None:
        self._images = hashlib.sha256()
        self._lengths = hashlib.sha256()
        self._labels = hashlib.sha256()

    def update(self, images: Sequence[bytes], labels: Index) -> None:
        """Add rows: their stored bytes, and [n] labels of the source."""
        self._images.update(b"".join(images))
        self._lengths.update(np.array([len(image) for image in images], dtype="<i8").tobytes())
        self._labels.update(labels.astype("<i8").tobytes())

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        streams = (self._images, self._lengths, self._labels)
        return hashlib.sha256(b"".join(stream.digest() for stream in streams)).hexdigest()


class Scan(NamedTuple):
    """What one pass over a split brings."""

    digests: tuple[str, ...]
    """One per part."""
    kept: dict[int, bytes]
    """Stored bytes of the rows that were to be kept."""


def scan(rows: EncodedRows, parts: Sequence[Index], keep: Iterable[int] = ()) -> Scan:
    """Read a split once, in order: digest each part of it and keep a few images.

    Args:
        rows: The split as stored.
        parts: Ascending row numbers of each part.
        keep: Rows whose bytes are wanted; they are held in memory.
    """
    wanted = set(keep)
    kept: dict[int, bytes] = {}
    digesters = [Digester() for _ in parts]
    for start, images in rows.chunks():
        stop = start + len(images)
        for digester, part in zip(digesters, parts, strict=True):
            mine = part[np.searchsorted(part, start) : np.searchsorted(part, stop)]
            whole = len(mine) == len(images)
            digester.update(
                images if whole else [images[row - start] for row in mine], rows.labels[mine]
            )
        kept.update((row, images[row - start]) for row in wanted.intersection(range(start, stop)))
    return Scan(tuple(digester.hexdigest() for digester in digesters), kept)


class PinCache:
    """Findings about files by what identifies them, in one JSON file; never part of a result."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries: dict[str, object] = {}
        if path is not None and path.is_file():
            try:
                content = json.loads(path.read_text())
            except (OSError, ValueError):
                content = {}
            self._entries = content if isinstance(content, dict) else {}

    @staticmethod
    def key(*facts: object) -> str:
        """The name of an entry; a digest, so that no local path is written."""
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def digests(self, key: str, count: int) -> tuple[str, ...] | None:
        """The digests stored under a key, if there are `count` of them."""
        found = self._entries.get(key)
        if not isinstance(found, list) or len(found) != count:
            return None
        return tuple(str(digest) for digest in found)

    def look(self, key: str) -> Look | None:
        """The findings stored under a key."""
        try:
            return Look.model_validate(self._entries.get(key))
        except ValidationError:
            return None

    def store(self, entries: dict[str, object]) -> None:
        """Add entries; a file that cannot be written costs time later, not the result."""
        if self._path is None or not entries:
            return
        self._entries.update(entries)
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._entries))
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def examine(
    spec: SourceSpec, train: Part, test: Part | None, look_at: Index, cache: PinCache
) -> tuple[Look, list[str]]:
    """Digests and findings, read from the files or from the cache; each file is read once.

    Raises:
        RecipeError: If images cannot be decoded or do not fit together.
    """
    asked = spec.model_dump(exclude={"pin", "holdout", "revision"}, mode="json")
    key_look = PinCache.key("look", train.rows.fingerprint, asked)
    found = cache.look(key_look)
    kept: dict[int, bytes] = {}
    by_rows: dict[str, list[Part]] = {}
    for part in (train, test):
        if part is not None:
            by_rows.setdefault(part.rows.fingerprint, []).append(part)

    digests: list[str] = []
    fresh: dict[str, object] = {}
    for fingerprint, parts in by_rows.items():
        key = PinCache.key("digest", fingerprint, [len(part.numbers) for part in parts])
        known = cache.digests(key, len(parts))
        if known is None:
            keep = look_at.tolist() if parts[0] is train and found is None else ()
            pass_ = scan(parts[0].rows, [part.numbers for part in parts], keep)
            known, kept = pass_.digests, kept or pass_.kept
            fresh[key] = list(known)
        digests += known
    if found is None:
        stored = kept or dict(zip(look_at.tolist(), train.rows.take(look_at), strict=True))
        found = look(spec, train.rows, stored)
        fresh[key_look] = found.model_dump(mode="json")
    cache.store(fresh)
    return found, digests
