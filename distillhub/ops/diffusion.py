"""DDPM with few steps: the schedule, classifier-free guidance, and the posterior of one step.

Symbols: i -> step index, 0 .. steps - 1, where steps - 1 is the noisiest; tau_i -> its timestep in
training; abar_i -> product of (1 - beta) up to tau_i; z_i -> latents at level i.

Sources: Ho et al. 2020 (equations 4, 7 and 11); Nichol and Dhariwal 2021 (equation 15 for the
learned variance, and section 4 for spaced steps). The tables are float64; one step is float32.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """The levels that a sampling visits, with what each step needs."""

    timesteps: Tensor
    """[steps] int64, ascending: tau_i."""
    abar: Tensor
    """[steps] float64: share of the signal's variance that is left at level i."""

    @classmethod
    def linear(
        cls,
        steps: int = 50,
        train_steps: int = 1000,
        start: float = 1e-4,
        end: float = 0.02,
    ) -> "Schedule":
        """Spaced steps of the linear schedule; the first and the last timestep are among them.

        Args:
            steps: Levels, 2 .. `train_steps`.
            train_steps: Levels in training.
            start: beta of the first training step.
            end: beta of the last one.

        Raises:
            ValueError: If there are fewer than 2 steps or more than in training.
        """
        if not 2 <= steps <= train_steps:
            raise ValueError(f"{steps} steps; 2 .. {train_steps} are possible")
        spaced = torch.linspace(0, train_steps - 1, steps, dtype=torch.float64).round()
        beta = torch.linspace(start, end, train_steps, dtype=torch.float64)
        timesteps = spaced.to(torch.int64)
        return cls(timesteps, (1 - beta).cumprod(0)[timesteps])

    @property
    def steps(self) -> int:
        """Number of levels."""
        return len(self.timesteps)

    @property
    def abar_before(self) -> Tensor:
        """[steps] float64: abar of the level that step i leads to; 1 for step 0."""
        return torch.cat([self.abar.new_ones(1), self.abar[:-1]])

    @property
    def beta(self) -> Tensor:
        """[steps] float64: variance that level i adds to the level below it."""
        return 1 - self.abar / self.abar_before

    @property
    def posterior_variance(self) -> Tensor:
        """[steps] float64: variance of z_(i-1) given z_i and x0; step 0 has that of step 1."""
        variance = self.beta * (1 - self.abar_before) / (1 - self.abar)
        return torch.cat([variance[1:2], variance[1:]])


class Posterior(NamedTuple):
    """What a model says of the step from level i to level i - 1; all [n, C, H, W] float32."""

    mean: Tensor
    sigma: Tensor
    """Standard deviation; not used at step 0, which adds no noise."""
    x0: Tensor
    """The image that the model sees in z_i; not clipped."""
    eps: Tensor
    """The noise that it sees, after guidance."""


def guide(conditional: Tensor, unconditional: Tensor, scale: float, channels: int) -> Tensor:
    """Classifier-free guidance of the first `channels` channels, [n, C, H, W].

    The others stay those of the condition, as in the authors' sampler of DiT, which guides 3 of 4.
    A scale of 1 gives the conditional prediction as it is.
    """
    if scale == 1:
        return conditional
    free, rest = unconditional[:, :channels], conditional[:, channels:]
    return torch.cat([free + scale * (conditional[:, :channels] - free), rest], dim=1)


def posterior(
    z: Tensor, eps: Tensor, v: Tensor | None, index: int, schedule: Schedule
) -> Posterior:
    """Mean and deviation of z_(index-1).

    Args:
        z: Latents at level `index`, [n, C, H, W] float32.
        eps: Predicted noise, like `z`.
        v: Where the log variance lies between its bounds: -1 is the posterior variance, 1 is beta;
            None: the posterior variance ("fixed small").
        index: Step, 0 .. steps - 1.
        schedule: Its levels.
    """
    abar, before = schedule.abar[index].item(), schedule.abar_before[index].item()
    beta, low = schedule.beta[index].item(), schedule.posterior_variance[index].item()
    x0 = z / math.sqrt(abar) - math.sqrt(1 / abar - 1) * eps
    mean = (beta * math.sqrt(before) / (1 - abar)) * x0
    mean = mean + ((1 - before) * math.sqrt(1 - beta) / (1 - abar)) * z
    if v is None:
        sigma = torch.full_like(z, math.sqrt(low))
    else:
        share = (v + 1) / 2
        sigma = (0.5 * (share * math.log(beta) + (1 - share) * math.log(low))).exp()
    return Posterior(mean, sigma, x0, eps)


def deterministic(step: Posterior, index: int, schedule: Schedule) -> Tensor:
    """z_(index-1) without fresh noise: the update of DDIM with eta = 0.

    Source: Song et al., Denoising Diffusion Implicit Models (2021), equation 12.
    """
    before = schedule.abar_before[index].item()
    return math.sqrt(before) * step.x0 + math.sqrt(1 - before) * step.eps


def diffuse(x0: Tensor, noise: Tensor, index: int, schedule: Schedule) -> Tensor:
    """Latents at level `index` of clean ones, like `x0`."""
    abar = schedule.abar[index].item()
    return math.sqrt(abar) * x0 + math.sqrt(1 - abar) * noise


def variational_bound(
    x0: Tensor, z: Tensor, eps: Tensor, v: Tensor, index: Tensor, schedule: Schedule
) -> Tensor:
    """Terms of the variational bound in bits per dimension, [n]; only `v` gets a gradient.

    At step 0 it is the negative log likelihood of pixels with 256 values in [-1, 1], above it the
    divergence of the predicted from the true posterior.

    Args:
        x0: Clean latents, [n, C, H, W].
        z: The same at the levels of `index`.
        eps: Predicted noise.
        v: Predicted place of the log variance between its bounds, as in `posterior`.
        index: Steps, [n] int64 on the CPU, where the tables are.
        schedule: Their levels.

    Source: Nichol and Dhariwal 2021, equations 4 to 6 and 15.
    """

    def at(table: Tensor) -> Tensor:
        return table[index].to(z.device, torch.float32).view(-1, 1, 1, 1)

    abar, before = schedule.abar, schedule.abar_before
    to_x0 = at(schedule.beta * before.sqrt() / (1 - abar))
    to_z = at((1 - before) * (1 - schedule.beta).sqrt() / (1 - abar))
    seen = z * at(abar.rsqrt()) - at((1 / abar - 1).sqrt()) * eps.detach()
    mean, true_mean = to_x0 * seen + to_z * z, to_x0 * x0 + to_z * z
    low, high = at(schedule.posterior_variance.log()), at(schedule.beta.log())
    log_variance = low + (v + 1) / 2 * (high - low)
    divergence = 0.5 * (
        log_variance
        - low
        - 1
        + (low - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = _discrete_log_likelihood(x0, mean, 0.5 * log_variance)
    first = (index == 0).to(z.device).view(-1, 1, 1, 1)
    terms = torch.where(first, -likelihood, divergence)
    return terms.mean(dim=(1, 2, 3)) / math.log(2)


def _discrete_log_likelihood(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Log probability of values on the grid of 256 in [-1, 1] under a normal law."""
    centered, scale = x - mean, (-log_sigma).exp()
    above = torch.special.ndtr(scale * (centered + 1 / 255))
    below = torch.special.ndtr(scale * (centered - 1 / 255))
    inside = torch.where(x > 0.999, 1 - below, above - below)
    return torch.where(x < -0.999, above, inside).clamp_min(1e-12).log()
