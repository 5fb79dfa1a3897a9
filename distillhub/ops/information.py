"""Information of samples about their label, and variability within a label, for guided sampling.

Symbols: x -> sample; y -> its label; K -> classes; q(y|x) -> a classifier's softmax; P(x) -> the
softmax of a second network at a higher temperature; Q_y -> mean of P over class y; N -> samples of
one class that are made together; G_I, G_H -> scores of a sample, higher is better, in nats.

Where each piece comes from is said with a letter. [A]: the abstract of Ye et al.,
Information-Guided Diffusion Sampling for Dataset Distillation (arXiv 2507.04619, 2025), which is
all of that paper that could be used: samples that maximise I(X;Y) + beta H(X|Y), with a beta that
rises with the images per class. [B]: standard identities. [ours]: our own choice.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

BETA_REFERENCE = 100
"""Images per class at which the log rule gives `beta_max`."""
TEMPERATURES = (0.05, 20.0)
"""Where the calibrated temperature is looked for."""
_TINY = 1e-8


# ---- prototype information, I(X;Y)


def prototype_score(logits: Tensor, labels: Tensor, *, temperature: float = 1.0) -> Tensor:
    """G_I = log q(y|x), never above 0, [n] in nats.

    log K + E[G_I] is a lower bound of I(X;Y) for balanced labels, whatever q is, and tight where q
    is the true posterior [B]; that the bound of the paper is this one is not known.

    Args:
        logits: [n, K].
        labels: [n] int64.
        temperature: The logits are divided by it.

    Raises:
        ValueError: If the shapes do not fit or the temperature is not positive.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must be [n, K] and [n]"
        )
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} is not positive")
    log_q = functional.log_softmax(logits / temperature, 1)
    return log_q.gather(1, labels.view(-1, 1)).squeeze(1)


def prototype_bound(scores: Tensor, num_classes: int) -> float:
    """Log K - CE: what a classifier shows of I(X;Y), in nats, at most log K [B].

    Args:
        scores: G_I of images that the classifier was not trained on, [n].
        num_classes: K.

    Raises:
        ValueError: If there are no scores.
    """
    if len(scores) == 0:
        raise ValueError("the bound on no images is not defined")
    return math.log(num_classes) + scores.double().mean().item()


def calibrated_temperature(logits: Tensor, labels: Tensor, *, iterations: int = 60) -> float:
    """The temperature with the lowest cross-entropy, within `TEMPERATURES`.

    The cross-entropy is convex in the inverse temperature, so a golden-section search finds it
    (Guo et al., On Calibration of Modern Neural Networks, 2017, for the idea) [B].

    Args:
        logits: Of images that the network was not trained on, [n, K].
        labels: [n] int64.
        iterations: Each leaves 62 % of the interval.
    """
    wide, ratio = logits.double(), (math.sqrt(5) - 1) / 2

    def loss(log_inverse: float) -> float:
        return functional.cross_entropy(wide * math.exp(log_inverse), labels).item()

    low, high = -math.log(TEMPERATURES[1]), -math.log(TEMPERATURES[0])
    for _ in range(iterations):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp(-(low + high) / 2)


# ---- contextual information, H(X|Y)


def log_mean(log_p: Tensor) -> Tensor:
    """Log Q of a set: the logarithm of the mean distribution, [..., N, K] -> [..., K]."""
    return log_p.logsumexp(-2) - math.log(log_p.shape[-2])


def divergence_score(log_p: Tensor, log_q: Tensor | None = None) -> Tensor:
    """G_H = KL(P(x) || Q_y), [G, N] in nats.

    With the set's own centroid the mean of the scores is I(X;Yhat|Y) of the set, Yhat being the
    network's output, hence a lower bound of H(X|Y) [B]; gradients flow through that centroid, and
    a single sample has score and gradient 0. With the centroid of other images the mean is larger
    by KL(mean P || Q_y) and no longer a bound. The quantity is the contextual information of the
    first authors' earlier work on distillation (ICLR 2024) [B]; that the paper uses it is not
    known.

    Args:
        log_p: log P of the samples of G classes, [G, N, K].
        log_q: log Q_y of each class, [G, K]; None: the samples' own.
    """
    center = log_mean(log_p) if log_q is None else log_q
    return (log_p.exp() * (log_p - center.unsqueeze(-2))).sum(-1)


