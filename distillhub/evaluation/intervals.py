"""Means over runs with their 95 % t intervals; no statistics library needed."""

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

FEWEST = 3
"""Runs below which no interval is given."""


class Spread(NamedTuple):
    """A mean over runs."""

    mean: float
    std: float | None
    """Sample standard deviation (ddof = 1); None for a single run."""
    ci95: tuple[float, float] | None
    """mean -+ t(0.975, n - 1) * std / sqrt(n); None for fewer than FEWEST runs."""
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Mean, deviation and interval; sums are exact, so the order of the runs is no matter.

    Raises:
        ValueError: If there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no runs")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(mean, None, None, 1)
    std = statistics.stdev(values)
    if n < FEWEST:
        return Spread(mean, std, None, n)
    half = t_quantile(n - 1) * std / math.sqrt(n)
    return Spread(mean, std, (mean - half, mean + half), n)


def spread_within(groups: Sequence[Sequence[float]]) -> Spread:
    """Mean of the groups' means, each weighing the same, with the spread inside the groups alone.

    The groups themselves are taken as they are: the interval says how well their mean is known, and
    nothing of other groups. The deviation is the pooled one.

    Args:
        groups: Runs of each group, e.g. of the images of one synthesis seed; none empty.

    Raises:
        ValueError: If there is no group, or one without a run.
    """
    means = [spread(group).mean for group in groups]
    mean, n = spread(means).mean, sum(map(len, groups))
    freedom = n - len(groups)
    if freedom == 0:
        return Spread(mean, None, None, n)
    squares = math.fsum((v - m) ** 2 for g, m in zip(groups, means, strict=True) for v in g)
    std = math.sqrt(squares / freedom)
    if freedom < FEWEST - 1:
        return Spread(mean, std, None, n)
    half = t_quantile(freedom) * std * math.sqrt(sum(1 / len(g) for g in groups)) / len(groups)
    return Spread(mean, std, (mean - half, mean + half), n)


@lru_cache
def t_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t distribution, by bisection.

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 1.9, 13.0  # the quantile falls from 12.71 to 1.96
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if _central_mass(middle, freedom) < 0.95:
            low = middle
        else:
            high = middle
        if middle in (low, high) and math.nextafter(low, high) >= high:
            break
    return (low + high) / 2


def _central_mass(t: float, freedom: int) -> float:
    """P(|T| < t), in closed form for whole degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
