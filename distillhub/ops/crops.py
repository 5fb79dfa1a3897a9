"""Augmentation for training networks: shifts, flips and resized crops, drawn per image.

Everything is driven by a CPU generator; the drawn numbers go to the device of the images.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def shift(images: Tensor, limit: int, *, generator: torch.Generator) -> Tensor:
    """Move every image by whole pixels, at most `limit` each way; what is left free is 0.

    The same as padding with zeros by `limit` and cropping at random.

    Args:
        images: [n, C, H, W].
        limit: Pixels, at least 0.
        generator: On the CPU.
    """
    n, channels, height, width = images.shape
    corner = torch.randint(0, 2 * limit + 1, (2, n, 1), generator=generator).to(images.device)
    padded = functional.pad(images, (limit, limit, limit, limit))
    rows = corner[0] + torch.arange(height, device=images.device)  # [n, H]
    cols = corner[1] + torch.arange(width, device=images.device)  # [n, W]
    image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    return padded[image, channel, rows.view(n, 1, height, 1), cols.view(n, 1, 1, width)]


def flip(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: [n, C, H, W].
        generator: On the CPU.
    """
    mirrored = torch.rand(images.shape[0], generator=generator) < 0.5
    return torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def resized_crop(
    images: Tensor,
    *,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Cut a random box out of each image and enlarge it, bilinearly, to the image's own size.

    The area is drawn uniformly from `scale`, the ratio of the sides log-uniformly from `ratio`; a
    side that would exceed the image is cut to it. Boxes are real-valued and lie inside the image;
    samples beside its border repeat the border.

    Args:
        images: [n, C, H, W].
        generator: On the CPU.
        scale: Share of the image's area.
        ratio: Width / height relative to the image's own.
    """
    n = images.shape[0]
    draws = torch.rand(4, n, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[1])
    wide = (area * aspect).sqrt().clamp(max=1)  # shares of the image's width and height
    tall = (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = wide, tall
    theta[:, 0, 2] = (2 * draws[2] - 1) * (1 - wide)  # centers in affine_grid's [-1, 1]
    theta[:, 1, 2] = (2 * draws[3] - 1) * (1 - tall)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    grid = grid.to(device=images.device, dtype=images.dtype)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
