"""Statistical matching as EDC's published code does it, written plainly.

Hooks on every layer take every statistic by itself (mean, variance, cells by `unfold`), average the
class targets over the labels of the batch in each step, and add up one norm after the other. The
collection of targets goes through a batch image by image and layer by layer, and ends in one small
file per layer and class. Weights are frozen, so that no gradient of theirs is computed, and what
needs no gradient has none; running statistics start anew with each batch, and class patch means
and variances are not exchanged.

Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024), section 3
and the authors' code.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distillhub.models.classifier import Classifier
from distillhub.models.statistics import LayerStatistics


class Settings(NamedTuple):
    """Of the loop, with the paper's letters."""

    iterations: int
    """T."""
    lr: float
    alpha: float
    momentum: float
    """m, of the running statistics."""
    weight: float
    """lambda, of the distances."""
    first: float
    """Factor of the first layer's distances."""
    flatness: float
    beta: float
    tau: float
    patch_side: int
    """s."""


def statistics_of(maps: Tensor, side: int | None) -> list[Tensor]:
    """Mean and variance per channel and, with a side, per cell; biased variances."""
    found = [maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)]
    if side is not None:
        size = tuple(math.ceil(length / side) * side for length in maps.shape[2:])
        if size != tuple(maps.shape[2:]):
            maps = functional.interpolate(maps, size=size, mode="bilinear")
        cells = functional.unfold(maps, side, stride=side)  # [b, c s s, P]
        found += [cells.mean((0, 1)), cells.var((0, 1), unbiased=False)]
    return found


class Hook:
    """The statistics of one layer, compared in every forward pass."""

    def __init__(self, layer: nn.Module, targets: LayerStatistics, settings: Settings) -> None:
        self._handle = layer.register_forward_pre_hook(self._seen)
        self._targets, self._settings = targets, settings
        self._side = settings.patch_side if targets.kind == "conv" else None
        self._running: list[Tensor] = []
        self.labels = torch.empty(0, dtype=torch.int64)
        self.distance = torch.zeros(())

    def _seen(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del module
        if not torch.is_grad_enabled():  # the moving average of the images passes by
            return
        found = statistics_of(inputs[0], self._side)
        momentum, alpha = self._settings.momentum, self._settings.alpha
        if not self._running:
            self._running = [value.detach() for value in found]
        else:
            self._running = [
                momentum * before + (1 - momentum) * value.detach()
                for before, value in zip(self._running, found, strict=True)
            ]
        distance = torch.zeros(())
        targets = zip(self._targets.overall, self._targets.classes, strict=True)
        for running, value, (overall, classes) in zip(self._running, found, targets, strict=False):
            if overall is None or classes is None:
                raise AssertionError("a statistic without targets")
            value = running + value - value.detach()
            of_classes = classes[self.labels].mean(0)
            distance = distance + alpha * torch.linalg.vector_norm(value - overall)
            distance = distance + (1 - alpha) * torch.linalg.vector_norm(value - of_classes)
        self.distance = distance

    def close(self) -> None:
        """Let go of the layer."""
        self._handle.remove()


def recover(
    observers: Sequence[tuple[Classifier, Mapping[str, LayerStatistics]]],
    x: Tensor,
    labels: Tensor,
    limits: tuple[Tensor, Tensor],
    look_at: Callable[[int], Callable[[Tensor], Tensor]],
    settings: Settings,
) -> Iterator[float]:
    """The loop over one batch of images, which it changes in place; yields the loss of each step.

    Args:
        observers: Frozen networks with their targets.
        x: Normalised images [B, C, H, W].
        labels: [B].
        limits: Smallest and largest normalised pixels.
        look_at: The crop and flip of a step, the same for all images.
        settings: Of the loop.
    """
    hooks = [
        [Hook(net.get_submodule(path), layer, settings) for path, layer in targets.items()]
        for net, targets in observers
    ]
    for hook in (hook for own in hooks for hook in own):
        hook.labels = labels
    average = x.clone()
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=settings.lr, betas=(0.5, 0.9), eps=1e-8)
    for t in range(settings.iterations):
        rate = settings.lr * 0.5 * (1 + math.cos(math.pi * t / settings.iterations))
        optimizer.param_groups[0]["lr"] = rate
        o = t % len(observers)
        look, net = look_at(t), observers[o][0]
        logits = net.normalized(look(x))
        loss = functional.cross_entropy(logits, labels)
        distances = [hook.distance for hook in hooks[o]]
        matched = settings.first * distances[0]
        for distance in distances[1:]:
            matched = matched + distance
        loss = loss + settings.weight * matched
        with torch.no_grad():
            steady = net.normalized(look(average))
        loss = loss + settings.flatness * functional.kl_div(
            functional.log_softmax(logits / settings.tau, 1),
            functional.softmax(steady / settings.tau, 1),
            reduction="batchmean",
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(*limits)
            average.mul_(settings.beta).add_(x, alpha=1 - settings.beta)
        yield loss.item()
    for hook in (hook for own in hooks for hook in own):
        hook.close()


class Collector:
    """The targets of one observer, summed up image by image."""

    def __init__(self, net: Classifier, patch_side: int) -> None:
        self._net, self._side = net, patch_side
        self._sums: dict[tuple[str, int], list[Tensor]] = {}
        self._counts: dict[int, int] = defaultdict(int)
        self._overall: dict[str, list[Tensor]] = {}
        self._images = 0

    @torch.no_grad()
    def add(self, images: Tensor, labels: Tensor) -> None:
        """A batch of real images in [0, 1]."""
        layers = {
            path: layer
            for path, layer in self._net.named_modules()
            if isinstance(layer, nn.BatchNorm2d | nn.Conv2d)
        }

        def seen(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda module, inputs: self._layer(path, module, inputs[0], labels.tolist())

        handles = [layer.register_forward_pre_hook(seen(path)) for path, layer in layers.items()]
        self._net(images)
        for handle in handles:
            handle.remove()
        for label in labels.tolist():
            self._counts[label] += 1
        self._images += len(images)

    def _layer(self, path: str, module: nn.Module, maps: Tensor, labels: list[int]) -> None:
        side = self._side if isinstance(module, nn.Conv2d) else None
        for image, label in zip(maps, labels, strict=True):
            found = statistics_of(image[None], side)
            before = self._sums.get((path, label))
            self._sums[path, label] = (
                found if before is None else [a + b for a, b in zip(before, found, strict=True)]
            )
        if side is not None:
            found = [len(maps) * value for value in statistics_of(maps, side)]
            whole = self._overall.get(path)
            self._overall[path] = (
                found if whole is None else [a + b for a, b in zip(whole, found, strict=True)]
            )

    def save(self, folder: Path) -> None:
        """One file per layer and class, and one per convolution for all images."""
        names = ("mean", "var", "patch_mean", "patch_var")
        for (path, label), sums in self._sums.items():
            place = folder / path / f"class{label}"
            place.mkdir(parents=True)
            values = {
                name: (value / self._counts[label]).numpy()
                for name, value in zip(names, sums, strict=False)
            }
            np.savez(place / "running.npz", allow_pickle=False, **values)
        for path, sums in self._overall.items():
            values = {
                name: (value / self._images).numpy()
                for name, value in zip(names, sums, strict=True)
            }
            np.savez(folder / path / "running.npz", allow_pickle=False, **values)
