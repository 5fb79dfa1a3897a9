"""The rows of a training or test split, and those of them whose classes a recipe takes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distillhub.data.rows import EncodedRows, Index
from distillhub.data.specs import SourceSpec
from distillhub.errors import Fault


class Part(NamedTuple):
    """The training or test rows of a source, before any choice of classes."""

    rows: EncodedRows
    numbers: Index
    """Ascending row numbers."""


class Choice(NamedTuple):
    """The rows of the chosen classes."""

    rows: Index
    """Ascending row numbers of the source."""
    labels: Index
    """Position in the chosen class names."""


def choose(part: Part, class_names: Sequence[str]) -> Choice:
    """The rows of a part that belong to the given classes, found by name, in the part's order."""
    position = {name: label for label, name in enumerate(class_names)}
    table = np.array([position.get(name, -1) for name in part.rows.names], dtype=np.int64)
    labels = table[part.rows.labels[part.numbers]]
    return Choice(part.numbers[labels >= 0], labels[labels >= 0])


def class_faults(
    spec: SourceSpec, train: Part, test: Part | None, class_names: Sequence[str], counts: Index
) -> list[Fault]:
    """What is wrong with the number of classes and of their images.

    Args:
        spec: For messages, and whether classes were named.
        train: Training rows.
        test: Test rows, if there are any.
        class_names: Of the chosen classes.
        counts: Training images of each.
    """
    where = f"dataset ({spec.id})"
    if len(train.numbers) == 0:
        return [Fault(f"split '{spec.train}' has no images", where, "name a split that has some")]
    faults = []
    twice = sorted({name for name in class_names if class_names.count(name) > 1})
    if twice:
        listed = ", ".join(repr(name) for name in twice[:5])
        return [Fault(f"several classes have the same name: {listed}", where, "rename them")]
    if len(class_names) < 2:
        listed = ", ".join(class_names)
        faults.append(Fault(f"one class only ({listed}); at least two are needed", where))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        listed = ", ".join(repr(name) for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        faults.append(
            Fault(
                f"{len(empty)} class(es) without a training image: {listed}",
                where,
                "name the classes to take in dataset.classes",
            )
        )
    if test is not None:
        unknown = set(test.rows.names) - set(train.rows.names)
        used = {test.rows.names[label] for label in np.unique(test.rows.labels)} & unknown
        if used and spec.classes is None:
            listed = ", ".join(repr(name) for name in sorted(used)[:5])
            faults.append(
                Fault(f"classes of split '{spec.test}' are not in '{spec.train}': {listed}", where)
            )
        if len(choose(test, class_names).rows) == 0:
            faults.append(Fault(f"no image of split '{spec.test}' is of the chosen classes", where))
    return faults
