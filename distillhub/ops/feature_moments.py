"""Means and variances of feature maps, per channel and per patch, and their sums per class.

For maps x of b images with c channels and n = b h w values per channel

    mean_c = sum x / n,    var_c = sum x^2 / n - mean_c^2,

and the same for every s x s cell, over images and channels. Both gradients are affine in the maps,

    dx = a_c + b_c x + a_p + b_p x,    b = 2 dvar / n,    a = dmean / n - b mean,

so that a forward pass reads the maps once and a backward pass reads them once, however many
statistics are taken. Sums over one image are in the dtype of the maps (float32 for half precision),
what follows in float64, so that little is lost where a mean is large.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

PIECE_BYTES = 2_600_000
"""Of maps that are summed up together on a CPU: they stay in its cache between the sums."""
Gradients = tuple[Tensor | None, ...]


class FeatureMoments(NamedTuple):
    """Moments of feature maps; one more leading dimension where there are several sets of them."""

    mean: Tensor
    """[c]: over images, rows and columns."""
    var: Tensor
    """[c]: biased variance over the same."""
    patch_mean: Tensor | None = None
    """[P]: over images, channels and the s x s pixels of a cell; cells row by row."""
    patch_var: Tensor | None = None
    """[P]: biased variance over the same."""


def patch_count(height: int, width: int, patch_side: int) -> int:
    """Cells P of maps of that size: ceil(h / s) * ceil(w / s)."""
    return -(-height // patch_side) * -(-width // patch_side)


def feature_moments(maps: Tensor, patch_side: int | None) -> FeatureMoments:
    """The moments of a batch of feature maps.

    Maps whose sides are no multiples of `patch_side` are first resized up to them, bilinearly, for
    the patch moments alone.

    Args:
        maps: [b, c, h, w]; float64 is kept, half precision is summed up in float32.
        patch_side: s, in pixels of the maps; None: no patch moments.

    Returns:
        [c], [c], [P], [P], differentiable once with respect to the maps.

    Raises:
        ValueError: If the maps have no four dimensions, no values, or the side is not positive.

    Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024), with
    the patch statistics of the authors' code.
    """
    _checked(maps, patch_side)
    found: tuple[Tensor, ...] = _Moments.apply(maps, patch_side)
    return FeatureMoments(*found)


@torch.no_grad()
def image_moments(maps: Tensor, patch_side: int | None) -> FeatureMoments:
    """The moments of every image by itself: [b, c], [b, c], [b, P], [b, P] in float64.

    Args:
        maps: [b, c, h, w].
        patch_side: As in `feature_moments`.

    Raises:
        ValueError: As `feature_moments`.
    """
    _checked(maps, patch_side)
    sums = _sums(maps, patch_side)
    area = maps.shape[2] * maps.shape[3]
    mean, var = _mean_and_variance(sums.channels, sums.channel_squares, area)
    if sums.cells is None or sums.cell_squares is None or patch_side is None:
        return FeatureMoments(mean, var)
    per_cell = maps.shape[1] * patch_side**2
    return FeatureMoments(mean, var, *_mean_and_variance(sums.cells, sums.cell_squares, per_cell))


def pooled_moments(moments: FeatureMoments) -> FeatureMoments:
    """The moments of a batch, [c] and [P], from those of its images, [b, c] and [b, P]."""
    mean, var = _pooled(moments.mean, moments.var)
    if moments.patch_mean is None or moments.patch_var is None:
        return FeatureMoments(mean, var)
    return FeatureMoments(mean, var, *_pooled(moments.patch_mean, moments.patch_var))


def _pooled(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    return mean.mean(0), var.mean(0) + mean.var(0, correction=0)


class ClassSums(NamedTuple):
    """What class targets are made of: sums over the images of each class, d statistics each."""

    images: Tensor
    """[C] float64: their number."""
    mean: Tensor
    """[C, d] float64: of the images' means."""
    var: Tensor
    """[C, d] float64: of the images' variances."""
    square: Tensor
    """[C, d] float64: of the squares of the images' means."""

    @classmethod
    def zeros(cls, classes: int, width: int) -> "ClassSums":
        """Before the first image, on the CPU."""
        table = (classes, width)
        return cls(
            torch.zeros(classes, dtype=torch.float64),
            *(torch.zeros(table, dtype=torch.float64) for _ in range(3)),
        )

    def means(self) -> Tensor:
        """[C, d]: mean over the images of a class; 0 for a class without images."""
        return self.mean / self._number()

    def within(self) -> Tensor:
        """[C, d]: mean of the variances inside the images of a class."""
        return self.var / self._number()

    def between(self) -> Tensor:
        """[C, d]: variance of the images' means; with `within` it is the total class variance."""
        return (self.square / self._number() - self.means().square()).clamp_min(0)

    def _number(self) -> Tensor:
        return self.images.clamp_min(1).unsqueeze(1)


