"""Mixup: one share per batch, from a symmetric beta distribution."""

import pytest
import torch

from distillhub.ops.cutmix import Mix, mixed_cross_entropy
from distillhub.ops.losses import cross_entropy
from distillhub.ops.mixup import blended, draw_mixup


def shares(alpha, count=4000):
    generator = torch.Generator().manual_seed(0)
    kept = [draw_mixup(2, alpha, generator=generator).kept for _ in range(count)]
    return torch.tensor(kept, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_the_share_has_the_moments_of_the_beta_distribution(alpha):
    drawn = shares(alpha)

    # mean 1/2, variance 1 / (4 (2 a + 1)); the spread of both over 4000 draws is below 0.006
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


def test_every_image_is_a_partner_once():
    mix = draw_mixup(7, 0.8, generator=torch.Generator().manual_seed(0))

    assert sorted(mix.partner.tolist()) == list(range(7))


def test_an_image_is_blended_with_its_partner():
    x = torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1, 1)

    shown = blended(x, Mix(torch.tensor([1, 2, 0]), (0, 0, 0, 0), 0.75))

    assert shown.flatten().tolist() == [2.0, 6.0, 7.0]


def test_classes_count_by_the_shares_of_the_images():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels, partner = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])

    value = mixed_cross_entropy(logits, labels, Mix(partner, (0, 0, 0, 0), 0.75))

    own, other = cross_entropy(logits, labels), cross_entropy(logits, labels[partner])
    assert value.item() == pytest.approx((0.75 * own + 0.25 * other).item())


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_an_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        draw_mixup(2, alpha, generator=torch.Generator().manual_seed(0))
