"""IGDS-style: a diffusion sampler guided by information, with estimators of our own.

Symbols: i -> step index, steps - 1 .. 0; z -> latents z_i; mu, sigma, x0, eps -> what the generator
says of a step (`ops.diffusion.Posterior`); G_I, G_H -> scores of prototype and context information;
g -> gradient of J = sum G_I + beta sum G_H for z, taken at x0; s -> `guidance.scale`; N -> images
of a class, which are made together.

Source: Ye et al., Information-Guided Diffusion Sampling for Dataset Distillation (arXiv 2507.04619,
2025). Only its abstract could be used, so no result here is one of the paper's: what is theirs [A]
and what is ours is said in `IGDS.notes`, and in `ops.information` for each piece.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from distillhub.methods._base import Cost, CostPart, Method, Paper, Synthesis, Workbench
from distillhub.methods._estimators import (
    CHUNK,
    RealLatents,
    balance,
    context_key,
    fit_context,
    fit_prototype,
    prototype_key,
)
from distillhub.methods._guidance import Beta, Guidance, Sampler, Terms, guide
from distillhub.methods._scores import ContextSpec, PrototypeSpec
from distillhub.models.latent_nets import LatentNetSpec, forward_flops, probe, training_steps
from distillhub.ops.diffusion import Posterior, Schedule, deterministic
from distillhub.ops.information import context_weight
from distillhub.ops.latin import LATTICE_MIN, StartNoise, settled_noise, start_noise
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.units import Group, Target, WorkUnit, by_class


class IGDS(Method):
    """Guided sampling for I(X;Y) + beta H(X|Y)."""

    name: Literal["igds"] = "igds"
    version: Literal[1] = 1
    together: int = Field(default=10, gt=0)
    """Classes per call of the transformer."""
    steps: int = Field(default=50, ge=2, le=1000)
    cfg: float = Field(default=4.0, ge=1)
    """Scale of classifier-free guidance, which comes before ours; 1 is none."""
    cfg_channels: int = Field(default=3, gt=0)
    """Channels that it moves; more than there are means all."""
    init_noise: StartNoise = "gaussian"
    """As in `dit`."""
    sampler: Sampler = "ddpm"
    """`ddim`: without fresh noise."""
    guidance: Guidance = Guidance()
    prototype: PrototypeSpec = PrototypeSpec()
    context: ContextSpec = ContextSpec()
    beta: Beta = Beta()
    flip: bool = True
    """Whether mirror images are images of the same class: in training and in every score."""

    paper: ClassVar[Paper] = Paper(
        "Information-Guided Diffusion Sampling for Dataset Distillation (idea only)",
        "L. Ye, S. Mohajer Hamidi, G. Li, T. Ogawa, M. Haseyama, K. N. Plataniotis",
        "NeurIPS 2025 workshop",
        arxiv="2507.04619",
    )
    label: ClassVar[str | None] = "IGDS-style"
    notes: ClassVar[tuple[str, ...]] = (
        "IGDS-style: only the abstract of the IGDS paper could be used and no code of its authors "
        "is public. Estimators, guidance and constants are ours; this is no reproduction, and no "
        "figure here is one of that paper's.",
        "From the paper's abstract: the objective I(X;Y) + beta H(X|Y), maximised during the "
        "sampling of an unchanged diffusion model by estimators fitted to real images, and a "
        "beta that rises with the images per class. Ours: all values of `method.guidance`, "
        "`method.prototype`, `method.context`, `method.beta`, `method.flip` and "
        "`method.sampler`. Those of the DiT sampler: `method.steps`, `method.cfg` and "
        "`method.cfg_channels`.",
    )
    texture: ClassVar[float] = 0.02  # measured of dit, whose sampler it shares

    @property
    def needs(self) -> tuple[str, ...]:
        """The transformer and, for scores on pixels, the teacher."""
        return ("generator", "teacher") if self.prototype.space == "pixel" else ("generator",)

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
        diffusion, schedule = bench.diffusion(), Schedule.linear(self.steps)
        labels = [unit.slots[0].label for unit in units]
        known = torch.tensor(labels, device=bench.device)
        n, shape = len(units[0].slots), diffusion.latent_shape
        condition = torch.tensor([diffusion.labels[label] for label in labels])
        condition = condition.repeat_interleave(n)
        start = [
            start_noise(self.init_noise, n, shape, bench.generator("init", label))
            for label in labels
        ]
        z = torch.cat(start).to(bench.device)
        done = restore(state, z=z)
        terms = self._terms(bench, n)
        bounds = {} if terms is None else terms.bounds

        for index in reversed(range(self.steps - done)):
            weights = self._weights(terms, index)
            full = self.guidance.gradient == "full" and any(weights)
            z = z.detach().requires_grad_(full)
            step = diffusion.predict(
                z,
                condition,
                index,
                schedule,
                cfg=self.cfg,
                cfg_channels=self.cfg_channels,
                differentiable=full,
            )
            gradient, scores = guide(terms, weights, z, step, known, index, schedule, full=full)
            step = Posterior(*(part.detach() for part in step))
            noise = [bench.generator("noise", label, index) for label in labels]
            z = self._next(step, gradient, index, schedule, noise)
            done = self.steps - index
            yield Progress(done, self.steps, bounds | scores, partial(capture, done, z=z))

        return Synthesis(diffusion.decode(z))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """A table of beta must know the images per class; a lattice needs enough of them."""
        del counts
        table = self.beta.table
        if table is not None and target.ipc not in table:
            known = ", ".join(str(ipc) for ipc in sorted(table)) or "none"
            yield f"beta.table has no value for ipc {target.ipc}, only for {known}; add one"
        if self.init_noise == "lattice" and target.ipc < LATTICE_MIN:
            yield (
                f"init_noise: lattice needs at least {LATTICE_MIN} images per class, not "
                f"{target.ipc}: fewer leave the variance far below 1; use gaussian or auto"
            )

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """The sampling as of `dit`, the scores with their way back, and the estimators."""
        calls = -(-target.num_classes // self.together)
        rows = min(self.together, target.num_classes) * target.ipc
        both = rows if self.cfg == 1 else 2 * rows
        parts = [
            CostPart("generator", self.steps * calls, both, network="generator"),
            CostPart("decode", calls, rows, network="decoder"),
        ]
        guided = [self._guided(term, target.ipc) for term in (0, 1)]
        steps = range(1, self.steps)
        times = [
            sum(on and self.guidance.inside(term, i, self.steps) for i in steps)
            for term, on in enumerate(guided)
        ]
        if self.guidance.gradient == "full":
            some = sum(
                any(on and self.guidance.inside(t, i, self.steps) for t, on in enumerate(guided))
                for i in steps
            )
            # Once more forwards and then back, which takes as long again.
            parts.append(CostPart("gradient", 2 * some * calls, both, network="generator"))
        if any(guided):
            parts += self._cost_of_scores(target, counts, [n * calls for n in times], rows)
        return Cost(self.steps * calls, parts=tuple(parts))

    def _cost_of_scores(
        self, target: Target, counts: Sequence[int], times: Sequence[int], rows: int
    ) -> Iterator[CostPart]:
        """Scores on `rows` latents so many times, and what is trained for them."""
        views, images = 2 if self.flip else 1, sum(counts)
        pixel, context = self.prototype.space == "pixel", self._guided(1, target.ipc)
        if not pixel or context:
            passes = -(-views * images // CHUNK)
            yield CostPart("encode", passes, CHUNK, network="encoder", shared=True)

        def part(name: str, spec: LatentNetSpec, calls: int, n: int, *, shared: bool) -> CostPart:
            # Forwards, and twice as much back.
            return CostPart(
                name,
                calls,
                n,
                flops=lambda shape: 3 * n * forward_flops(spec, shape),
                probe=partial(probe, spec, n, target.num_classes),
                shared=shared,
            )

        if pixel:
            # Forwards, forwards again and back.
            yield CostPart("prototype", times[0], 3 * rows, network="decoder")
        else:
            spec, members = self.prototype.network, self.prototype.ensemble
            steps = members * training_steps(spec, images)
            yield part("prototype", spec, times[0] * members, views * rows, shared=False)
            yield part("prototype network", spec, steps, spec.batch, shared=True)
        if context:
            spec = self.context.network
            yield part("context", spec, times[1], views * rows, shared=False)
            steps = training_steps(spec, images)
            yield part("context network", spec, steps, spec.batch, shared=True)

    def _beta(self, ipc: int) -> float:
        return context_weight(ipc, beta_max=self.beta.beta_max, table=self.beta.table)

    def _guided(self, term: int, ipc: int) -> bool:
        """Whether G_I (term 0) or G_H (1) takes part in a sampling of `ipc` images per class."""
        window = self.guidance.windows[term]
        if self.guidance.scale == 0 or window is None:
            return False
        if term == 0:
            return True
        alone = ipc == 1 and (self.context.kind == "logdet" or self.context.centroid == "self")
        return self.context.kind != "none" and not alone and self._beta(ipc) > 0

    def _terms(self, bench: Workbench, ipc: int) -> Terms | None:
        """The fitted estimators and their weights; None where nothing is guided."""
        by_prototype, by_context = (self._guided(term, ipc) for term in (0, 1))
        if not by_prototype and not by_context:
            return None
        latents = RealLatents(bench, flip=self.flip)
        prototype = fit_prototype(self.prototype, bench, latents)
        if not by_context:
            return Terms(prototype, None, (1.0, 0.0))
        context, beta = fit_context(self.context, bench, latents), self._beta(ipc)
        if self.beta.balance:
            key = [
                prototype_key(self.prototype, bench, latents),
                context_key(self.context, latents),
            ]
            sizes = balance(prototype, context, bench, latents, key)
            beta *= sizes.prototype / sizes.context
        return Terms(prototype, context, (1.0, beta))

    def _weights(self, terms: Terms | None, index: int) -> tuple[float, float]:
        """Of G_I and G_H at a step; 0 outside of their windows."""
        if terms is None:
            return 0.0, 0.0
        first, second = (
            weight if self.guidance.inside(term, index, self.steps) else 0.0
            for term, weight in enumerate(terms.weights)
        )
        return first, second

    def _next(
        self,
        step: Posterior,
        gradient: Tensor | None,
        index: int,
        schedule: Schedule,
        noise: Sequence[torch.Generator],
    ) -> Tensor:
        """z_(i-1): the plain step, and the shift along the gradient."""
        if index == 0:
            return step.mean
        mean = step.mean if self.sampler == "ddpm" else deterministic(step, index, schedule)
        if gradient is not None:
            mean = mean + self.guidance.shift(step, gradient, index, schedule, self.sampler)
        if self.sampler == "ddim":
            return mean
        n = len(mean) // len(noise)
        drawn = [torch.randn((n, *mean.shape[1:]), generator=generator) for generator in noise]
        return mean + step.sigma * torch.cat(drawn).to(mean.device)


METHOD = IGDS
