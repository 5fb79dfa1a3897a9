"""Kinds of devices that a plan gives hours for, and where their speed is known from."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from distillhub.pipeline.pricing import Task
from distillhub.pipeline.standins import Family


class DeviceKind(NamedTuple):
    """What of a device the time of a build depends on."""

    name: str
    speed: Mapping[Family, float]
    """Sustained FLOP/s."""
    launch: float
    """Seconds that a kernel takes to start: the floor of small steps."""
    source: str

    def seconds(self, tasks: Iterable[Task]) -> float:
        """Of all tasks; what is not computed (files, processes) is left out."""
        return sum(
            task.calls * max(task.flops / self.speed[task.family], task.kernels * self.launch)
            for task in tasks
            if task.flops
        )


_PEAK = 989e12
_TEMPLATES = 4747e12 * 1000 / (142 * 3600)

DEVICES = (
    DeviceKind(
        "H100 class",
        {"transformer": 0.4 * _PEAK, "convolution": 0.06 * _PEAK},
        6e-6,
        "assumed: 40 % (transformers) and 6 % (convolutions) of the 989 TFLOP/s bf16 of NVIDIA's "
        "data sheet, 6 us per kernel",
    ),
    DeviceKind(
        "RTX 2080 Ti",
        {"transformer": _TEMPLATES, "convolution": _TEMPLATES},
        6e-6,
        "9.3 TFLOP/s: Table 12 of arXiv 2603.27987, templates of 1000 classes, 4,747 TFLOP each, "
        "in 142 h; 6 us per kernel assumed",
    ),
)
