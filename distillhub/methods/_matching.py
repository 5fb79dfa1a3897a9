"""What the distribution-matching methods share: augmentation, precision, passes, divergence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from torch import Tensor

from distillhub.errors import DivergedError
from distillhub.methods._base import Workbench
from distillhub.models.architecture import parse_arch
from distillhub.ops.augment import DsaParams, apply_dsa, draw_dsa, families
from distillhub.units import WorkUnit

CPU_PIXELS = 16 * 32 * 32  # per forward pass: what ConvNet-3 makes of 16 32x32 images is 8 MiB
ACCELERATOR_PIXELS = 4096 * 32 * 32


def _known(value: str) -> str:
    families(value)
    return value


Strategy = Annotated[str, AfterValidator(_known)]
"""Families of DSA, joined by underscores."""


Precision = Literal["float32", "tf32", "bfloat16"]


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Matching at a precision, within the block alone.

    Args:
        precision: `float32`; `tf32`: products of float32 with ten bits of mantissa, on GPUs that
            have them, elsewhere as `float32`; `bfloat16`: autocast.
        device: Where it is done.
    """
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, precision == "bfloat16"):
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def augment(x: Tensor, draw: DsaParams | None) -> Tensor:
    """Images [n, C, H, W] under a draw; None: as they are."""
    return x if draw is None else apply_dsa(x, draw)


def drawn(strategy: str | None, step: int, label: int, bench: Workbench) -> DsaParams | None:
    """The omega of a step and a class; None where nothing is augmented."""
    if strategy is None:
        return None
    size = (bench.data.height, bench.data.width)
    return draw_dsa(strategy, size, bench.generator("dsa", step, label))


def span(x: Tensor) -> int:
    """Images per forward pass: on a CPU as many as stay in the cache, elsewhere many."""
    pixels = CPU_PIXELS if x.device.type == "cpu" else ACCELERATOR_PIXELS
    return max(1, pixels // (x.shape[-2] * x.shape[-1]))


def no_batch_norm(method: str, arch: str) -> str:
    """The fault of a network with batch norm, which would couple the classes of a pass."""
    bare = arch.removesuffix("-bn")
    others = [name for name in (f"{bare}-in", bare, "convnet3") if name != arch and _exists(name)]
    return f"{method} cannot match with batch norm, which {arch} has; use {others[0]}"


def _exists(arch: str) -> bool:
    try:
        parse_arch(arch)
    except ValueError:
        return False
    return True


def passes(sizes: Sequence[int], limit: int) -> Iterator[slice]:
    """Neighbouring classes of so many images that go through a network at once.

    Args:
        sizes: Images of each class.
        limit: Images per pass; a larger class goes alone.
    """
    first = images = 0
    for place, size in enumerate(sizes):
        if place > first and images + size > limit:
            yield slice(first, place)
            first, images = place, 0
        images += size
    yield slice(first, len(sizes))


def refuse_divergence(losses: Tensor, step: int, units: Sequence[WorkUnit], mend: str) -> None:
    """Stop where the loss of a class, [U], is NaN or infinite.

    Raises:
        DivergedError: Naming the step and the unit.
    """
    finite = losses.isfinite()
    if not bool(finite.all()):
        worst = int((~finite).nonzero()[0])
        raise DivergedError(
            f"the loss or its gradient is not finite: loss is {losses[worst].item()} at step "
            f"{step}",
            where=f"synthesize {units[worst].name}",
            mend=mend,
        )
