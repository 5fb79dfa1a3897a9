"""Pixels: between [0, 1] and a network's normalised space, and between sizes."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def _per_channel(values: Tensor | Sequence[float], images: Tensor) -> Tensor:
    row = torch.as_tensor(values, dtype=images.dtype, device=images.device).reshape(-1)
    if images.ndim != 4 or row.numel() != images.shape[1]:
        raise ValueError(f"{row.numel()} values do not fit images of shape {tuple(images.shape)}")
    return row.view(1, -1, 1, 1)


def normalize(
    images: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
) -> Tensor:
    """(images - mean) / std per channel.

    Args:
        images: [n, C, H, W].
        mean: [C].
        std: [C].

    Raises:
        ValueError: If the number of channels differs.
    """
    return (images - _per_channel(mean, images)) / _per_channel(std, images)


def denormalize(x: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> Tensor:
    """The inverse of `normalize`; nothing is clipped.

    Raises:
        ValueError: If the number of channels differs.
    """
    return x * _per_channel(std, x) + _per_channel(mean, x)


def resize(
    images: Tensor,
    size: int | tuple[int, int],
    *,
    how: Literal["squash", "crop"] = "squash",
    antialias: bool = True,
) -> Tensor:
    """Bilinear resize, half-pixel centers; the same object where the size is right already.

    Args:
        images: [n, C, H, W].
        size: Side, or height and width, in pixels.
        how: `squash` scales both sides to the size; `crop` scales until the image covers it, then
            takes the center.
        antialias: Widen the filter when the image shrinks.

    Raises:
        ValueError: If the images are not [n, C, H, W] or the size is not positive.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if images.ndim != 4 or min(height, width) < 1:
        raise ValueError(f"cannot resize {tuple(images.shape)} to {height} x {width} pixels")
    if images.shape[-2:] == (height, width):
        return images
    if how == "squash":
        return _bilinear(images, height, width, antialias)
    old_height, old_width = images.shape[-2:]
    factor = max(height / old_height, width / old_width)
    covered = _bilinear(
        images,
        max(height, round(old_height * factor)),
        max(width, round(old_width * factor)),
        antialias,
    )
    top, left = (covered.shape[-2] - height) // 2, (covered.shape[-1] - width) // 2
    return covered[..., top : top + height, left : left + width]


def _bilinear(images: Tensor, height: int, width: int, antialias: bool) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    shrinks = height < images.shape[-2] or width < images.shape[-1]
    return functional.interpolate(
        images,
        (height, width),
        mode="bilinear",
        align_corners=False,
        antialias=antialias and shrinks,
    )
