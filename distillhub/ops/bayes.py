"""The terms of BACON: how far synthetic features are from what the real ones make likely.

Symbols: F_r -> real features of a class, of which mean mu_r and deviation s_r are given; F_s ->
synthetic features; Delta = mu_s - mu_r; sigma = exp(s_r), as the authors' code has it (so >= 1).

Source: Zhou et al., BACON: Bayesian Optimal Condensation Framework for Dataset Distillation
(arXiv 2406.01112), with the loss as the authors' code computes it.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Likelihood = Literal["means", "samples"]

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Moments(NamedTuple):
    """Mean and deviation of the real features of K classes; constants."""

    mean: Tensor
    """[K, D]."""
    std: Tensor
    """[K, D], with B - 1 in the denominator."""
    images: Tensor
    """[K]: real images, B."""


def moments(features: Tensor, *, spread: bool = True) -> Moments:
    """Mean and unbiased deviation of the features of each class.

    Args:
        features: [K, B, D].
        spread: Whether the deviation is wanted; without it, it is 0.

    Raises:
        ValueError: If it is wanted of a single image: it is not defined.
    """
    if spread and features.shape[1] < 2:
        raise ValueError("one real image has no standard deviation; two are needed")
    images = torch.full(features.shape[:1], float(features.shape[1]), device=features.device)
    mean = features.mean(dim=1)
    return Moments(mean, features.std(dim=1) if spread else torch.zeros_like(mean), images)


def negative_log_likelihood(
    real: Moments, synthetic: Tensor, *, likelihood: Likelihood = "means"
) -> Tensor:
    """-log of a Gaussian around the real features with deviation exp(s_r), summed over features.

    `means` (the authors' code): the density of mu_s around mu_r. `samples` (their text: every
    synthetic feature against every real one): the mean over all pairs, in closed form

        mean_ij (z_j - z_i)^2 = mean_j (z_j - mu_r)^2 + variance of the real ones.

    The log is taken in closed form; the code's log of an exponential ends at -infinity for
    |Delta / sigma| > 14.

    Args:
        real: Of K classes.
        synthetic: [K, n, D].
        likelihood: Which of the two.

    Returns:
        [K].
    """
    spread = real.std  # log sigma
    if likelihood == "means":
        squared = (synthetic.mean(dim=1) - real.mean).square()
    else:
        biased = real.std.square() * (1 - 1 / real.images)[:, None]
        squared = (synthetic - real.mean[:, None]).square().mean(dim=1) + biased
    return (HALF_LOG_TWO_PI + spread + 0.5 * squared * torch.exp(-2 * spread)).sum(dim=1)


def total_variation(real: Moments, synthetic: Tensor) -> Tensor:
    """Half the L1 distance of the mean features, [K]; not of neighbouring pixels."""
    return 0.5 * (synthetic.mean(dim=1) - real.mean).abs().sum(dim=1)


def clip_as_published(real: Moments, synthetic: Tensor) -> Tensor:
    """The CLIP term of the authors' code, [K]: a constant 0.

    It compares the mean entries of two softmax vectors, and both are 1/D. Kept because the method
    is published with it; neither its value nor its gradient exceeds rounding. Features that are all
    equal have no deviation to divide by; the term is 0 there, too.
    """
    p_real = real.mean.softmax(dim=1)
    p_synthetic = synthetic.mean(dim=1).softmax(dim=1)
    deviation = p_real.std(dim=1)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    u = (p_synthetic.mean(dim=1) - p_real.mean(dim=1)) / deviation
    return (u - u.clamp(0, 1)).square()


def bayesian_loss(
    real: Moments,
    synthetic: Tensor,
    *,
    likelihood: Likelihood = "means",
    balance: float = 0.8,
) -> Tensor:
    """L_LH + balance * L_TV + (1 - balance) * L_CLIP per class, [K].

    Args:
        real: Of K classes.
        synthetic: [K, n, D].
        likelihood: See `negative_log_likelihood`.
        balance: The authors' lambda, 0.8.
    """
    return (
        negative_log_likelihood(real, synthetic, likelihood=likelihood)
        + balance * total_variation(real, synthetic)
        + (1 - balance) * clip_as_published(real, synthetic)
    )