def class_sums(mean: Tensor, var: Tensor, labels: Tensor, *, into: ClassSums) -> None:
    """Add the images of a batch to the sums of their classes, in place.

    Args:
        mean: [b, d] float64 on the CPU, where the order of additions is fixed.
        var: [b, d] float64 on the CPU.
        labels: [b] int64 on the CPU.
        into: Is added to.
    """
    into.images.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float64))
    into.mean.index_add_(0, labels, mean)
    into.var.index_add_(0, labels, var)
    into.square.index_add_(0, labels, mean.square())


# ---- one pass over the maps


class _Sums(NamedTuple):
    """Sums of values and squares, per image, in float64."""

    channels: Tensor  # [b, c]
    channel_squares: Tensor
    cells: Tensor | None  # [b, P]
    cell_squares: Tensor | None


def _checked(maps: Tensor, patch_side: int | None) -> None:
    if maps.ndim != 4 or maps.numel() == 0:
        raise ValueError(f"maps [b, c, h, w] are needed, not {tuple(maps.shape)}")
    if patch_side is not None and patch_side < 1:
        raise ValueError(f"a patch has a side of at least 1 pixel, not {patch_side}")


def _wide(maps: Tensor) -> Tensor:
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


def _multiple(maps: Tensor, side: int) -> tuple[int, int]:
    """Sides of the maps, rounded up to multiples of `side`."""
    height, width = maps.shape[2:]
    return -(-height // side) * side, -(-width // side) * side


def _resized(maps: Tensor, side: int) -> Tensor:
    size = _multiple(maps, side)
    if size == tuple(maps.shape[2:]):
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear")


def _channels_last(maps: Tensor) -> bool:
    """Whether a pixel's channels lie side by side; not where that is the same as planes."""
    last = maps.is_contiguous(memory_format=torch.channels_last)
    return last and not maps.is_contiguous()


def _sums(maps: Tensor, side: int | None) -> _Sums:
    whole = maps.detach()
    if not _channels_last(whole):
        whole = whole.contiguous()
    images = len(whole)
    if whole.device.type == "cpu":
        image_bytes = whole[0].numel() * whole.element_size()
        images = max(1, min(images, PIECE_BYTES // image_bytes))
    parts = [_piece_sums(_wide(piece), side) for piece in torch.split(whole, images)]
    channels, squares = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    if side is None:
        return _Sums(channels.double(), squares.double(), None, None)
    size = _multiple(maps, side)
    cells = [_cell_sums(torch.cat([p[k] for p in parts]), size, side) for k in (2, 3)]
    return _Sums(channels.double(), squares.double(), *cells)


def _piece_sums(maps: Tensor, side: int | None) -> tuple[Tensor, ...]:
    """Sums over pixels, [b, c], and over channels, [b, h' w'], each of values and squares."""
    last = _channels_last(maps)
    pixels, (over_pixels, over_channels) = _pixels(maps), (1, 2) if last else (2, 1)
    if side is None and not last:  # a norm reads once and writes nothing
        return pixels.sum(2), torch.linalg.vector_norm(pixels, dim=2).double().square()
    squares = pixels.square()
    channels = pixels.sum(over_pixels), squares.sum(over_pixels)
    if side is None:
        return channels
    resized = _resized(maps, side)
    if resized is not maps:
        last = _channels_last(resized)
        pixels, over_channels = _pixels(resized), 2 if last else 1
        squares = pixels.square()
    return *channels, pixels.sum(over_channels), squares.sum(over_channels)


def _pixels(maps: Tensor) -> Tensor:
    """[b, c, h w], or [b, h w, c] where the channels of a pixel lie side by side."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2) if _channels_last(maps) else maps.flatten(2)


def _cell_sums(pixels: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """[b, h w] -> [b, P] float64."""
    rows, columns = size[0] // side, size[1] // side
    cells = pixels.double().view(len(pixels), rows, side, columns, side)
    return cells.sum((2, 4)).flatten(1)


def _mean_and_variance(values: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
    mean = values / count
    return mean, (squares / count - mean.square()).clamp_min(0)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, side: int | None) -> tuple[Tensor, ...]:
        b, c, height, width = maps.shape
        sums = _sums(maps, side)
        dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
        found: tuple[Tensor, ...] = _mean_and_variance(
            sums.channels.sum(0), sums.channel_squares.sum(0), b * height * width
        )
        if sums.cells is not None and sums.cell_squares is not None and side is not None:
            found += _mean_and_variance(
                sums.cells.sum(0), sums.cell_squares.sum(0), b * c * side**2
            )
        moments = tuple(moment.to(dtype) for moment in found)
        ctx.save_for_backward(maps, *moments)
        ctx.side = side
        ctx.set_materialize_grads(False)
        return moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        maps, *moments = ctx.saved_tensors
        b, c, height, width = maps.shape
        if all(grad is None for grad in grads):
            return None, None
        shift, slope = _affine(grads[0], grads[1], moments[0], moments[1], b * height * width)
        shift, slope = shift.view(c, 1, 1), slope.view(c, 1, 1)
        whole = _wide(maps)
        if ctx.side is None or (grads[2] is None and grads[3] is None):
            return _along(whole, shift, slope).to(maps.dtype), None
        side = ctx.side
        size = _multiple(maps, side)
        of_cells = _affine(grads[2], grads[3], moments[2], moments[3], b * c * side**2)
        cell_shift, cell_slope = (_spread(value, size, side) for value in of_cells)
        if size == (height, width):
            shift, slope = shift + cell_shift, slope + cell_slope
            return _along(whole, shift, slope).to(maps.dtype), None
        grad = torch.ops.aten.upsample_bilinear2d_backward(
            _along(_resized(whole, side), cell_shift, cell_slope), size, maps.shape, False
        )
        return grad.add_(_along(whole, shift, slope)).to(maps.dtype), None


def _affine(
    dmean: Tensor | None, dvar: Tensor | None, mean: Tensor, var: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Shift a and slope b of the gradient a + b x, of `count` values each."""
    slope = torch.zeros_like(var) if dvar is None else 2 * dvar / count
    shift = -slope * mean
    return (shift if dmean is None else shift + dmean / count), slope


def _spread(cells: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """A value per cell, [P] -> [1, h, w]."""
    grid = cells.view(1, size[0] // side, 1, size[1] // side, 1)
    return grid.expand(1, size[0] // side, side, size[1] // side, side).reshape(1, *size)


def _along(maps: Tensor, shift: Tensor, slope: Tensor) -> Tensor:
    """The maps times `slope` plus `shift`, laid out as an image: that is read faster."""
    order = torch.channels_last if _channels_last(maps) else torch.contiguous_format
    image = (1, *maps.shape[1:])
    factors = (factor.expand(image).contiguous(memory_format=order) for factor in (shift, slope))
    first, second = factors
    return torch.addcmul(first, second, maps)
