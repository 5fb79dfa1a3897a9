"""The contract of a method: a frozen value with the paper's settings and its functions."""

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self

import torch
from pydantic import Field, JsonValue
from torch import Tensor

from distillhub.data import codec
from distillhub.data.real import RealData
from distillhub.models.diffusion import Diffusion
from distillhub.models.specs import Arch
from distillhub.models.zoo import Classifier
from distillhub.ops.progress import Progress, State
from distillhub.records.distilled import DistilledSet
from distillhub.spec import GrownSpec, Spec
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


@dataclass(frozen=True, eq=False)
class Assembly:
    """A set put together of what exists, in place of a `Synthesis`: nothing is encoded twice.

    The first images are those of another build, in their stored bytes; real ones follow.
    """

    files: Sequence[bytes]
    """Encoded images."""
    real: RealData
    """The real images, a part of the training split."""
    labels: Tensor
    """[len(files) + len(real)] int64: classes may have different numbers of images."""
    record: Mapping[str, JsonValue] = field(default_factory=dict)
    """What the card tells of it."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def rows(self) -> Tensor:
        """[n] int64: row of the training split that each image copies; -1 for those of `files`."""
        return torch.cat([torch.full((len(self.files),), -1), self.real.origin])

    @cached_property
    def images(self) -> Tensor:
        """All images, [n, C, H, W] float32 in [0, 1]; the pipeline reads them bit by bit."""
        real = self.real.images(range(len(self.real)))
        if not self.files:
            return real
        return torch.cat(
            [codec.to_float(codec.decode(self.files, 1 if self.real.channels == 1 else 3)), real]
        )


class StudentSpec(Spec):
    """A network that a method trains on the images of another build."""

    protocol: str
    """Of evaluation; says how it is trained."""
    arch: Arch | None = None
    """None: the protocol's own student."""
    seed: int = Field(default=0, ge=0)


class Student(NamedTuple):
    """A trained student."""

    identity: str
    """sha256 of its weights."""
    arch: str
    logits: Callable[[Tensor], Tensor]
    """Images [n, C, H, W] in [0, 1] at their stored size -> logits [n, num_classes]."""


LatentShape = tuple[int, int, int]
"""(c, h, w) of a generator's latents."""


class CostPart(NamedTuple):
    """A share of the work of a method that samples from a generator or uses several networks.

    Either `network` names whose passes it is, or `flops` and `probe` tell what a call is: the
    latents' shape is that of the recipe's generator, which the method does not know.
    """

    name: str
    """`generator`, `nopt`, `targets`, `template`, `encode`, `decode`, ..."""
    calls: int
    """One after another, over all units."""
    rows: int
    """Latents or images per call; a guided sample counts twice, with its label and without."""
    network: str | None = None
    """`generator`, `encoder` or `decoder`; `observer-0`, ...; `observers`: all of the recipe take
    the calls in turn; `every observer`: each of them makes all calls."""
    flops: Callable[[LatentShape], float] | None = None
    """Of one call, 2 per multiply-add."""
    probe: Callable[[LatentShape, torch.device], Callable[[], object]] | None = None
    """Prepares one call, to be timed."""
    shared: bool = False
    """Kept as a resource: recipes with the same networks and settings do it once."""
    backward: bool = False
    """Whether gradients go back through an observer, whose weights are frozen."""
    stored: int = 0
    """Bytes of the resource that it is kept in; 0 where they are few."""


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
    """The same work by parts, where a generator or several networks do it; then `arch` is None."""
    trained: CostPart | None = None
    """Steps of training networks of `arch` on real images, once for all recipes that share them."""


