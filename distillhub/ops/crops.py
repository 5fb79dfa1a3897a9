"""Augmentation for training networks: shifts, flips and resized crops, drawn per image.

Everything is driven by a CPU generator; the drawn numbers go to the device of the images.
"""

import math
from typing import NamedTuple

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


TRIES = 10
"""Draws of a box before the largest central one is taken, as in torchvision."""


class Boxes(NamedTuple):
    """Boxes of n images, [n] each, in pixels that need not be whole."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_boxes(
    images: int,
    height: int,
    width: int,
    *,
    generator: torch.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Boxes:
    """Draw a box per image by the rule of torchvision's RandomResizedCrop.

    The first of ten draws (area uniform in `scale`, width / height log-uniform in `ratio`) that
    fits into the image; else the largest central box whose ratio is allowed. Sides are not rounded.

    Args:
        images: n.
        height: Of the images, pixels.
        width: Of the images, pixels.
        generator: On the CPU.
        scale: Share of the image's area.
        ratio: Width / height in pixels.
    """
    draws = torch.rand(TRIES, 2, images, generator=generator)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[:, 1])
    wide, tall = (area * aspect).sqrt(), (area / aspect).sqrt()  # [TRIES, n]
    fits = (wide <= width) & (tall <= height)
    first = fits.int().argmax(0, keepdim=True)
    central = max(ratio[0], min(ratio[1], width / height))
    widest, tallest = min(width, height * central), min(height, width / central)
    found = fits.any(0)
    box_width = torch.where(found, wide.gather(0, first).squeeze(0), torch.tensor(float(widest)))
    box_height = torch.where(found, tall.gather(0, first).squeeze(0), torch.tensor(float(tallest)))
    place = torch.where(found, torch.rand(2, images, generator=generator), torch.tensor(0.5))
    top, left = place[0] * (height - box_height), place[1] * (width - box_width)
    return Boxes(top, left, box_height, box_width)


def cut_boxes(images: Tensor, boxes: Boxes, size: tuple[int, int]) -> Tensor:
    """Cut one box out of each image and resize it bilinearly, without antialiasing.

    Args:
        images: [n, C, H, W]; samples beside the border repeat it.
        boxes: Of n images, on the CPU.
        size: Height and width of the result.
    """
    n, channels, height, width = images.shape
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = boxes.width / width, boxes.height / height
    theta[:, 0, 2] = (2 * boxes.left + boxes.width) / width - 1  # centres in [-1, 1]
    theta[:, 1, 2] = (2 * boxes.top + boxes.height) / height - 1
    grid = functional.affine_grid(theta, [n, channels, *size], align_corners=False)
    grid = grid.to(device=images.device, dtype=images.dtype)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
