"""Losses between logits and labels; all are means over the batch unless said otherwise."""

from torch import Tensor
from torch.nn import functional


def _same_shape(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be [n, K]"
        )


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with hard labels.

    Args:
        logits: [n, K].
        labels: [n] int64, class indices.
        smoothing: Share of the target spread evenly over all K classes.

    Returns:
        Scalar in nats.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must be [n, K] and [n]"
        )
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def soft_cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Cross-entropy with a distribution per image; equals `cross_entropy` for one-hot rows.

    Args:
        logits: [n, K].
        probabilities: [n, K], rows sum to 1.

    Returns:
        Scalar in nats.

    Raises:
        ValueError: If the shapes differ.
    """
    _same_shape(logits, probabilities)
    return -(probabilities * functional.log_softmax(logits, 1)).sum(1).mean()


def kl_divergence(
    logits: Tensor, target_logits: Tensor, *, temperature: float = 1.0, scaled: bool = False
) -> Tensor:
    """KL(target || ours) of two softmaxes at one temperature.

    Args:
        logits: Ours, [n, K].
        target_logits: The teacher's, [n, K]; no gradient is stopped here.
        temperature: Both are divided by it.
        scaled: Multiply by the temperature squared, which keeps the size of the gradients (Hinton
            et al. 2015, section 2).

    Returns:
        Scalar in nats, 0 when the distributions agree.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    _same_shape(logits, target_logits)
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} is not positive")
    ours = functional.log_softmax(logits / temperature, 1)
    target = functional.log_softmax(target_logits / temperature, 1)
    divergence = functional.kl_div(ours, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2 if scaled else divergence


def mse_gt(logits: Tensor, target_logits: Tensor, labels: Tensor, *, ce_weight: float) -> Tensor:
    """Mean squared error between logits, plus a weighted cross-entropy with the hard labels.

    Args:
        logits: Ours, [n, K].
        target_logits: The teacher's, [n, K].
        labels: [n] int64; of the base image where images are mixed.
        ce_weight: 0.1 for G-VBSM and 0.025 for EDC on ImageNet-1k.

    Returns:
        Scalar; the squared error is the mean over batch and classes.

    Raises:
        ValueError: If the shapes do not fit.

    Source: the MSE-GT loss of G-VBSM (CVPR 2024) and EDC (NeurIPS 2024), as in their public code.
    """
    _same_shape(logits, target_logits)
    return functional.mse_loss(logits, target_logits) + ce_weight * cross_entropy(logits, labels)
