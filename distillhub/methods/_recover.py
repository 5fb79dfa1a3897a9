"""The recover loop of SRe2L, CDA, G-VBSM and EDC: pixels are trained under frozen observers.

Symbols: X -> images of a batch, `x`; y -> their classes; phi_o -> observer o of O; A -> the look of
a step, a crop, flip and roll that the batch shares; r -> distance of statistics
(`_recover_match`); E -> moving average of X, `average`; T -> iterations.

    z = phi_o(A(X))                                o = (b T + t) mod O in step t of batch b
    L = ce CE(z, y) + stat r + flatness FR(z, phi_o(A(E))) + densify DD(A(X), y) + ...
    X <- clip(Adam(X, dL / dX));   E <- beta E + (1 - beta) X

Adam has betas 0.5 and 0.9; its rate falls to 0 along half a cosine. The images are those of the
last step. Everything happens in the data set's normalised space, where each channel stays within
the range of real pixels; saved in [0, 1].

Source: Yin et al., Squeeze, Recover and Relabel (NeurIPS 2023); Shao et al., Generalized
Large-Scale Data Condensation via Various Backbone and Statistical Matching (CVPR 2024) and
Elucidating the Design Space of Dataset Condensation (NeurIPS 2024), with the authors' code.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from distillhub.methods._base import Cost, CostPart, Method, Synthesis, Workbench
from distillhub.methods._recover_batches import (
    BATCH,
    TIED,
    Batch,
    batches_of,
    cut,
    ordered,
)
from distillhub.methods._recover_losses import Step, Watch, loss_terms
from distillhub.methods._recover_match import Matching, Running
from distillhub.methods._recover_observers import Observer, guiding, shared_out, unfit
from distillhub.methods._recover_specs import (
    BatchSpec,
    Guides,
    LookSpec,
    LossesSpec,
    MatchSpec,
    RecoverCompatSpec,
    over,
)
from distillhub.methods._starts import StartSpec, scoring, starting_images
from distillhub.models.statistics import CollectSpec, TapSpec
from distillhub.ops.pixels import denormalize, normalize
from distillhub.ops.progress import Part, Progress, State, capture, own, restore
from distillhub.ops.recovering import Look, draw_look, smallest_crop
from distillhub.ops.schedules import cosine
from distillhub.units import Group, Target, WorkUnit

LOOK = 256
"""Images per call where observers only look, for `plan`."""


class Recover(Method):
    """Squeezed networks give back images; a subclass is a paper, which is its defaults."""

    observers: Guides = "all"
    """Which of the recipe's observers guide the images, counted from 0."""
    observer_schedule: Literal["round_robin", "uniform"] = "round_robin"
    """One observer per step: in turn, or drawn."""
    iterations: int = Field(default=2000, ge=0)
    """T; 0 leaves noise as it starts, and is refused for real starts."""
    lr: float = Field(default=0.05, gt=0)
    """Of Adam at the first step, in normalised pixels."""
    batch: BatchSpec = BatchSpec()
    init: StartSpec = StartSpec()
    taps: TapSpec = TapSpec()
    match: MatchSpec = MatchSpec()
    statistics: CollectSpec = CollectSpec()
    losses: LossesSpec = LossesSpec()
    augment: LookSpec = LookSpec()
    compat: RecoverCompatSpec = RecoverCompatSpec()
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast in the observers; statistics, losses and images stay float32."""

    @model_validator(mode="before")
    @classmethod
    def _blocks_over_the_defaults(cls, given: object) -> object:
        """A block that is written in part keeps the method's other defaults, not the block's."""
        if not isinstance(given, Mapping):
            return given
        fields = cls.model_fields
        return {
            name: over(fields[name].default, value) if name in fields else value
            for name, value in given.items()
        }

    @field_validator("observers")
    @classmethod
    def _observers_once(cls, observers: object) -> object:
        if isinstance(observers, tuple) and (not observers or len(set(observers)) < len(observers)):
            raise ValueError(f"observers is {list(observers)}; name each once, at least one")
        return observers

    @property
    def needs(self) -> tuple[str, ...]:
        """The observers."""
        return ("observers",)

    @property
    def bases(self) -> tuple[str, ...]:
        """The build that the images start from, if any."""
        return self.init.bases

    @property
    def files(self) -> tuple[str, ...]:
        """Statistics that exist already."""
        return self.statistics.files

    def with_files(self, names: Mapping[str, str]) -> Self:
        """The same with other names for them."""
        files = tuple(names[name] for name in self.files)
        statistics = self.statistics.model_copy(update={"files": files})
        return self.model_copy(update={"statistics": statistics})

    @property
    def tied(self) -> bool:
        """Whether running statistics tie all batches together, so that there is one unit."""
        leaks = self.compat.leak_momentum or self.match.momentum_reset == "never"
        return self._matched and self.match.momentum > 0 and leaks

    @property
    def _matched(self) -> bool:
        """Whether statistics are matched."""
        return self.losses.stat > 0 and self.iterations > 0

    def plan(self, target: Target) -> Iterator[Group]:
        """A group per batch: batches do not see one another, unless they are tied."""
        slots = ordered(target, self.batch)
        if self.tied:
            yield Group(TIED, slots)
        else:
            for number, part in enumerate(cut(slots, self.batch)):
                yield Group(f"{BATCH}{number:04d}", part)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """The loop, batch after batch."""
        data, device = bench.data, bench.device
        roles = self._roles(bench)
        observers = yield from guiding(
            roles,
            bench,
            self.taps,
            self.statistics,
            matched=self._matched,
            by_class=self.match.alpha < 1,
            state=state,
        )
        state = own(state)
        slots = [slot for unit in units for slot in unit.slots]
        if state is None:
            yield from scoring(self.init, slots, bench, roles)
            images = starting_images(self.init, slots, bench, roles).to(device)
        else:
            shape = (len(slots), data.channels, data.height, data.width)
            images = torch.empty(shape, device=device)
        done = restore(state, images=images)
        low, high = (
            normalize(torch.full((1, data.channels, 1, 1), end), data.mean, data.std).to(device)
            for end in (0.0, 1.0)
        )
        running = self._running(len(observers), state, device)
        batches = list(batches_of(units, self.batch))
        half = self.precision == "bfloat16"
        for place, batch in enumerate(batches):
            before = place * self.iterations
            first = min(max(done - before, 0), self.iterations)
            if first == self.iterations:
                continue
            if first == 0 and not self.tied:
                running = self._running(len(observers), None, device)
            x = images[batch.rows]  # a view: what is done to X is done to the images
            average = x.clone()
            optimizer = torch.optim.Adam([x], lr=self.lr, betas=(0.5, 0.9), eps=1e-8)
            parts: dict[str, Part] = {"average": average, "optimizer": optimizer}
            if first:
                restore(state, **parts)
            labels = batch.labels.to(device)
            matchings = [self._matching(observer, batch.labels, device) for observer in observers]
            watch = Watch(device, units[0] if self.tied else units[place])

            for t in range(first, self.iterations):
                optimizer.param_groups[0]["lr"] = self.lr * cosine(t, self.iterations)
                o = self._turn(batch.number, t, len(observers), bench)
                step = Step(
                    observers[o],
                    matchings[o],
                    running[o],
                    self._look(batch, t, bench),
                    self._left_out(batch.number, t, matchings[o], bench),
                )
                leaf = x.detach().requires_grad_()
                terms = loss_terms(leaf, labels, average, step, self.losses, bfloat16=half)
                loss = torch.stack(list(terms.values())).sum()
                x.grad = _gradient(loss, leaf)
                watch.add(t, {"loss": loss, **terms}, x.grad)
                if self.compat.ema_before_step:
                    self._follow(average, x)
                optimizer.step()
                x.clamp_(low, high)
                if not self.compat.ema_before_step:
                    self._follow(average, x)
                last = t + 1 == self.iterations
                if last:
                    watch.look()
                snapshot = partial(
                    self._snapshot,
                    before + t + 1,
                    {"images": images} if last else {"images": images, **parts},
                    running,
                    watch,
                )
                total = len(batches) * self.iterations
                yield Progress(before + t + 1, total, watch.last, snapshot)
        return Synthesis(denormalize(images, data.mean, data.std).clamp(0, 1))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """Something must be made and matched, patches must fit, the start must be possible."""
        if self.iterations == 0 and self.init.kind != "noise":
            yield (
                "iterations is 0: the images would stay the real ones that they start from, and "
                "be published as made ones; set it to 1 or more, or use method random or rded"
            )
        if self._matched and not self.taps.kinds:
            yield "taps names no layer; tap bn or conv, or set losses.stat: 0"
        side = self.taps.side("conv") if self._matched and self.taps.conv else None
        if side is not None and side > min(target.height, target.width):
            yield (
                f"taps.patch_side is {side} but images have {target.height} x {target.width} "
                f"pixels; set it to {min(target.height, target.width)} or less, or patch: false"
            )
        weights = self.losses
        others = weights.ce or weights.tv or weights.l2 or self._matched
        if weights.densify.weight and not others and target.ipc == 1:
            yield (
                "losses.densify spreads the images of a class, of which there is one, and no other "
                "loss moves them; set losses.ce or losses.stat above 0"
            )
        if self.tied and self.match.category_matching == "per_class" and self.match.alpha < 1:
            yield (
                "running statistics of classes cannot go on from batch to batch, whose classes "
                "differ; set match.momentum_reset: batch and compat.leak_momentum: false, or "
                "category_matching: batch_mixture"
            )
        yield from self.init.check(target, counts)

    def check_bases(self, target: Target, ipcs: Mapping[str, int]) -> Iterator[str]:
        """The build to start from must suffice."""
        yield from self.init.check_bases(target, ipcs)

    def check_observers(self, target: Target, archs: Sequence[str]) -> Iterator[str]:
        """The guiding observers must exist and have layers to match."""
        chosen = None if self.observers == "all" else self.observers
        files, guides = self.statistics.files, len(archs if chosen is None else chosen)
        if files and len(files) != guides:
            yield f"statistics.files names {len(files)} files for {guides} observers"
        matched = self._matched and self.taps.kinds
        yield from unfit(target, archs, chosen, self.taps if matched else None)

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """The steps of all batches; before them the observers look at real images."""
        batches = len(list(cut(ordered(target, self.batch), self.batch)))
        steps = self.iterations * batches
        each = max(1, target.num_classes * target.ipc // batches)
        parts: list[CostPart] = []
        if self._matched and (self.taps.conv or self.match.alpha < 1) and not self.statistics.files:
            size = self.statistics.batch
            part = CostPart("statistics", -(-sum(counts) // size), size, shared=True)
            parts += shared_out(part, self.observers)
        if (scored := self.init.scored(counts)) > 0:
            part = CostPart("start", -(-scored // LOOK), LOOK, shared=True)
            parts += shared_out(part, self.observers)
        if steps:
            part = CostPart("steps", steps, each, backward=True)
            parts += shared_out(part, self.observers, turns=True)
        if steps and self.losses.flatness.weight:
            part = CostPart("flatness", steps, each)
            parts += shared_out(part, self.observers, turns=True)
        return Cost(steps, parts=tuple(parts))

    def _roles(self, bench: Workbench) -> list[str]:
        """Of the guiding observers."""
        if self.observers == "all":
            return list(bench.observers())
        return [f"observer-{number}" for number in self.observers]

    def _running(self, count: int, state: State | None, device: torch.device) -> list[Running]:
        """The running statistics of the observers, fresh or from a snapshot."""
        running = [
            Running(self.match.momentum, from_zero=self.compat.leak_momentum) for _ in range(count)
        ]
        for o, each in enumerate(running):
            each.restore(f"running-{o}", state or {}, device)
        return running

    def _matching(
        self, observer: Observer, labels: Tensor, device: torch.device
    ) -> Matching | None:
        if observer.statistics is None:
            return None
        swapped = self.compat.swap_class_patch_stats
        return Matching(observer.statistics, labels, self.match, swapped=swapped, device=device)

    def _turn(self, batch: int, t: int, count: int, bench: Workbench) -> int:
        """o, the observer of a step: no batch needs to know what came before it."""
        if self.observer_schedule == "round_robin":
            return (batch * self.iterations + t) % count
        generator = bench.generator("observer", batch, t)
        return int(torch.randint(count, (), generator=generator))

    def _look(self, batch: Batch, t: int, bench: Workbench) -> Look:
        """A, the same for X and E."""
        spec, scale = self.augment, self.augment.crop
        if scale is not None and spec.curriculum is not None:
            end, until = scale[0], spec.curriculum.milestone
            mode = spec.curriculum.mode
            low = smallest_crop(t, self.iterations, end=end, mode=mode, until=until)
            scale = (low, 1.0)
        return draw_look(
            (bench.data.height, bench.data.width),
            generator=bench.generator("look", batch.number, t),
            scale=scale,
            ratio=spec.ratio,
            flip=spec.flip,
            roll=spec.roll,
            images=len(batch.labels) if spec.per_image else 1,
        ).to(bench.device)

    def _left_out(
        self, batch: int, t: int, matching: Matching | None, bench: Workbench
    ) -> tuple[str, ...]:
        """Convolutions whose statistics do not count in a step."""
        if matching is None or self.match.drop_rate == 0:
            return ()
        draws = torch.rand(len(matching.convs), generator=bench.generator("drop", batch, t))
        dropped = (draws < self.match.drop_rate).tolist()
        return tuple(path for path, out in zip(matching.convs, dropped, strict=True) if out)

    def _follow(self, average: Tensor, x: Tensor) -> None:
        """E <- beta E + (1 - beta) X, where it is needed."""
        if self.losses.flatness.weight:
            average.lerp_(x, 1 - self.losses.flatness.beta)

    @staticmethod
    def _snapshot(
        step: int, parts: Mapping[str, Part], running: Sequence[Running], watch: Watch
    ) -> State:
        watch.look()
        for o, each in enumerate(running):
            parts = {**parts, **each.parts(f"running-{o}")}
        return capture(step, **parts)


def _gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    """0 where no term of a step depends on the images, as when all layers are left out."""
    if not loss.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient
