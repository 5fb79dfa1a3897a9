"""The loop that IDM and BACON share: mosaics matched under networks that are partly trained.

Symbols: S_c -> mosaics of class c, `x[c]`; X' -> their sub-images at full size, `expand`; R -> real
batch; A(., omega) -> Siamese augmentation with the draw of the iteration and the class;
phi_theta -> embedding of the network that the queue gives an iteration.

Source: Zhao et al., Improved Distribution Matching for Dataset Condensation (CVPR 2023), section
4, and the authors' code. Departures: `docs/decisions.md`.
"""

from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from distillhub.methods._base import Cost, CostPart, Method, Synthesis, Workbench
from distillhub.methods._matching import (
    Precision,
    Strategy,
    arithmetic,
    augment,
    drawn,
    no_batch_norm,
    passes,
    refuse_divergence,
    span,
)
from distillhub.models.classifier import Classifier
from distillhub.models.queue import (
    SEGMENT,
    STATE,
    Meter,
    QueueSpec,
    RealPixels,
    Segment,
    put,
    segment_key,
    write_segment,
)
from distillhub.ops.augment import DsaParams
from distillhub.ops.bayes import Moments, moments
from distillhub.ops.formation import expand, pack
from distillhub.ops.pixels import denormalize, normalize
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.ops.selection import distinct
from distillhub.units import Group, Target, WorkUnit, by_class

EASIEST = 2560
"""Real images that the path for a single whole image per class keeps."""


