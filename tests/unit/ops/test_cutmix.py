"""CutMix: one box per batch, classes by area."""

import math

import pytest
import torch

from distillhub.ops.cutmix import Mix, draw_mix, mixed, mixed_cross_entropy


def draws(count=300, height=16, width=12):
    generator = torch.Generator().manual_seed(0)
    return [draw_mix(4, height, width, generator=generator) for _ in range(count)]


def test_the_kept_share_is_that_of_the_pixels_outside_the_box():
    own, other = torch.zeros(4, 1, 16, 12), torch.ones(4, 1, 16, 12)
    for mix in draws(30):
        batch = torch.cat([own, other])
        swapped = mix._replace(partner=torch.arange(8).roll(4))

        shown = mixed(batch, swapped)

        assert shown[:4].mean((1, 2, 3)).tolist() == pytest.approx([1 - mix.kept] * 4)


def test_all_images_have_the_same_box():
    mix = Mix(torch.tensor([1, 2, 3, 0]), (2, 3, 10, 9), 0.75)
    batch = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 12)

    shown = mixed(batch, mix)

    assert shown[:, 0, 5, 5].tolist() == [1, 2, 3, 0]
    assert shown[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_the_area_before_cutting_is_uniform():
    inside = [1 - mix.kept for mix in draws(2000, 64, 64)]

    # E[share inside] = E over centre and share of the cut box: half of a box of share s is cut on
    # each axis with E = s^(1/2) (1 - s^(1/2) / 4), so the area has mean of s (1 - s^(1/2) / 4)^2
    expected = sum(s * (1 - math.sqrt(s) / 4) ** 2 for s in [(i + 0.5) / 1000 for i in range(1000)])
    assert sum(inside) / len(inside) == pytest.approx(expected / 1000, abs=0.015)


def test_classes_count_by_their_share_of_the_pixels():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    mix = Mix(torch.tensor([1, 0]), (0, 0, 1, 1), 0.75)

    value = mixed_cross_entropy(logits, labels, mix)

    right = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    wrong = (math.log(1 + math.exp(2)) + math.log(1 + math.exp(1))) / 2
    assert value.item() == pytest.approx(0.75 * right + 0.25 * wrong)


def test_an_empty_box_is_plain_cross_entropy():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    mix = Mix(torch.tensor([1, 0]), (4, 4, 4, 4), 1.0)

    value = mixed_cross_entropy(logits, torch.tensor([0, 1]), mix)

    right = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert value.item() == pytest.approx(right)
    assert mixed(torch.rand(2, 3, 8, 8), mix).shape == (2, 3, 8, 8)


def test_the_argument_is_left_as_it_is():
    batch = torch.rand(4, 3, 16, 12)
    before = batch.clone()

    mixed(batch, Mix(torch.tensor([3, 2, 1, 0]), (0, 0, 8, 8), 2 / 3))

    assert batch.equal(before)
