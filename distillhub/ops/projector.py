"""A frozen random convolution that latents are compared through.

Four convolutions, the first 3 x 3 and ungrouped, the others 4 x 4 with stride 2 and grouped, with a
leaky ReLU after each but the last: groups are independent small projectors that all see the whole
latent. Symbols: J -> `widths[3]`; K, L -> sides of the last map, an eighth of the latent's.

Source: Liu et al., Dataset Concentration (arXiv 2603.27987), with the layers of the authors' code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SLOPE = 0.01
"""Of the leaky ReLU."""
WIDTHS = (256, 512, 1024, 2048)
GROUPS = 16
_KERNELS, _STRIDES = (3, 4, 4, 4), (1, 2, 2, 2)
Shape = tuple[int, int, int]


CPU_FLOATS = 1 << 19
"""Of the first map per pass on a CPU: what stays in its cache."""
ACCELERATOR_FLOATS = 1 << 28


def rows_per_pass(shape: Shape, widths: Sequence[int], device: torch.device) -> int:
    """Latents that are best projected at once."""
    floats = CPU_FLOATS if device.type == "cpu" else ACCELERATOR_FLOATS
    return max(1, floats // (widths[0] * shape[1] * shape[2]))


@dataclass(frozen=True, eq=False)
class Projector:
    """One projector for all classes, or one for each, side by side in the same convolutions."""

    weights: tuple[Tensor, ...]
    """Of layer l, [P * widths[l], in / groups, k, k], for P projectors."""
    biases: tuple[Tensor, ...]
    groups: int
    """Of the grouped layers of one projector."""
    count: int
    """P: 1, or the number of classes."""
    folded: Tensor
    """The last layer's weights, [P * groups, J / groups, 16 * in / groups], taps outermost."""
    taps: Tensor
    """[16, h * w]: what part of the last layer's input each tap of its kernel sees on average."""

    @classmethod
    def draw(
        cls,
        shape: Shape,
        widths: Sequence[int],
        groups: int,
        generators: Sequence[torch.Generator],
        device: torch.device | None = None,
    ) -> "Projector":
        """Random projectors, with PyTorch's default initialisation of convolutions.

        Args:
            shape: (C, H, W) of the latents.
            widths: Of the four layers.
            groups: Divides all widths.
            generators: On the CPU; one for each projector.
            device: Where the weights go; None: the CPU.

        Raises:
            ValueError: If the groups do not divide the widths or the latents are too small.
        """
        if len(widths) != len(_KERNELS) or any(width % groups for width in widths):
            raise ValueError(f"widths {tuple(widths)}: four multiples of {groups} groups")
        if min(shape[1:]) < 8:
            raise ValueError(f"latents {shape}: a projector needs sides of at least 8")
        drawn = [_draw(shape[0], widths, groups, generator) for generator in generators]
        layers = [torch.cat(parts).to(device) for parts in zip(*drawn, strict=True)]
        weights = tuple(w.contiguous(memory_format=torch.channels_last) for w in layers[::2])
        last = layers[-2].permute(0, 2, 3, 1)  # [P * J, 4, 4, in / groups]
        height, width = (_side(side, 3) for side in shape[1:])
        return cls(
            weights=weights,
            biases=tuple(layers[1::2]),
            groups=groups,
            count=len(drawn),
            folded=last.reshape(len(drawn) * groups, widths[3] // groups, -1),
            taps=_tap_means(height, width).to(device),
        )

    @classmethod
    def join(cls, parts: "Sequence[Projector]") -> "Projector":
        """The projectors of several classes side by side."""
        return cls(
            weights=tuple(
                torch.cat(layer).contiguous(memory_format=torch.channels_last)
                for layer in zip(*(part.weights for part in parts), strict=True)
            ),
            biases=tuple(
                torch.cat(layer) for layer in zip(*(part.biases for part in parts), strict=True)
            ),
            groups=parts[0].groups,
            count=sum(part.count for part in parts),
            folded=torch.cat([part.folded for part in parts]),
            taps=parts[0].taps,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """The last map of latents [B, N, C, H, W]: [B, N, J, K, L]."""
        hidden = self._body(x)
        groups = self.count * self.groups
        made = functional.conv2d(hidden, self.weights[3], self.biases[3], 2, 1, groups=groups)
        if self.count == 1:
            return made.view(*x.shape[:2], *made.shape[1:])
        return made.view(len(made), self.count, -1, *made.shape[2:]).transpose(0, 1)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean of the last map over its positions, for latents [B, N, C, H, W]: [B, J, N].

        No nonlinearity follows the last layer, so that the mean goes into it: each tap of its
        kernel meets the mean of the positions that it passes over.
        """
        hidden = self._body(x)  # [n, P * width, h, w]
        means = self.taps @ hidden.permute(0, 2, 3, 1).flatten(1, 2)  # [n, 16, P * width]
        groups = self.count * self.groups
        means = means.view(*means.shape[:2], groups, -1).permute(2, 0, 1, 3).flatten(2)
        bias = self.biases[3].view(groups, -1, 1)
        made = torch.baddbmm(bias, self.folded, means.mT)  # [groups, J / groups, n]
        if self.count == 1:
            return made.view(-1, *x.shape[:2]).transpose(0, 1)
        return made.view(self.count, -1, len(hidden))

    def _body(self, x: Tensor) -> Tensor:
        """The layers before the last one."""
        if self.count == 1:
            hidden = x.flatten(0, 1)
        elif self.count == len(x):
            hidden = x.transpose(0, 1).flatten(1, 2)  # samples in the batch, classes in channels
        else:
            raise ValueError(f"{self.count} projectors for {len(x)} classes")
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for layer in range(3):
            groups = self.count * (self.groups if layer else 1)
            weight, bias = self.weights[layer], self.biases[layer]
            hidden = functional.conv2d(hidden, weight, bias, _STRIDES[layer], 1, groups=groups)
            hidden = functional.leaky_relu_(hidden, SLOPE)
        return hidden


def projector_flops(
    shape: Shape, widths: Sequence[int], groups: int, *, pooled: bool = False
) -> float:
    """FLOPs of one latent forward, 2 per multiply-add; as many again back to the latent.

    Args:
        shape: (C, H, W) of the latents.
        widths: Of the four layers.
        groups: Of all layers but the first.
        pooled: With the mean folded into the last layer, as `Projector.pooled` does it.
    """
    total, channels = 0.0, shape[0]
    for layer, width in enumerate(widths):
        height, breadth = (_side(side, layer + 1) for side in shape[1:])
        each = channels // (groups if layer else 1) * _KERNELS[layer] ** 2
        if pooled and layer == len(widths) - 1:
            before = _side(shape[1], layer) * _side(shape[2], layer)
            total += channels * before * _KERNELS[layer] ** 2 + each * width
        else:
            total += each * width * height * breadth
        channels = width
    return 2 * total


def _side(side: int, layers: int) -> int:
    """Side of the map after so many layers."""
    for layer in range(layers):
        side = (side + 2 - _KERNELS[layer]) // _STRIDES[layer] + 1
    return side


def _draw(
    channels: int, widths: Sequence[int], groups: int, generator: torch.Generator
) -> list[Tensor]:
    """Weights and biases, layer after layer, uniform within 1 / sqrt(inputs of a unit)."""
    drawn: list[Tensor] = []
    for layer, width in enumerate(widths):
        size = (width, channels // (groups if layer else 1), _KERNELS[layer], _KERNELS[layer])
        bound = 1 / math.sqrt(size[1] * size[2] * size[3])
        uniform = [torch.rand(shape, generator=generator) for shape in (size, (width,))]
        drawn += [(part * 2 - 1) * bound for part in uniform]
        channels = width
    return drawn


def _tap_means(height: int, width: int) -> Tensor:
    """[16, height * width]: how much of each input position is in the mean that a tap sees.

    Tap (a, b) of a 4 x 4 kernel with stride 2 and padding 1 passes over the positions
    (2 y + a - 1, 2 x + b - 1).
    """

    def along(side: int) -> Tensor:
        places = _side_after(side)
        shares = torch.zeros(4, side)
        for tap in range(4):
            for place in range(places):
                position = 2 * place + tap - 1
                if 0 <= position < side:
                    shares[tap, position] += 1 / places
        return shares

    return torch.kron(along(height), along(width))


def _side_after(side: int) -> int:
    """Side of the map after a 4 x 4 convolution of stride 2."""
    return (side - 2) // 2 + 1
