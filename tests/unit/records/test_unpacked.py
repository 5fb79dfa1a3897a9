"""Mosaics as their students see them: rows, labels, views and the torch data set."""

import pytest
import torch

from distillhub.ops.formation import expand
from distillhub.packaging.parquet import write
from distillhub.records.distilled import load
from distillhub.relabel.views import whole_sub_images
from tests import fake_sets

NAMES = ("cat", "dog")


@pytest.fixture
def hard(tmp_path):
    files = fake_sets.png_files(fake_sets.pixels(3))
    write(tmp_path, files, torch.tensor([0, 1, 1]), NAMES, None, None, {"formation": 2})
    return load(tmp_path)


@pytest.fixture
def soft(tmp_path):
    stored = fake_sets.pixels(3)
    sides = {"height": stored.shape[2], "width": stored.shape[3]}
    views = whole_sub_images(3, **sides, formation=2)
    labels = fake_sets.soft_labels(3, 4, classes=2)
    files = fake_sets.png_files(stored)
    folder = tmp_path / "soft"
    folder.mkdir()
    write(folder, files, torch.tensor([0, 1, 1]), NAMES, labels, views, {"formation": 2})
    return load(folder)


def test_every_sub_image_is_an_image_with_the_label_of_its_mosaic(hard) -> None:
    unpacked = hard.unpacked()

    assert len(unpacked) == 12
    assert unpacked.labels.tolist() == [0] * 4 + [1] * 8
    everything = expand(hard.images([0, 1, 2]), 2)
    rows = torch.tensor([7, 0, 10])
    assert torch.allclose(unpacked.images(rows), everything[rows], atol=1e-6)


def test_a_set_without_mosaics_is_its_own_training_set(tmp_path) -> None:
    files = fake_sets.png_files(fake_sets.pixels(2))
    write(tmp_path, files, torch.tensor([0, 1]), NAMES, None, None, {})
    opened = load(tmp_path)

    assert opened.formation == 1
    assert opened.unpacked() is opened


def test_labels_of_whole_sub_images_belong_to_no_view(soft, tmp_path) -> None:
    assert soft.views is not None
    assert soft.unpacked().views is None

    stored = fake_sets.pixels(3)
    views = whole_sub_images(3, height=stored.shape[2], width=stored.shape[3], formation=2)
    views.crop[0, 0, 2] -= 1  # one view is not the whole of its sub-image
    labels = fake_sets.soft_labels(3, 4, classes=2)
    write(
        tmp_path,
        fake_sets.png_files(stored),
        torch.tensor([0, 1, 1]),
        NAMES,
        labels,
        views,
        {"formation": 2},
    )
    assert load(tmp_path).unpacked().views is not None


def test_views_of_a_sub_image_are_entries_of_its_mosaic(soft) -> None:
    unpacked = soft.unpacked()
    rows, views = torch.tensor([1, 6]), torch.tensor([0, 0])

    images, logits = unpacked.view_batch(rows, views, None)

    assert unpacked.views_per_image == 1
    assert torch.equal(logits, soft.soft.values[[0, 1], [1, 2]].float())
    assert torch.allclose(images, unpacked.images(rows), atol=1e-5)


def test_the_torch_data_set_takes_mosaics_apart(hard, soft) -> None:
    assert len(hard.torch_dataset()) == 12
    sample = soft.torch_dataset()[11]
    assert sample.image.shape == (1, soft.height, soft.width)
    assert torch.equal(sample.target, soft.soft.values[2, 3].float())
