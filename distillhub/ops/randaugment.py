"""RandAugment for a batch in which every image has operations of its own, as stored numbers.

The 14 operations and 31 magnitudes of torchvision's `RandAugment`, on 8-bit pixels, with equal
results; here each row of a batch may ask for another operation, and a stored (operation, level)
pair replays it.

A level is a number from 0 to 60: the magnitude bin (0 .. 30) times its sign, plus 30. Operations
without a sign read the bin alone.

Source: Cubuk et al., RandAugment (NeurIPS 2020); torchvision.transforms.RandAugment.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

NAMES = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""The position of a name is the stored number of the operation."""
SIGNED = frozenset(range(1, 10))
"""Operations whose magnitude has a sign."""
NONE = 255
"""No operation."""
BINS = 30
"""Highest magnitude bin."""


def level(magnitude_bin: Tensor, negative: Tensor) -> Tensor:
    """The stored level of bins 0 .. 30 with a sign; uint8."""
    return (BINS + torch.where(negative, -magnitude_bin, magnitude_bin)).to(torch.uint8)


def draw(
    images: int, *, generator: torch.Generator, operations: int = 2, magnitude: int = 9
) -> Tensor:
    """Draw operations, each with a random sign where it has one.

    Args:
        images: n.
        generator: On the CPU.
        operations: J, per image.
        magnitude: Bin, 0 .. 30.

    Returns:
        [n, 2 J] uint8, as `apply` reads them.

    Source: torchvision.transforms.RandAugment with its defaults.
    """
    operation = torch.randint(len(NAMES), (images, operations), generator=generator)
    negative = torch.rand(images, operations, generator=generator) < 0.5
    negative &= torch.tensor([number in SIGNED for number in range(len(NAMES))])[operation]
    levels = level(torch.full_like(operation, magnitude), negative)
    return torch.stack([operation.to(torch.uint8), levels], dim=2).flatten(1)


def apply(images: Tensor, ops: Tensor) -> Tensor:
    """Carry out each image's stored operations one after the other.

    Images with an operation are rounded to 8 bits first; the others are returned as they are.

    Args:
        images: [n, C, H, W] float32 in [0, 1]; C is 1 or 3.
        ops: [n, 2 J] uint8: operation and level, J times; 255 means none.

    Returns:
        [n, C, H, W] float32 in [0, 1].

    Raises:
        ValueError: If an operation or level is unknown.
    """
    pairs = ops.reshape(len(images), -1, 2).long()
    used = pairs[..., 0] != NONE
    known = (pairs[..., 0] < len(NAMES)) & (pairs[..., 1] <= 2 * BINS)
    if bool((used & ~known).any()):
        raise ValueError("a RandAugment operation is above 13 or a level above 60")
    touched = used.any(1)
    if not bool(touched.any()):
        return images
    pixels = (images * 255).round()
    for step in range(pairs.shape[1]):
        number, signed = pairs[:, step, 0], pairs[:, step, 1] - BINS
        done = pixels.clone()
        for op in sorted(set(number.tolist())):
            if op in (NONE, 0):
                continue
            rows = (number == op).nonzero().squeeze(1)
            bins = signed[rows] if op in SIGNED else signed[rows].abs()
            done[rows] = _OPERATIONS[op](pixels[rows], bins.to(images.dtype) / BINS)
        pixels = done
    return torch.where(touched[:, None, None, None], pixels / 255, images)


# Below, pixels are float32 with integer values 0 .. 255, [n, C, H, W]; `share` [n] is the signed
# bin / 30.


