"""DM against the published loop, as `benchmarks.matching` measures it.

The reference is the published loop in plain PyTorch: one class after the other, 256 real images
without autograd, the synthetic images with it, instance norm as `GroupNorm(C, C)`, weights frozen
so that no gradient of theirs is computed. It is compared with the method as the pipeline runs it,
on the same networks, batches, augmentations and first images; losses and images must agree.

Source: Zhao and Bilen, Dataset Condensation with Distribution Matching (WACV 2023), Algorithm 1.
"""

import math
import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillhub.data.real import RealData
from distillhub.methods.dm import DM
from distillhub.models.zoo import Classifier, build
from distillhub.ops.augment import DsaParams, apply_dsa, draw_dsa
from distillhub.units import Target, WorkUnit, derive_seed

CLASSES, IPC, BATCH_REAL, FILTERS = 10, 10, 256, 128
PER_CLASS = 1000
STRATEGY = "color_crop_cutout_flip_scale_rotate"


class Shape(NamedTuple):
    """Of the images."""

    channels: int
    side: int
    multiply_adds: float
    """Of the embedding of one image by ConvNet-3."""


SHAPES = {"cifar10": Shape(3, 32, 50.7e6), "fashion_mnist": Shape(1, 28, 48.4e6)}


class Case(NamedTuple):
    """What one iteration is given."""

    real: Tensor
    """[classes, batch_real, C, H, W], normalised."""
    synthetic: Tensor
    """[classes, ipc, C, H, W], normalised."""
    draws: tuple[DsaParams, ...]
    """One per class."""


class Matched(NamedTuple):
    """What one iteration finds."""

    loss: float
    gradient: Tensor
    """[classes, ipc, C, H, W]."""


def plain_convnet(channels: int, generator: torch.Generator) -> nn.Sequential:
    """The embedding of ConvNet-3 with PyTorch's default initialisation, drawn from `generator`."""
    layers: list[nn.Module] = []
    for block in range(3):
        conv = nn.Conv2d(
            FILTERS if block else channels,
            FILTERS,
            3,
            padding=3 if not block and channels == 1 else 1,
        )
        bound = 1 / math.sqrt(conv.weight[0].numel())
        for parameter in conv.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [conv, nn.GroupNorm(FILTERS, FILTERS), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten()).requires_grad_(requires_grad=False)


def plain(embed: nn.Module, case: Case) -> Matched:
    """The published loop: loss and gradient, a class at a time."""
    pixels = case.synthetic.clone().requires_grad_()
    loss = torch.zeros(())
    for real, synthetic, draw in zip(case.real, pixels, case.draws, strict=True):
        with torch.no_grad():
            target = embed(apply_dsa(real, draw)).mean(dim=0)
        loss = loss + (embed(apply_dsa(synthetic, draw)).mean(dim=0) - target).square().sum()
    (gradient,) = torch.autograd.grad(loss, pixels)
    return Matched(loss.item(), gradient)


def floor_gflop(shape: Shape) -> float:
    """Billions of operations of one iteration: real forward, synthetic forward and backward."""
    images = CLASSES * (BATCH_REAL + 2 * IPC)
    return 2 * shape.multiply_adds * images / 1e9


class Bench:
    """A workbench over noise: the time does not depend on the pixels."""

    def __init__(self, shape: Shape) -> None:
        generator = self.generator("noise")
        labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
        size = (len(labels), shape.channels, shape.side, shape.side)
        pixels = torch.randint(256, size, dtype=torch.uint8, generator=generator)
        names = [f"class {label}" for label in range(CLASSES)]
        mean, std = (0.5,) * shape.channels, (0.29,) * shape.channels
        self.data = RealData.in_memory(pixels, labels, names, mean=mean, std=std)
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    def generator(self, *names: str | int) -> torch.Generator:
        """From the names alone."""
        return torch.Generator().manual_seed(derive_seed(*names))

    def network(self, role: str) -> Classifier:
        """There is none."""
        raise KeyError(role)

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """There is none."""
        del key, build
        raise KeyError(name)


class Step(NamedTuple):
    """One iteration of a run."""

    loss: float
    """Summed over classes."""
    seconds: float
    """On the wall clock."""
    cpu_seconds: float
    """Of all threads; steadier than the wall clock on a busy machine, with one thread."""


