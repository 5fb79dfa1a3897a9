"""Training images in the student's space, on its device, fetched by row and view.

Small sets are prepared once and stay as one tensor (a loader over a hundred images costs more than
the training step); large ones are prepared batch by batch. The numbers are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distillhub.ops.pixels import normalize, resize
from distillhub.units import derive_seed

RESIDENT_BYTES = 2 << 30
"""Prepared images up to this size stay in the memory of the device."""
CHUNK_PIXELS = 1 << 20
"""Images are prepared and tested in chunks of about this many pixels, at most 1000 images."""


class ImageSet(Protocol):
    """Labelled images in [0, 1]: a distilled set, or a split of real data."""

    @property
    def labels(self) -> Tensor:
        """[N] int64."""

    def __len__(self) -> int: ...

    def images(self, rows: Tensor) -> Tensor:
        """[n, C, H, W] float32 in [0, 1]."""


class SoftSet(ImageSet, Protocol):
    """Images with stored soft labels."""

    @property
    def views(self) -> object | None:
        """Geometry of the views; None: one whole-image label per image."""

    @property
    def views_per_image(self) -> int:
        """K."""

    def view_batch(
        self,
        rows: Tensor,
        views: Tensor,
        temperature: float | None,
        *,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """View images [n, C, h, w] in [0, 1] and their stored logits [n, classes]."""


class Space(NamedTuple):
    """Where a student lives: size, normalisation, device."""

    resolution: tuple[int, int]
    """Height and width in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    covered: int | None = None
    """Shorter side in pixels that images are resized to before their centre is taken; None: they
    are resized to the resolution as they are."""

    def prepare(self, images: Tensor) -> Tensor:
        """From stored images in [0, 1] to the student's input; the argument is left as it is."""
        shown = images.to(self.device)
        if self.covered is None:
            shown = resize(shown, self.resolution)
        else:
            shown = _center(resize(shown, self.covered, how="crop"), self.resolution)
        return normalize(shown, self.mean, self.std)


def _center(images: Tensor, resolution: tuple[int, int]) -> Tensor:
    """The central pixels, as torchvision's CenterCrop takes them."""
    (height, width), (tall, wide) = images.shape[-2:], resolution
    top, left = round((height - tall) / 2), round((width - wide) / 2)
    return images[..., top : top + tall, left : left + wide]


@dataclass(frozen=True)
class Feed:
    """Batches of a training set: `batch(rows, views)` gives inputs and targets."""

    size: int
    """Images."""
    views: int
    """Views per image; 1 for whole images."""
    augmented: bool
    """Whether the protocol augments these images; stored views are shown as they are."""
    batch: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Rows [n] and views [n] to inputs [n, C, H, W] and targets: classes [n] or logits [n, K]."""
    labels: Tensor
    """Classes of the images, [size] int64, on the device of the batches."""


def hard_feed(images: ImageSet, space: Space) -> Feed:
    """Whole images with their classes."""

    def fetch(rows: Tensor, _views: Tensor) -> tuple[Tensor, Tensor]:
        return space.prepare(images.images(rows)), images.labels[rows].to(space.device)

    feed = Feed(len(images), 1, True, fetch, images.labels.to(space.device))
    return _resident(feed, space, _bytes(images, space))


def soft_feed(
    images: SoftSet, space: Space, *, temperature: float | None, steps_images: int
) -> Feed:
    """Stored views, or whole images, with their stored logits.

    Args:
        images: The set; every one of its images has `views_per_image` labels.
        space: Of the student.
        temperature: Of the loss, None for a loss on the logits themselves; decides what stands for
            the logits that were not stored.
        steps_images: Images seen in the whole run; more views than that are not prepared at once.
    """
    whole = images.views is None

    def fetch(rows: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        shown, logits = images.view_batch(rows, views, temperature, device=space.device)
        return space.prepare(shown), logits

    count = images.views_per_image
    feed = Feed(len(images), count, whole, fetch, images.labels.to(space.device))
    if feed.size * count > steps_images:
        return feed
    return _resident(feed, space, _bytes(images, space) * count)


def _bytes(images: ImageSet, space: Space) -> int:
    channels = images.images(torch.tensor([0])).shape[1]
    height, width = space.resolution
    return 4 * len(images) * channels * height * width


def _resident(feed: Feed, space: Space, size: int) -> Feed:
    """The feed with everything prepared, unless it takes more than RESIDENT_BYTES."""
    if size > RESIDENT_BYTES:
        return feed
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for pairs in chunks(feed.size * feed.views, space.resolution):
        x, target = feed.batch(pairs // feed.views, pairs % feed.views)
        inputs.append(x)
        targets.append(target)
    all_inputs, all_targets = torch.cat(inputs), torch.cat(targets)

    def fetch(rows: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        pairs = (rows * feed.views + views).to(space.device)
        return all_inputs[pairs], all_targets[pairs]

    return replace(feed, batch=fetch)


def chunks(count: int, resolution: Sequence[int]) -> Iterator[Tensor]:
    """The rows 0 .. count-1 in order, in chunks that depend on the resolution alone."""
    height, width = resolution
    size = max(1, min(1000, CHUNK_PIXELS * 4 // (height * width)))
    yield from torch.split(torch.arange(count), size)


def epoch_rows(size: int, seed: int, epoch: int) -> Tensor:
    """All rows in the order of one epoch, [size] int64."""
    return torch.randperm(size, generator=_generator(seed, "epoch", epoch))


def epoch_views(size: int, views: int, seed: int, epoch: int) -> Tensor:
    """The view that each image shows in an epoch, [size] int64.

    Every image goes through all its views in an order of its own before it shows one again.
    """
    if views == 1:
        return torch.zeros(size, dtype=torch.int64)
    cycle, turn = divmod(epoch, views)
    order = torch.rand(size, views, generator=_generator(seed, "views", cycle)).argsort(1)
    return order[:, turn]


def augment_generator(seed: int, step: int) -> torch.Generator:
    """What the augmentation of one step is drawn from."""
    return _generator(seed, "augment", step)


def _generator(*names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed("evaluation", *names))
