"""Mosaics: several small images in one stored image, as IDM and BACON keep them.

A mosaic of formation l is an l x l grid of sub-images, row by row. Taken apart, each is brought
back to the size of the mosaic by bilinear interpolation (`align_corners=False`).

Source: Zhao et al., Improved Distribution Matching for Dataset Condensation (CVPR 2023), section
4.1 (partitioning and expansion); its code takes quadrants column by column, which only renames the
sub-images.
"""

from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

APART = MappingProxyType(
    {"order": "row by row", "resize": "bilinear, align_corners=False", "label": "of the mosaic"}
)
"""What a reader of mosaics must know besides their formation."""


def _refuse_uneven(height: int, width: int, formation: int) -> None:
    if formation < 1 or height % formation or width % formation:
        raise ValueError(
            f"images of {height} x {width} pixels cannot be cut into {formation} x {formation}"
        )


def split(mosaics: Tensor, formation: int) -> Tensor:
    """The sub-images at the size that they are stored in.

    Args:
        mosaics: [..., C, H, W].
        formation: Sub-images per side, l.

    Returns:
        [..., l^2, C, H/l, W/l], row by row.

    Raises:
        ValueError: If the sides are no multiples of l.
    """
    *front, channels, height, width = mosaics.shape
    _refuse_uneven(height, width, formation)
    tall, wide = height // formation, width // formation
    cells = mosaics.reshape(*front, channels, formation, tall, formation, wide)
    return cells.movedim((-4, -2), (-5, -4)).reshape(*front, formation**2, channels, tall, wide)


def join(parts: Tensor, formation: int) -> Tensor:
    """The inverse of `split`: [..., l^2, C, h, w] to [..., C, l h, l w].

    Raises:
        ValueError: If there are not l^2 sub-images.
    """
    *front, count, channels, tall, wide = parts.shape
    if count != formation**2:
        raise ValueError(f"{count} sub-images do not fill {formation} x {formation}")
    grid = parts.reshape(*front, formation, formation, channels, tall, wide)
    rows = grid.movedim((-5, -4), (-4, -2))
    return rows.reshape(*front, channels, formation * tall, formation * wide)


def expand(mosaics: Tensor, formation: int) -> Tensor:
    """Take mosaics apart and bring every sub-image to full size; linear and differentiable.

    Args:
        mosaics: [n, C, H, W].
        formation: Sub-images per side, l.

    Returns:
        [n * l^2, C, H, W]; the sub-images of one mosaic follow one another.
    """
    if formation == 1:
        return mosaics
    parts = split(mosaics, formation).flatten(0, 1)
    return functional.interpolate(
        parts, size=mosaics.shape[-2:], mode="bilinear", align_corners=False
    )


def expand_one(mosaics: Tensor, formation: int, places: Tensor) -> Tensor:
    """One sub-image of every mosaic at full size.

    Args:
        mosaics: [n, C, H, W].
        formation: Sub-images per side, l.
        places: [n] int64, number of the sub-image, row by row.

    Returns:
        [n, C, H, W].
    """
    if formation == 1:
        return mosaics
    chosen = split(mosaics, formation)[torch.arange(len(mosaics)), places]
    return functional.interpolate(
        chosen, size=mosaics.shape[-2:], mode="bilinear", align_corners=False
    )


def pack(images: Tensor, formation: int) -> Tensor:
    """Mosaics of full-size images, each shrunk by bilinear interpolation.

    Args:
        images: [n * l^2, C, H, W]; consecutive ones share a mosaic.
        formation: Sub-images per side, l.

    Returns:
        [n, C, H, W]. With l = 2 and even sides this is 2 x 2 mean pooling.

    Raises:
        ValueError: If the sides or the number of images are no multiples.
    """
    if formation == 1:
        return images
    height, width = images.shape[-2:]
    _refuse_uneven(height, width, formation)
    small = functional.interpolate(
        images,
        size=(height // formation, width // formation),
        mode="bilinear",
        align_corners=False,
    )
    return join(small.reshape(-1, formation**2, *small.shape[1:]), formation)


def repeat_labels(labels: Tensor, formation: int) -> Tensor:
    """The labels of `expand`: [n] to [n * l^2]."""
    return torch.repeat_interleave(labels, formation**2)


def corners(height: int, width: int, formation: int) -> Tensor:
    """Top, left, height and width of every sub-image, row by row; [l^2, 4] int64."""
    tall, wide = height // formation, width // formation
    places = [(r * tall, c * wide, tall, wide) for r in range(formation) for c in range(formation)]
    return torch.tensor(places)
