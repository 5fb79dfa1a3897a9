"""Differentiable Siamese augmentation (DSA): drawn once, applied to all batches that share it.

A strategy such as `color_crop_cutout_flip_scale_rotate` names families. Each call draws one of
them uniformly (mode "S" of the authors' code) and its parameters: one row for the whole batch
(Siamese: real and synthetic images meet the very same transform) or one per image (training).
Images are in normalised space, where the fill value 0 is the mean of the data set, not black.

The authors' code seeds the global generator from the clock and repeats index 0 along the batch;
here a generator is passed in and a Siamese draw is a single row. The distributions are the same.

Source: Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation (ICML 2021),
section 3, with the ranges of the authors' code (DatasetCondensation, `utils.py`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")
BRIGHTNESS = 1.0  # width of the shift
SATURATION = 2.0  # upper end of the factor
CONTRAST = 0.5  # lower end of the factor, whose width is 1
CROP = 0.125  # largest translation, share of the side
CUTOUT = 0.5  # side of the hole, share of the side
FLIP = 0.5  # probability
SCALE = 1.2  # largest factor; the smallest is its inverse
ROTATE = 15.0  # largest angle in degrees


class DsaParams(NamedTuple):
    """One draw: what is done, and with which numbers."""

    family: str
    values: Tensor
    """[1 or N, p] on the CPU; one row is shared by all images, else there is one row per image.

    color: brightness shift, saturation factor, contrast factor.
    crop: translation up and left in pixels.
    cutout: row and column of the centre in pixels.
    flip: 1 or 0.
    scale: factor along x and y; above 1 the object shrinks.
    rotate: angle in radians, counter-clockwise.
    """


def families(strategy: str) -> tuple[str, ...]:
    """The families that a strategy names.

    Raises:
        ValueError: If the strategy is empty or names an unknown or repeated family.
    """
    found = tuple(strategy.split("_"))
    wrong = sorted(set(found) - set(FAMILIES))
    if wrong or len(set(found)) != len(found):
        raise ValueError(
            f"DSA strategy {strategy!r} must join with '_' different ones of {', '.join(FAMILIES)}"
        )
    return found


def draw_dsa(
    strategy: str, size: Sequence[int], generator: torch.Generator, *, images: int = 1
) -> DsaParams:
    """Draw a family and its parameters.

    Args:
        strategy: Families joined by `_`.
        size: Shape whose last two numbers are height and width in pixels.
        generator: On the CPU, so that a draw does not depend on the device of the images.
        images: Rows of parameters; 1 is the Siamese draw.
    """
    known = families(strategy)
    family = known[int(torch.randint(len(known), (), generator=generator))]
    height, width = size[-2:]
    if family in ("crop", "cutout"):
        along = [_positions(family, side, images, generator) for side in (height, width)]
        return DsaParams(family, torch.stack(along, dim=1).float())
    columns = {"color": 3, "flip": 1, "scale": 2, "rotate": 1}[family]
    u = torch.rand(images, columns, generator=generator)
    if family == "color":
        low = torch.tensor([-BRIGHTNESS / 2, 0.0, CONTRAST])
        width_of_range = torch.tensor([BRIGHTNESS, SATURATION, 1.0])
        return DsaParams(family, low + u * width_of_range)
    if family == "flip":
        return DsaParams(family, (u < FLIP).float())
    if family == "scale":
        return DsaParams(family, 1 / SCALE + u * (SCALE - 1 / SCALE))
    return DsaParams(family, math.radians(ROTATE) * (2 * u - 1))


def apply_dsa(x: Tensor, params: DsaParams) -> Tensor:
    """Apply a draw; differentiable with respect to the pixels.

    Args:
        x: Images in normalised space, [N, C, H, W].
        params: A draw for one or for N images.

    Raises:
        ValueError: If the draw is for another number of images.
    """
    rows = params.values.shape[0]
    if rows not in (1, x.shape[0]):
        raise ValueError(f"a draw for {rows} images does not fit a batch of shape {tuple(x.shape)}")
    return _OPERATORS[params.family](x, params.values)


def dsa(x: Tensor, strategy: str, generator: torch.Generator, *, siamese: bool) -> Tensor:
    """Augment a batch: one family for all images, parameters per image unless `siamese`.

    Args:
        x: Images in normalised space, [N, C, H, W].
        strategy: Families joined by `_`.
        generator: On the CPU.
        siamese: Whether all images share one row of parameters.
    """
    return apply_dsa(x, draw_dsa(strategy, x.shape, generator, images=1 if siamese else x.shape[0]))


def _positions(family: str, side: int, images: int, generator: torch.Generator) -> Tensor:
    """Translations or hole centres along one side, [images] int64."""
    if family == "crop":
        reach = int(side * CROP + 0.5)
        return torch.randint(-reach, reach + 1, (images,), generator=generator)
    hole = int(side * CUTOUT + 0.5)
    return torch.randint(0, side + 1 - hole % 2, (images,), generator=generator)


def _per_image(column: Tensor, x: Tensor) -> Tensor | float:
    """A parameter that broadcasts against [N, C, H, W]; a plain number where it is shared."""
    if column.shape[0] == 1:
        return float(column)
    return column.to(x).view(-1, 1, 1, 1)


def _color(x: Tensor, values: Tensor) -> Tensor:
    brightness, saturation, contrast = (_per_image(column, x) for column in values.unbind(1))
    x = x + brightness
    if x.shape[1] > 1:  # the mean of a single channel is that channel
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * saturation
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * contrast


def _crop(x: Tensor, values: Tensor) -> Tensor:
    height, width = x.shape[2:]
    if values.shape[0] == 1:
        up, left = (int(v) for v in values[0])
        return F.pad(x, (-left, left, -up, up))  # negative padding cuts
    reach = int(values.abs().max())
    padded = F.pad(x, (reach, reach, reach, reach))
    start = (values.long() + reach).to(x.device)
    rows = start[:, :1] + torch.arange(height, device=x.device)  # [N, H]
    columns = start[:, 1:] + torch.arange(width, device=x.device)  # [N, W]
    image = torch.arange(x.shape[0], device=x.device)
    moved = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return moved.permute(0, 3, 1, 2)


def _cutout(x: Tensor, values: Tensor) -> Tensor:
    inside = []
    for side, centre in zip(x.shape[2:], values.unbind(1), strict=True):
        hole = int(side * CUTOUT + 0.5)
        offset = torch.arange(side) - (centre.long() - hole // 2)[:, None]  # [n, side]
        inside.append((offset >= 0) & (offset < hole))
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # [n, 1, H, W]
    return x * (~hidden).to(x)


def _flip(x: Tensor, values: Tensor) -> Tensor:
    if values.shape[0] == 1:
        return x.flip(3) if bool(values) else x
    return torch.where(values.bool().to(x.device)[:, :, None, None], x.flip(3), x)


def _scale(x: Tensor, values: Tensor) -> Tensor:
    sx, sy = values.unbind(1)
    zero = torch.zeros_like(sx)
    return _affine(x, torch.stack([sx, zero, zero, sy], dim=1).view(-1, 2, 2))


def _rotate(x: Tensor, values: Tensor) -> Tensor:
    cos, sin = values[:, 0].cos(), values[:, 0].sin()
    return _affine(x, torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2))


def _affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear sampling at `matrix` times each position, zero outside.

    With a shared matrix the batch is one image with many channels: weights are worked out once, on
    the CPU, so that no option for faster products makes positions coarse.
    """
    n, c, height, width = x.shape
    shared = matrix.shape[0] != n or n == 1
    batch = x.reshape(1, n * c, height, width) if shared else x
    theta = F.pad(matrix, (0, 1)).to(x.dtype if shared else x)
    with torch.autocast(x.device.type, enabled=False):
        grid = F.affine_grid(theta, list(batch.shape), align_corners=False).to(x)
    return F.grid_sample(batch, grid, align_corners=False).reshape(n, c, height, width)


_OPERATORS = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
