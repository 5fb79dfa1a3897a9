"""EDC: the recover loop with real starts, flat minima, classes matched softly, and weak crops.

    L = CE(z, y) + 0.01 r(alpha = 1/2) + 1/4 FR,    T = 2000 from real images, crops of 1/2 to 1

The nine choices of the paper are fields here (DS1 `losses.flatness`, DS2 `match.alpha`, DS3 `init`,
DS4 `augment.crop`), of the labels (SL1, SL2) and of the protocol (PE1 to PE3). The defaults are the
paper's for 32 and 64 pixels; `CONFIGURATIONS` are its steps from G-VBSM to EDC. `compat` brings
back three faults of the authors' code.

Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024, arXiv
2404.13733). Where paper and code differ: flatness has the paper's weight and the code's direction;
the mixture of class targets and the variances inside images are the code's.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from distillhub.methods._base import Paper
from distillhub.methods._recover import Recover
from distillhub.methods._recover_specs import LossesSpec, MatchSpec
from distillhub.methods._starts import StartSpec
from distillhub.models.statistics import TapSpec


class EDC(Recover):
    """Elucidated data set condensation."""

    name: Literal["edc"] = "edc"
    version: Literal[1] = 1
    init: StartSpec = StartSpec(kind="real")
    """Real images for small sets; the paper takes RDED's for ImageNet: `kind: patches`, `build`."""
    match: MatchSpec = MatchSpec()
    losses: LossesSpec = LossesSpec()
    taps: TapSpec = TapSpec()

    paper: ClassVar[Paper] = Paper(
        "Elucidating the Design Space of Dataset Condensation",
        "Shitong Shao, Zikai Zhou, Huanran Chen, Zhiqiang Shen",
        "NeurIPS 2024",
        arxiv="2404.13733",
        code="https://github.com/shaoshitong/EDC",
    )
    label: ClassVar[str | None] = "EDC"
    notes: ClassVar[tuple[str, ...]] = (
        "Images that start from real ones (init) may still show them.",
        "The flatness term has the weight of the paper; unless losses.flatness.direction says "
        "`paper`, its divergence runs the other way than Eq. 7, as in the authors' code, whose "
        "scripts leave the term out.",
    )


_BASELINE: Mapping[str, object] = {
    "init": {"kind": "noise"},
    "iterations": 4000,
    "match": {"alpha": 1.0},
    "losses": {"flatness": {"weight": 0.0}, "densify": {"weight": 1.0}},
    "augment": {"crop": [0.08, 1.0], "roll": 32},
}
_REAL_START: Mapping[str, object] = {
    **_BASELINE,
    "init": {"kind": "real"},
    "iterations": 2000,
    "augment": {"crop": [0.08, 1.0], "roll": 0},
}
_FLAT: Mapping[str, object] = {
    **_REAL_START,
    "losses": {"flatness": {"weight": 0.25}, "densify": {"weight": 1.0}},
}
_NOT_DENSE: Mapping[str, object] = {**_FLAT, "losses": {"flatness": {"weight": 0.25}}}

CONFIGURATIONS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "A": _BASELINE,  # G-VBSM
        "B": _REAL_START,  # + DS3: half the iterations
        "C": _REAL_START,  # + PE2, which is the protocol's
        "D": _FLAT,  # + DS1
        "E": _NOT_DENSE,  # + SL1 and PE1, of labels and protocol
        "F": {**_NOT_DENSE, "match": {"alpha": 0.5}},  # + DS2, before weak crops and PE3
        "G": {"match": {"alpha": 0.5}, "augment": {"crop": [0.5, 1.0]}},  # + DS4, PE3, SL2: EDC
    }
)
"""Fields of `method:` for the paper's configurations; on ImageNet `init` is RDED's from B on."""

METHOD = EDC
