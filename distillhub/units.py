"""What is to be made: slots, the groups that belong together, and their seeds."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Slot(NamedTuple):
    """One image to be made."""

    label: int
    """Class index."""
    number: int
    """0 .. ipc-1."""


class Group(NamedTuple):
    """Slots that a method must make together."""

    name: str
    """Stable; names the checkpoint: "class-0007", "block-0042", "all"."""
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class WorkUnit:
    """A group with its seed: the grain of sharding and of resume."""

    name: str
    slots: tuple[Slot, ...]
    seed: int


class Target(NamedTuple):
    """What a recipe asks a method for; sizes in pixels."""

    num_classes: int
    ipc: int
    channels: int
    height: int
    width: int


def derive_seed(*names: str | int) -> int:
    """A seed in [0, 2**63) that depends on the names and on nothing else.

    The names are hashed as a JSON list, so ("a", 1) and ("a", "1") differ.
    """
    digest = hashlib.sha256(json.dumps(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def by_class(target: Target) -> Iterator[Group]:
    """One group per class: for methods whose classes do not see one another."""
    for label in range(target.num_classes):
        slots = tuple(Slot(label, number) for number in range(target.ipc))
        yield Group(f"class-{label:04d}", slots)


def all_together(target: Target) -> Iterator[Group]:
    """A single group: for methods that couple all images."""
    slots = (Slot(c, n) for c in range(target.num_classes) for n in range(target.ipc))
    yield Group("all", tuple(slots))
