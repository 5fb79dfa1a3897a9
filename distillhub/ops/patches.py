"""Crops of real images, put beside one another: cut, padded, chosen by a score, tiled, shuffled.

Boxes are [n, 4] int64: top, left, height, width in whole pixels.

Source: Sun et al., On the Diversity and Realism of Distilled Dataset: An Efficient Dataset
Distillation Paradigm (RDED, CVPR 2024), section 4, and the authors' code.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TRIES = 10
"""Draws of a box before the largest central one is taken, as in torchvision."""


def draw_whole_boxes(
    n: int,
    height: int,
    width: int,
    *,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Draw boxes of whole pixels by the rule of torchvision's RandomResizedCrop.

    The first of ten draws (area uniform in `scale`, width / height log-uniform in `ratio`, sides
    rounded) that fits into the image; else the largest central box whose ratio is allowed.

    Args:
        n: Boxes.
        height: Of the images, pixels.
        width: Of the images, pixels.
        generator: On the CPU.
        scale: Share of the image's area.
        ratio: Width / height in pixels.

    Returns:
        [n, 4] int64.
    """
    draws = torch.rand(n, TRIES, 2, generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[..., 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[..., 1])
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=2).round().long()
    limit = torch.tensor([height, width])
    fits = ((sides > 0) & (sides <= limit)).all(dim=2)  # [n, TRIES]
    first = fits.int().argmax(dim=1)
    found = fits.any(dim=1, keepdim=True)
    aspect_of_image = width / height
    central = torch.tensor(
        [
            min(height, round(width / ratio[0])) if aspect_of_image < ratio[0] else height,
            min(width, round(height * ratio[1])) if aspect_of_image > ratio[1] else width,
        ]
    )
    size = torch.where(found, sides[torch.arange(n), first], central)  # [n, 2]
    room = limit - size
    place = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    corner = torch.where(found, (place * (room + 1)).floor().long(), room // 2)
    return torch.cat([corner, size], dim=1)


def cut(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut one box out of each image and resize it, bilinearly with antialiasing.

    Equals `F.interpolate(image[:, t:t+h, l:l+w], size, mode="bilinear", antialias=True)` per image:
    a separable triangle filter, here two matrix products for the whole batch.

    Args:
        images: [n, C, H, W] float32.
        boxes: [n, 4], on any device.
        size: Height and width of the result.

    Returns:
        [n, C, *size].

    Raises:
        ValueError: If there are not as many boxes as images, or one leaves its image.
    """
    height, width = images.shape[-2:]
    if boxes.shape != (len(images), 4):
        raise ValueError(f"boxes {tuple(boxes.shape)} do not fit images {tuple(images.shape)}")
    top, left, tall, wide = boxes.to(images.device).unbind(1)
    if len(boxes):
        low = torch.stack([top.min(), left.min(), tall.min() - 1, wide.min() - 1]).min()
        past = torch.stack([(top + tall).max() - height, (left + wide).max() - width]).max()
        if int(low) < 0 or int(past) > 0:
            raise ValueError(f"a box leaves its image of {height} x {width} pixels")
    rows = _triangle(top, tall, size[0], height).to(images.dtype)  # [n, h, H]
    cols = _triangle(left, wide, size[1], width).to(images.dtype)  # [n, w, W]
    return rows.unsqueeze(1) @ images @ cols.transpose(1, 2).unsqueeze(1)


def _triangle(start: Tensor, length: Tensor, count: int, full: int) -> Tensor:
    """Weights of `full` pixels in `count` samples of a stretch of them, [n, count, full]."""
    step = (length.double() / count).view(-1, 1, 1)
    sample = torch.arange(count, device=start.device, dtype=torch.float64) + 0.5
    pixel = torch.arange(full, device=start.device)
    begin = start.view(-1, 1, 1)
    centre = begin + sample.view(1, -1, 1) * step
    weights = (1 - (pixel + 0.5 - centre).abs() / step.clamp(min=1)).clamp(min=0)
    inside = (pixel >= begin) & (pixel < begin + length.view(-1, 1, 1))
    weights = weights * inside
    return weights / weights.sum(dim=2, keepdim=True)


def pad_centred(patches: Tensor, size: tuple[int, int]) -> Tensor:
    """Put patches in the middle of a field of zeros; an odd pixel goes below and to the right.

    In normalised space zero is the mean colour.

    Args:
        patches: [n, C, h, w].
        size: Height and width of the result, at least h and w.

    Raises:
        ValueError: If the patches are larger.
    """
    tall, wide = size[0] - patches.shape[-2], size[1] - patches.shape[-1]
    if tall < 0 or wide < 0:
        raise ValueError(f"patches {tuple(patches.shape)} do not fit into {size[0]} x {size[1]}")
    top, left = tall // 2, wide // 2
    return functional.pad(patches, (left, wide - left, top, tall - top))


class Chosen(NamedTuple):
    """Crops in the order of their losses, [k] each."""

    image: Tensor
    crop: Tensor
    loss: Tensor


def lowest(losses: Tensor, k: int, *, one_per_image: bool = True) -> Chosen:
    """The k crops with the lowest losses, ascending; ties go to the lower image, then crop.

    Args:
        losses: [R, m], m crops of each of R images.
        k: How many.
        one_per_image: Whether only the best crop of an image counts.

    Raises:
        ValueError: If there are fewer, or a loss is not finite.
    """
    if not bool(losses.isfinite().all()):
        raise ValueError(f"losses {tuple(losses.shape)} are not all finite")
    if one_per_image:
        # On every device the first of equal losses.
        crop = (losses == losses.amin(dim=1, keepdim=True)).int().argmax(dim=1)
        image = torch.arange(len(losses), device=losses.device)
    else:
        image, crop = (
            part.flatten()
            for part in torch.meshgrid(
                torch.arange(losses.shape[0], device=losses.device),
                torch.arange(losses.shape[1], device=losses.device),
                indexing="ij",
            )
        )
    if k > len(image):
        raise ValueError(f"{k} crops are asked for, losses {tuple(losses.shape)} give {len(image)}")
    loss = losses[image, crop]
    order = loss.argsort(stable=True)[:k]
    return Chosen(image[order], crop[order], loss[order])


def spans(side: int, factor: int) -> list[int]:
    """`factor` lengths that add up to `side`; the first `side % factor` are one pixel longer.

    Raises:
        ValueError: If a length would be 0.
    """
    if not 0 < factor <= side:
        raise ValueError(f"{side} pixels cannot be cut into {factor} parts")
    return [side // factor + (part < side % factor) for part in range(factor)]


def tile(patches: Tensor, size: tuple[int, int]) -> Tensor:
    """Collages of f x f patches, row by row; a patch of another size is resized, nearest.

    Args:
        patches: [n, f * f, C, h, w].
        size: Height and width of a collage; its parts are `spans`.

    Returns:
        [n, C, *size].

    Raises:
        ValueError: If the number of patches is no square, or the collage has fewer pixels.
    """
    factor = math.isqrt(patches.shape[1])
    if factor**2 != patches.shape[1] or not factor:
        raise ValueError(f"{patches.shape[1]} patches do not fill a square: {tuple(patches.shape)}")
    rows = []
    for y, tall in enumerate(spans(size[0], factor)):
        parts = [
            functional.interpolate(patches[:, y * factor + x], (tall, wide), mode="nearest")
            for x, wide in enumerate(spans(size[1], factor))
        ]
        rows.append(torch.cat(parts, dim=3))
    return torch.cat(rows, dim=2)


def shuffle_patches(images: Tensor, factor: int, *, generator: torch.Generator) -> Tensor:
    """Cut each image into `factor` columns and permute them, then the same with rows.

    Args:
        images: [n, C, H, W].
        factor: Parts per side, `spans` long; 1 leaves the images as they are and draws nothing.
        generator: On the CPU; every image gets permutations of its own.

    Raises:
        ValueError: If a side has fewer pixels than parts.
    """
    if factor == 1:
        return images
    n, channels, height, width = images.shape
    cols = _permuted(n, width, factor, generator).to(images.device)
    rows = _permuted(n, height, factor, generator).to(images.device)
    image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    return images[image, channel, rows.view(n, 1, height, 1), cols.view(n, 1, 1, width)]


def _permuted(n: int, side: int, factor: int, generator: torch.Generator) -> Tensor:
    """For n images, the pixels of a side in the order of its permuted parts, [n, side]."""
    part = torch.repeat_interleave(torch.arange(factor), torch.tensor(spans(side, factor)))
    rank = torch.rand(n, factor, generator=generator).argsort(dim=1)
    return rank[:, part].argsort(dim=1, stable=True)
