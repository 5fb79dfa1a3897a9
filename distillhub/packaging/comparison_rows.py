"""Images and soft labels of two sets: which are the same, by content; part of `comparison`."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from distillhub.packaging import figures, labels, stored
from distillhub.records.columns import GEOMETRY
from distillhub.records.label_statistics import LabelStatistics, label_statistics
from distillhub.records.references import pixels_digest
from distillhub.records.soft_labels import SoftLabels

CHUNK = 1024
"""Images or labels in memory at a time."""
TEMPERATURES = (1.0, 4.0)


class Pair(NamedTuple):
    """Rows of two sets."""

    a: int
    b: int


class ClassImages(NamedTuple):
    """Numbers of images of one class."""

    name: str
    same: int
    changed: int
    added: int
    removed: int


class ImageDifference(NamedTuple):
    """Images of two sets, compared by their pixels."""

    classes: tuple[ClassImages, ...]
    same: tuple[Pair, ...]
    """Rows with equal pixels in one class, wherever they stand."""
    changed: tuple[Pair, ...]
    """What is left of a class, paired in order."""

    @property
    def equal(self) -> bool:
        """Whether both sets show the same images under the same classes."""
        return not any(part.changed or part.added or part.removed for part in self.classes)


class Divergence(NamedTuple):
    """How far the labels of unchanged images moved, where both are of the same view."""

    labels: int
    """Compared; 0: the sets share no view."""
    kl_1: float | None
    """Mean KL(a || b) at temperature 1, nats; None without a label."""
    kl_4: float | None
    top1: float | None
    """Share of labels with the same highest class."""


class Rows(NamedTuple):
    """The rows of one set."""

    folder: Path
    names: Sequence[str]
    """Of the classes."""
    content: stored.Stored
    keys: tuple[str, ...]
    """Digest of every image file, or of the pixels that a row names."""

    @classmethod
    def read(cls, folder: Path, names: Sequence[str]) -> "Rows":
        """Labels in memory, and one digest per image."""
        content = stored.read(folder)
        named = stored.named(folder)
        keys: list[str] = []
        for rows in _chunks(range(len(content.labels))):
            for row, file in zip(rows, stored.images(folder, rows), strict=True):
                reference = named[row]
                if file is not None:
                    keys.append(hashlib.sha256(file).hexdigest())
                else:
                    keys.append(f"pixels {reference.pixels if reference else row}")
        return cls(folder, names, content, tuple(keys))

    def pixels(self, rows: Sequence[int]) -> dict[int, str]:
        """Digest of the pixels of some rows, decoded or as named."""
        found = {}
        for part in _chunks(rows):
            for row, file in zip(part, stored.images(self.folder, part), strict=True):
                if file is None:
                    found[row] = self.keys[row]
                else:
                    image = figures.decoded([file])[0].transpose(2, 0, 1)
                    found[row] = f"pixels {pixels_digest(image)}"
        return found

    def of_class(self, name: str) -> list[int]:
        """Rows of a class; none where the set does not have it."""
        if name not in self.names:
            return []
        return np.flatnonzero(self.content.labels == list(self.names).index(name)).tolist()

    def soft(self) -> SoftLabels | None:
        """The stored labels; None where they are hard."""
        columns = self.content.columns
        if "soft_val" not in columns:
            return None
        shape = labels.shape_of(columns)

        def tensor(name: str, width: int) -> torch.Tensor | None:
            if name not in columns:
                return None
            return torch.from_numpy(columns[name].reshape(-1, shape.views, width).copy())

        values = tensor("soft_val", shape.kept)
        if values is None:
            raise AssertionError("soft_val is there")
        return SoftLabels(
            values,
            tensor("soft_idx", shape.kept),
            tensor("soft_range", 2),
            tensor("soft_rest", 2),
            len(self.names),
        )

    def statistics(self) -> LabelStatistics | None:
        """Agreement, confidence and entropies of the stored labels; None where they are hard."""
        soft = self.soft()
        classes = torch.from_numpy(self.content.labels)
        return None if soft is None else label_statistics(soft, classes)


def compare_images(a: Rows, b: Rows) -> ImageDifference:
    """Match images of equal files, then of equal pixels, within each class."""
    classes, same, changed = [], [], []
    for name in dict.fromkeys([*a.names, *b.names]):
        left, right = a.of_class(name), b.of_class(name)
        found = _match(left, right, a.keys, b.keys)
        left, right = _rest(left, right, found)
        if left and right:  # written anew, or with other pixels: only these are decoded
            more = _match(left, right, a.pixels(left), b.pixels(right))
            left, right = _rest(left, right, more)
            found += more
        pairs = [Pair(*rows) for rows in zip(left, right, strict=False)]
        classes.append(
            ClassImages(
                name, len(found), len(pairs), len(right) - len(pairs), len(left) - len(pairs)
            )
        )
        same += found
        changed += pairs
    return ImageDifference(tuple(classes), tuple(same), tuple(changed))


def compare_labels(a: Rows, b: Rows, same: Sequence[Pair]) -> Divergence | None:
    """Labels of unchanged images whose views are the same; None where they cannot be compared.

    That is where a set has hard labels, or classes or numbers of views differ.
    """
    first, second = a.soft(), b.soft()
    if first is None or second is None or list(a.names) != list(b.names):
        return None
    if first.entries != second.entries:
        return None
    pairs = np.asarray(same, dtype=np.int64).reshape(-1, 2)
    alike = pairs[_same_views(a.content.columns, b.content.columns, pairs)]
    if not len(alike):
        return Divergence(0, None, None, None)
    sums = torch.zeros(len(TEMPERATURES) + 1, dtype=torch.float64)
    for part in np.array_split(alike, -(-len(alike) * first.entries // CHUNK)):
        if not len(part):
            continue
        entries = torch.arange(first.entries).repeat(len(part))
        rows = torch.from_numpy(part).repeat_interleave(first.entries, 0)
        logs = [
            (
                (first.logits(rows[:, 0], entries, t).double() / t).log_softmax(1),
                (second.logits(rows[:, 1], entries, t).double() / t).log_softmax(1),
            )
            for t in TEMPERATURES
        ]
        parts = [(p.exp() * (p - q)).sum() for p, q in logs]
        p, q = logs[0]
        sums += torch.stack([*parts, (p.argmax(1) == q.argmax(1)).double().sum()])
    count = len(alike) * first.entries
    kl_1, kl_4, top1 = (sums / count).tolist()
    return Divergence(count, max(kl_1, 0.0), max(kl_4, 0.0), top1)


def _same_views(
    a: Mapping[str, NDArray[np.generic]],
    b: Mapping[str, NDArray[np.generic]],
    pairs: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Of every pair, whether all its views are of equal geometry and mixed with equal images."""
    geometry = {name for name in GEOMETRY if name in a}
    alike = np.full(len(pairs), geometry == {name for name in GEOMETRY if name in b})
    if not alike.any():
        return alike
    there = np.full(1 + max((len(values) for values in a.values()), default=0), -1)
    there[pairs[:, 0]] = pairs[:, 1]
    for name in geometry:
        ours, theirs = a[name][pairs[:, 0]], b[name][pairs[:, 1]]
        if name == "mix_partner":
            ours = there[ours.astype(np.int64)]
        alike &= (ours == theirs).all(1)
    return alike


def _match(
    left: Sequence[int],
    right: Sequence[int],
    a: Mapping[int, str] | Sequence[str],
    b: Mapping[int, str] | Sequence[str],
) -> list[Pair]:
    """Rows of equal keys, each used once, in order."""
    free = defaultdict(list)
    for row in reversed(right):
        free[b[row]].append(row)
    return [Pair(row, free[a[row]].pop()) for row in left if free[a[row]]]


def _rest(
    left: Sequence[int], right: Sequence[int], found: Sequence[Pair]
) -> tuple[list[int], list[int]]:
    """The rows that were not matched."""
    used = {pair.a for pair in found}, {pair.b for pair in found}
    return [r for r in left if r not in used[0]], [r for r in right if r not in used[1]]


def _chunks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
