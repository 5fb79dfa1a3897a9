"""IDM and BACON against the published loop, with and without the training of their queue.

The reference is the published loop in plain PyTorch: the queue's networks train within the
iteration, then one class after the other is matched and takes a step of its own; instance norm as
`GroupNorm(C, C)`. Spared are only the weight gradients in matching and the second forward pass of
the synthetic images, which the published code computes and nobody needs. It is compared with the
methods as the pipeline runs them: the first recipe makes the queue, the second finds it made. Both
meet the same networks, batches, augmentations and first images; losses must agree.

Source: Zhao et al., Improved Distribution Matching for Dataset Condensation (CVPR 2023), section
4; Zhou et al., BACON (arXiv 2406.01112); the constants are those of their commands for CIFAR-10
with 10 images per class.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.matching_dm import SHAPES, Shape
from distillhub.data.real import RealData
from distillhub.digests import fingerprint
from distillhub.methods import _distribution
from distillhub.methods._distribution import QueueMatching
from distillhub.methods.bacon import BACON
from distillhub.methods.idm import IDM
from distillhub.models import queue as film
from distillhub.models.queue import Queue, QueueSpec, RealPixels
from distillhub.models.zoo import Classifier
from distillhub.ops.augment import apply_dsa, draw_dsa
from distillhub.ops.bayes import bayesian_loss, moments
from distillhub.ops.formation import expand
from distillhub.ops.selection import distinct
from distillhub.units import Target, WorkUnit, derive_seed

CLASSES, IPC, PER_CLASS = 10, 10, 1000
METHODS: dict[str, type[QueueMatching]] = {"idm": IDM, "bacon": BACON}
FILTERS = 128


class Bench:
    """A workbench over noise; resources go to a folder."""

    def __init__(self, channels: int, side: int, folder: Path) -> None:
        generator = self.generator("noise")
        labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
        size = (len(labels), channels, side, side)
        pixels = torch.randint(256, size, dtype=torch.uint8, generator=generator)
        names = [f"class {label}" for label in range(CLASSES)]
        mean, std = (0.5,) * channels, (0.29,) * channels
        self.data = RealData.in_memory(pixels, labels, names, mean=mean, std=std)
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.folder = folder
        self.queue_seconds = 0.0

    def generator(self, *names: str | int) -> torch.Generator:
        """From the names alone."""
        return torch.Generator().manual_seed(derive_seed(*names))

    def network(self, role: str) -> Classifier:
        """There is none."""
        raise KeyError(role)

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """Built once; the seconds that this takes are those of the queue."""
        place = self.folder / f"{name}-{fingerprint(key)[:16]}"
        if not place.exists():
            place.mkdir()
            begin = time.perf_counter()
            build(place)
            self.queue_seconds += time.perf_counter() - begin
        return place


class Step(NamedTuple):
    """One iteration of the published loop."""

    loss: float
    """Mean over classes."""
    queue_seconds: float
    match_seconds: float


def plain_network(source: Classifier) -> nn.Sequential:
    """The same network from PyTorch's own layers."""
    layers: list[nn.Module] = []
    channels = source.input_shape[0]
    for block in range(3):
        padding = 3 if not block and channels == 1 else 1
        layers.append(nn.Conv2d(FILTERS if block else channels, FILTERS, 3, padding=padding))
        layers += [nn.GroupNorm(FILTERS, FILTERS), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(source.embed_dim, source.num_classes)]
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), source.net.parameters(), strict=True):
            ours.copy_(theirs)
    return net


def run_plain(method: QueueMatching, bench: Bench, start: Tensor) -> Generator[Step, None, None]:
    """The published loop; its networks are plain, its queue is drawn as ours."""
    data, spec = bench.data, method.queue
    mean, std = data.mean[0], data.std[0]
    x = ((start - mean) / std).view(CLASSES, IPC, *start.shape[1:]).clone().requires_grad_()
    optimizer = torch.optim.SGD([x], lr=method.lr_img, momentum=method.momentum)
    everything = (data.images(torch.arange(len(data))) - mean) / std
    order = _orders(spec, data, method.iterations)
    nets: dict[int, nn.Sequential] = {}
    trainers: dict[int, torch.optim.Optimizer] = {}
    meters: dict[int, list[int]] = {}
    for iteration in range(method.iterations):
        matched, fetched, members = order[iteration]
        for born, source in members.items():
            if born not in nets:
                nets[born], meters[born] = plain_network(source), [0, 0]
                trainers[born] = torch.optim.SGD(
                    nets[born].parameters(),
                    lr=spec.lr,
                    momentum=spec.momentum,
                    weight_decay=spec.weight_decay,
                )
        begin = time.perf_counter()
        right, seen = meters[matched]
        loss = _match(
            method, bench, nets[matched], x, optimizer, iteration, 100 * right / max(1, seen)
        )
        middle = time.perf_counter()
        for place, born in enumerate(fetched):
            for step in range(spec.train_steps):
                generator = torch.Generator().manual_seed(
                    derive_seed(spec.seed, "queue", "batch", iteration, place, step)
                )
                rows = distinct(len(data), spec.batch, generator)
                logits = nets[born](everything[rows])
                trainers[born].zero_grad()
                torch.autograd.backward(functional.cross_entropy(logits, data.labels[rows]))
                trainers[born].step()
                meters[born][0] += int((logits.argmax(1) == data.labels[rows]).sum())
                meters[born][1] += spec.batch
        yield Step(loss, time.perf_counter() - middle, middle - begin)


