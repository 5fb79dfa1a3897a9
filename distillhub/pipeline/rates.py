"""Seconds per step of training and of prediction on this machine, probed.

A probe times one step of the real network on random images. Where a step would be long it times a
smaller batch and scales, so that a plan stays quick whatever the recipe.
"""

import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from distillhub.models.zoo import build

PROBE_FLOPS = 2e9
"""A probe's step is cut to about this much work: some tens of milliseconds of two cores."""

Kind = Literal["train", "predict"]


class Rate(NamedTuple):
    """How long a step takes."""

    seconds: float
    basis: str
    """`probed`: one step timed for this plan; `probed, scaled`: on a smaller batch."""


@dataclass
class Rates:
    """Rates of one device; each is probed once."""

    device: torch.device
    _probed: dict[tuple[object, ...], Rate] = field(default_factory=dict)

    def step(
        self, kind: Kind, arch: str, shape: tuple[int, int, int], num_classes: int, batch: int
    ) -> Rate:
        """Seconds of one step on `batch` images."""
        key = (kind, arch, shape, num_classes, batch)
        if key not in self._probed:
            self._probed[key] = self._probe(kind, arch, shape, num_classes, batch)
        return self._probed[key]

    def _probe(
        self, kind: Kind, arch: str, shape: tuple[int, int, int], num_classes: int, batch: int
    ) -> Rate:
        c, h, w = shape
        half = (0.5,) * c
        net = build(
            arch,
            num_classes=num_classes,
            channels=c,
            height=h,
            width=w,
            mean=half,
            std=half,
            seed=0,
        )
        net = net.to(self.device)
        passes = 3 if kind == "train" else 1
        cut = max(2, min(batch, int(PROBE_FLOPS / max(1.0, passes * flops(net, shape)))))
        images = torch.rand(cut, *shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        labels = torch.zeros(cut, dtype=torch.int64, device=self.device)
        best = min(self._time(kind, net, images, labels) for _ in range(3))
        if cut < batch:
            return Rate(best * batch / cut, "probed, scaled")
        return Rate(best, "probed")

    def _time(
        self, kind: Kind, net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor
    ) -> float:
        start = time.perf_counter()
        if kind == "train":
            torch.autograd.backward(functional.cross_entropy(net(images), labels))
        else:
            with torch.inference_mode():
                net(images)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def flops(net: torch.nn.Module, shape: tuple[int, int, int]) -> float:
    """Floating-point operations of one image forward, two per multiply-add."""
    device = next(net.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        net(torch.zeros(1, *shape, device=device))
    return float(counter.get_total_flops())
