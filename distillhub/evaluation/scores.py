"""From logits and true classes to the figures of a single run; pure, in float64."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

BINS = 15
"""Equal-width confidence bins of the calibration error."""


class PerImage(NamedTuple):
    """What is kept of the logits of n test images; all are [n]."""

    rank: Tensor
    """Classes placed before the true one, int64; 0 is a hit."""
    confident: Tensor
    """Probability of the predicted class."""
    nll: Tensor
    """-log probability of the true class, nats."""
    brier: Tensor
    """Sum over classes of (probability - [class is true])^2."""


class Scores(NamedTuple):
    """Figures of a run; fractions in [0, 1]."""

    top1: float
    top5: float | None
    nll: float
    ece: float
    brier: float
    class_acc: tuple[float | None, ...]


def per_image(logits: Tensor, labels: Tensor) -> PerImage:
    """Judge a batch of logits.

    Of equal logits the lower class comes first, so a constant output is not right everywhere.

    Args:
        logits: [n, K].
        labels: [n] int64.

    Raises:
        ValueError: If the shapes do not fit or a logit is not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("a logit is not finite")
    logits, labels = logits.cpu().double(), labels.cpu()
    true = logits.gather(1, labels[:, None])  # [n, 1]
    earlier = torch.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > true) | ((logits == true) & earlier)).sum(1)
    log_p = torch.log_softmax(logits, 1)
    p = log_p.exp()
    nll = -log_p.gather(1, labels[:, None]).squeeze(1)
    p_true = p.gather(1, labels[:, None]).squeeze(1)
    brier = p.square().sum(1) - 2 * p_true + 1
    return PerImage(rank, p.max(1).values, nll, brier)


def scores(judged: PerImage, labels: Tensor, classes: int) -> Scores:
    """The figures of a test set.

    Args:
        judged: Of all test images.
        labels: [n] int64.
        classes: Number of classes; top5 is None for five or fewer.
    """
    labels = labels.cpu()
    right = (judged.rank == 0).double()
    totals = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels, weights=right, minlength=classes)
    return Scores(
        top1=float(right.mean()),
        top5=float((judged.rank < 5).double().mean()) if classes > 5 else None,
        nll=float(judged.nll.mean()),
        ece=calibration_error(judged.confident, right),
        brier=float(judged.brier.mean().clamp(0, 2)),
        class_acc=tuple(
            hit / total if total else None
            for hit, total in zip(hits.tolist(), totals.tolist(), strict=True)
        ),
    )


def calibration_error(confident: Tensor, right: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error: mean over images of |accuracy - confidence| of their bin.

    Args:
        confident: Probability of the predicted class, [n].
        right: 1 where it is the true one, else 0; [n].
        bins: Equal-width bins (low, high].

    Returns:
        A fraction in [0, 1].

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 2.
    """
    index = (confident.double() * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, index, right.double() - confident.double())
    # n_b / n * |acc_b - conf_b| is |sum of the differences in the bin| / n
    return float(gap.abs().sum() / len(confident))


def sampling_error(top1: float, images: int) -> float:
    """Standard error of an accuracy that comes from a finite test set.

    Args:
        top1: A fraction.
        images: Of the test set.
    """
    return math.sqrt(top1 * (1 - top1) / images)
