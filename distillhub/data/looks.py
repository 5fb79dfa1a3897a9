"""What a sample of a source's images shows: their channels, size, and normalization."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from distillhub.data.pictures import (
    CANNOT_DECODE,
    eight_bit,
    natural_channels,
    pixels_of,
    undecodable,
    upright,
)
from distillhub.data.rows import EncodedRows, Index
from distillhub.data.specs import Channels, SourceSpec
from distillhub.errors import Fault, RecipeError
from distillhub.spec import Spec
from distillhub.units import derive_seed

MEASURED_ROWS = 2000
"""Training images, at most, whose pixels are measured and whose sizes are compared."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100 = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ylecun/mnist": ((0.1307,), (0.3081,)),
    "zalando-datasets/fashion_mnist": ((0.2861,), (0.3530,)),
    "ufldl-stanford/svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "uoft-cs/cifar10": _CIFAR10,
    "uoft-cs/cifar100": _CIFAR100,
    "zh-plus/tiny-imagenet": _IMAGENET,
    "ilsvrc/imagenet-1k": _IMAGENET,
    "frgfm/imagenette": _IMAGENET,
    "frgfm/imagewoof": _IMAGENET,
}
"""Mean and standard deviation by Hub id, in lower case.

Those of the published codes of DM, IDM and BACON (`get_dataset` of their utils.py), so that results
can be compared. The values of CIFAR-10 are not its standard deviations (0.2470, 0.2435, 0.2616) but
the mean of those of single images.
"""


class Look(Spec):
    """What a sample of the training images shows."""

    channels: Channels
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def sample(labels: Index) -> Index:
    """Which images to look at: the first of every class, and `MEASURED_ROWS` drawn with seed 0.

    Args:
        labels: [N] of the chosen training rows.

    Returns:
        Ascending positions.
    """
    generator = torch.Generator().manual_seed(derive_seed("look", 0))
    drawn = torch.randperm(len(labels), generator=generator)[:MEASURED_ROWS].numpy()
    _, firsts = np.unique(labels, return_index=True)
    return np.unique(np.concatenate([drawn, firsts]))


def look(spec: SourceSpec, rows: EncodedRows, kept: dict[int, bytes]) -> Look:
    """Find channels and size of the sampled images; measure the normalization if none is known.

    Raises:
        RecipeError: If images cannot be decoded or do not fit together; holds every fault met.
    """
    faults: list[Fault] = []
    sizes: dict[tuple[int, int], int] = {}
    kinds: set[Channels] = set()
    readable: list[int] = []
    for row, stored in sorted(kept.items()):
        try:
            with rows.open(stored) as image:
                kind = natural_channels(image)
                width, height = eight_bit(upright(image), kind).size
        except CANNOT_DECODE as error:
            faults.append(undecodable(rows.where(row), error))
            continue
        kinds.add(kind)
        sizes.setdefault((height, width), row)
        readable.append(row)
    if spec.size is None and len(sizes) > 1:
        faults.append(_mixed_sizes(rows, sizes))
    natural: Channels = 1 if kinds == {1} else 3
    channels = spec.channels or natural
    if spec.mean is not None and spec.std is not None:
        faults += _wrong_lengths(spec, channels)
    if faults:
        raise RecipeError.of(faults)

    height, width = (spec.size, spec.size) if spec.size else next(iter(sizes))
    known = (spec.mean, spec.std) if spec.mean and spec.std else PUBLISHED.get(spec.id.lower())
    if known is None or len(known[0]) != channels:
        known = _measure(spec, rows, [kept[row] for row in readable], channels)
    return Look(channels=channels, height=height, width=width, mean=known[0], std=known[1])


def _mixed_sizes(rows: EncodedRows, sizes: dict[tuple[int, int], int]) -> Fault:
    examples = [
        f"{height} x {width} pixels ({rows.where(row)})"
        for (height, width), row in itertools.islice(sizes.items(), 2)
    ]
    return Fault(
        f"images differ in size: {', '.join(examples)}",
        "dataset.size",
        f"set dataset.size, for instance to {min(min(size) for size in sizes)}",
    )


def _wrong_lengths(spec: SourceSpec, channels: int) -> list[Fault]:
    given = {"mean": spec.mean or (), "std": spec.std or ()}
    return [
        Fault(
            f"{len(values)} value(s) for images of {channels} channel(s)",
            f"dataset.{key}",
            "give one value per channel, or leave mean and std out",
        )
        for key, values in given.items()
        if len(values) != channels
    ]


def _measure(
    spec: SourceSpec, rows: EncodedRows, stored: Sequence[bytes], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of all pixels, per channel, in [0, 1].

    Sums are exact, results are rounded to six places. A channel without any variation gets the
    standard deviation of one grey level, 1/255.
    """
    count, total, squares = 0, np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for data in stored:
        with rows.open(data) as image:
            flat = pixels_of(image, channels, spec.size, spec.resize).reshape(channels, -1)
        levels = flat.astype(np.int64)
        count += levels.shape[1]
        total += levels.sum(axis=1)
        squares += (levels**2).sum(axis=1)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return (
        tuple(round(float(value), 6) for value in mean / 255),
        tuple(round(float(value), 6) for value in std / 255),
    )
