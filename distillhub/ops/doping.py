"""Doping: which real images a student is most confused about, and when synthesis stops paying.

Source: Dataset Concentration (arXiv 2603.27987), Dope Trigger and Doping.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How far the best other class is ahead of the given one, in [-1, 1].

    max over c != label of p[c] - p[label]: positive just where argmax p is another class. Equation
    31 of the paper has the opposite sign, its text and the authors' selection have this one.

    Args:
        probabilities: Of the student, [n, K], K >= 2.
        labels: The classes it should find, [n] int64.

    Returns:
        [n], of the type of `probabilities`.
    """
    column = labels.unsqueeze(1)
    own = probabilities.gather(1, column).squeeze(1)
    return probabilities.scatter(1, column, -torch.inf).amax(dim=1) - own


def most_confused(score: Tensor, n: int) -> Tensor:
    """The `n` rows of the highest confusion, highest first; ties go to the lower row.

    Args:
        score: [N].
        n: 0 to N.

    Returns:
        [n] int64, all different.

    Raises:
        ValueError: If there are fewer rows, n is negative, or a score is not finite.
    """
    if not 0 <= n <= len(score):
        raise ValueError(f"{n} rows cannot be picked from {len(score)}")
    if not bool(score.isfinite().all()):
        raise ValueError("a confusion is not finite")
    return score.sort(descending=True, stable=True).indices[:n]


def most_confused_by_class(score: Tensor, classes: Tensor, n: Sequence[int]) -> Tensor:
    """The rows of the highest confusion in each class, class after class.

    Args:
        score: [N].
        classes: Of each row, [N] int64.
        n: How many of class 0, 1, ...

    Returns:
        [sum(n)] int64, all different.

    Raises:
        ValueError: If a class has fewer rows, or a score is not finite.
    """
    picked = []
    for label, count in enumerate(n):
        rows = (classes == label).nonzero().squeeze(1)
        if not 0 <= count <= len(rows):
            raise ValueError(f"class {label} has {len(rows)} images, {count} are asked for")
        picked.append(rows[most_confused(score[rows], count)])
    return torch.cat(picked)


class Pick(NamedTuple):
    """What the Dope Trigger says of a series of sizes."""

    size: int
    """Index of the size that is kept; the last one where every step paid."""
    gains: tuple[float, ...]
    """g_k = (N_{k+1} - N_k) / (M_{k+1} - M_k): real images recognised per added image."""


def pick(sizes: Sequence[int], recognised: Sequence[float]) -> Pick:
    """The first size M_k after which an added image wins at most one recognised real image.

    Args:
        sizes: M_k, images of the synthetic sets, rising.
        recognised: N_k, training images that a student of that set recognises.

    Raises:
        ValueError: If the lengths differ, there is no size, or the sizes do not rise.
    """
    if len(sizes) != len(recognised) or not sizes:
        raise ValueError(f"{len(sizes)} sizes and {len(recognised)} numbers of recognised images")
    steps = list(itertools.pairwise(zip(sizes, recognised, strict=True)))
    if any(after <= before for (before, _), (after, _) in steps):
        raise ValueError(f"sizes {list(sizes)} do not rise")
    gains = tuple((more - n) / (larger - m) for (m, n), (larger, more) in steps)
    first = next((k for k, gain in enumerate(gains) if gain <= 1), len(gains))
    return Pick(first, gains)
