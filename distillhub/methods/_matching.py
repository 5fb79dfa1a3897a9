"""What the distribution-matching methods share: their augmentation, passes and divergence check."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator
from torch import Tensor

from distillhub.errors import DivergedError
from distillhub.ops.augment import DsaParams, apply_dsa, families
from distillhub.units import WorkUnit

CPU_PIXELS = 16 * 32 * 32  # per forward pass: what ConvNet-3 makes of 16 32x32 images is 8 MiB
ACCELERATOR_PIXELS = 4096 * 32 * 32


def _known(value: str) -> str:
    families(value)
    return value


Strategy = Annotated[str, AfterValidator(_known)]
"""Families of DSA, joined by underscores."""


def augment(x: Tensor, draw: DsaParams | None) -> Tensor:
    """Images [n, C, H, W] under a draw; None: as they are."""
    return x if draw is None else apply_dsa(x, draw)


def span(x: Tensor) -> int:
    """Images per forward pass: on a CPU as many as stay in the cache, elsewhere many."""
    pixels = CPU_PIXELS if x.device.type == "cpu" else ACCELERATOR_PIXELS
    return max(1, pixels // (x.shape[-2] * x.shape[-1]))


def refuse_divergence(losses: Tensor, step: int, units: Sequence[WorkUnit], mend: str) -> None:
    """Stop where the loss of a class, [U], is NaN or infinite.

    Raises:
        DivergedError: Naming the step and the unit.
    """
    finite = losses.isfinite()
    if not bool(finite.all()):
        worst = int((~finite).nonzero()[0])
        raise DivergedError(
            f"the matching loss is {losses[worst].item()} at step {step}",
            where=f"synthesize {units[worst].name}",
            mend=mend,
        )
