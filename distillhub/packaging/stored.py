"""The rows of a published set as arrays, read with pyarrow alone, so that damage can be named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillhub.packaging.digests import parquet_files
from distillhub.records.columns import GEOMETRY, KEYS, SOFT, dense
from distillhub.records.references import REFERENCE, Reference, read_references


class Stored(NamedTuple):
    """All columns but the images."""

    labels: NDArray[np.int64]
    """[N]."""
    columns: dict[str, NDArray[Any]]
    """Soft labels and views, each [N, width] in its stored type."""


def read(folder: Path) -> Stored:
    """Labels and views of a set, those of a separate table of views too.

    Raises:
        ValueError: If rows lack values or the table of views does not fit to the images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("label", *SOFT, *GEOMETRY)
    tables = []
    for path in parquet_files(folder, "data"):
        known = pq.read_schema(path).names
        tables.append(pq.read_table(path, columns=[name for name in names if name in known]))
    whole = pa.concat_tables(tables)
    labels = dense(whole["label"])[:, 0].astype(np.int64)
    columns = {name: dense(whole[name]) for name in whole.column_names if name != "label"}
    apart = list(parquet_files(folder, "views"))
    if apart:
        table = pa.concat_tables([pq.read_table(path) for path in apart])
        row, view = (dense(table[name])[:, 0].astype(np.int64) for name in KEYS)
        order = np.lexsort((view, row))
        columns |= {
            name: dense(table[name])[order].reshape(len(labels), -1)
            for name in table.column_names
            if name not in KEYS
        }
    return Stored(labels, columns)


def named(folder: Path) -> list[Reference | None]:
    """Of every row, the real image that it names.

    Raises:
        ValueError: If a row has some of the columns and lacks others.
    """
    import pyarrow.parquet as pq

    found: list[Reference | None] = []
    for path in parquet_files(folder, "data"):
        known = pq.read_schema(path).names
        wanted = ["label", *(name for name in REFERENCE if name in known)]
        found += read_references(pq.read_table(path, columns=wanted))
    return found


def held(folder: Path) -> NDArray[np.bool_]:
    """Of every row, whether it holds an image, [N]."""
    import pyarrow.parquet as pq

    known = [
        np.asarray(pq.read_table(path, columns=["image"])["image"].is_valid())
        for path in parquet_files(folder, "data")
    ]
    return np.concatenate(known)


def images(folder: Path, rows: Sequence[int]) -> list[bytes | None]:
    """The image files of some rows, in the order asked for; None where a row only names one."""
    import pyarrow.parquet as pq

    found: dict[int, bytes | None] = {}
    first = 0
    for path in parquet_files(folder, "data"):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                wanted = [row for row in rows if first <= row < first + count]
                if wanted:
                    column = file.read_row_group(group, columns=["image"])["image"]
                    found |= {row: column[row - first]["bytes"].as_py() for row in wanted}
                first += count
    return [found[row] for row in rows]
