"""Where optimised images start: noise, real images, crops that observers find clear, another build.

Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024, arXiv
2404.13733), real-image initialisation, and the authors' code for the crops (`kind: patches`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from distillhub.methods._base import Workbench
from distillhub.spec import Spec
from distillhub.units import Slot, Target


class StartSpec(Spec):
    """What the images are before the first step."""

    kind: Literal["noise", "real", "patches", "build"] = "noise"
    """`noise`: N(0, 1) in normalised space; `real`: training images of the class; `patches`:
    collages of the crops that all guiding observers together recognise best; `build`: the images
    of another build."""
    build: str | None = None
    """Recipe of that build: a name beside this one, or a path; for `kind: build` alone."""
    sampling: Literal["without_replacement", "with_replacement"] = "without_replacement"
    """Of `real` and `build`; the authors' code draws with replacement."""
    flip: bool = True
    """Mirror each with probability 1/2; noise stays as it is."""
    factor: int = Field(default=2, gt=0)
    """Crops per side of a collage."""
    pool: int = Field(default=300, gt=0)
    """Images per class that are cut: those that the observers recognise best."""
    crops: int = Field(default=4, gt=0)
    """Boxes per image."""
    box_group: int = Field(default=64, gt=0)
    """Images, best first, that share their boxes."""

    @model_validator(mode="after")
    def _build_for_its_kind(self) -> Self:
        if (self.build is None) == (self.kind == "build"):
            raise ValueError("build: names the recipe of kind: build, and of no other")
        if self.kind == "patches" and self.sampling == "with_replacement":
            raise ValueError(
                "sampling: with_replacement is for kind: real and kind: build; of patches there "
                "are as many collages as images"
            )
        return self

    @property
    def bases(self) -> tuple[str, ...]:
        """For `Method.bases`."""
        return () if self.build is None else (self.build,)

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """For `Method.check`: every slot needs an image of its own."""
        raise NotImplementedError

    def check_bases(self, target: Target, ipcs: Mapping[str, int]) -> Iterator[str]:
        """For `Method.check_bases`: the build must have enough images per class."""
        raise NotImplementedError

    def scored(self, target: Target, counts: Sequence[int]) -> int:
        """For `Method.cost`: images and crops that each observer sees."""
        raise NotImplementedError


def starting_images(
    spec: StartSpec, slots: Sequence[Slot], bench: Workbench, observers: Sequence[str]
) -> Tensor:
    """The images that the slots start from.

    An image depends on the recipe's seed and its slot alone, not on the other slots of the call.

    Args:
        spec: Where they come from.
        slots: Any slots of the recipe.
        bench: Of the recipe.
        observers: Roles of the guiding networks, which score `patches`.

    Returns:
        [n, C, H, W] float32 in the data set's normalised space, on the CPU.
    """
    raise NotImplementedError
