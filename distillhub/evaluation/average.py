"""Testing the exponential moving average of a student's weights instead of the last ones."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of a network's parameters; buffers, as those of batch norm, are its own.

    Rate 0 is the network itself, rate 1 its first weights.

    Args:
        net: Whose parameters are followed; the average starts at them.
        rate: Share of the average that a step leaves, in [0, 1].

    Source: EMA-based evaluation of EDC (NeurIPS 2024), Table 17; the buffers as in the code.
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        self._rate = rate
        self._own = dict(net.named_parameters())
        self._mean = {name: p.detach().clone() for name, p in self._own.items()}
        self._is_shown = False

    @property
    def parts(self) -> dict[str, Tensor]:
        """What a snapshot holds, restored in place."""
        return {f"ema/{name}": mean for name, mean in self._mean.items()}

    def follow(self) -> None:
        """After a step of the optimizer."""
        with torch.no_grad():
            for name, own in self._own.items():
                self._mean[name].lerp_(own, 1 - self._rate)

    def show(self) -> None:
        """Put the average into the network; its own weights are kept."""
        if not self._is_shown:
            self._swap()

    def hide(self) -> None:
        """Give the network its own weights back."""
        if self._is_shown:
            self._swap()

    @contextmanager
    def shown(self) -> Generator[None, None, None]:
        """Inside, the network has the averaged parameters."""
        self.show()
        try:
            yield
        finally:
            self.hide()

    @contextmanager
    def hidden(self) -> Generator[None, None, None]:
        """Inside, the network has its own weights, whatever it has outside."""
        was_shown = self._is_shown
        self.hide()
        try:
            yield
        finally:
            if was_shown:
                self.show()

    def _swap(self) -> None:
        for name, own in self._own.items():
            own.data, self._mean[name] = self._mean[name], own.data
        self._is_shown = not self._is_shown
