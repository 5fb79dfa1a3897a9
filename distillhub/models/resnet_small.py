"""Residual networks with batch or instance norm: 3x3 stem up to 64 pixels, 7x7 stem above.

Sources: He et al., Deep Residual Learning for Image Recognition (CVPR 2016); the pooled variants
and the instance norm are those of the DatasetCondensation code (ResNet18_AP) and of the 224-pixel
protocols of dataset distillation (ResNetAP-10).
"""

from torch import Tensor, nn
from torch.nn import functional

from distillhub.models.network import Network, Norm, norm_layer

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks per stage; from 50 on they are bottlenecks."""
LARGEST_SMALL_SIDE = 64
"""Pixels up to which the stem is a 3x3 convolution without stride and max-pool."""


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1 - 3x3 - 1x1 as a bottleneck, beside a shortcut.

    `pooled`: no convolution strides; a 2x2 average pool follows the first activation (before the
    last convolution) and the shortcut's convolution.
    """

    def __init__(
        self, incoming: int, planes: int, stride: int, norm: Norm, *, deep: bool, pooled: bool
    ) -> None:
        super().__init__()
        outgoing = 4 * planes if deep else planes
        step = 1 if pooled else stride
        self.pool = nn.AvgPool2d(2) if pooled and stride == 2 else nn.Identity()
        self.deep = deep
        if deep:
            self.conv1 = nn.Conv2d(incoming, planes, 1, bias=False)
            self.conv2 = nn.Conv2d(planes, planes, 3, step, 1, bias=False)
            self.conv3 = nn.Conv2d(planes, outgoing, 1, bias=False)
            self.norm3 = norm_layer(norm, outgoing)
        else:
            self.conv1 = nn.Conv2d(incoming, planes, 3, step, 1, bias=False)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.norm1 = norm_layer(norm, planes)
        self.norm2 = norm_layer(norm, planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or incoming != outgoing:
            self.shortcut = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, step, bias=False),
                self.pool,
                norm_layer(norm, outgoing),
            )

    def forward(self, x: Tensor) -> Tensor:
        maps = functional.relu(self.norm1(self.conv1(x)))
        if self.deep:
            maps = self.pool(functional.relu(self.norm2(self.conv2(maps))))
            maps = self.norm3(self.conv3(maps))
        else:
            maps = self.norm2(self.conv2(self.pool(maps)))
        return functional.relu(maps + self.shortcut(x))


class ResNet(Network):
    """ResNet-18, -34, -50 or -101.

    The embedding is the global mean of the last maps; with `pooled` it is the maps themselves,
    flattened, as in ResNet18_AP.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        height: int,
        width: int,
        *,
        depth: int = 18,
        norm: Norm = "bn",
        pooled: bool = False,
    ) -> None:
        super().__init__()
        deep = depth >= 50
        self.pooled = pooled
        if max(height, width) <= LARGEST_SMALL_SIDE:
            sides = (height, width)
            self.stem = nn.Sequential(
                nn.Conv2d(channels, 64, 3, padding=1, bias=False),
                norm_layer(norm, 64),
                nn.ReLU(inplace=True),
            )
        else:
            sides = (_halved(_halved(height)), _halved(_halved(width)))
            self.stem = nn.Sequential(
                nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
                norm_layer(norm, 64),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, 1),
            )
        blocks: list[nn.Module] = []
        incoming = 64
        for stage, count in enumerate(DEPTHS[depth]):
            planes = 64 * 2**stage
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(_Block(incoming, planes, stride, norm, deep=deep, pooled=pooled))
                incoming = 4 * planes if deep else planes
        self.blocks = nn.Sequential(*blocks)
        if min(sides) < 8 and pooled:
            raise ValueError(f"three 2x2 pools do not fit {height} x {width} pixels")
        area = (sides[0] // 8) * (sides[1] // 8) if pooled else 1
        self.head = nn.Linear(incoming * area, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Global means [n, 512 or 2048], or the flattened maps of a pooled network."""
        maps: Tensor = self.blocks(self.stem(x))
        return maps.flatten(1) if self.pooled else maps.mean((2, 3))


class ResNetAP10(Network):
    """ResNetAP-10: a block per stage, average pools, no strides, 7x7 stem with a 4x4 pool.

    Convolutions start from He's normal distribution (fan-out).
    """

    def __init__(
        self, num_classes: int, channels: int, height: int, width: int, *, norm: Norm = "in"
    ) -> None:
        super().__init__()
        if min(height, width) < 32:
            raise ValueError(
                f"ResNetAP-10 pools by 32 in all, which {height} x {width} pixels do not allow"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 7, 1, 3, bias=False),
            norm_layer(norm, 64),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(4),
        )
        widths = (64, 64, 128, 256, 512)
        self.blocks = nn.Sequential(
            *(
                _Block(widths[i], widths[i + 1], 1 if i == 0 else 2, norm, deep=False, pooled=True)
                for i in range(4)
            )
        )
        self.head = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, x: Tensor) -> Tensor:
        """Global means, [n, 512]."""
        maps: Tensor = self.blocks(self.stem(x))
        return maps.mean((2, 3))


def _halved(side: int) -> int:
    return (side + 1) // 2
