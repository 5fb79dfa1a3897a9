"""Work in parts that become smaller when the device has no room for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Halving:
    """Runs work over rows in parts; a part that does not fit is halved, and so are all later ones.

    The size of the parts changes nothing but the last bits of a result.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def run(self, work: Callable[[slice], Tensor], total: int) -> Tensor:
        """`work` on consecutive slices of `total` rows, its results joined along the first axis.

        Raises:
            torch.OutOfMemoryError: If not even one row fits.
        """
        done: list[Tensor] = []
        start = 0
        while start < total:
            part = slice(start, min(total, start + self.rows))
            made = self._attempt(work, part)
            if made is None:
                self.rows = (part.stop - part.start) // 2
                continue
            done.append(made)
            start = part.stop
        return torch.cat(done)

    @staticmethod
    def _attempt(work: Callable[[slice], Tensor], part: slice) -> Tensor | None:
        """The result, or None where memory ran out; what the attempt held is free by then."""
        try:
            return work(part)
        except torch.OutOfMemoryError:
            if part.stop - part.start == 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


Work = Callable[[Tensor, slice], Tensor]
"""From rows, and where they lie among all, to their results."""
Run = Callable[[Callable[[slice], Tensor], int], Tensor]
"""Does work on all parts of so many rows: `Halving.run`."""


def recomputed(work: Work, x: Tensor, run: Run) -> Tensor:
    """`work` on parts of the rows of `x`, with a gradient for `x`.

    Nothing of the way forwards is kept: the way back does each part again and lets its graph go at
    once, so that both take the memory of one part.

    Args:
        work: Its results of a row may depend on that row of `x` alone; only `x` gets a gradient.
        x: [n, ...].
        run: Forwards and back.
    """
    result: Tensor = _Recomputed.apply(x, work, run)
    return result


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, work: Work, run: Run) -> Tensor:
        ctx.save_for_backward(x)
        ctx.work, ctx.run = work, run
        rows = x.detach()
        return run(lambda part: work(rows[part], part), len(x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors

        def back(part: slice) -> Tensor:
            with torch.enable_grad():
                rows = x[part].detach().requires_grad_()
                made = ctx.work(rows, part)
            found: Tensor = torch.autograd.grad(made, rows, gradients[0][part])[0]
            return found

        return ctx.run(back, len(x)), None, None
