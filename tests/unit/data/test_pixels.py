from pathlib import Path

import pytest
import torch

from distillhub.data import pixels
from distillhub.data.pictures import Pixels
from distillhub.data.rows import EncodedRows
from distillhub.data.sources import RealData, open_split, pin_source
from distillhub.data.specs import SourceSpec
from tests.unit.data.sets import hub_folder, image_folder, noise


class _Counter:
    """Counts the images that are decoded, and lets the real decoder work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded: list[int] = []
        original = pixels.decode_row

        def counted(
            rows: EncodedRows, row: int, stored: bytes, geometry: pixels.Geometry
        ) -> Pixels:
            self.decoded.append(row)
            return original(rows, row, stored, geometry)

        monkeypatch.setattr(pixels, "decode_row", counted)


def _lazy(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RealData, _Counter]:
    """A set of 12 images that is too large to be kept."""
    spec = SourceSpec(id=str(hub_folder(root)))
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})
    monkeypatch.setattr(pixels, "RESIDENT_BYTES", 12 * 64 - 1)
    counter = _Counter(monkeypatch)
    return open_split(pinned, "train", {}), counter


def test_opening_a_large_set_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, counter = _lazy(tmp_path, monkeypatch)

    assert counter.decoded == []


def test_a_large_set_decodes_only_the_rows_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, counter = _lazy(tmp_path, monkeypatch)

    data.images([7, 2])

    assert counter.decoded == [7, 2]


def test_a_class_of_a_large_set_decodes_that_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, counter = _lazy(tmp_path, monkeypatch)

    data.part(data.rows_of(1)).images([0, 1])

    assert counter.decoded == [1, 3]


def test_a_set_that_fits_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)))
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})
    counter = _Counter(monkeypatch)
    data = open_split(pinned, "train", {})

    for _ in range(3):
        data.images(range(12))

    assert sorted(counter.decoded) == list(range(12))


def test_large_and_small_sets_show_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = _lazy(tmp_path, monkeypatch)
    monkeypatch.undo()
    spec = SourceSpec(id=str(tmp_path))
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})

    assert torch.equal(data.pixels(range(12)), open_split(pinned, "train", {}).pixels(range(12)))


def test_stored_images_that_fit_are_read_from_their_table_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), size=64)
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})
    monkeypatch.setattr(pixels, "RESIDENT_BYTES", 12 * 64 * 64 - 1)
    data = open_split(pinned, "train", {})
    monkeypatch.delattr("distillhub.data.tables.ParquetRows._read")

    assert data.pixels([11, 0]).shape == (2, 1, 64, 64)


def test_threads_keep_the_order_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = _lazy(tmp_path, monkeypatch)
    alone = data.pixels(range(12))
    monkeypatch.setattr(pixels, "THREADED_BYTES", 0)

    assert torch.equal(data.pixels(range(12)), alone)


def test_an_image_is_read_from_its_file_on_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    spec = SourceSpec(id=str(root), test=None)
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})
    monkeypatch.setattr(pixels, "RESIDENT_BYTES", 0)
    data = open_split(pinned, "train", {})
    (root / "b/000.png").write_bytes(noise(1))

    assert torch.equal(data.pixels([2]), data.pixels([3]))
