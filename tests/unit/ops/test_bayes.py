"""The terms of BACON against their densities, closed forms and gradients."""

import math

import pytest
import torch
from torch import Tensor

from distillhub.ops.bayes import (
    Moments,
    bayesian_loss,
    clip_as_published,
    moments,
    negative_log_likelihood,
    total_variation,
)

WIDTH = 6


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def around(mean: Tensor, std: float) -> Moments:
    """Real moments with a mean and one deviation for all features."""
    return Moments(mean, torch.full_like(mean, std), torch.full((len(mean),), 9.0).double())


def test_bacon_check_01_at_equal_features_only_the_constant_is_left() -> None:
    real = features(2, 5, WIDTH)
    synthetic = real.clone().requires_grad_()
    seen = moments(real)

    likelihood = negative_log_likelihood(seen, synthetic)
    (gradient,) = torch.autograd.grad(likelihood.sum(), synthetic)

    constant = WIDTH / 2 * math.log(2 * math.pi) + seen.std.sum(dim=1)
    assert torch.allclose(likelihood, constant)
    assert gradient.abs().max() < 1e-12
    assert total_variation(seen, synthetic).abs().max() < 1e-12


def test_bacon_check_02_the_closed_form_is_the_log_of_the_density() -> None:
    synthetic = features(3, 4, WIDTH)
    mean = synthetic.mean(dim=1) + features(3, WIDTH, seed=1)
    real = around(mean, 0.4)

    sigma = torch.exp(real.std)
    delta = synthetic.mean(dim=1) - mean
    density = torch.exp(-0.5 * (delta / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))

    assert (delta / sigma).abs().max() < 5
    assert torch.allclose(negative_log_likelihood(real, synthetic), -density.log().sum(dim=1))


def test_bacon_check_02_it_stays_finite_where_the_density_underflows() -> None:
    real = around(torch.zeros(1, WIDTH).double(), 0.4)
    far = torch.full((1, 2, WIDTH), 1000.0).double()

    expected = WIDTH * (0.5 * math.log(2 * math.pi) + 0.4 + 0.5e6 * math.exp(-0.8))
    assert negative_log_likelihood(real, far).item() == pytest.approx(expected, rel=1e-12)


def test_bacon_check_03_features_that_are_all_equal_leave_the_clip_term_at_zero() -> None:
    flat = Moments(torch.ones(2, WIDTH), torch.zeros(2, WIDTH), torch.full((2,), 9.0))

    assert clip_as_published(flat, features(2, 4, WIDTH).float()).abs().max() < 1e-6


def test_bacon_check_03_the_clip_term_is_zero_and_so_is_its_gradient() -> None:
    real = moments(features(3, 7, 50).float())
    synthetic = features(3, 4, 50, seed=1).float().requires_grad_()

    term = clip_as_published(real, synthetic)
    (gradient,) = torch.autograd.grad(term.sum(), synthetic)

    assert term.abs().max() < 1e-6
    assert gradient.abs().max() < 1e-6


def test_bacon_check_04_the_gradient_is_the_one_on_paper() -> None:
    real = moments(features(2, 8, WIDTH))
    synthetic = features(2, 3, WIDTH, seed=1).requires_grad_()

    (gradient,) = torch.autograd.grad(bayesian_loss(real, synthetic, balance=0.8).sum(), synthetic)

    delta = synthetic.mean(dim=1).detach() - real.mean
    to_mean = delta / torch.exp(real.std) ** 2 + 0.4 * delta.sign()
    assert torch.allclose(gradient, (to_mean / 3)[:, None].expand(-1, 3, -1), atol=1e-9)


@pytest.mark.parametrize("likelihood", ["means", "samples"])
def test_bacon_check_06_the_order_of_images_does_not_matter(likelihood) -> None:
    real, synthetic = features(2, 8, WIDTH), features(2, 5, WIDTH, seed=1)
    loss = bayesian_loss(moments(real), synthetic, likelihood=likelihood)

    shuffled = bayesian_loss(
        moments(real[:, torch.randperm(8)]), synthetic[:, [4, 2, 0, 1, 3]], likelihood=likelihood
    )

    assert torch.allclose(loss, shuffled, atol=1e-12)


def test_bacon_check_07_the_deviation_is_unbiased() -> None:
    column = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1)

    assert moments(column).std.item() == pytest.approx(math.sqrt(7))


def test_bacon_check_07_a_single_real_image_is_refused() -> None:
    with pytest.raises(ValueError, match="one real image has no standard deviation"):
        moments(torch.zeros(2, 1, WIDTH))


def test_the_likelihood_of_samples_is_the_mean_over_all_pairs() -> None:
    real, synthetic = features(1, 4, WIDTH), features(1, 3, WIDTH, seed=1)
    seen = moments(real)
    sigma = torch.exp(seen.std[0])

    pairs = [
        (0.5 * ((z - x) / sigma) ** 2 + sigma.log() + 0.5 * math.log(2 * math.pi)).sum()
        for z in synthetic[0]
        for x in real[0]
    ]

    found = negative_log_likelihood(seen, synthetic, likelihood="samples")
    assert found.item() == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-12)


def test_total_variation_is_half_the_l1_distance_of_the_means() -> None:
    real = around(torch.tensor([[0.0, 1.0, -2.0]]).double(), 1.0)
    synthetic = torch.tensor([[[1.0, 1.0, 0.0], [3.0, 1.0, 0.0]]]).double()

    assert total_variation(real, synthetic).item() == pytest.approx(2.0)
