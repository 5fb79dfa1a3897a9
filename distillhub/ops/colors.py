"""Colour augmentation of training images, drawn per image: jitter and PCA lighting.

Nothing is clipped: values may leave [0, 1], as in the evaluation code of the 224-pixel protocols
(IDC and its followers). That code draws once per batch and takes some means over the batch; here
every image has draws and means of its own.
"""

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Rows are red, green, blue; columns the principal directions of ImageNet's pixels in [0, 1].

Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks (NIPS
2012), section 4.1; the numbers are those of the Torch ImageNet code."""


def jitter(images: Tensor, strength: float, *, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation, in an order that every image draws.

    Each is a mix `base + factor * (image - base)` with a factor in 1 -+ strength and a base of
    black, the mean grey of the image, or its grey version. Saturation leaves grey images alone.

    Args:
        images: [n, C, H, W] in [0, 1], C in {1, 3}.
        strength: In [0, 1).
        generator: On the CPU.

    Source: the colour jitter of torchvision, without clipping.
    """
    n = images.shape[0]
    factors = 1 + strength * (2 * torch.rand(3, n, 1, 1, 1, generator=generator) - 1)
    order = torch.rand(n, 3, generator=generator).argsort(1).to(images.device)  # [n, 3]
    brightness, contrast, saturation = factors.to(images)
    for what in order.view(n, 3, 1, 1, 1).unbind(1):
        grey = _grey(images)
        base = torch.where(what == 1, grey.mean((2, 3), keepdim=True), grey)
        base = torch.where(what == 0, torch.zeros_like(base), base)
        factor = torch.where(what == 0, brightness, contrast)
        factor = torch.where(what == 2, saturation, factor)
        images = base + factor * (images - base)
    return images


def lighting(images: Tensor, strength: float, *, generator: torch.Generator) -> Tensor:
    """Shift each image along the principal colours of ImageNet (AlexNet's lighting noise).

    A grey image is shifted by the mean of the three shifts.

    Args:
        images: [n, C, H, W] in [0, 1], C in {1, 3}.
        strength: Standard deviation of the three coefficients.
        generator: On the CPU.
    """
    alpha = strength * torch.randn(images.shape[0], 3, generator=generator)
    shift = alpha * torch.tensor(EIGENVALUES) @ torch.tensor(EIGENVECTORS).T  # [n, 3]
    if images.shape[1] == 1:
        shift = shift.mean(1, keepdim=True)
    return images + shift.to(images)[:, :, None, None]


def _grey(images: Tensor) -> Tensor:
    """[n, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
