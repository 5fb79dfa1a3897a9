"""SRe2L: images from noise that one network recognises and finds as usual as its training images.

    L = CE(z, y) + 0.01 sum_l w_l (|v*_l - v_l| + |mu*_l - mu_l|),    w_1 = 10, else 1

mu*, v* are the running statistics of batch norms, so no real image is looked at. CDA is the same
with a curriculum: `augment: {curriculum: {mode: cosine}}`. Batches hold different classes.

Source: Yin, Xing and Shen, Squeeze, Recover and Relabel (NeurIPS 2023, arXiv 2306.13092) and the
authors' code; Yin and Shen, Dataset Distillation via Curriculum Data Synthesis in Large Data Era
(TMLR 2024, arXiv 2311.18838). The defaults are those for ImageNet-1k.
"""

from typing import ClassVar, Literal

from pydantic import Field

from distillhub.methods._base import Paper
from distillhub.methods._recover import Recover
from distillhub.methods._recover_specs import (
    BatchSpec,
    FlatnessSpec,
    Guides,
    LookSpec,
    LossesSpec,
    MatchSpec,
)
from distillhub.methods._starts import StartSpec
from distillhub.models.statistics import TapSpec


class SRe2L(Recover):
    """Squeeze, recover and relabel; with `augment.curriculum`, CDA."""

    name: Literal["sre2l"] = "sre2l"
    version: Literal[1] = 1
    observers: Guides = (0,)
    """The squeezed network; the authors have one."""
    iterations: int = Field(default=4000, ge=0)
    lr: float = Field(default=0.25, gt=0)
    """The authors' for ImageNet-1k and CIFAR-100; 0.1 for Tiny-ImageNet, 0.4 there for CDA."""
    batch: BatchSpec = BatchSpec(order="interleaved")
    init: StartSpec = StartSpec(kind="noise")
    taps: TapSpec = TapSpec(bn=True, conv=False, patch=False)
    match: MatchSpec = MatchSpec(alpha=1.0, momentum=0.0)
    losses: LossesSpec = LossesSpec(flatness=FlatnessSpec(weight=0.0))
    augment: LookSpec = LookSpec(crop=(0.08, 1.0), roll=32)
    """The authors roll by up to 32 pixels of 224, 4 of 32 and 64; none of their crops on CIFAR."""

    paper: ClassVar[Paper] = Paper(
        "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New "
        "Perspective",
        "Zeyuan Yin, Eric Xing, Zhiqiang Shen",
        "NeurIPS 2023",
        arxiv="2306.13092",
        code="https://github.com/VILA-Lab/SRe2L",
    )
    label: ClassVar[str | None] = "SRe2L"
    notes: ClassVar[tuple[str, ...]] = (
        "With augment.curriculum the images are those of CDA (arXiv 2311.18838).",
    )


METHOD = SRe2L
