from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distillhub.data.columns import Columns
from distillhub.data.tables import ParquetRows
from tests.unit.data.sets import noise, parquet

_COLUMNS = Columns("image", "label", ("a", "b"))


def _rows(root: Path, *, group: int = 4) -> ParquetRows:
    images = [noise(number) for number in range(10)]
    path = parquet(root / "train.parquet", images, [0, 1] * 5, ["a", "b"], group=group)
    return ParquetRows([path], root, _COLUMNS, "train")


def test_chunks_hold_every_row_in_order(tmp_path: Path) -> None:
    images = [image for chunk in _rows(tmp_path).chunks() for image in chunk.images]

    assert images == [noise(number) for number in range(10)]


def test_rows_come_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    assert _rows(tmp_path).take(np.array([9, 3, 0, 5, 0])) == [noise(n) for n in (9, 3, 0, 5, 0)]


def test_a_row_group_is_read_once_for_all_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows(tmp_path)
    read: list[int] = []
    original = ParquetRows._read

    def counted(self: ParquetRows, group: int) -> pa.Array:
        read.append(group)
        return original(self, group)

    monkeypatch.setattr(ParquetRows, "_read", counted)

    rows.take(np.array([3, 8, 1, 2, 9]))

    assert read == [0, 2]


def test_the_row_groups_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillhub.data.tables.CACHE_BYTES", 1)
    rows = _rows(tmp_path)

    rows.take(np.arange(10))

    assert list(rows._cache) == [2]


def test_a_row_without_an_image_has_no_bytes(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", [noise(0), None], [0, 1], ["a", "b"])

    assert ParquetRows([path], tmp_path, _COLUMNS, "train").take(np.array([1])) == [b""]


def test_a_place_is_named_by_file_and_row(tmp_path: Path) -> None:
    assert _rows(tmp_path).where(7) == "train.parquet: row 7"
