import math

import pytest
import torch
from torch.nn.functional import one_hot

from distillhub.ops.losses import cross_entropy, kl_divergence, mse_gt, soft_cross_entropy

LOGITS = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])  # probabilities 1/4, 3/4
LABELS = torch.tensor([1, 1])


def random_logits(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 5, generator=generator, dtype=torch.float64)


def test_cross_entropy_is_the_mean_negative_log_probability():
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2

    assert cross_entropy(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_full_smoothing_ignores_the_labels():
    swapped = cross_entropy(LOGITS, 1 - LABELS, smoothing=1.0)

    torch.testing.assert_close(cross_entropy(LOGITS, LABELS, smoothing=1.0), swapped)


def test_classic_check_10_one_hot_soft_labels_give_the_hard_loss():
    logits, labels = random_logits(0), torch.arange(6) % 5

    soft = soft_cross_entropy(logits, one_hot(labels, 5).double())

    torch.testing.assert_close(soft, cross_entropy(logits, labels))


def test_kl_is_zero_when_the_distributions_agree():
    logits = random_logits(1)

    assert kl_divergence(logits, logits + 7, temperature=4).item() == pytest.approx(0, abs=1e-12)


def test_kl_of_two_coins_is_the_closed_form():
    fair = torch.zeros(1, 2)
    expected = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)

    divergence = kl_divergence(fair, LOGITS[:1])

    assert divergence.item() == pytest.approx(expected, rel=1e-6)


def test_a_temperature_divides_both_logits():
    ours, target = random_logits(2), random_logits(3)

    at_four = kl_divergence(ours, target, temperature=4)

    torch.testing.assert_close(at_four, kl_divergence(ours / 4, target / 4))


def test_scaling_multiplies_by_the_temperature_squared():
    ours, target = random_logits(2), random_logits(3)

    scaled = kl_divergence(ours, target, temperature=4, scaled=True)

    torch.testing.assert_close(scaled, 16 * kl_divergence(ours, target, temperature=4))


def test_kl_gradient_is_right():
    ours = random_logits(4).requires_grad_()

    assert torch.autograd.gradcheck(lambda x: kl_divergence(x, random_logits(5)), (ours,))


def test_mse_gt_without_weight_is_zero_on_the_teachers_logits():
    logits = random_logits(6)

    assert mse_gt(logits, logits, torch.zeros(6, dtype=torch.int64), ce_weight=0).item() == 0


def test_mse_gt_adds_the_two_terms():
    loss = mse_gt(LOGITS, LOGITS + 2, LABELS, ce_weight=0.1)

    expected = 4 + 0.1 * cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(loss, expected)


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"\(2, 2\) and targets \(6, 5\)"):
        soft_cross_entropy(LOGITS, torch.zeros(6, 5))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature 0 is not positive"):
        kl_divergence(LOGITS, LOGITS, temperature=0)


@pytest.mark.parametrize("scaled", [False, True])
def test_a7_07_the_gradient_of_kl_at_a_high_temperature_is_the_centred_difference(scaled):
    ours = LOGITS.double().clone().requires_grad_()
    theirs = LOGITS.double().flip(0) * 2
    temperature = 1e4
    n, classes = ours.shape

    kl_divergence(ours, theirs, temperature=temperature, scaled=scaled).backward()

    difference = ours.detach() - theirs
    centred = difference - difference.mean(1, keepdim=True)
    size = n * classes * (1 if scaled else temperature**2)
    torch.testing.assert_close(ours.grad * size, centred, atol=1e-3, rtol=1e-3)
