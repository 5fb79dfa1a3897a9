"""The ConvNet of the classic small-image protocol: D blocks and one linear layer.

Source: the DatasetCondensation code family (DC, DSA, DM); the same skeleton is ConvNet-6 of the
224-pixel protocols.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillhub.models.network import Network, Norm, norm_layer
from distillhub.ops.conv_block import instance_norm_relu_pool, narrow_conv
from distillhub.ops.instance_conv import instance_normalized_conv

Activation = Literal["relu", "sigmoid", "leakyrelu", "swish"]
Pooling = Literal["avgpool", "maxpool", "nopool"]

PIECE_BYTES = 13_500_000
"""Of the first block's maps that go through the network together on a CPU: 25 images of the
standard network. Measured: 100 images are slower by a third, 10 as fast."""
NARROW = 4
"""Input channels up to which a weight gradient is faster by way of unfolded patches."""
SLIM = 3
"""How many times wider than its patches an output must be to take its statistics from them."""


def activation_layer(activation: Activation) -> nn.Module:
    """The activation of that name; LeakyReLU has slope 0.01, swish is x * sigmoid(x)."""
    if activation == "relu":
        return nn.ReLU(inplace=True)
    if activation == "leakyrelu":
        return nn.LeakyReLU(0.01, inplace=True)
    return nn.Sigmoid() if activation == "sigmoid" else nn.SiLU()


class ConvNet(Network):
    """`depth` blocks of conv 3x3 -> norm -> activation -> 2x2 pooling, then one linear layer.

    The embedding is the flattened output of the last pool. The first convolution pads by 3 pixels
    where the input has one channel, so that 28 x 28 images have the 32 x 32 maps of the colour
    sets.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        height: int,
        width: int,
        *,
        depth: int = 3,
        filters: int = 128,
        norm: Norm = "in",
        activation: Activation = "relu",
        pooling: Pooling = "avgpool",
    ) -> None:
        super().__init__()
        pad = 3 if channels == 1 else 1
        sides = (height + 2 * pad - 2, width + 2 * pad - 2)
        layers: list[nn.Module] = []
        self.sides = sides  # of the first block's maps
        incoming = channels
        for block in range(depth):
            layers.append(nn.Conv2d(incoming, filters, 3, padding=pad if block == 0 else 1))
            if norm != "none":
                layers.append(norm_layer(norm, filters, sides))
            layers.append(activation_layer(activation))
            if pooling != "nopool":
                layers.append(nn.AvgPool2d(2) if pooling == "avgpool" else nn.MaxPool2d(2))
                sides = (sides[0] // 2, sides[1] // 2)
            if min(sides) < 1:
                raise ValueError(
                    f"depth {depth} halves the image {depth} times, "
                    f"which {height} x {width} pixels do not allow"
                )
            incoming = filters
        self.blocks = nn.Sequential(*layers)
        self.filters = filters
        self.batch_norm = norm == "bn"
        self.standard = (norm, activation, pooling) == ("in", "relu", "avgpool")
        self.head = nn.Linear(filters * sides[0] * sides[1], num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """The last block's output, flattened: [n, filters * h * w].

        On a CPU the images go through in pieces, because memory of more than 32 MB is taken from
        and given back to the system at every layer; blocks of the standard kind run fused
        (`ops.conv_block`). Both give equal numbers up to rounding. Where a hook watches the layers,
        they run one by one on the whole batch.
        """
        if x.device.type != "cpu" or self.batch_norm or self._watched():
            return self._layers(x)
        largest = self.filters * self.sides[0] * self.sides[1] * x.element_size()
        pieces = torch.split(x, max(1, PIECE_BYTES // largest))
        fused = self.standard and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        run = self._fused if fused else self._layers
        maps = [run(piece) for piece in pieces]
        return maps[0] if len(maps) == 1 else torch.cat(maps)

    def _layers(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(x)
        return maps.flatten(1)

    def _fused(self, x: Tensor) -> Tensor:
        convs = cast("list[nn.Conv2d]", list(self.blocks[0::4]))
        norms = cast("list[nn.GroupNorm]", list(self.blocks[1::4]))
        for conv, norm in zip(convs, norms, strict=True):
            narrow, padding = conv.in_channels <= NARROW, int(conv.padding[0])
            filters = conv.out_channels
            if SLIM * conv.weight[0].numel() <= filters and not torch.is_grad_enabled():
                maps = instance_normalized_conv(
                    x, conv.weight, norm.weight, norm.bias, padding=padding, eps=norm.eps
                )
                x = functional.avg_pool2d(maps.relu_(), 2)
                continue
            maps = narrow_conv(x, conv.weight, conv.bias, padding=padding) if narrow else conv(x)
            x = instance_norm_relu_pool(maps, norm.weight, norm.bias, eps=norm.eps)
        return x.flatten(1)

    def _watched(self) -> bool:
        return any(
            layer._forward_pre_hooks
            or layer._forward_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
            for layer in self.blocks.modules()
        )
