"""The composed figures: pure functions of accuracies, which are fractions in [0, 1].

A(x, y) is the accuracy with images x in {full, syn, rnd} and labels y. `any` is the regime that the
set is sold under.
"""

import math
from collections.abc import Sequence


def fraction(value: float, what: str) -> float:
    """The value itself, if it is a fraction.

    Raises:
        ValueError: If it is none; a percentage is told the fraction that was meant.
    """
    if 0 <= value <= 1:
        return value
    meant = f"; a fraction is needed: {value / 100:g}" if 1 < value <= 100 else ""
    raise ValueError(f"{what} is {value:g}, outside [0, 1]{meant}")


def squash(score: float) -> float:
    """(exp(a) - exp(-1)) / (exp(1) - exp(-1)): from [-1, 1] onto [0, 1].

    Source: DD-Ranking (arXiv 2505.13300), section 4.
    """
    return (math.exp(score) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def hlr(full_hard: float, syn_hard: float) -> float:
    """Hard label recovery, A(full, hard) - A(syn, hard); lower is better."""
    return fraction(full_hard, "A(full, hard)") - fraction(syn_hard, "A(syn, hard)")


def ior(syn: float, rnd: float) -> float:
    """Improvement over random images in the same regime, A(syn, any) - A(rnd, any)."""
    return fraction(syn, "A(syn, any)") - fraction(rnd, "A(rnd, any)")


def lrs_argument(
    full_hard: float, syn_hard: float, syn: float, rnd: float, *, weight: float = 0.5
) -> float:
    """What the label robust score squashes: weight * ior - (1 - weight) * hlr."""
    return weight * ior(syn, rnd) - (1 - weight) * hlr(full_hard, syn_hard)


def lrs(full_hard: float, syn_hard: float, syn: float, rnd: float, *, weight: float = 0.5) -> float:
    """Label robust score in [0, 1]; 0.269 is "as good as random and as full data".

    Args:
        full_hard: A(full, hard).
        syn_hard: A(syn, hard).
        syn: A(syn, any).
        rnd: A(rnd, any).
        weight: Of ior against hlr.

    Raises:
        ValueError: If an accuracy is no fraction.

    Source: DD-Ranking (arXiv 2505.13300), section 4.
    """
    return squash(lrs_argument(full_hard, syn_hard, syn, rnd, weight=weight))


def ars_argument(
    syn_aug: float, rnd_aug: float, syn_plain: float, rnd_plain: float, *, weight: float = 0.5
) -> float:
    """What the augmentation robust score squashes: the weighted gains with and without."""
    return weight * ior(syn_aug, rnd_aug) + (1 - weight) * ior(syn_plain, rnd_plain)


def ars(
    syn_aug: float, rnd_aug: float, syn_plain: float, rnd_plain: float, *, weight: float = 0.5
) -> float:
    """Augmentation robust score in [0, 1].

    Args:
        syn_aug: A(syn) with augmentation.
        rnd_aug: A(rnd) with augmentation.
        syn_plain: A(syn) without.
        rnd_plain: A(rnd) without.
        weight: Of the gain with augmentation.

    Raises:
        ValueError: If an accuracy is no fraction.

    Source: DD-Ranking (arXiv 2505.13300), section 4.
    """
    return squash(ars_argument(syn_aug, rnd_aug, syn_plain, rnd_plain, weight=weight))


def recovery(syn: float, full_hard: float) -> float:
    """A(syn, any) / A(full, hard).

    Raises:
        ValueError: If an accuracy is no fraction, or the reference is 0.
    """
    if fraction(full_hard, "A(full, hard)") == 0:
        raise ValueError("A(full, hard) is 0")
    return fraction(syn, "A(syn, any)") / full_hard


def worst(recalls: Sequence[float]) -> float:
    """The lowest class recall."""
    return min(recalls)


def bottom_tenth(recalls: Sequence[float]) -> float:
    """Mean recall of the lowest tenth of the classes, at least one."""
    lowest = sorted(recalls)[: math.ceil(len(recalls) / 10)]
    return math.fsum(lowest) / len(lowest)


def deviation(recalls: Sequence[float]) -> float:
    """Standard deviation of the recall over the classes, which are all there are (ddof = 0)."""
    mean = math.fsum(recalls) / len(recalls)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in recalls) / len(recalls))


def disparity(recalls: Sequence[float]) -> float:
    """Highest minus lowest class recall."""
    return max(recalls) - min(recalls)


def robustness_ratio(clean: float, attacked: Sequence[float]) -> float:
    """100 * (1 - (clean - mean) / (clean - min)) over attacks; 0 where no attack does harm.

    It is relative to the worst attack and says nothing absolute. Any unit of accuracy does.

    Source: CREI / BEARD (arXiv 2411.09265), section 3.
    """
    harm = clean - min(attacked)
    if harm == 0:
        return 0.0
    return 100 * (1 - (clean - math.fsum(attacked) / len(attacked)) / harm)


def attack_efficiency(clean: float, attacked: Sequence[float]) -> float:
    """100 * (mean - clean) / (max - clean) over attack times in seconds; 0 where all equal clean.

    Source: CREI / BEARD (arXiv 2411.09265), section 3.
    """
    longest = max(attacked) - clean
    if longest == 0:
        return 0.0
    return 100 * (math.fsum(attacked) / len(attacked) - clean) / longest


def crei(ratio: float, efficiency: float, *, weight: float = 0.5) -> float:
    """The weighted mean of robustness ratio (weight) and attack efficiency (1 - weight).

    Source: CREI / BEARD (arXiv 2411.09265), section 3.
    """
    return weight * ratio + (1 - weight) * efficiency
