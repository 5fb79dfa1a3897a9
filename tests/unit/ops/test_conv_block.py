import pytest
import torch
from torch.nn import functional

from distillhub.ops.conv_block import instance_norm_relu_pool, narrow_conv


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def block_inputs(height: int = 6, width: int = 5) -> tuple[torch.Tensor, ...]:
    maps, scale, shift = random(2, 3, height, width), random(3, seed=1), random(3, seed=2)
    return maps.requires_grad_(), scale.requires_grad_(), shift.requires_grad_()


def fused(maps: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return instance_norm_relu_pool(maps, scale, shift, eps=1e-5)


def plain(maps: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(functional.relu(functional.group_norm(maps, 3, scale, shift)), 2)


@pytest.mark.parametrize("size", [(4, 4), (6, 5), (7, 7), (2, 3)])
def test_the_fused_block_equals_its_layers(size: tuple[int, int]):
    inputs = block_inputs(*size)

    torch.testing.assert_close(fused(*inputs), plain(*inputs))


@pytest.mark.parametrize("size", [(4, 4), (6, 5)])
def test_the_fused_gradients_equal_those_of_the_layers(size: tuple[int, int]):
    inputs = block_inputs(*size)
    upstream = random(2, 3, size[0] // 2, size[1] // 2, seed=3)

    ours = torch.autograd.grad(fused(*inputs), inputs, upstream)

    theirs = torch.autograd.grad(plain(*inputs), inputs, upstream)
    torch.testing.assert_close(ours, theirs)


def test_the_fused_gradient_agrees_with_differences():
    assert torch.autograd.gradcheck(fused, block_inputs())


def test_the_fused_block_can_be_differentiated_twice():
    maps, scale, shift = block_inputs(4, 4)

    def gradient(maps: torch.Tensor) -> torch.Tensor:
        loss = fused(maps, scale, shift).square().sum()
        return torch.autograd.grad(loss, maps, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, (maps,))


def test_frozen_weights_still_give_the_gradient_of_the_image():
    maps, scale, shift = block_inputs()
    ours = torch.autograd.grad(fused(maps, scale.detach(), shift.detach()).sum(), maps)

    torch.testing.assert_close(ours, torch.autograd.grad(plain(maps, scale, shift).sum(), maps))


def test_a_constant_image_has_no_norm_but_the_shift():
    maps = torch.full((1, 3, 4, 4), 100.0)

    pooled = instance_norm_relu_pool(maps, torch.ones(3), torch.tensor([1.0, -1.0, 0.5]), eps=1e-5)

    torch.testing.assert_close(pooled[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.5]))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_narrow_convolution_and_its_gradients_equal_conv2d(channels: int):
    inputs = (
        random(2, channels, 5, 6).requires_grad_(),
        random(4, channels, 3, 3, seed=1).requires_grad_(),
        random(4, seed=2).requires_grad_(),
    )

    ours = narrow_conv(*inputs, padding=3)

    theirs = functional.conv2d(*inputs, padding=3)
    upstream = random(*theirs.shape, seed=3)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream)
    )


def test_the_narrow_convolution_can_be_differentiated_twice():
    images, weight = random(1, 1, 3, 3).requires_grad_(), random(2, 1, 3, 3).requires_grad_()

    assert torch.autograd.gradgradcheck(
        lambda x, w: narrow_conv(x, w, None, padding=1), (images, weight)
    )


def test_maps_without_a_window_are_refused():
    with pytest.raises(ValueError, match=r"maps \(1, 3, 1, 4\)"):
        instance_norm_relu_pool(torch.zeros(1, 3, 1, 4), torch.ones(3), torch.zeros(3), eps=1e-5)
