"""What NOpt compares its samples with: real latents or template statistics, kept as resources."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from distillhub.methods._base import Workbench
from distillhub.models.tensorfile import read_tensors, write_tensors
from distillhub.ops.diffusion import Posterior, Schedule, diffuse
from distillhub.ops.latin import jittered_strata
from distillhub.ops.nopt import Target, make_pivots
from distillhub.ops.projector import GROUPS, WIDTHS, Projector, rows_per_pass
from distillhub.ops.selection import sample
from distillhub.spec import Spec
from distillhub.units import derive_seed

CHUNK = 256
"""Latents that are encoded, diffused or projected at once; random numbers are drawn by it too."""
_FILE = "content.safetensors"


class ProjectorSpec(Spec):
    """The frozen random convolution."""

    widths: tuple[int, int, int, int] = WIDTHS
    """Of its layers; L_align sums over the last, so that a narrower one weighs less."""
    groups: int = Field(default=GROUPS, gt=0)
    """Of all layers but the first; divides the widths."""
    seed: int | None = Field(default=None, ge=0)
    """null: the recipe's own (`da`), or 0 (`df`: recipes then share template statistics)."""
    per_class: bool | None = None
    """null: one for each class (`da`), one for all (`df`), as in the code."""

    @model_validator(mode="after")
    def _fits(self) -> "ProjectorSpec":
        odd = [width for width in self.widths if width < 1 or width % self.groups]
        if odd:
            raise ValueError(f"width {odd[0]} is no multiple of {self.groups} groups")
        return self


