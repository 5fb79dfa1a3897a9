"""G-VBSM: images from noise under several networks in turn, matched at norms and convolutions.

    L = CE(z, y) + 0.01 r(alpha = 1) + DD(A(X), y),    s~ with momentum m

Source: Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical
Matching (CVPR 2024, arXiv 2311.17950) and the authors' code. The defaults are those for CIFAR and
Tiny-ImageNet; for ImageNet-1k they take lr 0.1, batches of 80, momentum 0.4, drop_rate 0 and
patches of 16.
"""

from typing import ClassVar, Literal

from pydantic import Field

from distillhub.methods._base import Paper
from distillhub.methods._recover import Recover
from distillhub.methods._recover_specs import (
    DensifySpec,
    FlatnessSpec,
    LookSpec,
    LossesSpec,
    MatchSpec,
)
from distillhub.methods._starts import StartSpec


class GVBSM(Recover):
    """Generalized various backbone and statistical matching."""

    name: Literal["gvbsm"] = "gvbsm"
    version: Literal[1] = 1
    iterations: int = Field(default=4000, ge=0)
    init: StartSpec = StartSpec(kind="noise")
    match: MatchSpec = MatchSpec(alpha=1.0, drop_rate=0.4)
    losses: LossesSpec = LossesSpec(
        densify=DensifySpec(weight=1.0), flatness=FlatnessSpec(weight=0.0)
    )
    augment: LookSpec = LookSpec(crop=(0.08, 1.0), roll=32)

    paper: ClassVar[Paper] = Paper(
        "Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching",
        "Shitong Shao, Zeyuan Yin, Muxin Zhou, Xindong Zhang, Zhiqiang Shen",
        "CVPR 2024",
        arxiv="2311.17950",
        code="https://github.com/shaoshitong/G_VBSM_Dataset_Condensation",
    )
    label: ClassVar[str | None] = "G-VBSM"


METHOD = GVBSM
