"""NOpt as the authors' code does it, one class at a time: what `benchmarks/nopt.py` compares with.

The projector is a stack of ordinary layers and its map is averaged afterwards; targets go through
it 25 latents at a time, for each step anew; the noise belongs to `torch.optim.SGD`; the transformer
sees 5 samples at a time, each with its unconditional twin.

Source: Liu et al., Dataset Concentration (arXiv 2603.27987) and its code, data-accessible path.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillhub.ops.diffusion import Posterior, Schedule, diffuse

TARGET_BATCH = 25
"""Diffused latents per pass."""
MICRO_BATCH = 5
"""Samples per call of the transformer."""


class Settings(NamedTuple):
    """The numbers of the published runs."""

    iterations: int = 200
    lr: float = 0.1
    momentum: float = 0.9
    weight: float = 5e-4


class Pivots(NamedTuple):
    """The target of one class at one step."""

    mean: Tensor
    """[J]."""
    std: Tensor
    """[J]."""
    values: Tensor
    """[J, N]."""


def plain_projector(
    channels: int, widths: Sequence[int], groups: int, parameters: Sequence[Tensor]
) -> nn.Sequential:
    """Four convolutions with given weights and biases, in the order of the layers."""
    layers: list[nn.Module] = []
    for layer, width in enumerate(widths):
        first = layer == 0
        kernel, stride, parts = (3, 1, 1) if first else (4, 2, groups)
        layers += [nn.Conv2d(channels, width, kernel, stride, 1, groups=parts), nn.LeakyReLU(0.01)]
        channels = width
    net = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for own, given in zip(net.parameters(), parameters, strict=True):
            own.copy_(given)
    return net.requires_grad_(requires_grad=False)


def absn2(x: Tensor) -> Tensor:
    """Element by element."""
    return x.abs() + x**2


def plain_targets(
    net: nn.Module,
    latents: Tensor,
    noises: Sequence[Tensor],
    index: int,
    schedule: Schedule,
    n: int,
) -> Pivots:
    """Pivots of n samples, from latents [R, C, H, W] diffused with each of `noises`."""
    diffused = torch.cat([diffuse(latents, noise, index, schedule) for noise in noises])
    features = []
    for part in diffused.split(TARGET_BATCH):
        with torch.no_grad():
            features.append(net(part).mean(dim=(2, 3)))
    table = torch.cat(features).T  # [J, N_diff]
    mean, std = table.mean(dim=1), table.std(dim=1, correction=0)
    normal = ((table - mean[:, None]) / std[:, None]).sort(dim=1).values
    values = torch.stack([share.mean(dim=1) for share in normal.chunk(n, dim=1)], dim=1)
    return Pivots(mean, std, values)


def plain_search(
    net: nn.Module, posterior: Posterior, first: Tensor, pivots: Pivots, settings: Settings
) -> Tensor:
    """The noise of one step of one class, from its first value, [N, C, H, W]."""
    eps = first.clone().requires_grad_()
    optimizer = torch.optim.SGD([eps], lr=settings.lr, momentum=settings.momentum)
    radius = math.sqrt(eps[0].numel())
    for _ in range(settings.iterations):
        optimizer.zero_grad()
        x = posterior.mean + posterior.sigma * eps
        features = net(x).mean(dim=(2, 3)).T  # [J, N]
        normal = (features - pivots.mean[:, None]) / pivots.std[:, None]
        apart = normal.sort(dim=1).values - pivots.values
        real = absn2(eps.flatten(1).norm(dim=1) - radius).sum()
        loss = real + settings.weight * len(eps) * absn2(apart).sum()
        torch.autograd.backward(loss)
        optimizer.step()
    return eps.detach()


def plain_class(
    net: nn.Module,
    predict: Callable[[Tensor, int], Posterior],
    latents: Tensor,
    z: Tensor,
    noise_of: Callable[[int], tuple[Tensor, Sequence[Tensor]]],
    schedule: Schedule,
    settings: Settings,
) -> Tensor:
    """The last latents of one class, [N, C, H, W].

    Args:
        net: Projector of the class.
        predict: Samples and step -> posterior.
        latents: Real ones, [R, C, H, W].
        z: First latents, [N, C, H, W].
        noise_of: Step -> first noise of the samples, and the noises of the real latents.
        schedule: The levels.
        settings: Of the optimisation.
    """
    for index in reversed(range(schedule.steps)):
        parts = [predict(part, index) for part in z.split(MICRO_BATCH)]
        step = Posterior(*(torch.cat(values) for values in zip(*parts, strict=True)))
        if index == 0:
            return step.mean
        first, noises = noise_of(index)
        pivots = plain_targets(net, latents, noises, index, schedule, len(z))
        eps = plain_search(net, step, first, pivots, settings)
        z = step.mean + step.sigma * eps
    return z
