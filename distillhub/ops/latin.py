"""Normal noise whose samples share out the quantiles of every coordinate (Latin hypercubes)."""

from typing import Literal

import torch
from torch import Tensor

LATTICE_MIN = 5
"""Fewer samples leave the lattice's second moment far below 1: 0.46 for 2, 0.77 for 5."""

StartNoise = Literal["gaussian", "lattice", "auto"]
"""`auto`: the lattice from `LATTICE_MIN` samples up, Gaussian below."""


def lattice(n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise [n, *shape] whose every coordinate is a permutation of the n mid-quantiles.

    Sample s of a coordinate is Phi^-1((pi(s) + 0.5) / n) with an independent permutation pi.

    Args:
        n: Samples, at least 2.
        shape: Of one sample.
        generator: On the CPU.

    Raises:
        ValueError: For one sample, whose lattice is 0 everywhere.
    """
    if n < 2:
        raise ValueError(f"a lattice of {n} sample is 0 everywhere; draw normal noise")
    order = torch.rand((n, *shape), generator=generator).argsort(dim=0)
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    quantiles: Tensor = torch.special.ndtri(middle).to(torch.float32)
    return quantiles[order]


def settled_noise(kind: StartNoise, n: int) -> StartNoise:
    """What `auto` means for n samples of a class; the others mean themselves."""
    if kind != "auto":
        return kind
    return "lattice" if n >= LATTICE_MIN else "gaussian"


def start_noise(
    kind: StartNoise, n: int, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """The first latents of a class, [n, *shape]."""
    if settled_noise(kind, n) == "lattice":
        return lattice(n, shape, generator)
    return torch.randn((n, *shape), generator=generator)


def jittered_strata(
    copies: int, n: int, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Normal noise for several copies of each of n images, [copies, n, *shape].

    Of each image and coordinate, the copies lie in `copies` different strata of equal probability,
    in random order, each uniformly within its stratum; single values are exactly normal.

    Args:
        copies: Per image.
        n: Images.
        shape: Of one of them.
        generator: Draws on its own device.
    """
    device = generator.device
    size = (copies, n, *shape)
    order = torch.rand(size, generator=generator, device=device).argsort(dim=0)
    share = torch.rand(size, generator=generator, device=device).add_(order).div_(copies)
    noise: Tensor = torch.special.ndtri(share.clamp_(1e-7, 1 - 1e-7))
    return noise
