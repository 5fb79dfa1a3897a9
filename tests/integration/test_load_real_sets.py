"""Sets of others, as they are on the Hub, open with `distillhub.load`."""

import pytest
import torch

from distillhub import load
from distillhub.errors import DataError


def test_cifar10_opens_with_its_classes_and_jpeg_images(real_data_dir):
    opened = load(real_data_dir("cifar10"), split="test")

    assert opened.class_names[:2] == ("airplane", "automobile")
    assert opened.counts == (1000,) * 10
    images = opened.images(torch.arange(64))
    assert images.shape == (64, 3, 32, 32)
    assert 0.3 < images.mean() < 0.6


def test_fashion_mnist_opens_in_grey(real_data_dir):
    opened = load(real_data_dir("fashion_mnist"), split="test")

    assert opened.images([0]).shape == (1, 1, 28, 28)
    assert len(opened) == 10_000


def test_images_of_many_sizes_are_refused_by_row(real_data_dir):
    opened = load(real_data_dir("imagenet_sample"))

    assert opened.num_classes == 1000
    with pytest.raises(DataError, match=r"image of row \d+ has"):
        opened.pixels(range(50))
