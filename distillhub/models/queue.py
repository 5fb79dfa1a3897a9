"""IDM's queue of partially trained networks, as a film that any synthesis can play.

The networks of the queue train on real images alone, so what it does never depends on the synthetic
ones. It is run once, in segments of `SEGMENT` iterations; each keeps the network that every
iteration draws for matching, as it was then, what all have predicted so far, and the state from
which the next segment goes on.

Source: Zhao et al., Improved Distribution Matching for Dataset Condensation (CVPR 2023), section
4.2, with the constants of the authors' code.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distillhub.models.classifier import Classifier
from distillhub.models.specs import Arch
from distillhub.models.zoo import build
from distillhub.ops.losses import cross_entropy
from distillhub.ops.pixels import normalize
from distillhub.ops.selection import distinct
from distillhub.spec import Spec
from distillhub.units import derive_seed

SEGMENT = 50
"""Iterations per stored part: what a killed build loses of the queue at most."""
VERSION = 1
"""Of what segments hold and of how their networks are made: goes up with a change of either."""
NETWORKS, STATE = "networks.safetensors", "state.safetensors"


class QueueSpec(Spec):
    """The queue: which networks, and how they come, train and go."""

    arch: Arch = "convnet3"
    start: int = Field(default=3, gt=0)
    """Fresh networks before the first iteration."""
    generate_every: int = Field(default=30, gt=0)
    """Iterations between new networks; the first iteration adds one, too."""
    capacity: int = Field(default=100, gt=0)
    """A new network in a full queue drives out the oldest."""
    fetch: int = Field(default=2, gt=0)
    """Networks that train in every iteration, drawn uniformly."""
    train_steps: int = Field(default=10, ge=0)
    """Optimizer steps of each of them."""
    batch: int = Field(default=256, gt=0)
    """Real images per step, all different, of all classes, without augmentation."""
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    reset_every: int = Field(default=100, gt=0)
    """Iterations between resets of the accuracy meters (the authors' evaluation interval). No
    network depends on it: recipes that differ in it share the queue."""
    stride: Literal[1, 2, 5, 10, 25, 50] = 1
    """Iterations that match with one draw. The authors draw in each; more saves disk, one network
    in float32 per draw. Its meter goes on in every iteration."""
    seed: int = Field(default=0, ge=0)
    """Of the queue alone: syntheses with other seeds share it."""

    @model_validator(mode="after")
    def _start_fits(self) -> "QueueSpec":
        if self.start > self.capacity:
            raise ValueError(
                f"start is {self.start} but capacity is {self.capacity}; "
                "raise capacity or lower start"
            )
        return self


class RealPixels(NamedTuple):
    """What the networks train on."""

    pixels: Tensor
    """uint8 [N, C, H, W] on the device."""
    labels: Tensor
    """[N] int64 on the device."""
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def network(self, arch: str, seed: int) -> Classifier:
        """A fresh network for these images."""
        channels, height, width = (int(side) for side in self.pixels.shape[1:])
        return build(
            arch,
            num_classes=self.num_classes,
            channels=channels,
            height=height,
            width=width,
            mean=self.mean,
            std=self.std,
            seed=seed,
        ).to(self.pixels.device)


class Meter(NamedTuple):
    """What a network predicted of its batches since it was made."""

    right: int = 0
    seen: int = 0

    def percent_since(self, then: "Meter") -> float:
        """Running accuracy from then on, percent; 0 where it has not trained since."""
        seen = self.seen - then.seen
        return 100 * (self.right - then.right) / seen if seen else 0.0


@dataclass
class Member:
    """One network of the queue."""

    born: int
    """Number of the network, from 0."""
    net: Classifier
    optimizer: torch.optim.Optimizer
    meter: Meter = field(default_factory=Meter)
    steps: int = 0


@dataclass
class Queue:
    """The queue between two iterations."""

    spec: QueueSpec
    data: RealPixels
    members: list[Member]
    """Oldest first."""
    born: int
    """Networks made so far."""

    @classmethod
    def begin(cls, spec: QueueSpec, data: RealPixels) -> "Queue":
        """Before the first iteration."""
        queue = cls(spec, data, [], 0)
        for _ in range(spec.start):
            queue._add()
        return queue

    def iterations(self, first: int, count: int) -> Iterator[tuple[int, Member]]:
        """Iterations first .. first + count - 1, each with the member drawn for matching.

        The member is as it is before the training of its iteration, which follows when the
        iterator goes on.
        """
        for iteration in range(first, first + count):
            if iteration % self.spec.generate_every == 0:
                if len(self.members) == self.spec.capacity:
                    self.members.pop(0)
                self._add()
            yield iteration, self._drawn("match", iteration, 1)[0]
            for place, member in enumerate(self._drawn("fetch", iteration, self.spec.fetch)):
                for step in range(self.spec.train_steps):
                    self._train(member, iteration, place, step)

    def _generator(self, *names: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.spec.seed, "queue", *names))

    def _drawn(self, purpose: str, iteration: int, count: int) -> list[Member]:
        """Different members, uniformly; all of them where there are fewer."""
        generator = self._generator(purpose, iteration)
        order = torch.randperm(len(self.members), generator=generator)[:count]
        return [self.members[int(place)] for place in order]

    def _add(self) -> None:
        seed = self._generator("net", self.born).initial_seed()
        net = self.data.network(self.spec.arch, seed)
        self.members.append(Member(self.born, net, self._optimizer(net)))
        self.born += 1

    def _optimizer(self, net: Classifier) -> torch.optim.Optimizer:
        spec = self.spec
        return torch.optim.SGD(
            net.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
        )

    def _train(self, member: Member, iteration: int, place: int, step: int) -> None:
        """One step on real images; the meter counts the predictions before it."""
        data = self.data
        generator = self._generator("batch", iteration, place, step)
        rows = distinct(len(data.labels), self.spec.batch, generator).to(data.labels.device)
        images = data.pixels[rows].float().div_(255)
        logits = member.net.normalized(normalize(images, data.mean, data.std))
        labels = data.labels[rows]
        member.optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(logits, labels))
        member.optimizer.step()
        right = int((logits.argmax(1) == labels).sum())
        member.meter = Meter(member.meter.right + right, member.meter.seen + len(labels))
        member.steps += 1


# ---- segments on disk


def segment_key(spec: QueueSpec, first: int) -> dict[str, object]:
    """What the segment that begins with an iteration depends on, besides the data."""
    made = spec.model_dump(mode="json", exclude={"reset_every"})  # meters are reset on reading
    return {"version": VERSION, "spec": made, "first": first, "length": SEGMENT}


def write_segment(
    spec: QueueSpec, data: RealPixels, first: int, before: Path | None, folder: Path
) -> None:
    """Run iterations first .. first + SEGMENT - 1 and write what they draw and how they end.

    Args:
        spec: The queue.
        data: What its networks train on.
        first: A multiple of `SEGMENT`.
        before: The folder of the segment before; None for the first.
        folder: An empty one.
    """
    queue = _at(spec, data, first, before)
    places: dict[tuple[int, int], int] = {}
    weights: list[Tensor] = []
    draws: list[tuple[int, int]] = []
    meters: list[tuple[int, int, int, int]] = []
    held: list[Member] = []
    for iteration, member in queue.iterations(first, SEGMENT):
        if iteration % spec.stride == 0:
            version = (member.born, member.steps)
            if version not in places:
                places[version] = len(weights)
                weights.append(_flat(member.net))
            draws.append((places[version], member.born))
            held = [member]  # its meter is asked for even when it has left the queue
        known = {one.born: one.meter for one in held + queue.members}
        meters += [(iteration, born, *meter) for born, meter in known.items()]
    save_file(
        {
            "weights": torch.stack(weights),
            "draws": torch.tensor(draws),
            "meters": torch.tensor(meters),
        },
        folder / NETWORKS,
    )
    _write_state(queue, folder)


def _at(spec: QueueSpec, data: RealPixels, first: int, before: Path | None) -> Queue:
    """The queue before an iteration; run again from the start where its state was removed."""
    if before is not None and (before / STATE).exists():
        return _read_state(spec, data, before)
    queue = Queue.begin(spec, data)
    for _ in queue.iterations(0, first):
        pass
    return queue


class Drawn(NamedTuple):
    """What an iteration matches with."""

    weights: Tensor
    """[P] float32, all parameters one after another."""
    born: int
    """Number of the network."""


class Segment:
    """A stored part of the queue."""

    def __init__(self, folder: Path, first: int, stride: int) -> None:
        self.first = first
        self._stride = stride
        self._file = safe_open(folder / NETWORKS, "pt")
        self._draws: list[list[int]] = self._read("draws").tolist()
        self._meters: dict[int, dict[int, Meter]] = {}
        for iteration, born, right, seen in self._read("meters").tolist():
            self._meters.setdefault(iteration, {})[born] = Meter(right, seen)

    def drawn(self, iteration: int) -> Drawn:
        """The network of an iteration of this segment."""
        row, born = self._draws[(iteration - self.first) // self._stride]
        weights = self._file.get_slice("weights")[row : row + 1]  # type: ignore[no-untyped-call]
        return Drawn(weights[0], born)

    def meters(self, iteration: int) -> dict[int, Meter]:
        """The meters before an iteration trains, by the numbers of the networks.

        Those of the queue, and that of the network which the iteration matches with.
        """
        return self._meters[iteration]

    def _read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor


def put(net: Classifier, weights: Tensor) -> None:
    """Give a network the weights of a draw, in place."""
    torch.nn.utils.vector_to_parameters(weights.to(next(net.parameters()).device), net.parameters())


def _flat(net: Classifier) -> Tensor:
    return torch.nn.utils.parameters_to_vector(net.parameters()).detach().cpu().clone()


def _write_state(queue: Queue, folder: Path) -> None:
    tensors, facts = {}, []
    for member in queue.members:
        tensors[f"{member.born}/weights"] = _flat(member.net)
        slots = [member.optimizer.state[p].get("momentum_buffer") for p in member.net.parameters()]
        if all(slot is not None for slot in slots):
            tensors[f"{member.born}/momentum"] = torch.cat([s.flatten() for s in slots]).cpu()
        facts.append([member.born, *member.meter, member.steps])
    header = json.dumps({"born": queue.born, "members": facts})
    save_file(tensors, folder / STATE, metadata={"queue": header})


def _read_state(spec: QueueSpec, data: RealPixels, folder: Path) -> Queue:
    with safe_open(folder / STATE, "pt") as file:
        header = json.loads((file.metadata() or {})["queue"])
        queue = Queue(spec, data, [], header["born"])
        names = set(file.keys())
        for born, right, seen, steps in header["members"]:
            net = data.network(spec.arch, 0)
            put(net, file.get_tensor(f"{born}/weights"))
            optimizer = queue._optimizer(net)
            if f"{born}/momentum" in names:
                flat = file.get_tensor(f"{born}/momentum").to(data.pixels.device)
                sizes = [p.numel() for p in net.parameters()]
                for p, part in zip(net.parameters(), flat.split(sizes), strict=True):
                    optimizer.state[p]["momentum_buffer"] = part.view_as(p).clone()
            queue.members.append(Member(born, net, optimizer, Meter(right, seen), steps))
    return queue
