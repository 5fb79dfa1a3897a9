"""DM: synthetic images whose mean features follow those of their class under random networks.

Symbols: phi_theta -> embedding of a fresh random network, `net.features_normalized`; T_c -> real
images of class c, `pools`; B_c -> its batch; S -> synthetic images, `x`; A(., omega) -> Siamese
augmentation with the draw omega of the step and the class.

Source: Zhao and Bilen, Dataset Condensation with Distribution Matching (WACV 2023), Algorithm 1.
Constants and the sum over features are those of the authors' code (DatasetCondensation, `main_DM`).

Optimised in the normalised space of the data set, without clipping; clipped to [0, 1] at the end.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from distillhub.methods._base import Cost, Method, Paper, Synthesis, Workbench
from distillhub.methods._matching import (
    Precision,
    Strategy,
    arithmetic,
    augment,
    drawn,
    no_batch_norm,
    refuse_divergence,
    span,
)
from distillhub.models.specs import Arch
from distillhub.models.zoo import Classifier, build
from distillhub.ops.augment import DsaParams
from distillhub.ops.bayes import Moments, bayesian_loss, moments
from distillhub.ops.matching import squared_mean_distance
from distillhub.ops.pixels import denormalize, normalize
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.ops.selection import sample
from distillhub.units import Group, Target, WorkUnit, by_class


class Real(NamedTuple):
    """The training images of one class."""

    label: int
    pixels: Tensor
    """uint8 [n_c, C, H, W] on the device."""


class DM(Method):
    """Distribution matching."""

    name: Literal["dm"] = "dm"
    version: Literal[1] = 1
    LATER: ClassVar[frozenset[str]] = frozenset({"precision"})
    together: int = Field(default=10, gt=0)
    """Classes per call; they share the random network of each step whatever their grouping."""
    arch: Arch = "convnet3"
    """The random networks; batch norm is refused, because it would couple the classes."""
    iterations: int = Field(default=20_000, gt=0)
    """Steps, each with a new network; the authors' loop makes one more."""
    batch_real: int = Field(default=256, gt=0)
    """Real images per class and step, all different; a smaller class gives all that it has."""
    lr_img: float = Field(default=1.0, gt=0)
    """The authors take 1 up to 50 images per class, 10 from 100 on (CIFAR-10)."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    init: Literal["real", "noise"] = "real"
    """`real`: images of the class; `noise`: standard normal in normalised space."""
    loss: Literal["squared", "bayesian"] = "squared"
    """`bayesian`: BACON's loss in place of the squared distance, as that paper offers."""
    dsa: Strategy | None = "color_crop_cutout_flip_scale_rotate"
    """Families of the augmentation; null: none."""
    precision: Precision = "float32"
    """Of the embeddings (`_matching.arithmetic`); statistics, losses and images stay float32."""

    paper: ClassVar[Paper] = Paper(
        "Dataset Condensation with Distribution Matching",
        "Bo Zhao, Hakan Bilen",
        "WACV 2023",
        arxiv="2110.04181",
        code="https://github.com/VICO-UoE/DatasetCondensation",
    )
    texture: ClassVar[float] = 0.02  # measured: PNG sizes of dm_digits_10

    @property
    def guides(self) -> tuple[str, ...]:
        """The random networks."""
        return (self.arch,)

    def plan(self, target: Target) -> Iterator[Group]:
        """One class each: their losses do not meet."""
        return by_class(target)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """Algorithm 1, for the classes of `units` at once."""
        data = bench.data
        x = torch.stack([self._start(unit, bench) for unit in units])  # [U, n, C, H, W]
        x = x.to(bench.device)
        optimizer = torch.optim.SGD([x], lr=self.lr_img, momentum=self.momentum)
        start = restore(state, images=x, optimizer=optimizer)
        pools = []
        for unit in units:
            label = unit.slots[0].label
            pools.append(Real(label, data.pixels(data.rows_of(label)).to(bench.device)))

        for step in range(start, self.iterations):
            net = self._network(step, bench)
            draws = [drawn(self.dsa, step, pool.label, bench) for pool in pools]
            with arithmetic(self.precision, bench.device):
                real = self._real_moments(net, pools, draws, step, bench)  # [U, D]
                losses, x.grad = self._match(net, x, real, draws)
            refuse_divergence(losses, step, units, "lower method.lr_img")
            optimizer.step()
            snapshot = partial(capture, step + 1, images=x, optimizer=optimizer)
            yield Progress(step + 1, self.iterations, {"loss": losses.mean().item()}, snapshot)

        images = denormalize(x.detach().flatten(0, 1), data.mean, data.std)
        return Synthesis(images.clamp(0, 1))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """The network must fit the images, and real images must suffice for the start."""
        try:
            net = _fresh(self.arch, target, (0.5,) * target.channels, (0.5,) * target.channels, 0)
        except ValueError as error:
            yield str(error)
        else:
            if any(isinstance(part, nn.BatchNorm2d) for part in net.modules()):
                yield no_batch_norm(self.name, self.arch)
        spread = self.loss == "bayesian"
        if spread and self.batch_real < 2:
            yield "batch_real is 1 but loss: bayesian needs a deviation; set batch_real: 2 or more"
        for label, count in enumerate(counts):
            if spread and count < 2:
                yield f"class {label} has {count} training image; a deviation needs two"
            if self.init == "real" and count < target.ipc:
                yield f"ipc is {target.ipc} but class {label} has {count} images to start from"

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """The iterations of all calls, with the real and synthetic images of one call each."""
        calls = -(-target.num_classes // self.together)
        real = sum(min(self.batch_real, count) for count in counts)
        synthetic = target.num_classes * target.ipc
        return Cost(
            self.iterations * calls,
            self.arch,
            forward=max(1, real // calls),
            backward=max(1, synthetic // calls),
        )

    def _start(self, unit: WorkUnit, bench: Workbench) -> Tensor:
        """The first images of a class, normalised: [n, C, H, W]."""
        data, label = bench.data, unit.slots[0].label
        generator = bench.generator("init", label)
        if self.init == "noise":
            shape = (len(unit.slots), data.channels, data.height, data.width)
            return torch.randn(shape, generator=generator)
        rows = sample(data.rows_of(label), len(unit.slots), generator)
        return normalize(data.images(rows), data.mean, data.std)

    def _network(self, step: int, bench: Workbench) -> Classifier:
        """The theta of a step, the same for all units: never trained, frozen."""
        data = bench.data
        target = Target(data.num_classes, 1, data.channels, data.height, data.width)
        seed = bench.generator("net", step).initial_seed()
        return _fresh(self.arch, target, data.mean, data.std, seed).to(bench.device)

    @torch.no_grad()
    def _real_moments(
        self,
        net: Classifier,
        pools: Sequence[Real],
        draws: Sequence[DsaParams | None],
        step: int,
        bench: Workbench,
    ) -> Moments:
        """Mean embedding and its deviation for a fresh batch of each class."""
        batches = []
        for pool, draw in zip(pools, draws, strict=True):
            generator = bench.generator("real", step, pool.label)
            rows = sample(torch.arange(len(pool.pixels)), self.batch_real, generator)
            images = pool.pixels[rows.to(pool.pixels.device)].float().div_(255)
            batches.append(augment(normalize(images, bench.data.mean, bench.data.std), draw))
        everything = torch.cat(batches)
        parts = torch.split(everything, span(everything))
        embedded = torch.cat([net.features_normalized(part).float() for part in parts])
        sizes = [len(batch) for batch in batches]
        spread = self.loss == "bayesian"
        found = [moments(rows[None], spread=spread) for rows in torch.split(embedded, sizes)]
        return Moments(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _match(
        self, net: Classifier, x: Tensor, real: Moments, draws: Sequence[DsaParams | None]
    ) -> tuple[Tensor, Tensor]:
        """Losses of the classes, [U], and their gradient for the images, like `x`."""
        classes = max(1, span(x) // x.shape[1])  # per pass; a mean needs its class whole
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        for first in range(0, len(x), classes):
            these = slice(first, first + classes)
            images = x[these].detach().requires_grad_()  # [u, n, C, H, W]
            seen = [augment(s, draw) for s, draw in zip(images, draws[these], strict=True)]
            features = net.features_normalized(torch.cat(seen)).float()
            embedded = features.view(*images.shape[:2], -1)
            own = Moments(*(part[these] for part in real))
            if self.loss == "bayesian":
                loss = bayesian_loss(own, embedded)
            else:
                loss = squared_mean_distance(own.mean, embedded)
            gradients += torch.autograd.grad(loss.sum(), images)
            losses.append(loss.detach())
        return torch.cat(losses), torch.cat(gradients)


def _fresh(
    arch: str, target: Target, mean: Sequence[float], std: Sequence[float], seed: int
) -> Classifier:
    return build(
        arch,
        num_classes=target.num_classes,
        channels=target.channels,
        height=target.height,
        width=target.width,
        mean=mean,
        std=std,
        seed=seed,
    ).freeze()


METHOD = DM
