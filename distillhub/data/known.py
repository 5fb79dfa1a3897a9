"""Published facts of data sets, for plans on machines that do not hold them.

Nothing is ever built from these.
"""

from dataclasses import dataclass

from distillhub.data.specs import DataPin, ImageFormat, SourceSpec, SplitPin
from distillhub.data.subsets import SUBSETS

UNSEEN = "0" * 64
"""Digest of a split that nobody here has looked at."""
BYTES_PER_VALUE = {
    "jpeg": 18e3 / (224 * 224 * 3),
    "webp": 77e3 / (224 * 224 * 3),
    "png": 89e3 / (224 * 224 * 3),
}
"""Of a textured 224-pixel photograph: 18, 77 (lossless) and 89 kB."""


@dataclass(frozen=True)
class KnownSource:
    """What is published of a data set."""

    classes: int
    train: int
    test: int
    channels: int
    side: int | None
    """Native side in pixels; None: it varies."""


KNOWN = {
    "ILSVRC/imagenet-1k": KnownSource(1000, 1_281_167, 50_000, 3, None),
    "ufldl-stanford/svhn": KnownSource(10, 73_257, 26_032, 3, 32),
    "uoft-cs/cifar10": KnownSource(10, 50_000, 10_000, 3, 32),
    "uoft-cs/cifar100": KnownSource(100, 50_000, 10_000, 3, 32),
    "zh-plus/tiny-imagenet": KnownSource(200, 100_000, 10_000, 3, 64),
    "zalando-datasets/fashion_mnist": KnownSource(10, 60_000, 10_000, 1, 28),
    "ylecun/mnist": KnownSource(10, 60_000, 10_000, 1, 28),
}


SUBSET_IMAGES = {"imagenette": 12_894, "imagewoof": 12_454}
"""Training images of named classes of ImageNet-1k (arXiv 2603.27987, from the ratios of its tables
3 and 4)."""


def published_pin(spec: SourceSpec) -> DataPin | None:
    """A stand-in for a pin that is good enough to count with.

    None where nothing is known or the size is open. Classes are taken to be equally large.
    """
    known = KNOWN.get(spec.id)
    side = spec.size if known is None or spec.size is not None else known.side
    if known is None or side is None:
        return None
    classes = known.classes
    if isinstance(spec.classes, str) and spec.classes in SUBSETS:
        classes = len(SUBSETS[spec.classes])
    elif spec.classes is not None:
        classes = len(spec.classes)
    channels = spec.channels or (1 if known.channels == 1 else 3)
    share = classes / known.classes
    train = SUBSET_IMAGES.get(str(spec.classes), round(known.train * share))
    return DataPin(
        revision=None,
        train=SplitPin(rows=train, sha256=UNSEEN),
        test=SplitPin(rows=round(known.test * share), sha256=UNSEEN),
        class_names=tuple(f"class {c}" for c in range(classes)),
        counts=(round(train / classes),) * classes,
        channels=channels,
        height=side,
        width=side,
        mean=spec.mean or (0.5,) * channels,
        std=spec.std or (0.5,) * channels,
    )


def foretold_bytes(fmt: ImageFormat, channels: int, height: int, width: int) -> float:
    """Bytes of one photograph of the given size."""
    return BYTES_PER_VALUE[fmt.codec] * channels * height * width
