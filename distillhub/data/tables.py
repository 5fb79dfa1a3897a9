"""Rows in tables: Parquet files on disk, or an Arrow table that `datasets` prepared."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from distillhub.data.columns import Columns, read_labels
from distillhub.data.rows import BLOCK, Chunk, Index, file_facts, open_file
from distillhub.errors import DataError, Fault, RecipeError

CACHE_BYTES = 256 * 1024**2
"""Row groups kept in memory for rows that are read on access; at least one is."""


class ParquetRows:
    """One split in Parquet files, read in place."""

    def __init__(self, files: Sequence[Path], root: Path, columns: Columns, split: str) -> None:
        """Open the files and read the labels.

        Args:
            files: In the order of the rows.
            root: Folder that messages are relative to.
            columns: The same in every file.
            split: For messages.

        Raises:
            RecipeError: If a file cannot be read or a label is missing.
        """
        self._root = root
        self._paths = tuple(files)
        self._column = columns.image
        self._files = [open_parquet(path, root) for path in files]
        self._groups = [
            (file, group)
            for file, opened in enumerate(self._files)
            for group in range(opened.metadata.num_row_groups)
        ]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts: Index = np.cumsum([0, *sizes], dtype=np.int64)
        self._cache: OrderedDict[int, pa.Array] = OrderedDict()
        faults = _missing(columns, self._files, files, root)
        if faults:
            raise RecipeError.of(faults)
        parts = [file.read(columns=[columns.label])[columns.label] for file in self._files]
        chunks = [chunk for part in parts for chunk in part.chunks]
        labels = pa.chunked_array(chunks, type=parts[0].type)
        self.names, self.labels = read_labels(labels, columns.names, split)
        total = sum(_image_bytes(file.metadata, columns.image) for file in self._files)
        self.slow_bytes: float | None = total / max(len(self.labels), 1)
        facts = [*file_facts(files), columns.image, columns.label]
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """All rows once; one row group is held at a time."""
        for group in range(len(self._groups)):
            images = self._read(group)
            for first in range(0, len(images), BLOCK):
                start = int(self._starts[group]) + first
                yield Chunk(start, _filled(images[first : first + BLOCK]))

    def take(self, rows: Index) -> list[bytes]:
        """The stored bytes of `rows`; every row group that holds one is read once per call."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        taken: list[bytes] = [b""] * len(rows)
        for group in np.unique(groups):
            places = np.flatnonzero(groups == group)
            inside = pa.array(rows[places] - self._starts[group])
            for place, stored in zip(
                places, _filled(self._cached(int(group)).take(inside)), strict=True
            ):
                taken[place] = stored
        return taken

    def where(self, row: int) -> str:
        """File, and row in the split."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self._paths[self._groups[group][0]].relative_to(self._root)}: row {row}"

    def open(self, stored: bytes) -> Image.Image:
        """The picture in the file's bytes."""
        return open_file(stored)

    def _cached(self, group: int) -> pa.Array:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        images = self._cache[group] = self._read(group)
        while len(self._cache) > 1 and sum(a.nbytes for a in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return images

    def _read(self, group: int) -> pa.Array:
        """The image bytes of one row group."""
        file, inner = self._groups[group]
        try:
            table = self._files[file].read_row_group(inner, columns=[self._column])
        except (OSError, pa.ArrowException) as error:
            path = self._paths[file].relative_to(self._root)
            raise DataError(
                f"row group {inner} cannot be read: {error}",
                where=f"{path}: rows {self._starts[group]} to {self._starts[group + 1] - 1}",
                mend="fetch the file again",
            ) from error
        return image_bytes(table[self._column])


class ArrowRows:
    """One split of a prepared Hub data set: an Arrow table mapped from disk."""

    slow_bytes: float | None = None

    def __init__(
        self,
        fetch: Callable[[Sequence[int]], pa.Table],
        labels: pa.ChunkedArray,
        columns: Columns,
        *,
        place: str,
        split: str,
        fingerprint: str,
    ) -> None:
        """Read the labels.

        Args:
            fetch: Rows -> table with the image column.
            labels: The label column.
            columns: Image and label column.
            place: For messages.
            split: For messages.
            fingerprint: Changes with the content.

        Raises:
            RecipeError: If a label is missing.
        """
        self._fetch = fetch
        self._column = columns.image
        self._place = f"{place}: split '{split}'"
        self.names, self.labels = read_labels(labels, columns.names, split)
        self.fingerprint = hashlib.sha256(repr((fingerprint, columns)).encode()).hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """All rows once, a block at a time."""
        for start in range(0, len(self.labels), BLOCK):
            stop = min(start + BLOCK, len(self.labels))
            yield Chunk(start, self.take(np.arange(start, stop)))

    def take(self, rows: Index) -> list[bytes]:
        """The stored bytes of `rows`; files beside the table are read."""
        column = self._fetch(rows.tolist())[self._column]
        images = image_bytes(column).to_pylist()
        if all(image is not None for image in images):
            return [bytes(image) for image in images]
        values = column.to_pylist()
        return [
            _beside(value["path"] if value else None) if image is None else bytes(image)
            for image, value in zip(images, values, strict=True)
        ]

    def where(self, row: int) -> str:
        """Data set, split and row."""
        return f"{self._place}, row {row}"

    def open(self, stored: bytes) -> Image.Image:
        """The picture in the file's bytes."""
        return open_file(stored)


def _beside(path: str | None) -> bytes:
    return Path(path).read_bytes() if path and Path(path).is_file() else b""


def _filled(images: pa.Array) -> list[bytes]:
    """Bytes of a slice; rows without an image become empty."""
    return [image or b"" for image in images.to_pylist()]


def image_bytes(column: pa.ChunkedArray) -> pa.Array:
    """The encoded images of a column that is struct<bytes, path>, or binary."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    return array.field("bytes") if pa.types.is_struct(column.type) else array


def open_parquet(path: Path, root: Path) -> "pa.parquet.ParquetFile":
    """Open one Parquet file, mapped into memory.

    Raises:
        RecipeError: If it cannot be read, or is none.
    """
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise RecipeError(
            f"not a readable Parquet file: {str(error).splitlines()[0]}",
            where=str(path.relative_to(root)),
            mend="fetch the file again; a Git LFS pointer is not the file itself",
        ) from error


def _image_bytes(metadata: "pa.parquet.FileMetaData", column: str) -> int:
    """Uncompressed bytes of an image column."""
    chunks = (
        metadata.row_group(group).column(leaf)
        for group in range(metadata.num_row_groups)
        for leaf in range(metadata.num_columns)
    )
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.partition(".")[0] == column
    )


def _missing(
    columns: Columns, files: "Sequence[pa.parquet.ParquetFile]", paths: Sequence[Path], root: Path
) -> list[Fault]:
    """Columns that are not in every file, or not of one type."""
    faults = []
    first = files[0].schema_arrow
    for file, path in zip(files, paths, strict=True):
        schema = file.schema_arrow
        for column in (columns.image, columns.label):
            what = ""
            if column not in schema.names:
                what = "is missing in this file, others have it"
            elif schema.field(column).type != first.field(column).type:
                kinds = schema.field(column).type, first.field(column).type
                what = f"holds {kinds[0]} in this file, {kinds[1]} in others"
            if what:
                where = str(path.relative_to(root))
                faults.append(Fault(f"column '{column}' {what}", where, "fetch the data set again"))
    return faults