class NoptSpec(Spec):
    """The optimisation of the noise; defaults are the published settings."""

    mode: Literal["da", "df"] = "da"
    """`da`: real images are the target; `df`: statistics of plain samples, and no real image."""
    iterations: int = Field(default=200, ge=0)
    """Per denoising step; 0 is plain sampling."""
    lr: float = Field(default=0.1, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    lambda_align: float = Field(default=5e-4, ge=0)
    lambda_stats: float = Field(default=1e-3, ge=0)
    """Of `df`, as the two that follow."""
    stats_scale: Literal["code", "paper"] | Annotated[float, Field(gt=0)] = "code"
    """`code`: the positions of the last map, which the published lambda belongs to; `paper`: 1."""
    lambda_maxoc: float = Field(default=10.0, ge=0)
    template_size: int = Field(default=200, ge=2)
    """Plain samples per class whose statistics are the target of `df`."""
    template_seed: int = Field(default=0, ge=0)
    target_copies: int = Field(default=5, gt=0)
    """Diffused copies of each real latent in the target of `da`."""
    target_noise: Literal["lhs", "gaussian"] = "lhs"
    """`lhs`: the copies of a latent lie in different strata of every coordinate."""
    target_level: Literal["input", "output"] = "input"
    """Noise of the target: that before the step (code) or after it (paper)."""
    max_real: int | None = Field(default=None, gt=0)
    """Real images per class in the target; null: all."""
    projector: ProjectorSpec = ProjectorSpec()
    cuda_graph: bool = True
    """Replay one captured iteration on a GPU."""

    @property
    def per_class(self) -> bool:
        """Whether every class has a projector of its own."""
        return self.mode == "da" if self.projector.per_class is None else self.projector.per_class

    def real_images(self, count: int) -> int:
        """Of the target of a class with so many."""
        return count if self.max_real is None else min(count, self.max_real)


def passes(images: int, copies: int, n: int) -> tuple[int, int, int]:
    """How often real latents are diffused so that n samples get equal shares.

    Returns:
        Passes with stratified noise, full passes beyond them with plain noise, and the size of a
        random rest: their total is the next multiple of n.
    """
    more = max(0, -(-n // images) - copies)
    return copies, more, -(images * (copies + more)) % n


class Sampling(NamedTuple):
    """How plain samples are made."""

    predict: Callable[[Tensor, Tensor, int], Posterior]
    """Latents, labels of the generator, step -> what the generator says."""
    schedule: Schedule
    key: dict[str, object]
    """What the samples depend on beside the generator."""


class Targets:
    """The targets of some classes at every step of a sampling."""

    def __init__(
        self,
        spec: NoptSpec,
        labels: Sequence[int],
        n: int,
        bench: Workbench,
        sampling: Sampling,
    ) -> None:
        """Draw the projectors.

        Args:
            spec: What the targets are.
            labels: Classes of the data set.
            n: Samples per class.
            bench: Real images, and the resources made from them.
            sampling: Of the template.
        """
        self._spec, self._labels, self._n, self._bench = spec, tuple(labels), n, bench
        self._sampling = sampling
        self._diffusion = bench.diffusion()
        owners = self._labels if spec.per_class else (None,)
        self._seeds = [self._seed(owner) for owner in owners]
        layers = spec.projector.widths, spec.projector.groups
        self.projectors = [
            Projector.draw(self._diffusion.latent_shape, *layers, [generator], bench.device)
            for generator in map(torch.Generator().manual_seed, self._seeds)
        ]
        """One for each class, or one for all."""
        self.kept: list[dict[str, Tensor]] = []
        """Of each prepared class: `latents`, or `mean` and `std` of every step."""

    def prepare(self) -> Iterator[int]:
        """Make or open the resources, class after class."""
        for label in self._labels:
            self.kept.append(
                self._latents(label) if self._spec.mode == "da" else self._template(label)
            )
            yield label

    def projector(self, classes: slice) -> Projector:
        """That of some classes side by side, or the one of all."""
        return Projector.join(self.projectors[classes] if self._spec.per_class else self.projectors)

    def at(self, index: int) -> Target:
        """The target of step `index` for all classes."""
        made = [self._of_class(k, index) for k in range(len(self._labels))]
        pivots = [target.pivots for target in made if target.pivots is not None]
        return Target(
            torch.cat([target.mean for target in made]),
            torch.cat([target.std for target in made]),
            torch.cat(pivots) if pivots else None,
        )

    def _of_class(self, k: int, index: int) -> Target:
        kept, device = self.kept[k], self._bench.device
        if self._spec.mode == "df":
            return Target(*(kept[name][index][None].to(device) for name in ("mean", "std")))
        seed = self._bench.generator("targets", self._labels[k], index).initial_seed()
        return da_target(
            self._spec,
            kept["latents"],
            self._own(k),
            index,
            self._sampling.schedule,
            self._n,
            torch.Generator(device).manual_seed(seed),
        )

    def _own(self, k: int) -> Projector:
        return self.projectors[k if self._spec.per_class else 0]

    def _seed(self, label: int | None) -> int:
        names = () if label is None else (label,)
        seed = self._spec.projector.seed
        if seed is None and self._spec.mode == "da":
            return self._bench.generator("projector", *names).initial_seed()
        return derive_seed("projector", seed or 0, *names)

    def _latents(self, label: int) -> dict[str, Tensor]:
        """Latents of the real images of a class: a draw from the posterior of each."""
        diffusion, data = self._diffusion, self._bench.data
        rows = data.rows_of(label)
        used = self._spec.real_images(len(rows))
        key = {"generator": diffusion.identity, "label": label, "images": used}

        def build(folder: Path) -> None:
            generator = torch.Generator().manual_seed(derive_seed("latents", label))
            parts = torch.split(sample(rows, used, generator), CHUNK)
            latents = [diffusion.encode(data.images(part), generator).cpu() for part in parts]
            write_tensors(folder / _FILE, {"latents": torch.cat(latents)}, {})

        kept, _ = read_tensors(self._bench.resource("latents", key, build) / _FILE)
        return {"latents": kept["latents"].to(self._bench.device)}

    def _template(self, label: int) -> dict[str, Tensor]:
        """Statistics of plain samples of a class, [steps, J] each.

        Row i belongs to the latents that step i leads to.
        """
        spec, sampling = self._spec, self._sampling
        k = self._labels.index(label)
        condition = self._diffusion.labels[label]
        names = ("template", spec.template_seed, condition)
        key: dict[str, object] = {
            "generator": self._diffusion.identity,
            "label": condition,
            "sampling": sampling.key,
            "size": spec.template_size,
            "seed": spec.template_seed,
            "widths": spec.projector.widths,
            "groups": spec.projector.groups,
            "projector": self._seeds[k if spec.per_class else 0],
        }

        def build(folder: Path) -> None:
            generator = torch.Generator().manual_seed(derive_seed(*names))
            shape = (spec.template_size, *self._diffusion.latent_shape)
            labels = torch.full(shape[:1], condition)
            z = torch.randn(shape, generator=generator).to(self._bench.device)
            found = []
            for index in reversed(range(sampling.schedule.steps)):
                step = sampling.predict(z, labels, index)
                z = step.mean
                if index > 0:
                    z = z + step.sigma * torch.randn(shape, generator=generator).to(z.device)
                found.append(channel_statistics(self._own(k), z))
            means, stds = (torch.stack(part[::-1]) for part in zip(*found, strict=True))
            write_tensors(folder / _FILE, {"mean": means, "std": stds}, {})

        kept, _ = read_tensors(self._bench.resource("template", key, build) / _FILE)
        return kept


@torch.no_grad()
def da_target(
    spec: NoptSpec,
    latents: Tensor,
    projector: Projector,
    index: int,
    schedule: Schedule,
    n: int,
    generator: torch.Generator,
) -> Target:
    """Pivots of n samples of one class at one step.

    Args:
        spec: Copies, noise and level.
        latents: Real ones, [R, c, h, w] on the device of `generator`.
        projector: Of the class.
        index: Step, at least 1.
        schedule: The levels.
        n: Samples.
        generator: Draws the noise on its own device.
    """
    level = index if spec.target_level == "input" else index - 1
    copies, more, rest = passes(len(latents), spec.target_copies, n)
    features: list[Tensor] = []

    _, c, h, w = latents.shape
    rows = rows_per_pass((c, h, w), spec.projector.widths, latents.device)

    def add(clean: Tensor, noise: Tensor) -> None:
        diffused = diffuse(clean, noise, level, schedule)[None]
        features.extend(projector.pooled(part)[0] for part in torch.split(diffused, rows, dim=1))

    def plain(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=latents.device)

    for part in torch.split(latents, CHUNK):
        if spec.target_noise == "lhs":
            noises = jittered_strata(copies, len(part), tuple(part.shape[1:]), generator)
        else:
            noises = plain(copies, *part.shape)
        for noise in noises:
            add(part, noise)
    order = torch.randperm(len(latents), generator=generator, device=latents.device)
    for clean in [latents] * more + [latents[order[:rest]]] * (rest > 0):
        for part in torch.split(clean, CHUNK):
            add(part, plain(*part.shape))
    return make_pivots(torch.cat(features, dim=1), n)


@torch.no_grad()
def channel_statistics(projector: Projector, z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased deviation of each channel over samples and positions of [n, c, h, w]: [J]."""
    maps = torch.cat([projector(part[None])[0] for part in torch.split(z, CHUNK)])
    std, mean = torch.std_mean(maps, dim=(0, 2, 3), correction=0)
    return mean.cpu(), std.cpu()