class Workbench(Protocol):
    """All that a method may touch."""

    data: RealData
    """The training split; the test split cannot be reached from here."""
    device: torch.device
    dtype: torch.dtype

    def network(self, role: str) -> Classifier:
        """A network of the recipe, frozen, on the device: "teacher", "observer-0", ..."""

    def weights(self, role: str) -> str:
        """The sha256 of the weights of a network of the recipe."""

    def observers(self) -> tuple[str, ...]:
        """The roles of the recipe's `observers:`, in order."""

    def file(self, name: str) -> Path:
        """A file that `Method.files` names."""

    def diffusion(self) -> Diffusion:
        """The recipe's `generator:`, frozen, on the device; made once per process."""

    def generator(self, *names: str | int) -> torch.Generator:
        """A CPU generator that depends on the recipe's seed and these names alone."""

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """A folder built once by `build(empty folder)`.

        All recipes with the same name, key and data pin share it.
        """

    def grown(
        self,
        name: str,
        key: dict[str, object],
        grow: Callable[[State | None], Generator[Progress, None, Callable[[Path], None]]],
        state: State | None,
    ) -> Generator[Progress, None, Path]:
        """As `resource`, for work that reports progress and can go on where it was cut.

        Args:
            name: As in `resource`.
            key: As in `resource`.
            grow: Is given its own last snapshot, and returns what writes the result into an empty
                folder.
            state: A snapshot that this generator reported; any other is left alone. Those of a
                method itself are told apart by `ops.progress.own`.
        """

    def artifact(self, base: str) -> DistilledSet:
        """The finished set of a build that `Method.bases` names, labels included."""

    def student(
        self, spec: StudentSpec, base: str, *, number: int = 0, state: State | None = None
    ) -> Generator[Progress, None, Student]:
        """Train a network on the set of a base, to the last epoch; kept for all recipes.

        Stored soft labels are used where the set and the protocol have them, else those that the
        teacher gives online, else the classes. One that is kept already is returned at once.

        Args:
            spec: Which network, trained how.
            base: A build that `Method.bases` names.
            number: Of several students that differ in their seeds alone.
            state: A snapshot that this generator reported; of another student, it is left alone.
        """


class Method(GrownSpec):
    """Base of all methods. Subclasses are final and narrow `name` and `version` to a Literal."""

    name: str
    version: int
    """Bumped when the maths changes."""
    together: int = Field(default=1, gt=0)
    """Units handed to one `synthesize` call; batching changes last bits, so the recipe fixes it."""

    paper: ClassVar[Paper]
    real_pixels: ClassVar[bool] = False
    """Whether the images are copies of real ones by construction, or made of parts of them."""
    keeps_files: ClassVar[bool] = False
    """Whether stored images of its bases are taken over as they are; they must be no mosaics."""
    texture: ClassVar[float] = 0.0
    """Noise that makes real images as hard to compress as this method's: standard deviation in
    [0, 1] pixels."""
    label: ClassVar[str | None] = None
    """How cards and catalogs call it; None: by its name."""
    notes: ClassVar[tuple[str, ...]] = ()
    """What a card must say of it, among the limits."""

    @property
    def guides(self) -> tuple[str, ...]:
        """Architectures that guide the images, besides the networks of the recipe."""
        return ()

    @property
    def grid(self) -> int:
        """Sub-images per side of a stored image; more than 1 where mosaics are made."""
        return 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Blocks of the recipe that must not be null: "teacher", "observers", "generator"."""
        return ()

    @property
    def bases(self) -> tuple[str, ...]:
        """Builds it rests on: names of recipes beside its own, or paths from there."""
        return ()

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it reads: paths from the recipe's folder; of a resolved recipe, digests."""
        return ()

    def with_files(self, names: Mapping[str, str]) -> Self:
        """The same with other names for its files."""
        del names
        return self

    @property
    def students(self) -> tuple[StudentSpec, ...]:
        """The students it trains on its bases."""
        return ()

    @property
    def even(self) -> bool:
        """Whether every class gets `ipc` images; else `ipc` is their mean."""
        return True

    @property
    def by_reference(self) -> bool:
        """Whether real images are published by name and digest, without pixels."""
        return False

    def settled(self, target: Target) -> Self:
        """The same with what depends on the target written out; a resolved recipe holds this."""
        del target
        return self

    @abstractmethod
    def plan(self, target: Target) -> Iterator[Group]:
        """Which slots are made together; every slot exactly once."""

    @abstractmethod
    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis | Assembly]:
        """Make the images of `units`, yielding progress; `state` is a snapshot to go on from."""

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """What makes this method impossible here (`counts`: training images per class)."""
        del target, counts
        yield from ()

    def check_observers(self, target: Target, archs: Sequence[str]) -> Iterator[str]:
        """What makes this method impossible with its observers (`archs`: their architectures)."""
        del target, archs
        yield from ()

    def check_bases(self, target: Target, ipcs: Mapping[str, int]) -> Iterator[str]:
        """What makes this method impossible on its bases (`ipcs`: their images per class)."""
        del target, ipcs
        yield from ()

    @abstractmethod
    def cost(self, target: Target, counts: Sequence[int]) -> "Cost":
        """What all units take together, for `distillhub plan`; `counts` as in `check`."""