class Clock:
    """Both clocks, from the moment it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def step(self, loss: float) -> Step:
        """A step that ends now."""
        wall, cpu = self._start
        return Step(loss, time.perf_counter() - wall, time.process_time() - cpu)


def run_ours(method: DM, bench: Bench) -> Generator[Step, None, Tensor]:
    """The method as the pipeline runs it; returns the images in [0, 1]."""
    data = bench.data
    target = Target(CLASSES, IPC, data.channels, data.height, data.width)
    units = [WorkUnit(group.name, group.slots, 0) for group in method.plan(target)]
    run = method.synthesize(units, bench)
    while True:
        clock = Clock()
        try:
            report = next(run)
        except StopIteration as end:
            images: Tensor = end.value.images
            return images
        yield clock.step(report.metrics["loss"] * CLASSES)


def run_plain(method: DM, bench: Bench, start: Tensor) -> Generator[Step, None, Tensor]:
    """The published loop on the same networks, batches and draws, from the same images."""
    mean, std = bench.data.mean[0], bench.data.std[0]
    x = ((start - mean) / std).view(CLASSES, IPC, *start.shape[1:])
    channels, side = bench.data.channels, bench.data.height
    velocity = torch.zeros_like(x)
    for step in range(method.iterations):
        clock = Clock()
        embed = plain_convnet(channels, bench.generator("net", step))
        copy_weights(embed, bench.data, bench.generator("net", step).initial_seed())
        real = []
        for label in range(CLASSES):
            order = torch.randperm(PER_CLASS, generator=bench.generator("real", step, label))
            real.append(bench.data.images(bench.data.rows_of(label)[order[:BATCH_REAL]]))
        draws = [
            draw_dsa(STRATEGY, (side, side), bench.generator("dsa", step, label))
            for label in range(CLASSES)
        ]
        found = plain(embed, Case((torch.stack(real) - mean) / std, x, tuple(draws)))
        velocity = method.momentum * velocity + found.gradient
        x = x - method.lr_img * velocity
        yield clock.step(found.loss)
    return (x.flatten(0, 1) * std + mean).clamp(0, 1)


def finish(run: Generator[Step, None, Tensor]) -> Tensor:
    """The images of a run."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            images: Tensor = end.value
            return images


def copy_weights(embed: nn.Module, data: RealData, seed: int) -> None:
    """Give the plain network the weights that the zoo makes from a seed."""
    source = build(
        "convnet3",
        num_classes=CLASSES,
        channels=data.channels,
        height=data.height,
        width=data.width,
        mean=data.mean,
        std=data.std,
        seed=seed,
    )
    with torch.no_grad():
        for ours, theirs in zip(embed.parameters(), source.net.parameters(), strict=False):
            ours.copy_(theirs)  # the last linear layer has no counterpart


def compare(shape: str, iterations: int) -> dict[str, float]:
    """Median seconds of both, and how far their results lie apart; the first step is warm-up."""
    bench = Bench(SHAPES[shape])
    method = DM(iterations=iterations + 1, batch_real=BATCH_REAL)
    still = method.model_copy(update={"iterations": 1, "lr_img": 1e-20})
    ours = run_ours(method, bench)
    theirs = run_plain(method, bench, finish(run_ours(still, bench)))
    # In turns, so that a busy moment of the machine hits both alike.
    pairs = [(next(ours), next(theirs)) for _ in range(method.iterations)]
    images = finish(ours), finish(theirs)
    result: dict[str, float] = {}
    for clock, word in (("seconds", ""), ("cpu_seconds", "_cpu")):
        plain_time = statistics.median(getattr(step, clock) for _, step in pairs[1:])
        our_time = statistics.median(getattr(step, clock) for step, _ in pairs[1:])
        result |= {f"published_loop{word}": plain_time, f"distillhub_matching{word}": our_time}
        result[f"speedup{word}"] = plain_time / our_time
    return result | {
        "gflop": floor_gflop(SHAPES[shape]),
        "largest_relative_loss_difference": max(abs(a.loss - b.loss) / b.loss for a, b in pairs),
        "largest_pixel_difference": (images[0] - images[1]).abs().max().item(),
    }
