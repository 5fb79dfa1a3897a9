"""The contract of a method: a frozen value with the paper's settings and its functions."""

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

from distillhub.data.real import RealData
from distillhub.models.diffusion import Diffusion
from distillhub.models.zoo import Classifier
from distillhub.ops.progress import Progress, State
from distillhub.spec import Spec
from distillhub.units import Group, Target, WorkUnit


class Paper(NamedTuple):
    """Where a method comes from."""

    title: str
    authors: str
    venue: str
    arxiv: str | None = None
    code: str | None = None


class Synthesis(NamedTuple):
    """The images of the units, in the order of their slots."""

    images: Tensor
    """[n, C, H, W] float32 in [0, 1]."""
    rows: Tensor | None = None
    """[n] int64: row of the training split that each image copies; None where images are made."""


LatentShape = tuple[int, int, int]
"""(c, h, w) of a generator's latents."""


class CostPart(NamedTuple):
    """A share of the work of a method that samples from a generator.

    Either `network` names whose forward passes it is, or `flops` and `probe` tell what a call is:
    the latents' shape is that of the recipe's generator, which the method does not know.
    """

    name: str
    """`generator`, `nopt`, `targets`, `template`, `encode`, `decode`, ..."""
    calls: int
    """One after another, over all units."""
    rows: int
    """Latents or images per call; a guided sample counts twice, with its label and without."""
    network: Literal["generator", "encoder", "decoder"] | None = None
    flops: Callable[[LatentShape], float] | None = None
    """Of one call, 2 per multiply-add."""
    probe: Callable[[LatentShape, torch.device], Callable[[], object]] | None = None
    """Prepares one call, to be timed."""
    shared: bool = False
    """Kept as a resource: recipes with the same generator and settings do it once."""


class Cost(NamedTuple):
    """Work in the units that can be timed before it is done."""

    steps: int
    """Of the method itself, over all units."""
    arch: str | None = None
    """Network that the images go through: an architecture, or a role in the recipe."""
    forward: int = 0
    """Images per step that go through it without gradients."""
    backward: int = 0
    """Images per step that go through it and back."""
    parts: tuple[CostPart, ...] = ()
    """The same work by parts, where a generator does it; then `arch` is None."""


class Workbench(Protocol):
    """All that a method may touch."""

    data: RealData
    """The training split; the test split cannot be reached from here."""
    device: torch.device
    dtype: torch.dtype

    def network(self, role: str) -> Classifier:
        """A network of the recipe, frozen, on the device: "teacher", "observer-0", ..."""

    def diffusion(self) -> Diffusion:
        """The recipe's `generator:`, frozen, on the device; made once per process."""

    def generator(self, *names: str | int) -> torch.Generator:
        """A CPU generator that depends on the recipe's seed and these names alone."""

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """A folder built once by `build(empty folder)`.

        All recipes with the same name, key and data pin share it.
        """


class Method(Spec):
    """Base of all methods. Subclasses are final and narrow `name` and `version` to a Literal."""

    name: str
    version: int
    """Bumped when the maths changes."""
    together: int = Field(default=1, gt=0)
    """Units handed to one `synthesize` call; batching changes last bits, so the recipe fixes it."""

    paper: ClassVar[Paper]
    real_pixels: ClassVar[bool] = False
    """Whether the images are copies of real ones by construction."""
    texture: ClassVar[float] = 0.0
    """Noise that makes real images as hard to compress as this method's: standard deviation in
    [0, 1] pixels."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Blocks of the recipe that must not be null: "teacher", "observers", "generator"."""
        return ()

    @abstractmethod
    def plan(self, target: Target) -> Iterator[Group]:
        """Which slots are made together; every slot exactly once."""

    @abstractmethod
    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """Make the images of `units`, yielding progress; `state` is a snapshot to go on from."""

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """What makes this method impossible here (`counts`: training images per class)."""
        del target, counts
        yield from ()

    @abstractmethod
    def cost(self, target: Target, counts: Sequence[int]) -> "Cost":
        """What all units take together, for `distillhub plan`; `counts` as in `check`."""
