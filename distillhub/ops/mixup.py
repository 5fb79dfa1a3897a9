"""Mixup of a training batch: one share for all images, partners by a permutation.

Source: Zhang et al., mixup: Beyond Empirical Risk Minimization (ICLR 2018).
"""

import torch
from torch import Tensor

from distillhub.ops.cutmix import Mix

TRIES = 64
"""Pairs of numbers that a share is looked for in; a pair is refused at most half of the time."""


def draw_mixup(images: int, alpha: float, *, generator: torch.Generator) -> Mix:
    """Draw partners and the share of the own image, from Beta(alpha, alpha).

    Args:
        images: In the batch.
        alpha: In (0, 1]; 1 is uniform.
        generator: On the CPU.

    Raises:
        ValueError: If alpha lies outside.

    Source: Joehnk, Erzeugung von betaverteilten und gammaverteilten Zufallszahlen (Metrika 1964):
    x / (x + y) of the first x = u^(1/a), y = v^(1/a) whose sum is at most 1.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha {alpha} of mixup lies outside (0, 1]")
    partner = torch.randperm(images, generator=generator)
    x, y = torch.rand(2, TRIES, generator=generator, dtype=torch.float64) ** (1 / alpha)
    first = int((x + y <= 1).int().argmax())
    own = float(x[first] / (x[first] + y[first]))
    return Mix(partner, (0, 0, 0, 0), own)


def blended(x: Tensor, mix: Mix) -> Tensor:
    """The weighted mean of each image and its partner.

    Args:
        x: [n, C, H, W]; left as it is.
        mix: A draw for n images.
    """
    return mix.kept * x + (1 - mix.kept) * x[mix.partner.to(x.device)]
