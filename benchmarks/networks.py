"""Training speed of the ConvNet on this machine, as ratios to the plain layers.

    python benchmarks/networks.py [--threads 2] [--rounds 7]

The reference is the same network with the same weights run layer by layer as published
(convolution, GroupNorm, ReLU, average pool; whole batch; contiguous tensors), same optimizer.
Printed per case: the smallest time of a training step, its ratio, the ratio of forward passes
without gradients, the largest difference of the logits, and the share of the floor, which is the
time of the convolutions alone at the best rate that this machine reaches in one of 128 channels.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillhub.models.convnet import ConvNet
from distillhub.models.zoo import Classifier, build

CASES = (
    ("convnet3", 1, 28, 100),
    ("convnet3-w32", 1, 28, 100),
    ("convnet3-w32", 1, 16, 100),
    ("convnet3", 3, 32, 100),
    ("convnet3-w32", 3, 32, 100),
    ("convnet4", 3, 64, 64),
)
"""Architecture, channels, side in pixels, batch."""


class Plain(nn.Module):
    """The layers one by one."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        net = self.classifier.net
        assert isinstance(net, ConvNet)
        logits: Tensor = net.head(net.blocks(self.classifier.normalize(images)).flatten(1))
        return logits


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Smallest seconds of each call; they take turns, so that a busy moment hits all alike."""
    best = dict.fromkeys(calls, float("inf"))
    for name in list(calls) * (rounds + 1):
        start = time.perf_counter()
        calls[name]()
        best[name] = min(best[name], time.perf_counter() - start)
    return best


def training_step(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of SGD with momentum."""
    optimizer = torch.optim.SGD(net.parameters(), 0.0, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(images), labels))
        optimizer.step()

    return step


def forward_pass(net: nn.Module, images: Tensor) -> Callable[[], None]:
    """Logits without gradients."""

    def run() -> None:
        with torch.no_grad():
            net(images)

    return run


def convolution_macs(classifier: Classifier, images: Tensor) -> int:
    """Multiply-adds of all convolutions in one forward pass."""
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], maps: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += maps.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in classifier.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        classifier(images)
    for hook in hooks:
        hook.remove()
    return total


def best_rate(rounds: int) -> float:
    """Multiply-adds per second of a 3x3 convolution, 128 channels, 16x16 maps, 100 images."""
    conv = nn.Conv2d(128, 128, 3, padding=1)
    maps = torch.rand(100, 128, 16, 16).to(memory_format=torch.channels_last)
    seconds = interleaved({"conv": forward_pass(conv, maps)}, rounds)["conv"]
    return maps.numel() * conv.weight[0].numel() / seconds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rate = best_rate(arguments.rounds)
    print(
        f"{arguments.threads} threads, torch {torch.__version__}, {rate / 1e9:.0f} GMAC/s at best"
    )
    print(
        "network       input     batch  plain ms  ours ms  ratio  forward  logits differ  of floor"
    )
    for arch, channels, side, batch in CASES:
        ours = build(
            arch, num_classes=10, channels=channels, height=side, width=side,
            mean=(0.5,) * channels, std=(0.25,) * channels, seed=0,
        )  # fmt: skip
        plain = Plain(ours)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(batch, channels, side, side, generator=generator)
        labels = torch.randint(0, 10, (batch,), generator=generator)
        with torch.no_grad():
            gap = (plain(images) - ours(images)).abs().max().item()
        best = interleaved(
            {
                "plain": training_step(plain, images, labels),
                "ours": training_step(ours, images, labels),
                "plain forward": forward_pass(plain, images),
                "ours forward": forward_pass(ours, images),
            },
            arguments.rounds,
        )
        floor = 3 * convolution_macs(ours, images) / rate
        print(
            f"{arch:13s} {channels}x{side}x{side:<5d} {batch:4d} {1e3 * best['plain']:10.1f} "
            f"{1e3 * best['ours']:8.1f} {best['plain'] / best['ours']:6.2f} "
            f"{best['plain forward'] / best['ours forward']:8.2f} {gap:14.1e} "
            f"{floor / best['ours']:9.2f}"
        )


if __name__ == "__main__":
    main()
