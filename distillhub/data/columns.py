"""Which column of a table holds the images and which the labels."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from distillhub.data.rows import Index
from distillhub.data.specs import SourceSpec
from distillhub.errors import Fault, RecipeError
from distillhub.spec import nearest


class Columns(NamedTuple):
    """The two columns that matter."""

    image: str
    label: str
    names: tuple[str, ...] | None
    """Class names by label; None: the values of the label column are the names."""


def find_columns(
    spec: SourceSpec, schema: pa.Schema, declared: Mapping[str, Sequence[str]]
) -> Columns:
    """Find the image and the label column by their feature types.

    Args:
        spec: May name either column.
        schema: Of the table; its metadata may hold the features as `datasets` writes them.
        declared: Class names by column from the card, for files that carry none themselves.

    Raises:
        RecipeError: If a column is missing or there is more than one to choose from; both columns
            are reported together.
    """
    features = _features(schema)
    class_names = dict(declared)
    for column, feature in features.items():
        names = feature.get("names")
        if feature.get("_type") == "ClassLabel" and isinstance(names, list):
            class_names[column] = [str(name) for name in names]
    images = [
        column
        for column in schema.names
        if features.get(column, {}).get("_type") == "Image" or _holds_bytes(schema.field(column))
    ]
    labels = [column for column in schema.names if column in class_names]
    if not labels and "label" in schema.names:
        labels = ["label"]

    faults: list[Fault] = []
    image = _chosen("image", spec.image, images, schema.names, faults)
    label = _chosen("label", spec.label, labels, schema.names, faults)
    if image and not _can_be_image(schema.field(image)):
        faults.append(
            Fault(
                f"column '{image}' holds {schema.field(image).type}, not encoded images",
                "dataset.image",
                f"image columns: {', '.join(images) or 'none'}",
            )
        )
    if label and not _can_be_label(schema.field(label).type):
        faults.append(
            Fault(
                f"column '{label}' holds {schema.field(label).type}, not whole numbers or text",
                "dataset.label",
                "name the column with the class of each image",
            )
        )
    if faults:
        raise RecipeError.of(faults)
    names = class_names.get(label)
    return Columns(image, label, tuple(names) if names is not None else None)


def _features(schema: pa.Schema) -> dict[str, dict[str, object]]:
    """The `datasets` features in a schema's metadata, by column."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(text)["info"]["features"] if text else {}
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _holds_bytes(field: pa.Field) -> bool:
    """Whether a column has the layout of encoded images: struct<bytes, path>."""
    return bool(pa.types.is_struct(field.type)) and {"bytes", "path"} <= {
        child.name for child in field.type
    }


def _can_be_image(field: pa.Field) -> bool:
    kind = field.type
    return _holds_bytes(field) or bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _can_be_label(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_null(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _chosen(
    role: str,
    given: str | None,
    candidates: Sequence[str],
    columns: Sequence[str],
    faults: list[Fault],
) -> str:
    """The column for a role; a fault and an empty name if there is not exactly one."""
    where = f"dataset.{role}"
    if given is not None:
        if given in columns:
            return given
        faults.append(Fault(f"there is no column '{given}'", where, nearest(given, columns)))
    elif not candidates:
        listed = ", ".join(columns)
        faults.append(Fault(f"no {role} column was found among: {listed}", where, f"set {where}"))
    elif len(candidates) > 1:
        listed = ", ".join(candidates)
        faults.append(Fault(f"{len(candidates)} {role} columns: {listed}", where, f"set {where}"))
    else:
        return candidates[0]
    return ""


class Labels(NamedTuple):
    """The labels of a split."""

    names: tuple[str, ...]
    values: Index
    """[N]: position in `names`."""


def read_labels(column: pa.ChunkedArray, names: tuple[str, ...] | None, split: str) -> Labels:
    """The label column of one split.

    Args:
        column: Label numbers where `names` are given, else whatever the classes are called.
        names: Class names by label number.
        split: For messages.

    Raises:
        RecipeError: If a row has no label, or one without a name.
    """
    if names is None:
        found = sorted(value for value in column.unique().to_pylist() if value is not None)
        position = {value: label for label, value in enumerate(found)}
        numbers = [position.get(value, -1) for value in column.to_pylist()]
        values = np.array(numbers, dtype=np.int64)
        names = tuple(str(value) for value in found)
    elif column.type in (pa.string(), pa.large_string()):
        position = {name: label for label, name in enumerate(names)}
        values = np.array([position.get(text, -1) for text in column.to_pylist()], dtype=np.int64)
    elif column.type == pa.null():
        values = np.full(len(column), -1, dtype=np.int64)
    else:
        values = column.fill_null(-1).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((values < 0) | (values >= len(names)))
    if len(wrong):
        raise RecipeError(
            f"{len(wrong)} of {len(values)} rows of split '{split}' have no known label; "
            f"the first is row {wrong[0]}: {column[int(wrong[0])].as_py()}",
            where="dataset.label",
            mend="choose a labelled split (dataset.train, dataset.test) or another label column",
        )
    return Labels(names, values)
