"""The workbench handed to methods: data, networks, generators, resources."""

import functools
from collections.abc import Callable, Generator, Mapping
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType

import torch

from distillhub.data.sources import RealData
from distillhub.digests import fingerprint
from distillhub.methods._base import Student, StudentSpec
from distillhub.models import diffusion_files, weights
from distillhub.models.diffusion import Diffusion
from distillhub.models.zoo import Classifier
from distillhub.ops.progress import Progress, State
from distillhub.pipeline.bases import digest_in
from distillhub.pipeline.growing import grown
from distillhub.pipeline.store import stored
from distillhub.pipeline.tutoring import train_student
from distillhub.records.distilled import DistilledSet
from distillhub.units import derive_seed


class PipelineBench:
    """A `methods._base.Workbench` over the folders of a build."""

    def __init__(
        self,
        *,
        data: RealData,
        data_key: str,
        models: Path,
        resources: Path,
        checkpoints: Path,
        seed: int,
        device: torch.device,
        bases: Mapping[str, Path] = MappingProxyType({}),
        scratch: Path | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            data: The training split.
            data_key: What of it results depend on, as a digest.
            models: Networks of the recipe.
            resources: What recipes share.
            checkpoints: Weights of others.
            seed: Of the recipe.
            device: Where to work.
            bases: Folders of finished sets by the words of `Method.bases`.
            scratch: Where they may be unpacked; None: a temporary folder.
        """
        self.data = data
        self.device = device
        self.dtype = torch.float32
        self._data_key = data_key
        self._models = models
        self._resources = resources
        self._checkpoints = checkpoints
        self._seed = seed
        self._bases = bases
        self._scratch = scratch

    @functools.cache  # noqa: B019 - lives as long as the stage
    def network(self, role: str) -> Classifier:
        """A network of the recipe, frozen, on the device."""
        return weights.load(self._models, role).to(self.device).freeze()

    def weights(self, role: str) -> str:
        """The sha256 of the weights of a network of the recipe."""
        return weights.read_record(self._models, role).sha256

    def observers(self) -> tuple[str, ...]:
        """The roles of the recipe's `observers:`, in order."""
        return tuple(
            takewhile(
                lambda role: (self._models / f"{role}.json").exists(),
                (f"observer-{number}" for number in count()),
            )
        )

    def file(self, name: str) -> Path:
        """A file that a resolved recipe names by its digest."""
        return self._checkpoints / name

    @functools.cache  # noqa: B019 - lives as long as the stage
    def diffusion(self) -> Diffusion:
        """The recipe's generator, frozen, on the device."""
        return diffusion_files.load(self._models, weights=self._checkpoints, device=self.device)

    def generator(self, *names: str | int) -> torch.Generator:
        """A CPU generator that depends on the recipe's seed and these names alone."""
        return torch.Generator().manual_seed(derive_seed(self._seed, *names))

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """A folder built once and shared by all recipes with the same name, key and data."""
        return stored(self._resources, self._place(name, key), build)

    def grown(
        self,
        name: str,
        key: dict[str, object],
        grow: Callable[[State | None], Generator[Progress, None, Callable[[Path], None]]],
        state: State | None,
    ) -> Generator[Progress, None, Path]:
        """A folder built once, with progress, from the last snapshot on."""
        return grown(self._resources, self._place(name, key), grow, state)

    def _place(self, name: str, key: dict[str, object]) -> str:
        return f"{name}-{fingerprint(name, key, self._data_key)[:32]}"

    @functools.cache  # noqa: B019 - lives as long as the stage
    def artifact(self, base: str) -> DistilledSet:
        """The finished set of a build that `Method.bases` names."""
        return DistilledSet.open(self._bases[base], cache=self._scratch)

    def student(
        self, spec: StudentSpec, base: str, *, number: int = 0, state: State | None = None
    ) -> Generator[Progress, None, Student]:
        """A network trained on the set of a base, to the last epoch; kept for all recipes."""
        has_teacher = (self._models / "teacher.json").exists()
        return train_student(
            spec,
            self.artifact(base),
            digest_in(self._bases[base]),
            number=number,
            data=self.data,
            teacher=self.network("teacher") if has_teacher else None,
            teacher_sha256=weights.read_record(self._models, "teacher").sha256
            if has_teacher
            else None,
            resources=self._resources,
            device=self.device,
            state=state,
        )
