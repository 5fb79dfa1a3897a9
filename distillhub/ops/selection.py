"""Choosing rows: uniformly without replacement, or so that their mean is that of all."""

import torch
from torch import Tensor


def sample(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` different ones of `rows`, uniformly, in random order; all of them where there are fewer.

    Args:
        rows: Candidates, [R].
        n: How many.
        generator: On the CPU.
    """
    return rows[torch.randperm(len(rows), generator=generator)[:n]]


def herd(features: Tensor, n: int) -> Tensor:
    """Rows picked one by one so that the mean of the picked follows the mean of all.

    Pick t + 1 is the row that brings the running mean of the picked closest to the mean of all
    rows; a row is picked once. Ties go to the lower row.

    Args:
        features: [R, D]; class-wise herding passes the rows of one class.
        n: How many rows, at most R.

    Returns:
        [n] int64, in the order of picking: every prefix is the herd of its length.

    Raises:
        ValueError: If n exceeds R or a feature is not finite.

    Source: Welling, Herding Dynamical Weights to Learn (ICML 2009), in the form of Rebuffi et al.,
    iCaRL (CVPR 2017), Algorithm 4.
    """
    if n > len(features):
        raise ValueError(f"{n} rows cannot be picked from features {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise ValueError(f"features {tuple(features.shape)} are not all finite")
    rows = features.double()
    mean = rows.mean(dim=0)
    squares = rows.square().sum(dim=1)
    picked = torch.zeros(n, dtype=torch.int64, device=features.device)
    taken = torch.zeros(len(rows), dtype=torch.bool, device=features.device)
    total = torch.zeros_like(mean)
    for k in range(n):
        wanted = (k + 1) * mean - total  # the row that would make the means agree
        distance = squares - 2 * (rows @ wanted)  # |row - wanted|^2 but for a constant
        picked[k] = distance.masked_fill(taken, torch.inf).argmin()
        taken[picked[k]] = True
        total = total + rows[picked[k]]
    return picked


def distinct(rows: int, n: int, generator: torch.Generator) -> Tensor:
    """`n` different numbers of 0 .. rows - 1, uniformly, without shuffling all of them.

    Args:
        rows: How many there are.
        n: How many are wanted; all of them, shuffled, where there are fewer.
        generator: On the CPU.

    Returns:
        [min(n, rows)] int64: drawn one by one, repetitions dropped.
    """
    if 2 * n >= rows:
        return torch.randperm(rows, generator=generator)[:n]
    drawn = torch.empty(0, dtype=torch.int64)
    while len(drawn) < n:
        more = torch.randint(rows, (n,), generator=generator)
        both = torch.cat([drawn, more])
        _, place = torch.unique(both, return_inverse=True)
        first = torch.full((int(place.max()) + 1,), len(both))
        first.scatter_reduce_(0, place, torch.arange(len(both)), "amin")
        drawn = both[first.sort().values]
    return drawn[:n]
