"""CutMix of a training batch: one box for all images, partners by a permutation.

Source: Yun et al., CutMix (ICCV 2019), algorithm 1, with Beta(1, 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from distillhub.ops.losses import cross_entropy
from distillhub.ops.views import paste


class Mix(NamedTuple):
    """One draw."""

    partner: Tensor
    """[n] int64 rows of the batch, on the CPU."""
    box: tuple[int, int, int, int]
    """First row, first column, end row, end column in pixels; may be empty."""
    kept: float
    """Share of the pixels outside the box, after it was cut at the border; of mixup, of the own
    image."""


def draw_mix(images: int, height: int, width: int, *, generator: torch.Generator) -> Mix:
    """Draw partners and a box whose uncut area has a share drawn uniformly.

    Args:
        images: In the batch.
        height: Pixels.
        width: Pixels.
        generator: On the CPU.
    """
    partner = torch.randperm(images, generator=generator)
    share, y, x = torch.rand(3, generator=generator).tolist()
    side = share**0.5
    tall, wide = int(height * side), int(width * side)
    row, column = int(height * y), int(width * x)
    top, left = max(0, row - tall // 2), max(0, column - wide // 2)
    bottom, right = min(height, row + tall // 2), min(width, column + wide // 2)
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return Mix(partner, (top, left, bottom, right), kept)


def mixed(x: Tensor, mix: Mix) -> Tensor:
    """The batch with the partners' pixels inside the box.

    Args:
        x: [n, C, H, W]; left as it is.
        mix: A draw for n images.
    """
    box = torch.tensor(mix.box, device=x.device).expand(x.shape[0], 4)
    return paste(x, x[mix.partner.to(x.device)], box)


def mixed_cross_entropy(logits: Tensor, labels: Tensor, mix: Mix) -> Tensor:
    """Cross-entropy with both classes, weighted by their shares of the pixels.

    Args:
        logits: [n, K].
        labels: [n] int64, of the images before mixing.
        mix: As it was applied.
    """
    partners = labels[mix.partner.to(labels.device)]
    own, other = cross_entropy(logits, labels), cross_entropy(logits, partners)
    return mix.kept * own + (1 - mix.kept) * other