def _orders(
    spec: QueueSpec, data: RealData, iterations: int
) -> list[tuple[int, list[int], dict[int, Classifier]]]:
    """Who is drawn when, from a queue of ours that does not train."""
    rows = torch.arange(len(data))
    pixels = RealPixels(data.pixels(rows), data.labels, CLASSES, data.mean, data.std)
    idle = Queue.begin(spec.model_copy(update={"train_steps": 0}), pixels)
    found = []
    for iteration, member in idle.iterations(0, iterations):
        fetched = [m.born for m in idle._drawn("fetch", iteration, spec.fetch)]
        found.append((member.born, fetched, {m.born: m.net for m in idle.members}))
    return found


def _match(
    method: QueueMatching,
    bench: Bench,
    net: nn.Sequential,
    x: Tensor,
    optimizer: torch.optim.Optimizer,
    iteration: int,
    accuracy: float,
) -> float:
    """All classes, one step each; the mean loss."""
    data, embed, head = bench.data, net[:-1], net[-1]
    mean, std = data.mean[0], data.std[0]
    side, losses = x.shape[-1], []
    net.requires_grad_(requires_grad=False)
    for label in range(CLASSES):
        own = data.rows_of(label)
        rows = distinct(len(own), 256, bench.generator("real", iteration, label))
        draw = draw_dsa(str(method.dsa), (side, side), bench.generator("dsa", iteration, label))
        with torch.no_grad():
            real = embed(apply_dsa((data.images(own[rows]) - mean) / std, draw))
        features = embed(apply_dsa(expand(x[label], method.formation), draw))
        if isinstance(method, BACON):
            loss = bayesian_loss(moments(real[None]), features[None])[0]
        else:
            loss = (features.mean(dim=0) - real.mean(dim=0)).square().sum()
        targets = torch.full((len(features),), label)
        if accuracy:
            nats = functional.cross_entropy(head(features), targets)
            loss = loss + method.ce_weight * accuracy * nats
        optimizer.zero_grad(set_to_none=False)
        (x.grad,) = torch.autograd.grad(loss, x)
        optimizer.step()
        losses.append(loss.item())
    net.requires_grad_(requires_grad=True)
    return statistics.fmean(losses)


def units_of(method: QueueMatching, bench: Bench) -> list[WorkUnit]:
    """All classes."""
    data = bench.data
    target = Target(CLASSES, IPC, data.channels, data.height, data.width)
    return [WorkUnit(group.name, group.slots, 0) for group in method.plan(target)]


def run_ours(method: QueueMatching, bench: Bench) -> Generator[tuple[float, float], None, Tensor]:
    """Loss and seconds of each iteration, without those of the queue; returns the images."""
    run = method.synthesize(units_of(method, bench), bench)
    while True:
        begin, before = time.perf_counter(), bench.queue_seconds
        try:
            report = next(run)
        except StopIteration as end:
            images: Tensor = end.value.images
            return images
        seconds = time.perf_counter() - begin - (bench.queue_seconds - before)
        yield report.metrics["loss"], seconds


def compare(name: str, shape: str, iterations: int, segment: int) -> dict[str, float]:
    """Median seconds per iteration; the first is warm-up.

    Args:
        name: `idm` or `bacon`.
        shape: One of `SHAPES`.
        iterations: To measure.
        segment: Iterations of the queue to make.
    """
    film.SEGMENT = _distribution.SEGMENT = segment
    method = METHODS[name](iterations=iterations + 1, queue=QueueSpec())
    with tempfile.TemporaryDirectory() as folder:
        images = SHAPES[shape]
        return _compare(images, method, Bench(images.channels, images.side, Path(folder)))


def _compare(shape: Shape, method: QueueMatching, bench: Bench) -> dict[str, float]:
    still = method.model_copy(update={"iterations": 1, "lr_img": 1e-20})
    start = run_ours(still, bench)
    images = None
    while images is None:
        try:
            next(start)
        except StopIteration as end:
            images = end.value
    queue_seconds = bench.queue_seconds / film.SEGMENT
    ours, plain = run_ours(method, bench), run_plain(method, bench, images)
    pairs = [(next(ours), next(plain)) for _ in range(method.iterations)]
    matching = statistics.median(seconds for (_, seconds), _ in pairs[1:])
    theirs = statistics.median(s.queue_seconds + s.match_seconds for _, s in pairs[1:])
    real, synthetic = CLASSES * 256, CLASSES * IPC * method.formation**2
    trained = method.queue.fetch * method.queue.train_steps * method.queue.batch
    flop = 2 * shape.multiply_adds
    return {
        "published_loop": theirs,
        "published_loop_queue": statistics.median(s.queue_seconds for _, s in pairs[1:]),
        "distillhub_matching": matching,
        "distillhub_queue": queue_seconds,
        "speedup_first_recipe": theirs / (matching + queue_seconds),
        "speedup_second_recipe": theirs / matching,
        "gflop_published": flop * (real + 3 * synthetic + 3 * trained) / 1e9,
        "gflop_second_recipe": flop * (real + 3 * synthetic) / 1e9,
        "largest_relative_loss_difference": max(abs(a[0] - b.loss) / abs(b.loss) for a, b in pairs),
    }
