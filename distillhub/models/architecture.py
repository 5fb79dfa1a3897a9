"""The grammar of architecture names.

    convnet<D>[-w<N>][-<norm>][-<activation>][-<pooling>]
        norm in, bn, gn, ln, none; activation relu, sigmoid, leakyrelu, swish;
        pooling avgpool, maxpool, nopool
    resnet18|34|50|101[-bn|-in][-ap]     3x3 stem up to 64 pixels, else 7x7; -ap pools, not strides
    resnetap10[-in|-bn]                  7x7 stem, average pooling, for 224 pixels
    alexnet[-none|-bn]  vgg11[-in|-bn]  mlp  lenet
    wrn16-2  mobilenetv2[-0.5|-1.0]  shufflenetv2[-0.5|-1.0]      for 32 and 64 pixels
    timm:<name>  torchvision:<name>

The first word of a choice is its default: `resnet18` is the batch-norm network. In the classic
small-image protocol "ResNet18" and "VGG11" mean the instance-norm versions, so its ResNet18 is
`resnet18-in` and its VGG11 is `vgg11`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from distillhub.models.convnet import Activation, ConvNet, Pooling
from distillhub.models.network import Network, Norm
from distillhub.models.resnet_small import DEPTHS, ResNet, ResNetAP10
from distillhub.models.small_nets import (
    MLP,
    VGG11,
    AlexNet,
    LeNet,
    MobileNetV2,
    ShuffleNetV2,
    WideResNet,
)
from distillhub.spec import nearest

Make = Callable[[int, int, int, int], Network]
"""(num_classes, channels, height, width) -> a network, weights from the global CPU generator."""

NORMS: dict[str, Norm] = {name: name for name in get_args(Norm)}
ACTIVATIONS: dict[str, Activation] = {name: name for name in get_args(Activation)}
POOLINGS: dict[str, Pooling] = {name: name for name in get_args(Pooling)}

_PLAIN: dict[str, Make] = {
    "mlp": MLP,
    "lenet": LeNet,
    "wrn16-2": WideResNet,
}
_OPTIONS: dict[str, tuple[str, ...]] = {
    "alexnet": ("none", "bn"),
    "vgg11": ("in", "bn"),
    "resnetap10": ("in", "bn"),
    "mobilenetv2": ("0.5", "1.0"),
    "shufflenetv2": ("0.5", "1.0"),
}


@dataclass(frozen=True)
class Architecture:
    """An understood name."""

    name: str
    library: Literal["own", "timm", "torchvision"]
    make: Make | None
    """None for networks of a library."""


def architectures() -> tuple[str, ...]:
    """Names to offer: every family with its choices, and the two library prefixes."""
    convnets = [f"convnet{depth}" for depth in range(1, 7)]
    variants = [
        "convnet3-w32",
        "convnet3-w64",
        "convnet3-w256",
        "convnet3-bn",
        "convnet3-gn",
        "convnet3-none",
    ]
    resnets = [
        f"resnet{depth}{norm}{ap}" for depth in DEPTHS for norm in ("", "-in") for ap in ("", "-ap")
    ]
    choices = [
        name if i == 0 else f"{name}-{o}" for name, os in _OPTIONS.items() for i, o in enumerate(os)
    ]
    sized = [f"{name}-0.5" for name in ("mobilenetv2", "shufflenetv2")]
    return (
        *convnets,
        *variants,
        *resnets,
        *choices,
        *sized,
        *_PLAIN,
        "timm:<name>",
        "torchvision:<name>",
    )


def parse_arch(name: str) -> Architecture:
    """Understand a name; nothing is built and no library is asked yet.

    Raises:
        ValueError: If the name is unknown, with the nearest known one; or if it makes the same
        choice twice.
    """
    library, _, rest = name.partition(":")
    if rest and library == "timm":
        return Architecture(name, "timm", None)
    if rest and library == "torchvision":
        return Architecture(name, "torchvision", None)
    if name in _PLAIN:
        return Architecture(name, "own", _PLAIN[name])
    make = _convnet(name) or _resnet(name) or _one_choice(name)
    if make is None:
        raise ValueError(f"no architecture '{name}'; {nearest(name, architectures())}")
    return Architecture(name, "own", make)


def _convnet(name: str) -> Make | None:
    found = re.fullmatch(r"convnet([1-9])((?:-[a-z0-9]+)*)", name)
    if found is None:
        return None
    depth, filters = int(found[1]), 128
    norm: Norm = "in"
    activation: Activation = "relu"
    pooling: Pooling = "avgpool"
    made: set[str] = set()
    for word in found[2].split("-")[1:]:
        if (size := re.fullmatch(r"w([1-9]\d{0,4})", word)) is not None:
            choice, filters = "width", int(size[1])
        elif word in NORMS:
            choice, norm = "norm", NORMS[word]
        elif word in ACTIVATIONS:
            choice, activation = "activation", ACTIVATIONS[word]
        elif word in POOLINGS:
            choice, pooling = "pooling", POOLINGS[word]
        else:
            known = (*NORMS, *ACTIVATIONS, *POOLINGS, "w<N>")
            raise ValueError(f"'{name}': no option '{word}'; {nearest(word, known)}")
        if choice in made:
            raise ValueError(f"'{name}' chooses the {choice} twice")
        made.add(choice)
    if norm == "gn" and filters % 4:
        raise ValueError(f"'{name}': 4 groups do not divide {filters} channels")

    def make(num_classes: int, channels: int, height: int, width: int) -> Network:
        return ConvNet(
            num_classes, channels, height, width,
            depth=depth, filters=filters, norm=norm, activation=activation, pooling=pooling,
        )  # fmt: skip

    return make


def _resnet(name: str) -> Make | None:
    found = re.fullmatch(r"resnet(\d+)(-in|-bn)?(-ap)?", name)
    if found is None or int(found[1]) not in DEPTHS:
        return None
    depth, pooled = int(found[1]), found[3] is not None
    norm: Norm = "in" if found[2] == "-in" else "bn"

    def make(num_classes: int, channels: int, height: int, width: int) -> Network:
        return ResNet(num_classes, channels, height, width, depth=depth, norm=norm, pooled=pooled)

    return make


def _one_choice(name: str) -> Make | None:
    family, _, option = name.partition("-")
    known = _OPTIONS.get(family)
    if known is None or (option and option not in known):
        return None
    norm: Norm = "bn" if option == "bn" else "none" if family == "alexnet" else "in"
    share = float(option or 0.5) if family.endswith("v2") else 1.0

    def make(num_classes: int, channels: int, height: int, width: int) -> Network:
        size = (num_classes, channels, height, width)
        if family == "alexnet":
            return AlexNet(*size, norm=norm)
        if family == "vgg11":
            return VGG11(*size, norm=norm)
        if family == "resnetap10":
            return ResNetAP10(*size, norm=norm)
        return (
            MobileNetV2(*size, share=share)
            if family == "mobilenetv2"
            else ShuffleNetV2(*size, share=share)
        )

    return make
