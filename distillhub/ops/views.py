"""Augmented looks at images, from stored geometry: one code for making labels and for using them.

Order of a view: crop, bilinear resize, horizontal flip, RandAugment, CutMix paste.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from distillhub.ops.randaugment import apply


class ViewBatch(NamedTuple):
    """Geometry of n views, without mixing."""

    crop: Tensor
    """[n, 4] integer: top, left, height, width in pixels of the image."""
    flip: Tensor
    """[n] bool."""
    ops: Tensor | None = None
    """[n, 4] uint8: RandAugment operation and level, twice; see `ops.randaugment`."""


def render(images: Tensor, views: ViewBatch, *, size: tuple[int, int]) -> Tensor:
    """Show n images as their views say; a row of the result does not depend on its batch.

    Args:
        images: [n, C, H, W] float32 in [0, 1].
        views: Geometry of the n views, on the device of the images.
        size: Height and width of a view in pixels.

    Returns:
        [n, C, *size] float32 in [0, 1].

    Raises:
        ValueError: If there are not as many views as images.
    """
    if len(views.crop) != len(images):
        raise ValueError(f"{len(views.crop)} views for {len(images)} images")
    shown = crop_resize(images, views.crop, size)
    shown = torch.where(views.flip[:, None, None, None], shown.flip(3), shown)
    return shown if views.ops is None else apply(shown, views.ops)


def paste(shown: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """CutMix: the pixels of `partners` inside the boxes, those of `shown` outside.

    Args:
        shown: [n, C, h, w].
        partners: [n, C, h, w]: the partners' views.
        box: [n, 4] integer: first row, first column, end row, end column in pixels; all zero:
            nothing.
    """
    y = torch.arange(shown.shape[2], device=box.device)
    x = torch.arange(shown.shape[3], device=box.device)
    rows = (y >= box[:, 0:1]) & (y < box[:, 2:3])  # [n, h]
    cols = (x >= box[:, 1:2]) & (x < box[:, 3:4])  # [n, w]
    return torch.where((rows[:, :, None] & cols[:, None, :]).unsqueeze(1), partners, shown)


def crop_resize(images: Tensor, crop: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut one box out of each image and resize it, for the whole batch in one `grid_sample`.

    Equals `F.interpolate(image[:, t:t+h, l:l+w], size, mode="bilinear", align_corners=False)` per
    image: source positions are clamped to the box, so nothing outside it leaks in. No antialiasing.

    Args:
        images: [n, C, H, W] float32.
        crop: [n, 4] integer: top, left, height, width in pixels.
        size: Height and width of the result.

    Returns:
        [n, C, *size] float32.
    """
    height, width = images.shape[2:]
    top, left, tall, wide = crop.float().unbind(1)
    y = _positions(top, tall, size[0], height)  # [n, size0] in [-1, 1]
    x = _positions(left, wide, size[1], width)
    grid = torch.stack(
        [x[:, None, :].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], dim=3
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _positions(start: Tensor, length: Tensor, count: int, full: int) -> Tensor:
    """Source positions of `count` output pixels along one axis, in [-1, 1] as grid_sample wants."""
    out = torch.arange(count, device=start.device, dtype=torch.float32) + 0.5
    within = (out * (length[:, None] / count) - 0.5).clamp_min(0)
    within = torch.minimum(within, length[:, None] - 1)
    return (start[:, None] + within) * (2 / max(full - 1, 1)) - 1


def pick_views(rows: Tensor, visits: Tensor, count: int, *, seed: int) -> Tensor:
    """Which of its `count` views an image shows at its n-th visit.

    `count` visits in a row show every view once; then the order is drawn anew. The result depends
    on the seed, the row and the number of the visit alone.

    Args:
        rows: [n] int64 image rows.
        visits: [n] int64: how often each image was shown before.
        count: Views per image.
        seed: Of the orders.

    Returns:
        [n] int64 in 0 .. count - 1.
    """
    cycle = torch.div(visits, count, rounding_mode="floor")
    start = _scramble(_scramble(torch.full_like(rows, seed) ^ rows) ^ cycle)
    keys = _scramble(start[:, None] ^ torch.arange(count))  # [n, count], one random key per view
    order = keys.argsort(dim=1, stable=True)
    return order.gather(1, (visits % count)[:, None]).squeeze(1)


def _scramble(number: Tensor) -> Tensor:
    """A bijection of 64-bit integers without visible structure: the finalizer of splitmix64."""
    number = number + -7046029254386353131
    number = (number ^ _shifted(number, 30)) * -4658895280553007687
    number = (number ^ _shifted(number, 27)) * -7723592293110705685
    return number ^ _shifted(number, 31)


def _shifted(number: Tensor, bits: int) -> Tensor:
    """Shift right as if unsigned."""
    return (number >> bits) & ((1 << (64 - bits)) - 1)
