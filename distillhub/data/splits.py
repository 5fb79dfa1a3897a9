"""Setting rows apart: the one rule behind `test: <share>` and the held-out part."""

import torch
from torch import Tensor

from distillhub.units import derive_seed


def stratified(labels: Tensor, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw about `count` rows, the same share of every class.

    A class of n_c rows gives count * n_c / N of them, rounded by largest remainders (ties: the
    lower label), and always keeps one. Which of its rows are drawn first depends on the seed, the
    label and n_c alone.

    Args:
        labels: [N] int64, not negative.
        count: Rows to draw; fewer are drawn where classes would be emptied.
        seed: Of the draw.

    Returns:
        Rows left and rows drawn, both ascending int64.

    Raises:
        ValueError: If more rows are asked for than there are.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"{count} rows cannot be drawn from {len(labels)}")
    counts = torch.bincount(labels)
    shares = count * counts.to(torch.float64) / max(len(labels), 1)
    quotas = shares.floor().to(torch.int64)
    by_remainder = torch.argsort(shares - quotas, descending=True, stable=True)
    quotas[by_remainder[: count - int(quotas.sum())]] += 1
    quotas = torch.minimum(quotas, (counts - 1).clamp(min=0))

    drawn = torch.zeros(len(labels), dtype=torch.bool)
    by_class = torch.split(torch.argsort(labels, stable=True), counts.tolist())
    for label, rows in enumerate(by_class):
        generator = torch.Generator().manual_seed(derive_seed("stratified", seed, label))
        drawn[rows[torch.randperm(len(rows), generator=generator)[: int(quotas[label])]]] = True
    return torch.nonzero(~drawn).flatten(), torch.nonzero(drawn).flatten()
