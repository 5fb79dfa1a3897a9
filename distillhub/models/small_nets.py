"""The other networks for small images: those of the classic protocol, and three observers.

Sources: MLP, LeNet, AlexNet and VGG11 are those of the DatasetCondensation code; WRN-16-2,
MobileNetV2 and ShuffleNetV2 at 32 pixels are those of the knowledge-distillation benchmark (Tian et
al., CRD), which G-VBSM and EDC use as observers.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillhub.models.network import Network, Norm, norm_layer


class _Stacked(Network):
    """Layers whose flattened output is the embedding."""

    def __init__(
        self, name: str, layers: list[nn.Module], num_classes: int, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*layers)
        width = _flat_width(layers, shape)
        if width < 1:
            raise ValueError(f"{name} does not fit {shape[1]} x {shape[2]} pixels")
        self.head = nn.Linear(width, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """The last layer's output, flattened, [n, D]."""
        maps: Tensor = self.blocks(x)
        return maps.flatten(1)


def _flat_width(layers: list[nn.Module], shape: tuple[int, int, int]) -> int:
    """Numbers per image after `layers`, by arithmetic alone; 0 if the image is too small."""
    channels, *sides = shape
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
            sides = [side + 2 * int(layer.padding[0]) - layer.kernel_size[0] + 1 for side in sides]
        elif isinstance(layer, nn.MaxPool2d):
            sides = [side // 2 for side in sides]
        elif isinstance(layer, nn.Linear):
            channels, sides = layer.out_features, [1, 1]
        if min(sides) < 1:
            return 0
    return channels * math.prod(sides)


class MLP(_Stacked):
    """Two hidden layers of 128 units."""

    def __init__(self, num_classes: int, channels: int, height: int, width: int) -> None:
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(channels * height * width, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
        ]
        super().__init__("MLP", layers, num_classes, (channels, height, width))


class LeNet(_Stacked):
    """LeNet-5 with ReLU and max-pools; the first convolution pads grey images by 2."""

    def __init__(self, num_classes: int, channels: int, height: int, width: int) -> None:
        maps: list[nn.Module] = [
            nn.Conv2d(channels, 6, 5, padding=2 if channels == 1 else 0),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        flat = max(
            1, _flat_width(maps, (channels, height, width))
        )  # 0 is refused by the base class
        dense: list[nn.Module] = [nn.Flatten()]
        for incoming, outgoing in ((flat, 120), (120, 84)):
            dense += [nn.Linear(incoming, outgoing), nn.ReLU(inplace=True)]
        super().__init__("LeNet", [*maps, *dense], num_classes, (channels, height, width))


class AlexNet(_Stacked):
    """Five convolutions, three max-pools, one linear layer; no norm unless asked, no dropout."""

    def __init__(
        self, num_classes: int, channels: int, height: int, width: int, *, norm: Norm = "none"
    ) -> None:
        layers: list[nn.Module] = []
        incoming = channels
        for outgoing, kernel, padding, pool in (
            (128, 5, 4 if channels == 1 else 2, True),
            (192, 5, 2, True),
            (256, 3, 1, False),
            (192, 3, 1, False),
            (192, 3, 1, True),
        ):
            layers.append(nn.Conv2d(incoming, outgoing, kernel, padding=padding))
            if norm != "none":
                layers.append(norm_layer(norm, outgoing))
            layers.append(nn.ReLU(inplace=True))
            if pool:
                layers.append(nn.MaxPool2d(2))
            incoming = outgoing
        super().__init__("AlexNet", layers, num_classes, (channels, height, width))


class VGG11(_Stacked):
    """Eight 3x3 convolutions with norm, five max-pools; the first pads grey images by 3."""

    def __init__(
        self, num_classes: int, channels: int, height: int, width: int, *, norm: Norm = "in"
    ) -> None:
        layers: list[nn.Module] = []
        incoming = channels
        for number, (outgoing, pool) in enumerate(
            zip((64, 128, 256, 256, 512, 512, 512, 512), (1, 1, 0, 1, 0, 1, 0, 1), strict=True)
        ):
            padding = 3 if channels == 1 and number == 0 else 1
            layers += [
                nn.Conv2d(incoming, outgoing, 3, padding=padding),
                norm_layer(norm, outgoing),
                nn.ReLU(inplace=True),
            ]
            if pool:
                layers.append(nn.MaxPool2d(2))
            incoming = outgoing
        super().__init__("VGG11", layers, num_classes, (channels, height, width))


def _he_normal(net: nn.Module) -> None:
    """Convolutions from He's normal distribution; fan-out of the whole kernel, groups ignored."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))


class _WideBlock(nn.Module):
    """Pre-activation block; a shortcut that changes the width starts from the activated input."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(incoming)
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, 1, 1, bias=False)
        self.shortcut = (
            None if incoming == outgoing else nn.Conv2d(incoming, outgoing, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x))
        maps: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return maps + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(Network):
    """WRN-16-2: six pre-activation blocks in stages of 32, 64 and 128 channels, global mean."""

    def __init__(self, num_classes: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        del height, width
        blocks: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
        incoming = 16
        for outgoing, stride in ((32, 1), (64, 2), (128, 2)):
            blocks += [_WideBlock(incoming, outgoing, stride), _WideBlock(outgoing, outgoing, 1)]
            incoming = outgoing
        self.blocks = nn.Sequential(*blocks, nn.BatchNorm2d(128), nn.ReLU(inplace=True))
        self.head = nn.Linear(128, num_classes)
        _he_normal(self)
        nn.init.zeros_(self.head.bias)

    def embed(self, x: Tensor) -> Tensor:
        """Global means, [n, 128]."""
        maps: Tensor = self.blocks(x)
        return maps.mean((2, 3))


def _conv_norm(
    incoming: int, outgoing: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(incoming, outgoing, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outgoing)]


class _Inverted(nn.Module):
    """Widen, filter each channel, narrow; added to the input where shapes agree. Plain ReLU."""

    def __init__(self, incoming: int, outgoing: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = incoming * factor
        self.adds = stride == 1 and incoming == outgoing
        self.layers = nn.Sequential(
            *_conv_norm(incoming, wide, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(wide, wide, 3, stride, wide),
            nn.ReLU(inplace=True),
            *_conv_norm(wide, outgoing, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.layers(x)
        return x + maps if self.adds else maps


class MobileNetV2(Network):
    """MobileNetV2 at a share of its width, stem with stride 2, 16 in all, global mean."""

    def __init__(
        self, num_classes: int, channels: int, height: int, width: int, *, share: float = 0.5
    ) -> None:
        super().__init__()
        del height, width
        incoming = int(32 * share)
        blocks: list[nn.Module] = [*_conv_norm(channels, incoming, 3, 2), nn.ReLU(inplace=True)]
        for factor, planes, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 1),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            outgoing = int(planes * share)
            for number in range(count):
                blocks.append(_Inverted(incoming, outgoing, stride if number == 0 else 1, factor))
                incoming = outgoing
        self.blocks = nn.Sequential(*blocks, *_conv_norm(incoming, 1280, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(1280, num_classes)
        _he_normal(self)
        nn.init.normal_(self.head.weight, 0, 0.01)
        nn.init.zeros_(self.head.bias)

    def embed(self, x: Tensor) -> Tensor:
        """Global means, [n, 1280]."""
        maps: Tensor = self.blocks(x)
        return maps.mean((2, 3))


class _Shuffled(nn.Module):
    """Two branches, interleaved; without stride the left one is half of the input, untouched."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        half = outgoing // 2
        self.splits = stride == 1
        self.left = nn.Sequential()
        if not self.splits:
            self.left = nn.Sequential(
                *_conv_norm(incoming, incoming, 3, stride, incoming),
                *_conv_norm(incoming, half, 1),
                nn.ReLU(inplace=True),
            )
        self.right = nn.Sequential(
            *_conv_norm(half if self.splits else incoming, half, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(half, half, 3, stride, half),
            *_conv_norm(half, half, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1) if self.splits else (x, x)
        both = torch.stack((self.left(first), self.right(second)), 2)  # [n, half, 2, h, w]
        return both.flatten(1, 2)


class ShuffleNetV2(Network):
    """ShuffleNetV2 of size 0.5 or 1, 1x1 stem without stride and pool, 8 in all, global mean."""

    def __init__(
        self, num_classes: int, channels: int, height: int, width: int, *, share: float = 0.5
    ) -> None:
        super().__init__()
        del height, width
        incoming = 24
        blocks: list[nn.Module] = [*_conv_norm(channels, incoming, 1), nn.ReLU(inplace=True)]
        for outgoing, count in zip(
            (48, 96, 192) if share == 0.5 else (116, 232, 464), (3, 7, 3), strict=True
        ):
            blocks.append(_Shuffled(incoming, outgoing, 2))
            blocks += [_Shuffled(outgoing, outgoing, 1) for _ in range(count)]
            incoming = outgoing
        self.blocks = nn.Sequential(*blocks, *_conv_norm(incoming, 1024, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(1024, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Global means, [n, 1024]."""
        maps: Tensor = self.blocks(x)
        return maps.mean((2, 3))
