"""DsCo: samples of a diffusion model whose noise is optimised so that they spread like their class.

Symbols: i -> step index, steps - 1 .. 0; z -> latents z_i of all samples, [B, n, c, h, w]; mu,
sigma -> posterior of the step; eps -> its noise, optimised by NOpt at every step but the last; P ->
frozen random convolution; pivots -> what the sorted features P(mu + sigma eps) are pulled to.

Data-accessible (`nopt.mode: da`): pivots come from the diffused latents of the real images.
Data-free (`df`): the features follow statistics of plain samples, and samples keep apart.

Source: Liu et al., Beyond Dataset Distillation: Lossless Dataset Concentration via
Diffusion-Assisted Distribution Alignment (arXiv 2603.27987). Where paper and code differ, `preset`
says which one is followed.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from distillhub.errors import PipelineError
from distillhub.methods._base import Cost, Method, Paper, Synthesis, Workbench
from distillhub.methods._nopt import NoptSpec, Sampling, Targets
from distillhub.methods._nopt_cost import cost_parts
from distillhub.ops.diffusion import Posterior, Schedule
from distillhub.ops.latin import LATTICE_MIN, StartNoise, settled_noise, start_noise
from distillhub.ops.nopt import NoiseSearch, Objective, Weights, da_loss, df_loss
from distillhub.ops.nopt import Target as Goal
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.ops.projector import Projector, rows_per_pass
from distillhub.units import Group, Target, WorkUnit, by_class

EVERY = 10
"""Iterations of NOpt between two reports."""
PAPER: dict[str, JsonValue] = {
    "init_noise": "gaussian",
    "nopt": {"target_noise": "gaussian", "target_level": "output", "stats_scale": "paper"},
}
"""Where the paper says other than its code, which the defaults follow."""


class Part(NamedTuple):
    """Some of the classes of a call."""

    classes: slice
    search: NoiseSearch


class DsCo(Method):
    """Dataset concentration by noise optimisation."""

    name: Literal["dsco"] = "dsco"
    version: Literal[1] = 1
    together: int = Field(default=10, gt=0)
    """Classes per call; they share the loop of the optimisation."""
    preset: Literal["official", "paper"] = "official"
    """Sets keys that are not given where the paper and the authors' code differ."""
    steps: int = Field(default=50, ge=2, le=1000)
    cfg: float = Field(default=4.0, ge=1)
    """Scale of the guidance; 1 is none and takes half the time."""
    cfg_channels: int = Field(default=3, gt=0)
    """Channels that are guided; more than there are means all."""
    init_noise: StartNoise = "auto"
    """`lattice`: the samples of a class share out the quantiles of every coordinate; `auto`: that
    from 5 images per class up, `gaussian` below. Data-free runs start from `gaussian` noise."""
    nopt: NoptSpec = NoptSpec()

    paper: ClassVar[Paper] = Paper(
        "Beyond Dataset Distillation: Lossless Dataset Concentration via Diffusion-Assisted "
        "Distribution Alignment",
        "Tongfei Liu, Yufan Liu, Bing Li, Weiming Hu",
        "arXiv 2026",
        arxiv="2603.27987",
        code="https://github.com/kkkkqq/Dataset-Concentration",
    )
    texture: ClassVar[float] = 0.02

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: object) -> object:
        if not isinstance(given, dict) or given.get("preset") != "paper":
            return given
        inner = given.get("nopt", {})
        merged = {**PAPER, **given}
        if isinstance(inner, dict) and isinstance(PAPER["nopt"], dict):
            merged["nopt"] = {**PAPER["nopt"], **inner}
        return merged

    @property
    def needs(self) -> tuple[str, ...]:
        """The generator."""
        return ("generator",)

    @property
    def start(self) -> StartNoise:
        """The kind of the first latents."""
        return "gaussian" if self.nopt.mode == "df" else self.init_noise

    def settled(self, target: Target) -> Self:
        """`auto` noise written out."""
        noise = settled_noise(self.start, target.ipc)
        return self.model_copy(update={"init_noise": noise})

    def plan(self, target: Target) -> Iterator[Group]:
        """One class each: NOpt sees all samples of a class, and no other class."""
        return by_class(target)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """The sampling loop with NOpt, for the classes of `units` at once."""
        diffusion = bench.diffusion()
        schedule = Schedule.linear(self.steps)
        labels = [unit.slots[0].label for unit in units]
        n, shape = len(units[0].slots), diffusion.latent_shape
        if min(shape[1:]) < 8:
            raise PipelineError(
                f"the generator's latents are {shape}; NOpt needs sides of at least 8",
                where="synthesize",
                mend="use a generator with larger latents, or method dit",
            )
        condition = torch.tensor([diffusion.labels[label] for label in labels])
        condition = condition.repeat_interleave(n)

        def predict(z: Tensor, labels: Tensor, index: int) -> Posterior:
            return diffusion.predict(
                z, labels, index, schedule, cfg=self.cfg, cfg_channels=self.cfg_channels
            )

        key: dict[str, object] = {
            "steps": self.steps,
            "cfg": self.cfg,
            "cfg_channels": self.cfg_channels,
        }
        targets = Targets(self.nopt, labels, n, bench, Sampling(predict, schedule, key))
        ticks = self._ticks()
        total = len(labels) + ticks * (self.steps - 1) + 1
        for prepared, _ in enumerate(targets.prepare(), start=1):
            if state is None:
                yield Progress(prepared, total, {}, None)

        start = [start_noise(self.start, n, shape, bench.generator("init", c)) for c in labels]
        z = torch.stack(start).to(bench.device)  # [B, n, c, h, w]
        eps, velocity = torch.zeros_like(z), torch.zeros_like(z)
        searches = self._searches(targets, z)
        done = restore(state, z=z, eps=eps, velocity=velocity) if state else len(labels)
        passed, tick = divmod(done - len(labels), ticks)

        for index in range(self.steps - 1 - passed, 0, -1):
            step = predict(z.flatten(0, 1), condition, index)
            mean, sigma = step.mean.view_as(z), step.sigma.view_as(z)
            if tick == 0:
                eps.copy_(self._noise(labels, n, shape, index, bench))
                velocity.zero_()
            if self.nopt.iterations:
                _begin(searches, mean, sigma, eps, velocity, targets.at(index))
            for last in range(tick, ticks):
                count = min(EVERY, self.nopt.iterations - last * EVERY)
                metrics = _run(searches, count, eps, velocity) if count > 0 else {}
                if last == ticks - 1:
                    z = mean + sigma * eps
                done += 1
                snapshot = partial(capture, done, z=z, eps=eps, velocity=velocity)
                yield Progress(done, total, metrics, snapshot)
            tick = 0

        if done < total:
            z = predict(z.flatten(0, 1), condition, 0).mean.view_as(z)
            snapshot = partial(capture, total, z=z, eps=eps, velocity=velocity)
            yield Progress(total, total, {}, snapshot)
        return Synthesis(diffusion.decode(z.flatten(0, 1)))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """A lattice needs samples, and a data-free run starts from Gaussian noise."""
        del counts
        if self.init_noise == "lattice" and target.ipc < LATTICE_MIN:
            yield (
                f"init_noise: lattice needs at least {LATTICE_MIN} images per class, not "
                f"{target.ipc}: fewer leave the variance far below 1; use gaussian or auto"
            )
        if self.init_noise == "lattice" and self.nopt.mode == "df":
            yield "init_noise: lattice is of nopt.mode da; data-free runs start gaussian: use auto"
        if min(target.height, target.width) < 8:
            yield (
                f"images of {target.height} x {target.width} pixels: the projector halves them "
                "three times and needs at least 8"
            )

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """Reports of all calls, and the work by parts."""
        calls = -(-target.num_classes // self.together)
        parts = cost_parts(
            self.nopt,
            self._objective,
            counts=counts,
            together=self.together,
            n=target.ipc,
            steps=self.steps,
            rows=1 if self.cfg == 1 else 2,
        )
        reports = calls * (self._ticks() * (self.steps - 1) + 1)
        return Cost(reports + target.num_classes, parts=parts)

    def _ticks(self) -> int:
        """Reports per denoising step."""
        return max(1, -(-self.nopt.iterations // EVERY))

    def _objective(self, projector: Projector) -> Objective:
        spec = self.nopt
        if spec.mode == "da":
            return partial(da_loss, projector, spec.lambda_align)
        given = spec.stats_scale
        scale = None if given == "code" else 1.0 if given == "paper" else given
        weights = Weights(spec.lambda_maxoc, spec.lambda_stats, scale)
        return partial(df_loss, projector, weights)

    def _searches(self, targets: Targets, z: Tensor) -> "list[Part]":
        """One optimisation for all classes; on a CPU one for as many as its cache holds."""
        classes, n, channels, height, width = z.shape
        rows = rows_per_pass((channels, height, width), self.nopt.projector.widths, z.device)
        span = max(1, rows // n) if z.device.type == "cpu" else classes
        parts = [slice(k, min(classes, k + span)) for k in range(0, classes, span)]
        return [
            Part(
                part,
                NoiseSearch(
                    self._objective(targets.projector(part)),
                    z[part].shape,
                    lr=self.nopt.lr,
                    momentum=self.nopt.momentum,
                    device=z.device,
                    graph=self.nopt.cuda_graph,
                ),
            )
            for part in parts
        ]

    @staticmethod
    def _noise(
        labels: Sequence[int], n: int, shape: tuple[int, int, int], index: int, bench: Workbench
    ) -> Tensor:
        """First noise of a step, [B, n, c, h, w]: by class and step, whoever is made together."""
        drawn = [
            torch.randn((n, *shape), generator=bench.generator("noise", label, index))
            for label in labels
        ]
        return torch.stack(drawn).to(bench.device)


def _begin(
    parts: Sequence[Part],
    mean: Tensor,
    sigma: Tensor,
    eps: Tensor,
    velocity: Tensor,
    target: Goal,
) -> None:
    """Give every part its classes."""
    for classes, search in parts:
        pivots = None if target.pivots is None else target.pivots[classes]
        own = Goal(target.mean[classes], target.std[classes], pivots)
        search.begin(mean[classes], sigma[classes], eps[classes], velocity[classes], own)


def _run(parts: Sequence[Part], iterations: int, eps: Tensor, velocity: Tensor) -> dict[str, float]:
    """Optimise noise and velocity in place; the mean loss of a class before the last iteration."""
    for classes, search in parts:
        search.run(iterations)
        eps[classes] = search.eps
        velocity[classes] = search.velocity
    return {"loss": torch.cat([search.loss for _, search in parts]).mean().item()}


METHOD = DsCo
