"""What every network of our own has in common, and the norms that they are built from."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["in", "bn", "gn", "ln", "none"]
"""Instance (per image and channel), batch, group (4 groups), layer (over C, H, W), or no norm."""


class Network(nn.Module):
    """An embedding followed by one linear layer; input [n, C, H, W] normalised, output logits."""

    head: nn.Linear

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """What the last linear layer sees, [n, D]."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [n, K]."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    def keep_outputs(self, outputs: Sequence[int]) -> None:
        """Drop all logits but these, which get this order.

        Raises:
            ValueError: If an output does not exist.
        """
        if not outputs or not all(0 <= output < self.head.out_features for output in outputs):
            raise ValueError(f"outputs {tuple(outputs)} of {self.head.out_features}")
        rows = torch.as_tensor(outputs)
        kept = nn.Linear(
            self.head.in_features, len(outputs), bias=self.head.bias is not None, device="meta"
        )
        kept.weight = nn.Parameter(self.head.weight.detach()[rows].clone())
        if self.head.bias is not None:
            kept.bias = nn.Parameter(self.head.bias.detach()[rows].clone())
        self.head = kept


def norm_layer(norm: Norm, channels: int, side: tuple[int, int] | None = None) -> nn.Module:
    """A norm with learnable scale and shift.

    Args:
        norm: Which one; `in` has no running statistics, so train and eval mode agree.
        channels: Channels of the input.
        side: Height and width of the input; needed by `ln` alone.

    Raises:
        ValueError: If `ln` comes without the sides.
    """
    if norm == "in":
        return nn.GroupNorm(channels, channels)
    if norm == "bn":
        return nn.BatchNorm2d(channels)
    if norm == "gn":
        return nn.GroupNorm(4, channels)
    if norm == "ln":
        if side is None:
            raise ValueError("a layer norm needs the sides of its input")
        return nn.LayerNorm((channels, *side))
    return nn.Identity()


def head_name(body: nn.Module) -> str:
    """Path of the last linear layer.

    Raises:
        ValueError: If there is none, or the network has more than one output.
    """
    names: list[str] = [name for name, part in body.named_modules() if isinstance(part, nn.Linear)]
    if not names or hasattr(body, "aux_logits") or hasattr(body, "head_dist"):
        raise ValueError(
            f"{type(body).__name__} does not end in one linear layer, which is needed here"
        )
    return names[-1]


class Foreign(Network):
    """A library's network, its last linear layer taken out and put behind it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        path, _, attribute = head_name(body).rpartition(".")
        owner = body.get_submodule(path)
        head = getattr(owner, attribute)
        setattr(owner, attribute, nn.Identity())
        self.body = body
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """What the library's network gives its last linear layer, [n, D]."""
        features: Tensor = self.body(x)
        return features
