"""DiT: plain samples of a class-conditional diffusion transformer; the baseline of its family.

Symbols: i -> step index, steps - 1 .. 0; z -> latents z_i, [U * n, c, h, w]; mu, sigma -> posterior
of a step, from the learned variance; eps -> fresh noise of each step but the last.

Source: Peebles and Xie, Scalable Diffusion Models with Transformers (ICCV 2023), and the sampler of
their code: 50 spaced steps that include the first and the last level, guidance on the first three
channels, no clipping of the predicted image.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from distillhub.methods._base import Cost, CostPart, Method, Paper, Synthesis, Workbench
from distillhub.ops.diffusion import Schedule
from distillhub.ops.latin import LATTICE_MIN, StartNoise, settled_noise, start_noise
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.units import Group, Target, WorkUnit, by_class


class DiT(Method):
    """Ancestral sampling with classifier-free guidance."""

    name: Literal["dit"] = "dit"
    version: Literal[1] = 1
    together: int = Field(default=10, gt=0)
    """Classes per call of the transformer."""
    steps: int = Field(default=50, ge=2, le=1000)
    cfg: float = Field(default=4.0, ge=1)
    """Scale of the guidance; 1 is none and takes half the time."""
    cfg_channels: int = Field(default=3, gt=0)
    """Channels that are guided; the authors guide 3 of 4. More than there are means all."""
    init_noise: StartNoise = "gaussian"
    """`lattice`: the samples of a class share out the quantiles of every coordinate; `auto`: that
    from 5 images per class up, `gaussian` below."""

    paper: ClassVar[Paper] = Paper(
        "Scalable Diffusion Models with Transformers",
        "William Peebles, Saining Xie",
        "ICCV 2023",
        arxiv="2212.09748",
        code="https://github.com/facebookresearch/DiT",
    )
    texture: ClassVar[float] = 0.02  # measured: PNG sizes of dit_digits_10

    @property
    def needs(self) -> tuple[str, ...]:
        """The transformer."""
        return ("generator",)

    def settled(self, target: Target) -> Self:
        """`auto` noise written out."""
        noise = settled_noise(self.init_noise, target.ipc)
        return self.model_copy(update={"init_noise": noise})

    def plan(self, target: Target) -> Iterator[Group]:
        """One class each."""
        return by_class(target)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """The sampling loop, for the classes of `units` at once."""
        diffusion = bench.diffusion()
        schedule = Schedule.linear(self.steps)
        labels = [unit.slots[0].label for unit in units]
        n, shape = len(units[0].slots), diffusion.latent_shape
        condition = torch.tensor([diffusion.labels[label] for label in labels])
        condition = condition.repeat_interleave(n)
        start = [
            start_noise(self.init_noise, n, shape, bench.generator("init", label))
            for label in labels
        ]
        z = torch.cat(start).to(bench.device)
        done = restore(state, z=z)

        for index in reversed(range(self.steps - done)):
            step = diffusion.predict(
                z, condition, index, schedule, cfg=self.cfg, cfg_channels=self.cfg_channels
            )
            z = step.mean
            if index > 0:
                z = z + step.sigma * self._noise(labels, n, shape, index, bench)
            done = self.steps - index
            yield Progress(done, self.steps, {}, partial(capture, done, z=z))

        return Synthesis(diffusion.decode(z))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """A lattice needs enough samples for its quantiles to be spread."""
        del counts
        if self.init_noise == "lattice" and target.ipc < LATTICE_MIN:
            yield (
                f"init_noise: lattice needs at least {LATTICE_MIN} images per class, not "
                f"{target.ipc}: fewer leave the variance far below 1; use gaussian or auto"
            )

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """All steps of all calls, each with and without label, and the decoding."""
        del counts
        calls = -(-target.num_classes // self.together)
        rows = min(self.together, target.num_classes) * target.ipc
        return Cost(
            self.steps * calls,
            parts=(
                CostPart(
                    "generator",
                    self.steps * calls,
                    rows if self.cfg == 1 else 2 * rows,
                    network="generator",
                ),
                CostPart("decode", calls, rows, network="decoder"),
            ),
        )

    @staticmethod
    def _noise(
        labels: Sequence[int], n: int, shape: tuple[int, int, int], index: int, bench: Workbench
    ) -> Tensor:
        """Fresh noise of a step, [U * n, c, h, w]: by class and step, whoever is made together."""
        drawn = [
            torch.randn((n, *shape), generator=bench.generator("noise", label, index))
            for label in labels
        ]
        return torch.cat(drawn).to(bench.device)


METHOD = DiT
