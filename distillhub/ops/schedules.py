"""Learning-rate schedules: factors of the base rate by step (or epoch), counted from 0."""

import math

SETTLED = 0.02
"""Change of the loss, and its share of the loss, up to which `settled` holds."""


def _inside(step: int, total: int) -> None:
    if total < 1 or not 0 <= step <= total:
        raise ValueError(f"step {step} lies outside 0 .. {total}")


def cosine(step: int, total: int, *, stretch: float = 1.0) -> float:
    """Half a cosine from 1 at step 0 to (1 + cos(pi / stretch)) / 2 at `total`.

    Args:
        step: 0 .. total.
        total: Steps in all.
        stretch: 1 ends at 0; 2 is the "smoothing" schedule of RDED and EDC, which ends at 1/2.

    Raises:
        ValueError: If the step lies outside, or the stretch is below 1.
    """
    _inside(step, total)
    if stretch < 1:
        raise ValueError(f"stretch {stretch} is below 1")
    return 0.5 * (1 + math.cos(math.pi * step / (stretch * total)))


def warmup(step: int, steps: int, *, start: float = 0.0) -> float:
    """A linear rise from `start` to 1 within `steps` steps, then 1.

    The first step has factor start + (1 - start) / steps, so that no step is lost at 0 and the last
    one of the rise has 1.
    """
    if step < 0 or steps < 0:
        raise ValueError(f"step {step} of a warm-up of {steps} steps")
    if step >= steps:
        return 1.0
    return start + (1 - start) * (step + 1) / steps


def linear(step: int, total: int, *, end: float = 0.0) -> float:
    """A straight line from 1 at step 0 to `end` at `total`.

    Raises:
        ValueError: If the step lies outside.
    """
    _inside(step, total)
    return 1 + (end - 1) * step / total


def ssrs(step: int, total: int, *, stretch: float) -> float:
    """The stretched cosine to 5/6 of the way, then a straight line that ends at 0.

    Behind 5/6 the factor is c (1 - step / total) with c the cosine at 5/6: it drops there from c to
    c / 6, as it is meant to.

    Args:
        step: 0 .. total.
        total: Steps in all.
        stretch: Of the cosine, at least 1.

    Raises:
        ValueError: If the step lies outside, or the stretch is below 1.

    Source: the SSRS schedule of EDC (NeurIPS 2024), Table 16; `cos2` of the authors' code.
    """
    if 6 * step <= 5 * total:
        return cosine(step, total, stretch=stretch)
    _inside(step, total)
    return cosine(5, 6, stretch=stretch) * (1 - step / total)


def settled(loss: float, before: float) -> bool:
    """Whether a loss hardly changes: by at most 0.02, and by at most 2 % of itself.

    Then ALRS multiplies the rate by its gamma.

    Args:
        loss: Mean of an epoch.
        before: Mean of the epoch before.

    Source: adaptive learning-rate scheduling in EDC (NeurIPS 2024), Table 15, as in the code.
    """
    change = abs(loss - before)
    return change <= SETTLED and change <= SETTLED * abs(loss)


def warmup_cosine(step: int, total: int, *, warmup_steps: int, start: float = 0.0) -> float:
    """A warm-up of `warmup_steps`, then a cosine to 0 over the steps that remain.

    Raises:
        ValueError: If the step lies outside, or nothing remains after the warm-up.
    """
    _inside(step, total)
    if not 0 <= warmup_steps < total:
        raise ValueError(f"a warm-up of {warmup_steps} steps leaves nothing of {total}")
    if step < warmup_steps:
        return warmup(step, warmup_steps, start=start)
    return cosine(step - warmup_steps, total - warmup_steps)