def conditional_information(log_p: Tensor, labels: Tensor) -> Tensor:
    """I(X;Yhat|Y) of labelled samples: their mean divergence from the centroid of their class [B].

    Args:
        log_p: [n, K].
        labels: [n] int64.

    Returns:
        Scalar in nats, at least 0 and at most the entropy of the mean distribution.
    """
    parts = [
        divergence_score(log_p[labels == label].unsqueeze(0)) for label in torch.unique(labels)
    ]
    return torch.cat([part.flatten() for part in parts]).mean()


def spread_score(features: Tensor, *, noise: float) -> Tensor:
    """G_H = logdet(I + Gram / (N noise^2)) / (2 N), [G, N], the same for all samples of a class.

    The sum over the samples is I(X;Z|Y) of the noisy feature Z = h + noise, a lower bound of H(X|Y)
    for normal features [B]; taking it for G_H is [ours]. A single sample has score and gradient 0.

    Args:
        features: Whitened features of the samples of G classes, [G, N, D].
        noise: Standard deviation of the noise, in deviations of the real images of a class.

    Raises:
        ValueError: If the noise is not positive.
    """
    if noise <= 0:
        raise ValueError(f"noise {noise} is not positive")
    n = features.shape[1]
    centered = features - features.mean(1, keepdim=True)
    gram = centered @ centered.transpose(1, 2) / (n * noise**2)  # [G, N, N]
    eye = torch.eye(n, dtype=gram.dtype, device=gram.device)
    volume: Tensor = torch.linalg.slogdet(eye + gram).logabsdet
    return (volume / (2 * n)).unsqueeze(1).expand(-1, n)


def whitening(features: Tensor, labels: Tensor, *, floor: float = 1e-4) -> Tensor:
    """The map to features of unit covariance within classes, symmetric [D, D].

    Args:
        features: Of real images, [n, D].
        labels: [n] int64.
        floor: Least share of the mean variance that a direction counts with, so that directions
            without variance are not blown up; where there is none at all, nothing is scaled.
    """
    centered = features.double().clone()
    for label in torch.unique(labels):
        rows = labels == label
        centered[rows] -= centered[rows].mean(0)
    values, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    mean = values.mean().item()
    values = values.clamp_min(floor * mean if mean > 0 else 1.0)
    whiten: Tensor = ((vectors * values.rsqrt()) @ vectors.T).to(features.dtype)
    return whiten


# ---- the weight of the context


def context_weight(ipc: int, *, beta_max: float, table: Mapping[int, float] | None = None) -> float:
    """beta(IPC): beta_max log(IPC) / log(100), or what a table says.

    That it rises with the images per class is [A]; the rule is [ours].

    Args:
        ipc: Images per class.
        beta_max: The value at 100 images per class.
        table: Values by IPC; they replace the rule.

    Raises:
        KeyError: If the table has no entry for `ipc`.
    """
    if table is not None:
        return table[ipc]
    return beta_max * math.log(ipc) / math.log(BETA_REFERENCE)


# ---- guidance


def over_views(scores: Sequence[Callable[[Tensor], Tensor]], x: Tensor, *, flip: bool) -> Tensor:
    """The mean of several scores of a sample and, with `flip`, of its mirror image [ours].

    An average of log-probabilities is still a lower bound, and harder to please by noise that no
    second network sees.

    Args:
        scores: One per member of an ensemble: [..., c, h, w] -> [...].
        x: Samples.
        flip: Whether to add the samples mirrored left to right.
    """
    views = (x, x.flip(-1)) if flip else (x,)
    return torch.stack([score(view) for view in views for score in scores]).mean(0)


def norms(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, [n, 1, 1, 1]."""
    found: Tensor = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
    return found


def normalized_gradient(gradient: Tensor, eps: Tensor) -> Tensor:
    """The gradient with the norm of the predicted noise, per sample, so that a scale has no unit.

    Args:
        gradient: [n, c, h, w]; [ours].
        eps: Predicted noise, like `gradient`.
    """
    return gradient * (norms(eps) / (norms(gradient) + _TINY))


def capped(shift: Tensor, limit: Tensor) -> Tensor:
    """The shift of each sample, shortened where it is longer than `limit` ([n, 1, 1, 1]) [ours]."""
    return shift * (limit / (norms(shift) + _TINY)).clamp(max=1)
