"""The workbench handed to methods: data, networks, generators, resources."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch

from distillhub.data.sources import RealData
from distillhub.digests import fingerprint
from distillhub.models import diffusion_files, weights
from distillhub.models.diffusion import Diffusion
from distillhub.models.zoo import Classifier
from distillhub.pipeline.store import stored
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
    ) -> None:
        self.data = data
        self.device = device
        self.dtype = torch.float32
        self._data_key = data_key
        self._models = models
        self._resources = resources
        self._checkpoints = checkpoints
        self._seed = seed

    @functools.cache  # noqa: B019 - lives as long as the stage
    def network(self, role: str) -> Classifier:
        """A network of the recipe, frozen, on the device."""
        return weights.load(self._models, role).to(self.device).freeze()

    @functools.cache  # noqa: B019 - lives as long as the stage
    def diffusion(self) -> Diffusion:
        """The recipe's generator, frozen, on the device."""
        return diffusion_files.load(self._models, weights=self._checkpoints, device=self.device)

    def generator(self, *names: str | int) -> torch.Generator:
        """A CPU generator that depends on the recipe's seed and these names alone."""
        return torch.Generator().manual_seed(derive_seed(self._seed, *names))

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """A folder built once and shared by all recipes with the same name, key and data."""
        return stored(
            self._resources, f"{name}-{fingerprint(name, key, self._data_key)[:32]}", build
        )
