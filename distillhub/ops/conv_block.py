"""The block of the classic ConvNet in fewer passes over memory, for CPUs.

On a CPU the elementwise parts of a block (instance norm, ReLU, 2x2 average pool) and the weight
gradient of a convolution with one or three input channels cost as much as the large convolutions,
because each reads and writes all feature maps. The two functions here equal the plain layers up to
rounding, forward, backward and twice differentiated, and work in channels-last order, where
oneDNN's convolutions and the pool are faster too.

Backward of the norm, with v the input, m = [y > 0] the mask of the ReLU, g the gradient of the
pooled output and sums over one image and channel of L pixels:

    s1 = sum(m up(g)) / 4 = sum(g pool(m)),   s2 = sum(m up(g) v) / 4 = sum(g pool(m v))
    dv = scale rstd (m up(g) / 4 - s1 / L - (v - mean) rstd^2 (s2 - mean s1) / L)

so that pool(m), pool(m v), m and v are all that is kept, and the full-size maps are passed over
twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Gradients = tuple[Tensor | None, ...]


def instance_norm_relu_pool(maps: Tensor, scale: Tensor, shift: Tensor, *, eps: float) -> Tensor:
    """Equal to `avg_pool2d(relu(group_norm(maps, C, scale, shift, eps)), 2)`.

    Args:
        maps: [n, C, H, W], both sides at least 2; channels-last order saves a copy.
        scale: Of the norm, [C].
        shift: Of the norm, [C].
        eps: Added to the variance.

    Returns:
        [n, C, H // 2, W // 2] in channels-last order.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if maps.ndim != 4 or min(maps.shape[2:]) < 2 or scale.shape != maps.shape[1:2]:
        raise ValueError(f"maps {tuple(maps.shape)} do not fit a scale {tuple(scale.shape)}")
    pooled: Tensor = _NormReluPool.apply(maps, scale, shift, eps, torch.is_grad_enabled())
    return pooled


def narrow_conv(images: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int) -> Tensor:
    """Equal to `conv2d(images, weight, bias, padding=padding)`, for few input channels.

    Args:
        images: [n, I, H, W].
        weight: [O, I, k, k].
        bias: [O], or None.
        padding: Zeros around the image, pixels.

    Returns:
        [n, O, H', W'] in channels-last order.
    """
    maps: Tensor = _NarrowConv.apply(images, weight, bias, padding)
    return maps


def _plain(maps: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    normalised = functional.group_norm(maps, maps.shape[1], scale, shift, eps)
    return functional.avg_pool2d(functional.relu(normalised), 2)


def _channels_last(images: Tensor) -> Tensor:
    """The images in channels-last order, and with its strides even for one channel."""
    _, channels, height, width = images.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return images.contiguous(memory_format=torch.channels_last).as_strided(images.shape, strides)


def _windows(pixels: Tensor) -> Tensor:
    """[n, H, W, C] as its 2x2 windows [n, H/2, 2, W/2, 2, C], without an odd last row or column."""
    height, width = pixels.shape[1] // 2, pixels.shape[2] // 2
    even = pixels[:, : 2 * height, : 2 * width]
    return torch.unflatten(torch.unflatten(even, 2, (width, 2)), 1, (height, 2))


class _NormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, scale: Tensor, shift: Tensor, eps: float, graded: bool
    ) -> Tensor:
        n, channels, height, width = maps.shape
        pixels = maps.permute(0, 2, 3, 1).reshape(n, height * width, channels)
        # Sums of squares from the first pixel on: from 0 on they cancel where a mean is large.
        moved = pixels - pixels[:, :1]
        offset = moved.mean(1, keepdim=True)  # [n, 1, C]
        variance = (moved.square().mean(1, keepdim=True) - offset.square()).clamp_min(0)
        rstd = torch.rsqrt(variance + eps)
        slope = scale * rstd
        active = torch.addcmul(shift - offset * slope, moved, slope, out=moved).relu_()
        mean = offset + pixels[:, :1]
        active = active.view(n, height, width, channels).permute(0, 3, 1, 2)
        pooled = functional.avg_pool2d(active, 2)
        if graded:
            mask = active.sign_()
            share = functional.avg_pool2d(mask, 2)
            value = functional.avg_pool2d(mask * maps, 2)
            ctx.save_for_backward(maps, scale, shift, mean, rstd, mask, share, value)
            ctx.eps = eps
        return pooled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        maps, scale, shift, mean, rstd, mask, share, value = ctx.saved_tensors
        if torch.is_grad_enabled():  # differentiated twice
            pooled = _plain(maps, scale, shift, ctx.eps)
            wanted = ctx.needs_input_grad[:3]
            inputs = [x for x, needed in zip((maps, scale, shift), wanted, strict=True) if needed]
            found = iter(torch.autograd.grad(pooled, inputs, grad, create_graph=True))
            return (
                *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]),
                None,
                None,
            )
        height, width = maps.shape[2:]
        first = (grad * share).sum((2, 3))  # s1, [n, C]
        second = ((grad * value).sum((2, 3)) - mean[:, 0] * first) * rstd[
            :, 0
        ]  # sum g * normalised
        dmaps = None
        if ctx.needs_input_grad[0]:
            slope = scale * rstd[:, 0]
            tilt = -slope * rstd[:, 0] * second / (height * width)
            level = -slope * first / (height * width) - tilt * mean[:, 0]
            pixels = maps.permute(0, 2, 3, 1)
            out = torch.addcmul(level[:, None, None], pixels, tilt[:, None, None])  # [n, H, W, C]
            spread = (grad * (slope / 4)[:, :, None, None]).permute(0, 2, 3, 1)
            _windows(out).addcmul_(_windows(mask.permute(0, 2, 3, 1)), spread[:, :, None, :, None])
            dmaps = out.permute(0, 3, 1, 2)
        return dmaps, second.sum(0), first.sum(0), None, None


class _NarrowConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: int
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return functional.conv2d(_channels_last(images), weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        images, weight = ctx.saved_tensors
        dimages = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dimages = functional.conv_transpose2d(grad, weight, padding=ctx.padding)
        if ctx.needs_input_grad[1]:
            patches = functional.unfold(
                images, weight.shape[-1], padding=ctx.padding
            )  # [n, Ikk, L]
            pixels = grad.permute(0, 2, 3, 1).flatten(1, 2)  # [n, L, O]
            dweight = torch.bmm(patches, pixels).sum(0).t().reshape(weight.shape)
        if ctx.needs_input_grad[2]:
            dbias = grad.sum((0, 2, 3))
        return dimages, dweight, dbias, None
