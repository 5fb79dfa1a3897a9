"""How the learning rate goes: by steps, by epochs, or by the loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from distillhub.ops.schedules import cosine, linear, settled, ssrs

Schedule = Literal[
    "drop",
    "cosine",
    "milestones",
    "half_cosine",
    "warmup_cosine",
    "smoothing",
    "ssrs",
    "linear_smooth",
    "multistep",
    "alrs",
]
"""`drop`: a tenth of the rate and a fresh optimizer after `drop_after`; `cosine`: to 0, step by
step. By epochs: `milestones`, x 0.2 at 2/3 and 5/6; `half_cosine`, to half of the rate;
`warmup_cosine`, from a tenth of the rate to all of it in `warmup` epochs, then to 0; `smoothing`, a
cosine of `zeta` times the epochs, so that zeta 1 ends at 0 and zeta 2 at half of the rate; `ssrs`,
the same up to 5/6, then a sixth of that and a line to 0; `linear_smooth`, a line to 1 - 1 / zeta;
`multistep`, x `gamma` at each of `marks`. `alrs`: x `gamma` after every epoch whose loss differs by
at most 2 %, and 0.02, from that of the epoch before."""

FIELDS: Mapping[str, tuple[Schedule, ...]] = {
    "drop_after": ("drop",),
    "warmup": ("warmup_cosine",),
    "zeta": ("smoothing", "ssrs", "linear_smooth"),
    "marks": ("multistep",),
    "gamma": ("multistep", "alrs"),
}
"""Fields of a protocol that belong to some schedules, which need them."""
MILESTONE_FACTOR = 0.2
"""By which `milestones` multiplies the rate at 2/3 and at 5/6 of the epochs."""
WARMUP_START = 0.1
"""Share of the rate in the first epoch of `warmup_cosine`."""


def epoch_factor(
    schedule: Schedule,
    epoch: int,
    epochs: int,
    *,
    warmup: int = 0,
    zeta: float = 1.0,
    marks: Sequence[float] = (),
    gamma: float = 1.0,
) -> float:
    """By which the rate is multiplied in epoch 0 .. epochs - 1; 1 where it does not go by epochs.

    Args:
        schedule: Of the protocol.
        epoch: Counted from 0.
        epochs: In all.
        warmup: Epochs.
        zeta: How far the cosine is stretched.
        marks: Shares of the epochs, rising.
        gamma: Factor at each mark.
    """
    if schedule == "milestones":
        passed = (2 * epochs // 3, 5 * epochs // 6)
        return float(MILESTONE_FACTOR ** sum(epoch >= mark for mark in passed))
    if schedule == "half_cosine":
        return cosine(epoch, epochs, stretch=2)
    if schedule == "warmup_cosine":
        if epoch < warmup:
            return WARMUP_START + (1 - WARMUP_START) * epoch / warmup
        return cosine(epoch - warmup, epochs - warmup)
    if schedule == "smoothing":
        return cosine(epoch, epochs, stretch=zeta)
    if schedule == "ssrs":
        return ssrs(epoch, epochs, stretch=zeta)
    if schedule == "linear_smooth":
        return linear(epoch, epochs, end=1 - 1 / zeta)
    if schedule == "multistep":
        return float(gamma ** sum(epoch >= round(mark * epochs) for mark in marks))
    return 1.0


class Settling:
    """The factor of ALRS: lower after every epoch whose loss hardly changed.

    The authors' code lowers the rate of the first parameter group alone; here all have it.

    Args:
        gamma: Factor of such an epoch.
        device: Where the losses are.
    """

    def __init__(self, gamma: float, device: torch.device) -> None:
        self._gamma = gamma
        self._sum = torch.zeros((), device=device)
        self._epoch = torch.tensor([math.inf, 1.0], dtype=torch.float64)

    @property
    def parts(self) -> dict[str, Tensor]:
        """What a snapshot holds, restored in place: the losses of this epoch, and the last one."""
        return {"alrs/sum": self._sum, "alrs/epoch": self._epoch}

    @property
    def factor(self) -> float:
        """Of the rate, now."""
        return float(self._epoch[1])

    def saw(self, loss: Tensor) -> None:
        """Count the loss of a step in."""
        self._sum += loss

    def ends(self, steps: int) -> None:
        """Look at the epoch that ends after so many steps."""
        mean, before = float(self._sum) / steps, float(self._epoch[0])
        if settled(mean, before):
            self._epoch[1] *= self._gamma
        self._epoch[0] = mean
        self._sum.zero_()
