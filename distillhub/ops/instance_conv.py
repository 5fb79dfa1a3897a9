"""Convolution and instance norm of an image with few channels, in one pass over the output.

A convolution is linear in its patches, so mean and variance of its output follow from the patches:
with P the centred patches of one image and S = P P^T / L their covariance, output channel o has
variance w_o S w_o^T. The norm then is a scale of the weights, the bias of the convolution cancels,
and the wide output is written once instead of three times. A 3 x 3 kernel on a grey image has
patches of 9 numbers where the output may have 128 channels: on a CPU this first block is otherwise
as slow as the large convolution that follows it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def instance_normalized_conv(
    x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, *, padding: int, eps: float
) -> Tensor:
    """Equal to `group_norm(conv2d(x, weight, bias), O, scale, shift, eps)` for any bias.

    Args:
        x: Images, [N, I, H, W]; made for small I.
        weight: Square kernels, [O, I, k, k].
        scale: Of the norm, [O].
        shift: Of the norm, [O].
        padding: Zeros around the image, in pixels.
        eps: Added to the variance.

    Returns:
        [N, O, H', W'] in channels-last memory order.

    Raises:
        ValueError: If the channels of images and kernels differ.
    """
    kernel = weight.shape[-1]
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"images {tuple(x.shape)} do not fit kernels {tuple(weight.shape)}")
    height, width = (side + 2 * padding - kernel + 1 for side in x.shape[2:])
    patches = F.unfold(x, kernel, padding=padding)  # [N, I k k, L]
    patches = patches - patches.mean(dim=2, keepdim=True)
    covariance = patches @ patches.transpose(1, 2) / patches.shape[2]  # [N, I k k, I k k]
    flat = weight.flatten(1)  # [O, I k k]
    variance = ((flat @ covariance) * flat).sum(dim=2)  # [N, O]
    kernels = flat * (scale * torch.rsqrt(variance + eps)).unsqueeze(2)  # [N, O, I k k]
    out = torch.baddbmm(shift, patches.transpose(1, 2), kernels.transpose(1, 2))  # [N, L, O]
    return out.view(-1, height, width, weight.shape[0]).permute(0, 3, 1, 2)
