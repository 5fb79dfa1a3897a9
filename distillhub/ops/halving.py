"""Work in parts that become smaller when the device has no room for them."""

from collections.abc import Callable

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
