"""The fused first block against convolution and group norm, one after the other."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distillhub.ops.instance_conv import instance_normalized_conv


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def inputs(
    channels: int, filters: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shapes = [(3, channels, 7, 6), (filters, channels, 3, 3), (filters,), (filters,)]
    draws = generator()
    x, weight, scale, shift = (torch.randn(s, generator=draws, dtype=dtype) for s in shapes)
    return x, weight, scale, shift


def one_after_the_other(
    x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, *, padding: int
) -> Tensor:
    bias = torch.linspace(-1, 1, len(weight), dtype=x.dtype)
    maps = F.conv2d(x, weight, bias, padding=padding)
    return F.group_norm(maps, len(weight), scale, shift, 1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_values_equal_convolution_then_instance_norm(channels: int, padding: int) -> None:
    parts = inputs(channels, 5, torch.float32)

    fused = instance_normalized_conv(*parts, padding=padding, eps=1e-5)

    torch.testing.assert_close(fused, one_after_the_other(*parts, padding=padding))


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_equal_convolution_then_instance_norm(channels: int) -> None:
    parts = tuple(part.requires_grad_() for part in inputs(channels, 5, torch.float64))
    direction = torch.randn(3, 5, 7, 6, generator=generator(), dtype=torch.float64)

    fused = torch.autograd.grad(
        (instance_normalized_conv(*parts, padding=1, eps=1e-5) * direction).sum(), parts
    )

    plain = torch.autograd.grad((one_after_the_other(*parts, padding=1) * direction).sum(), parts)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_even_image_becomes_the_shift() -> None:
    _, weight, scale, shift = inputs(1, 4, torch.float32)
    x = torch.full((2, 1, 5, 5), 0.25)  # sums without rounding

    out = instance_normalized_conv(x, weight, scale, shift, padding=0, eps=1e-5)

    torch.testing.assert_close(out, shift.view(1, 4, 1, 1).expand(2, 4, 3, 3))


def test_kernels_for_other_channels_are_refused() -> None:
    x, _, scale, shift = inputs(1, 4, torch.float32)

    with pytest.raises(ValueError, match=r"\(3, 1, 7, 6\) do not fit kernels \(4, 3, 3, 3\)"):
        instance_normalized_conv(x, torch.zeros(4, 3, 3, 3), scale, shift, padding=1, eps=1e-5)
