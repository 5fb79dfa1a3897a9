"""Soft labels and views as Arrow columns: flat fixed-length lists.

Up to 64 entries per image stand beside the image. More go to a table of their own with one row per
(image row, entry), entry outermost, so that reading it in order gives one look at every image after
the other.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillhub.records.soft_labels import SoftLabels, Views

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

INLINE_ENTRIES = 64
"""Most entries per image that are stored in the row of the image."""
GROUP_ROWS = 1000
GROUP_BYTES = 64 * 2**20
"""A row group of a Parquet file has at most so many rows and uncompressed bytes."""
ZSTD_LEVEL = 9

VIEWS_CONFIG = "views"
"""The configuration of labels and views that do not stand beside the images."""
SOFT = ("soft_idx", "soft_val", "soft_range", "soft_rest")
GEOMETRY = ("view_crop", "view_flip", "view_ops", "mix_partner", "mix_box")
KEYS = ("row", "view")
"""Of the separate table: image row and entry."""


class Entries(NamedTuple):
    """What the columns of a table hold."""

    soft: SoftLabels | None
    views: Views | None


def arrays(soft: SoftLabels | None, views: Views | None) -> dict[str, NDArray[np.generic]]:
    """The columns that are there, in their stored types, each [N, E, ...].

    Raises:
        ValueError: If a crop or box does not fit into uint16.
    """
    found: dict[str, Tensor | None] = {}
    if views is not None:
        found |= {"view_crop": views.crop, "view_flip": views.flip, "view_ops": views.ops}
        found |= {"mix_partner": views.partner, "mix_box": views.box}
    if soft is not None:
        found |= {"soft_idx": soft.classes, "soft_val": soft.values}
        found |= {"soft_range": soft.range, "soft_rest": soft.rest}
    stored = {}
    for name, tensor in found.items():
        if tensor is None:
            continue
        values: NDArray[np.generic] = tensor.numpy()
        if name in ("view_crop", "mix_box"):
            if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
                raise ValueError(f"{name} does not fit into uint16")
            values = values.astype(np.uint16)
        stored[name] = values
    return stored


def inline_table(soft: SoftLabels | None, views: Views | None) -> "pa.Table":
    """One row per image: every column a list of all entries, entry by entry."""
    import pyarrow as pa

    return pa.table(
        {name: _lists(a.reshape(len(a), -1)) for name, a in arrays(soft, views).items()}
    )


def entry_table(soft: SoftLabels | None, views: Views | None) -> "pa.Table":
    """One row per (image row, entry), entry outermost."""
    import pyarrow as pa

    found = arrays(soft, views)
    n, entries = next(iter(found.values())).shape[:2]
    columns = {
        "row": pa.array(np.tile(np.arange(n, dtype=np.uint32), entries)),
        "view": pa.array(np.repeat(np.arange(entries, dtype=np.uint16), n)),
    }
    for name, array in found.items():
        columns[name] = _lists(array.swapaxes(0, 1).reshape(n * entries, -1))
    return pa.table(columns)


def read_entries(
    table: "pa.Table", *, num_classes: int, size: tuple[int, int], formation: int = 1
) -> Entries:
    """Labels and views of a table with one row per image; other columns are left alone.

    Args:
        table: Holds the columns.
        num_classes: Of the data set.
        size: Height and width of a view in pixels.
        formation: Sub-images per side.

    Raises:
        ValueError: If the columns do not fit together.
    """
    names = [name for name in (*SOFT, *GEOMETRY) if name in table.column_names]
    return _entries({name: dense(table[name]) for name in names}, num_classes, size, formation)


def read_entry_table(
    table: "pa.Table", rows: int, *, num_classes: int, size: tuple[int, int], formation: int = 1
) -> Entries:
    """Labels and views from a table with one row per (image row, entry), in any order.

    Raises:
        ValueError: If an image lacks an entry or has one twice.
    """
    row, view = (
        dense(table["row"])[:, 0].astype(np.int64),
        dense(table["view"])[:, 0].astype(np.int64),
    )
    entries = len(row) // max(rows, 1)
    place = row * entries + view
    order = np.argsort(place, kind="stable")
    if not np.array_equal(place[order], np.arange(rows * entries)):
        raise ValueError(
            f"the table of views does not hold {entries} views of each of {rows} images"
        )
    flat = {}
    for name in table.column_names:
        if name not in KEYS:
            flat[name] = dense(table[name])[order].reshape(rows, -1)
    return _entries(flat, num_classes, size, formation)


def dense(column: "pa.ChunkedArray") -> NDArray[np.generic]:
    """A column of numbers or fixed-length lists as [N, length], in its stored type.

    Raises:
        ValueError: If a row is missing or has another length.
    """
    import pyarrow as pa

    n = len(column)
    if column.null_count:
        raise ValueError(f"{column.null_count} of {n} rows are empty")
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    if isinstance(whole, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray):
        whole = whole.flatten()
    if whole.null_count or (n and len(whole) % n):
        raise ValueError(f"lists of different lengths: {len(whole)} numbers in {n} rows")
    values: NDArray[np.generic] = whole.to_numpy(zero_copy_only=False)
    return values.reshape(n, -1)


def _entries(
    flat: Mapping[str, NDArray[np.generic]], num_classes: int, size: tuple[int, int], formation: int
) -> Entries:
    """`flat`: columns [N, E * width]."""
    soft = views = None
    if not flat:
        return Entries(None, None)
    count = _count(flat, num_classes)

    def tensor(name: str, dtype: type[np.generic], *width: int) -> Tensor | None:
        if name not in flat:
            return None
        shape = (len(flat[name]), count, *width)
        if flat[name].size != math.prod(shape):
            raise ValueError(
                f"{name} has {flat[name].shape[1]} numbers per image for {count} entries"
            )
        return torch.from_numpy(flat[name].astype(dtype).reshape(shape))

    if "soft_val" in flat:
        kept = flat["soft_val"].shape[1] // count
        values = tensor("soft_val", np.uint8 if "soft_range" in flat else np.float16, kept)
        if values is not None:
            soft = SoftLabels(
                values,
                tensor("soft_idx", np.uint16, kept),
                tensor("soft_range", np.float16, 2),
                tensor("soft_rest", np.float16, 2),
                num_classes,
            )
    crop, flip = tensor("view_crop", np.int32, 4), tensor("view_flip", np.bool_)
    if crop is not None and flip is not None:
        ops = tensor("view_ops", np.uint8, 4)
        partner, box = tensor("mix_partner", np.int32), tensor("mix_box", np.int32, 4)
        views = Views(crop, flip, ops, partner, box, size, formation)
    return Entries(soft, views)


def _count(flat: Mapping[str, NDArray[np.generic]], num_classes: int) -> int:
    """Entries per image."""
    for name, width in (
        ("view_flip", 1),
        ("soft_range", 2),
        ("soft_rest", 2),
        ("soft_val", num_classes),
    ):
        if name in flat:
            count, left = divmod(int(flat[name].shape[1]), width)
            if left or not count:
                raise ValueError(
                    f"{name} has {flat[name].shape[1]} numbers per image, not a multiple of {width}"
                )
            return count
    raise ValueError(f"columns {sorted(flat)} do not tell how many views there are")


def _lists(values: NDArray[np.generic]) -> "pa.Array":
    """[N, L] as an Arrow column of lists of L numbers."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1]
    )


