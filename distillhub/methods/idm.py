"""IDM: distribution matching with mosaics, a queue of partly trained networks and cross-entropy.

The loop, the queue and the mosaics are in `_distribution`; IDM's own part is the distance.

Source: Zhao, Li, Qin and Yu, Improved Distribution Matching for Dataset Condensation (CVPR 2023).
"""

from typing import ClassVar, Literal

from torch import Tensor

from distillhub.methods._base import Paper
from distillhub.methods._distribution import QueueMatching
from distillhub.ops.bayes import Moments
from distillhub.ops.matching import squared_mean_distance
from distillhub.spec import Spec


class StartCompatSpec(Spec):
    """Faults of the authors' code, to repeat on purpose."""

    swap_start: bool = False
    """Their Tiny-ImageNet script has the two starts swapped: with mosaics every stored image
    begins as one real image, whose quarters are then its sub-images; without them as four."""


class IDM(QueueMatching):
    """Improved distribution matching."""

    name: Literal["idm"] = "idm"
    version: Literal[1] = 1

    compat: StartCompatSpec = StartCompatSpec()

    paper: ClassVar[Paper] = Paper(
        "Improved Distribution Matching for Dataset Condensation",
        "Ganlong Zhao, Guanbin Li, Yipeng Qin, Yizhou Yu",
        "CVPR 2023",
        arxiv="2307.09742",
        code="https://github.com/uitrbn/IDM",
    )

    @property
    def start_formation(self) -> int:
        """Real images per side of a stored image at the start."""
        return 3 - self.formation if self.compat.swap_start else self.formation

    def distance(self, real: Moments, synthetic: Tensor) -> Tensor:
        """||mu_r - mu_s||^2 per class."""
        return squared_mean_distance(real.mean, synthetic)


METHOD = IDM
