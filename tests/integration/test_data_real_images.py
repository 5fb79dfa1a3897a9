"""The data rooms on real images: Fashion-MNIST, CIFAR-10, and one image of each ImageNet class."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from distillhub.data import pixels
from distillhub.data.pictures import Pixels
from distillhub.data.pins import Digester
from distillhub.data.rows import EncodedRows, open_file
from distillhub.data.sources import RealData, open_split, pin_source
from distillhub.data.specs import DataPin, SourceSpec
from distillhub.data.subsets import IMAGEWOOF
from distillhub.data.tables import ParquetRows

Finder = Callable[[str], Path]
FASHION = "zalando-datasets/fashion_mnist"
CIFAR = "uoft-cs/cifar10"
IMAGENET = "ILSVRC/imagenet-1k"


def _pinned(spec: SourceSpec, sources: dict[str, Path]) -> SourceSpec:
    return spec.model_copy(update={"pin": pin_source(spec, sources, None)})


def test_fashion_mnist_is_pinned_as_published(real_data_dir: Finder) -> None:
    pin = pin_source(SourceSpec(id=FASHION), {FASHION: real_data_dir("fashion_mnist")}, None)

    assert (pin.train.rows, pin.counts, pin.channels, pin.height, pin.width) == (
        60_000,
        (6_000,) * 10,
        1,
        28,
        28,
    )


def test_the_digest_is_that_of_the_stored_bytes(real_data_dir: Finder) -> None:
    folder = real_data_dir("fashion_mnist")
    table = pq.read_table(folder / "data/test-00000-of-00001.parquet")
    digester = Digester()
    images = [row["bytes"] for row in table["image"].to_pylist()]
    digester.update(images, table["label"].to_numpy())

    pin = pin_source(SourceSpec(id=FASHION), {FASHION: folder}, None)

    assert pin.test is not None
    assert pin.test.sha256 == digester.hexdigest()


def test_a_second_pin_of_60_000_images_comes_from_the_cache(
    real_data_dir: Finder, tmp_path: Path
) -> None:
    spec, sources = SourceSpec(id=FASHION), {FASHION: real_data_dir("fashion_mnist")}
    first = pin_source(spec, sources, tmp_path / "pins.json")

    start = time.perf_counter()
    second = pin_source(spec, sources, tmp_path / "pins.json")

    assert second == first
    assert time.perf_counter() - start < 0.5  # measured: 0.01 s; a pass over the images takes 0.4 s


def test_the_image_column_of_cifar10_is_found_by_its_type(real_data_dir: Finder) -> None:
    pin = pin_source(SourceSpec(id=CIFAR), {CIFAR: real_data_dir("cifar10")}, None)

    assert (pin.channels, pin.counts, pin.std) == (3, (5_000,) * 10, (0.2023, 0.1994, 0.2010))


def test_pixels_are_those_that_pillow_decodes(real_data_dir: Finder) -> None:
    folder = real_data_dir("cifar10")
    data = open_split(_pinned(SourceSpec(id=CIFAR), {CIFAR: folder}), "test", {CIFAR: folder})
    row = pq.read_table(folder / "data/test-00000-of-00001.parquet")["img"][123].as_py()

    decoded = np.asarray(open_file(row["bytes"]))

    assert np.array_equal(data.pixels([123])[0].permute(1, 2, 0).numpy(), decoded)


def test_measured_statistics_of_fashion_mnist_are_near_the_published_ones(
    real_data_dir: Finder,
) -> None:
    pin = pin_source(SourceSpec(id=str(real_data_dir("fashion_mnist"))), {}, None)

    assert pin.mean == pytest.approx((0.2861,), abs=0.01)  # 2000 of 60 000 images
    assert pin.std == pytest.approx((0.3530,), abs=0.01)


@pytest.fixture
def imagenet(real_data_dir: Finder) -> Path:
    return real_data_dir("imagenet_sample")


def _imagenet(folder: Path, **choices: object) -> tuple[SourceSpec, dict[str, Path]]:
    sources = {IMAGENET: folder}
    return _pinned(SourceSpec(id=IMAGENET, test=None, **choices), sources), sources


def test_imagewoof_is_found_by_wnid_in_the_published_order(imagenet: Path) -> None:
    spec, _ = _imagenet(imagenet, classes="imagewoof", size=64)

    assert [name.split()[0] for name in spec.pinned.class_names] == [s.wnid for s in IMAGEWOOF]


def test_imagewoof_rows_are_the_labels_of_imagenet(imagenet: Path) -> None:
    spec, sources = _imagenet(imagenet, classes="imagewoof", size=64)
    data = open_split(spec, "train", sources)

    # The sample has one image per class, in label order, so its rows are the labels.
    assert data.source_rows.tolist() == sorted(synset.label for synset in IMAGEWOOF)


def _as_large_as_imagenet(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RealData, list[int]]:
    """The sample, treated as if its pixels did not fit; the rows decoded after opening."""
    monkeypatch.setattr(pixels, "RESIDENT_BYTES", 0)
    spec, sources = _imagenet(folder, size=64)
    decoded: list[int] = []
    original = pixels.decode_row

    def counted(rows: EncodedRows, row: int, stored: bytes, geometry: pixels.Geometry) -> Pixels:
        decoded.append(row)
        return original(rows, row, stored, geometry)

    monkeypatch.setattr(pixels, "decode_row", counted)
    return open_split(spec, "train", sources), decoded


def test_opening_imagenet_decodes_no_image(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, decoded = _as_large_as_imagenet(imagenet, monkeypatch)

    assert (len(data), decoded) == (1000, [])


def test_a_batch_of_imagenet_decodes_that_batch(
    imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, decoded = _as_large_as_imagenet(imagenet, monkeypatch)

    images, labels = next(data.batches(8, torch.Generator().manual_seed(0)))

    assert sorted(decoded) == sorted(labels.tolist())
    assert images.shape == (8, 3, 64, 64)


def test_pinning_imagenet_keeps_a_bounded_number_of_images(
    imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillhub.data.looks.MEASURED_ROWS", 5)
    opened: list[int] = []
    original = ParquetRows.open

    def counted(self: ParquetRows, stored: bytes) -> Image.Image:
        opened.append(len(stored))
        return original(self, stored)

    monkeypatch.setattr(ParquetRows, "open", counted)

    pin: DataPin = _imagenet(imagenet, classes="imagenette", size=64)[0].pinned

    assert pin.train.rows == 1000
    assert len(opened) == 10  # the first of every class taken, the five others among them
