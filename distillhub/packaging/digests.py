"""A digest of every row and column of a packaged set, from its Parquet files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillhub.records.columns import KEYS, dense
from distillhub.records.manifest import RowDigest
from distillhub.records.references import REFERENCE

if TYPE_CHECKING:
    import pyarrow as pa


class Digests(NamedTuple):
    """Content of the Parquet files, whatever their encoding."""

    rows: tuple[RowDigest, ...]
    """Per image row, over all its columns and views: the first 16 digits of a sha256."""
    columns: dict[str, str]
    """sha256 per column."""


def digests(folder: Path) -> Digests:
    """Digests of all rows and columns, from the files; the layout of the labels does not matter.

    Of a number the stored little-endian bytes count, of an image its file (nothing where the set
    only names it), of what names it the text; each is preceded by the name of its column.

    Raises:
        OSError: If a file is no Parquet file.
        ValueError: If rows lack values, or the table of views does not fit to the images.
    """
    import pyarrow.parquet as pq

    rows: list[hashlib._Hash] = []
    columns: dict[str, hashlib._Hash] = {}
    for path in parquet_files(folder, "data"):
        table = pq.read_table(path)
        hashes = [hashlib.sha256() for _ in range(table.num_rows)]
        rows += hashes
        for name in table.column_names:
            cells = _cells(table[name]) if name not in REFERENCE else _words(table[name])
            _absorb(name, cells, hashes, columns)
    apart = list(parquet_files(folder, "views"))
    if apart:
        import pyarrow as pa

        table = pa.concat_tables([pq.read_table(path) for path in apart])
        row, view = (dense(table[name])[:, 0].astype(np.int64) for name in KEYS)
        order = np.lexsort((view, row))
        if (
            len(order) % len(rows)
            or (row[order] != np.repeat(np.arange(len(rows)), len(order) // len(rows))).any()
        ):
            raise ValueError(f"{len(order)} rows of views do not fit to {len(rows)} images")
        for name in table.column_names:
            if name not in KEYS:
                _absorb(
                    name, _numbers(dense(table[name])[order].reshape(len(rows), -1)), rows, columns
                )
    return Digests(
        tuple(found.hexdigest()[:16] for found in rows),
        {name: found.hexdigest() for name, found in columns.items()},
    )


def _absorb(
    name: str,
    cells: Iterator[bytes],
    rows: "list[hashlib._Hash]",
    columns: "dict[str, hashlib._Hash]",
) -> None:
    column = columns.setdefault(name, hashlib.sha256())
    for row, cell in zip(rows, cells, strict=True):
        size = len(cell).to_bytes(8, "little")
        row.update(name.encode() + b"\0" + size + cell)
        column.update(size + cell)


def _cells(column: "pa.ChunkedArray") -> Iterator[bytes]:
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        for cell in column:
            yield cell["bytes"].as_py() or b""
    else:
        yield from _numbers(dense(column))


def _words(column: "pa.ChunkedArray") -> Iterator[bytes]:
    """Texts of cells that may be empty."""
    for cell in column.to_pylist():
        yield b"" if cell is None else str(cell).encode()


def _numbers(values: NDArray[np.generic]) -> Iterator[bytes]:
    for row in np.ascontiguousarray(values):
        yield row.tobytes()


def parquet_files(folder: Path, *places: str) -> Iterator[Path]:
    """The Parquet files of a packaged set in order; of all its folders, or of the named ones."""
    for place in places or ("data", "views"):
        yield from sorted((folder / place).glob("*.parquet"))