def write_parquet(
    table: "pa.Table", where: "Path | BinaryIO", group_rows: int
) -> "pq.FileMetaData":
    """Write a table; equal tables give equal bytes.

    zstd, but image bytes plain (they are compressed already, and then equal images are found as
    equal by the Hub's storage). Integers have a dictionary: Parquet has none below 32 bits, and
    uint8 values took a third more without; float16 took half as much again with one. Row numbers
    of a table of views are stored as differences. Statistics for the label alone; page index and
    content-defined chunks as `datasets` writes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = {"image.bytes", "image.path"}
    leaves = _leaves(table.schema)
    integers = [leaf for leaf, kind in leaves.items() if pa.types.is_integer(kind)]
    counted = [leaf for leaf in integers if leaf == KEYS[0]]
    with pq.ParquetWriter(
        where,
        table.schema,
        compression={leaf: "none" if leaf in plain else "zstd" for leaf in leaves},
        compression_level={leaf: ZSTD_LEVEL for leaf in leaves if leaf not in plain},
        use_dictionary=[leaf for leaf in integers if leaf not in counted] or False,
        column_encoding=dict.fromkeys(counted, "DELTA_BINARY_PACKED") or None,
        write_statistics=["label"] if "label" in leaves else False,
        write_page_index=True,
        use_content_defined_chunking=True,
    ) as writer:
        writer.write_table(table, row_group_size=group_rows)
    metadata: pq.FileMetaData = writer.writer.metadata
    return metadata


def column_bytes(metadata: "pq.FileMetaData") -> dict[str, int]:
    """Compressed bytes of every column, all row groups together."""
    found: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            name = chunk.path_in_schema.partition(".")[0]
            found[name] = found.get(name, 0) + chunk.total_compressed_size
    return found


def rows_per_group(rows: int, nbytes: int, *, apart: bool = False) -> int:
    """Rows of a row group.

    Args:
        rows: Of the table.
        nbytes: Uncompressed bytes of the table.
        apart: Whether a row is one entry of an image instead of all of them.
    """
    most = GROUP_ROWS * INLINE_ENTRIES if apart else GROUP_ROWS
    return max(1, min(most, int(GROUP_BYTES * rows / max(nbytes, 1)))) if rows else 1


def label_bytes(soft: SoftLabels | None, views: Views | None, image_bytes: int) -> dict[str, int]:
    """Bytes per column of labels and views beside `image_bytes` of images, measured by writing."""
    import io

    inline = entries_of(soft, views) <= INLINE_ENTRIES
    table = inline_table(soft, views) if inline else entry_table(soft, views)
    nbytes = table.nbytes + (image_bytes if inline else 0)
    group_rows = rows_per_group(table.num_rows, nbytes, apart=not inline)
    return column_bytes(write_parquet(table, io.BytesIO(), group_rows))


def entries_of(soft: SoftLabels | None, views: Views | None) -> int:
    """Labels or views per image; 0 where there are none."""
    return soft.entries if soft is not None else views.entries if views is not None else 0


def _leaves(schema: "pa.Schema") -> "dict[str, pa.DataType]":
    """Parquet's names of the columns, and what they hold."""
    import pyarrow as pa

    found: dict[str, pa.DataType] = {}
    for field in schema:
        if pa.types.is_struct(field.type):
            found |= {f"{field.name}.{child.name}": child.type for child in field.type}
        elif pa.types.is_fixed_size_list(field.type):
            found[f"{field.name}.list.element"] = field.type.value_type
        else:
            found[field.name] = field.type
    return found