def _moved(pixels: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Nearest pixels at the source positions y, x [n, H, W]; black outside."""
    n, channels, height, width = pixels.shape
    y, x = y.round().long(), x.round().long()
    found = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).reshape(n, 1, -1)
    taken = pixels.flatten(2).gather(2, index.expand(-1, channels, -1)).view_as(pixels)
    return taken * found.unsqueeze(1)


def _mesh(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, [1, H, W] each."""
    height, width = pixels.shape[2:]
    y = torch.arange(height, dtype=pixels.dtype, device=pixels.device)
    x = torch.arange(width, dtype=pixels.dtype, device=pixels.device)
    rows, cols = torch.meshgrid(y, x, indexing="ij")
    return rows.unsqueeze(0), cols.unsqueeze(0)


def _column(share: Tensor, full: float) -> Tensor:
    return (share * full)[:, None, None]


def _shear_x(pixels: Tensor, share: Tensor) -> Tensor:
    y, x = _mesh(pixels)
    return _moved(pixels, y.expand(len(pixels), -1, -1), x + _column(share, 0.3) * (y + 0.5))


def _shear_y(pixels: Tensor, share: Tensor) -> Tensor:
    y, x = _mesh(pixels)
    return _moved(pixels, y + _column(share, 0.3) * (x + 0.5), x.expand(len(pixels), -1, -1))


def _translate_x(pixels: Tensor, share: Tensor) -> Tensor:
    y, x = _mesh(pixels)
    by = _column(share, 150 / 331 * pixels.shape[3]).trunc()
    return _moved(pixels, y.expand(len(pixels), -1, -1), x - by)


def _translate_y(pixels: Tensor, share: Tensor) -> Tensor:
    y, x = _mesh(pixels)
    by = _column(share, 150 / 331 * pixels.shape[2]).trunc()
    return _moved(pixels, y - by, x.expand(len(pixels), -1, -1))


def _rotate(pixels: Tensor, share: Tensor) -> Tensor:
    """Counter-clockwise by up to 30 degrees round the center."""
    height, width = pixels.shape[2:]
    y, x = _mesh(pixels)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    angle = _column(share, torch.pi / 6)
    source_x = angle.cos() * x - angle.sin() * y
    source_y = angle.sin() * x + angle.cos() * y
    return _moved(pixels, source_y + (height - 1) / 2, source_x + (width - 1) / 2)


def _blend(pixels: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`other` + (1 + 0.9 share) (pixels - other), truncated to 8 bits as torchvision does."""
    ratio = (1 + 0.9 * share)[:, None, None, None]
    return (ratio * pixels + (1 - ratio) * other).clamp(0, 255).trunc()


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    weight = pixels.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    red, green, blue = (pixels * weight).unbind(1)
    return (red + green + blue).trunc().unsqueeze(1)


def _brightness(pixels: Tensor, share: Tensor) -> Tensor:
    return _blend(pixels, torch.zeros_like(pixels), share)


def _color(pixels: Tensor, share: Tensor) -> Tensor:
    return pixels if pixels.shape[1] == 1 else _blend(pixels, _grey(pixels), share)


def _contrast(pixels: Tensor, share: Tensor) -> Tensor:
    return _blend(pixels, _grey(pixels).mean((1, 2, 3), keepdim=True), share)


def _sharpness(pixels: Tensor, share: Tensor) -> Tensor:
    if min(pixels.shape[2:]) <= 2:
        return pixels
    channels = pixels.shape[1]
    kernel = torch.ones(3, 3, dtype=pixels.dtype, device=pixels.device)
    kernel[1, 1] = 5
    kernel = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    smooth = pixels.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(pixels, kernel, groups=channels).round()
    return _blend(pixels, smooth, share)


def _posterize(pixels: Tensor, share: Tensor) -> Tensor:
    dropped = (share * 4).round()  # bits
    step = (2**dropped)[:, None, None, None]
    return (pixels / step).floor() * step


def _solarize(pixels: Tensor, share: Tensor) -> Tensor:
    threshold = (255 - share * 255)[:, None, None, None]
    return torch.where(pixels >= threshold, 255 - pixels, pixels)


def _autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    scale = 255 / (high - low)
    flat = ~scale.isfinite()
    stretched = (pixels - low.masked_fill(flat, 0)) * scale.masked_fill(flat, 1)
    return stretched.clamp(0, 255).trunc()


def _equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """Flatten each channel's histogram; a channel of one value stays."""
    n, channels, height, width = pixels.shape
    value = pixels.long().reshape(n * channels, -1)
    counts = torch.zeros(n * channels, 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(1, value, torch.ones_like(value))
    last = counts.gather(1, value.amax(1, keepdim=True))
    step = (height * width - last) // 255
    safe = step.clamp_min(1)
    table = F.pad((counts.cumsum(1) + safe // 2) // safe, (1, 0))[:, :-1].clamp(0, 255)
    result = torch.where(step > 0, table.gather(1, value), value)
    return result.to(pixels.dtype).view_as(pixels)


_OPERATIONS: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    1: _shear_x,
    2: _shear_y,
    3: _translate_x,
    4: _translate_y,
    5: _rotate,
    6: _brightness,
    7: _color,
    8: _contrast,
    9: _sharpness,
    10: _posterize,
    11: _solarize,
    12: _autocontrast,
    13: _equalize,
}