class QueueMatching(Method):
    """Distribution matching under IDM's queue; a subclass gives the distance."""

    together: int = Field(default=1000, gt=0)
    """Classes per call; all of a step go through the network at once."""
    formation: Literal[1, 2] = 2
    """Sub-images per side of a stored image; each trains as a full-size one."""
    iterations: int = Field(default=20_000, gt=0)
    queue: QueueSpec = QueueSpec()
    """The networks; made once for all syntheses with the same queue on the same data."""
    batch_real: Annotated[int, Field(gt=1)] | Literal["all"] = 256
    """Real images per class and iteration, all different; `all`: the whole class."""
    lr_img: float = Field(default=0.2, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """The authors take one step per class, and momentum goes on moving a class in the steps of the
    others; here an iteration does all of that at once (`_visit`)."""
    ce_weight: float = Field(default=0.5, ge=0)
    """Cross-entropy counts this times the accuracy of the network in percent."""
    init: Literal["real", "noise"] = "real"
    """`real`: every sub-image from a real image of its own; `noise`: standard normal."""
    dsa: Strategy | None = "color_crop_cutout_flip_scale_rotate"
    """Families of the augmentation; null: none. The authors flip digits, too."""
    precision: Precision = "float32"
    """Of matching (`_matching.arithmetic`); statistics, losses and images stay float32."""
    compile: bool = False
    """Whether the embedding is compiled, which needs a compiler for the device at hand: worth it
    for long runs on GPUs; on a CPU it runs fused as it is."""

    @property
    def grid(self) -> int:
        """Sub-images per side of a stored image."""
        return self.formation

    @property
    def guides(self) -> tuple[str, ...]:
        """The networks of the queue."""
        return (self.queue.arch,)

    @property
    def spread(self) -> bool:
        """Whether the distance asks for the deviation of the real features."""
        return False

    @property
    def start_formation(self) -> int:
        """Real images per side of a stored image at the start."""
        return self.formation

    def plan(self, target: Target) -> Iterator[Group]:
        """One class each: their losses do not meet."""
        return by_class(target)

    @abstractmethod
    def distance(self, real: Moments, synthetic: Tensor) -> Tensor:
        """The matching loss per class, [K], of features [K, n, D]."""

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Synthesis]:
        """The loop of section 4, for the classes of `units` at once."""
        data = bench.data
        labels = [unit.slots[0].label for unit in units]
        x = torch.stack([self._start(unit, bench) for unit in units]).to(bench.device)
        velocity = torch.zeros_like(x)  # [U, n, C, H, W]
        start = restore(state, images=x, velocity=velocity)
        pools = [data.pixels(data.rows_of(label)).to(bench.device) for label in labels]
        film = _Film(self.queue, bench)
        single = x.shape[1] == self.formation == 1

        for step in range(start, self.iterations):
            net, accuracy = film.network(step)
            draws = [drawn(self.dsa, step, label, bench) for label in labels]
            with arithmetic(self.precision, bench.device):
                real = self._real(net, pools, labels, draws, step, bench, single=single)
                losses, gradient = self._match(net, x, labels, real, draws, accuracy)
            refuse_divergence(losses, step, units, "lower method.lr_img or method.ce_weight")
            self._visit(x, velocity, gradient, data.num_classes)
            snapshot = partial(capture, step + 1, images=x, velocity=velocity)
            metrics = {"loss": losses.mean().item(), "network_accuracy": accuracy / 100}
            yield Progress(step + 1, self.iterations, metrics, snapshot)

        images = denormalize(x.flatten(0, 1), data.mean, data.std)
        return Synthesis(images.clamp(0, 1))

    def check(self, target: Target, counts: Sequence[int]) -> Iterator[str]:
        """Sides must be multiples of the formation, and the network must fit the images."""
        parts = max(self.formation, self.start_formation)
        if target.height % parts or target.width % parts:
            yield (
                f"images of {target.height} x {target.width} pixels cannot be cut into "
                f"{parts} x {parts} sub-images; set formation: 1 or another size"
            )
        try:
            net = _blank(target).network(self.queue.arch, 0)
        except ValueError as error:
            yield str(error)
        else:
            if any(isinstance(part, nn.BatchNorm2d) for part in net.modules()):
                yield no_batch_norm(self.name, self.queue.arch)
        smallest = min(range(len(counts)), key=lambda label: counts[label])
        if self.batch_real != "all" and self.batch_real > counts[smallest]:
            yield (
                f"batch_real is {self.batch_real} but class {smallest} has {counts[smallest]} "
                "images; set batch_real: all to take whole classes"
            )
        if sum(counts) < self.queue.batch:
            yield f"queue.batch is {self.queue.batch} but there are {sum(counts)} training images"
        for label, count in enumerate(counts):
            if self.spread and count < 2:
                yield f"class {label} has {count} training image; a deviation needs two"

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """The iterations of all calls, and the queue, which is made in whole segments."""
        calls = -(-target.num_classes // self.together)
        real = sum(self._batch(count) for count in counts)
        synthetic = target.num_classes * target.ipc * self.formation**2
        queue = self.queue
        steps = -(-self.iterations // SEGMENT) * SEGMENT * queue.fetch * queue.train_steps
        trained = CostPart(
            "queue of networks",
            steps,
            queue.batch,
            backward=True,
            shared=True,
            stored=self._stored(target),
        )
        return Cost(
            self.iterations * calls,
            queue.arch,
            forward=max(1, real // calls),
            backward=max(1, synthetic // calls),
            trained=trained,
        )

    def _stored(self, target: Target) -> int:
        """Bytes of the queue at most: a network per draw, and the last state with its momentum."""
        queue = self.queue
        draws = -(-self.iterations // SEGMENT) * SEGMENT // queue.stride
        born = queue.start + -(-self.iterations // queue.generate_every)
        net = _blank(target).network(queue.arch, 0)
        parameters = sum(p.numel() for p in net.parameters())
        return 4 * parameters * (draws + 2 * min(born, queue.capacity))

    def _batch(self, count: int) -> int:
        """Real images that a class of `count` gives."""
        return count if self.batch_real == "all" else min(self.batch_real, count)

    def _start(self, unit: WorkUnit, bench: Workbench) -> Tensor:
        """The first mosaics of a class, normalised: [n, C, H, W]."""
        data, label, count = bench.data, unit.slots[0].label, len(unit.slots)
        generator = bench.generator("init", label)
        if self.init == "noise":
            shape = (count, data.channels, data.height, data.width)
            return torch.randn(shape, generator=generator)
        pool, parts = data.rows_of(label), self.start_formation
        wanted = count * parts**2
        if parts == 1 and wanted <= len(pool):
            rows = pool[torch.randperm(len(pool), generator=generator)[:wanted]]
        else:  # sub-images are drawn one by one, so a real image may come twice
            rows = pool[torch.randint(len(pool), (wanted,), generator=generator)]
        return pack(normalize(data.images(rows), data.mean, data.std), parts)

    def _embed(self, net: Classifier, x: Tensor) -> Tensor:
        """Phi of normalised images [n, C, H, W]: [n, D]."""
        embed = torch.compile(net.features_normalized) if self.compile else net.features_normalized
        return embed(x)

    @torch.no_grad()
    def _real(
        self,
        net: Classifier,
        pools: Sequence[Tensor],
        labels: Sequence[int],
        draws: Sequence[DsaParams | None],
        step: int,
        bench: Workbench,
        *,
        single: bool,
    ) -> Moments:
        """Mean and deviation of the features of a fresh batch of each class.

        As many classes as `span` allows go through the network at once.
        Where there is a `single` whole image per class, only the `EASIEST` real ones count.
        """
        found: list[Moments] = []
        sizes = [self._batch(len(pool)) for pool in pools]
        for these in passes(sizes, span(pools[0])):
            batches = []
            for pool, label, draw in zip(pools[these], labels[these], draws[these], strict=True):
                generator = bench.generator("real", step, label)
                rows = distinct(len(pool), self._batch(len(pool)), generator).to(pool.device)
                images = pool[rows].float().div_(255)
                batches.append(augment(normalize(images, bench.data.mean, bench.data.std), draw))
            parts = torch.split(torch.cat(batches), span(pools[0]))
            embedded = torch.cat([self._embed(net, part).float() for part in parts])
            own = torch.split(embedded, sizes[these])
            for features, label in zip(own, labels[these], strict=True):
                kept = _easiest(net, features, label) if single else features
                found.append(moments(kept[None], spread=self.spread))
        return Moments(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _match(
        self,
        net: Classifier,
        x: Tensor,
        labels: Sequence[int],
        real: Moments,
        draws: Sequence[DsaParams | None],
        accuracy: float,
    ) -> tuple[Tensor, Tensor]:
        """Losses of the classes, [U], and their gradient for the mosaics, like `x`.

        One pass gives features and logits.
        """
        subs = x.shape[1] * self.formation**2
        classes = max(1, span(x) // subs)  # per pass; a mean needs its class whole
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        for first in range(0, len(x), classes):
            these = slice(first, first + classes)
            mosaics = x[these].detach().requires_grad_()
            seen = torch.cat(
                [
                    augment(expand(one, self.formation), draw)
                    for one, draw in zip(mosaics, draws[these], strict=True)
                ]
            )
            features = self._embed(net, seen)
            logits = net.net.head(features).float()
            own = Moments(*(part[these] for part in real))
            loss = self.distance(own, features.float().view(len(mosaics), subs, -1))
            if self.ce_weight and accuracy:
                targets = torch.tensor(labels[these], device=x.device).repeat_interleave(subs)
                nats = functional.cross_entropy(logits, targets, reduction="none")
                if subs == 1:  # a single whole image: only while it is misclassified
                    nats = nats * (logits.argmax(dim=1) != targets)
                loss = loss + self.ce_weight * accuracy * nats.view(-1, subs).mean(dim=1)
            gradients += torch.autograd.grad(loss.sum(), mosaics)
            losses.append(loss.detach())
        return torch.cat(losses), torch.cat(gradients)

    @torch.no_grad()
    def _visit(self, x: Tensor, velocity: Tensor, gradient: Tensor, num_classes: int) -> None:
        """The step of a class and what momentum does to it in the steps of the other classes.

        v <- m v + g; x <- x - lr v; then, with g = 0, num_classes - 1 times the same: together
        x <- x - lr v (1 + m + ... + m^(K-1)) and v <- m^(K-1) v.
        """
        velocity.mul_(self.momentum).add_(gradient)
        idle = sum(self.momentum**turn for turn in range(num_classes))
        x.sub_(velocity, alpha=self.lr_img * idle)
        velocity.mul_(self.momentum ** (num_classes - 1))


class _Film:
    """The queue's networks, iteration by iteration, from segments that are made when missing."""

    def __init__(self, spec: QueueSpec, bench: Workbench) -> None:
        self._spec, self._bench = spec, bench
        self._net: Classifier | None = None
        self._folders: list[Path] = []
        self._segment: Segment | None = None
        self._reset = -1
        self._then: dict[int, Meter] = {}
        self._data: RealPixels | None = None

    def network(self, iteration: int) -> tuple[Classifier, float]:
        """The frozen network of an iteration and its accuracy since the last reset, in percent."""
        reset = iteration - iteration % self._spec.reset_every
        if reset != self._reset:
            self._reset, self._then = reset, self._at(reset).meters(reset)
        segment = self._at(iteration)
        drawn = segment.drawn(iteration)
        if self._net is None:
            self._net = self._pixels().network(self._spec.arch, 0).freeze()
        put(self._net, drawn.weights)
        then = self._then.get(drawn.born, Meter())  # it may be younger than the reset
        return self._net, segment.meters(iteration)[drawn.born].percent_since(then)

    def _at(self, iteration: int) -> Segment:
        """The segment of an iteration."""
        first = iteration - iteration % SEGMENT
        if self._segment is None or self._segment.first != first:
            self._segment = Segment(self._folder(first), first, self._spec.stride)
        return self._segment

    def _folder(self, first: int) -> Path:
        """The segment that begins with an iteration, after all before it: what exists is opened.

        The state that a segment went on from is of no more use once the segment is there.
        """
        for start in range(len(self._folders) * SEGMENT, first + 1, SEGMENT):
            before = self._folders[-1] if self._folders else None
            self._folders.append(self._made(start, before))
            if before is not None:
                (before / STATE).unlink(missing_ok=True)
        return self._folders[first // SEGMENT]

    def _made(self, first: int, before: Path | None) -> Path:
        def build(folder: Path) -> None:
            write_segment(self._spec, self._pixels(), first, before, folder)

        return self._bench.resource("queue", segment_key(self._spec, first), build)

    def _pixels(self) -> RealPixels:
        if self._data is None:
            data, device = self._bench.data, self._bench.device
            pixels = data.pixels(torch.arange(len(data))).to(device)
            labels = data.labels.to(device)
            self._data = RealPixels(pixels, labels, data.num_classes, data.mean, data.std)
        return self._data


def _blank(target: Target) -> RealPixels:
    """One black image of the kind that a recipe makes, to size networks by."""
    half = (0.5,) * target.channels
    pixels = torch.zeros(1, target.channels, target.height, target.width, dtype=torch.uint8)
    return RealPixels(pixels, torch.zeros(1), target.num_classes, half, half)


def _easiest(net: Classifier, features: Tensor, label: int) -> Tensor:
    """The features of the `EASIEST` images with the smallest loss under the network."""
    logits = net.net.head(features).float()
    targets = torch.full((len(features),), label, device=features.device)
    nats = functional.cross_entropy(logits, targets, reduction="none")
    return features[nats.argsort(stable=True)[:EASIEST]]
