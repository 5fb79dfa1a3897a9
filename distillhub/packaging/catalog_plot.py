"""Accuracy against bytes as an inline SVG, and the sets that no other one beats in both."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distillhub.packaging.catalog import Entry

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 48
"""Margins, in units of the drawing."""
STEPS = (1, 2, 5)
MOST_MARKS = 6
CROWD = 20
"""Of more points only the best have a number."""
NEAR = 8
"""Points so many units apart share a label."""
LEAST_SPAN = 0.05
"""Of the accuracy axis: smaller differences are not blown up."""


class Point(NamedTuple):
    """A set in the plot."""

    number: int
    """In the table below the plot, from 1 on."""
    entry: Entry
    nbytes: int
    top1: float
    interval: tuple[float, float] | None
    best: bool
    """No other set has fewer bytes and at least its accuracy."""


class Label(NamedTuple):
    """Numbers beside points that lie together."""

    x: float
    y: float
    text: str


class Mark(NamedTuple):
    """A tick of an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Sets that may be compared: one source, protocol and student."""

    key: str
    """For ids of the page."""
    title: str
    points: tuple[Point, ...]

    @property
    def sentence(self) -> str:
        """What the plot shows, in words."""
        best = [point for point in self.points if point.best]
        names = ", ".join(
            f"{p.entry.name} with {100 * p.top1:.1f} % in {p.nbytes:,} bytes" for p in best
        )
        sets = "1 set" if len(self.points) == 1 else f"{len(self.points)} sets"
        return f"{sets}; best for their size: {names}."

    def x(self, nbytes: float) -> float:
        """Place of a number of bytes, on a logarithmic axis."""
        low, high = self._sizes
        share = (math.log(max(nbytes, 1)) - math.log(low)) / (math.log(high) - math.log(low))
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y(self, top1: float) -> float:
        """Place of an accuracy."""
        low, high = self._range
        return round(TOP + (high - top1) / (high - low) * (HEIGHT - TOP - BOTTOM), 2)

    @property
    def front(self) -> str:
        """The staircase through the best sets, as a path."""
        best = sorted((p for p in self.points if p.best), key=lambda p: (p.nbytes, p.top1))
        if not best:
            return ""
        parts = [f"M {self.x(best[0].nbytes)} {self.y(best[0].top1)}"]
        parts += [f"H {self.x(point.nbytes)} V {self.y(point.top1)}" for point in best[1:]]
        return " ".join([*parts, f"H {WIDTH - RIGHT}"])

    @property
    def labels(self) -> tuple[Label, ...]:
        """Numbers of the points, of crowds those of the best alone; one label where points meet."""
        crowd = len(self.points) > CROWD
        places: dict[tuple[int, int], list[Point]] = {}
        for point in self.points:
            if point.best or not crowd:
                x, y = self.x(point.nbytes), self.y(point.top1)
                places.setdefault((round(x / NEAR), round(y / NEAR)), []).append(point)
        return tuple(
            Label(
                self.x(found[0].nbytes),
                self.y(found[0].top1),
                ", ".join(str(point.number) for point in found),
            )
            for found in places.values()
        )

    @property
    def x_marks(self) -> tuple[Mark, ...]:
        """1, 2 and 5 times powers of ten; powers alone over a wide range."""
        low, high = self._sizes
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        found: list[int] = []
        for steps in (STEPS, (1,)):
            sizes = [step * 10**power for power in range(first, last + 1) for step in steps]
            found = [size for size in sizes if low <= size <= high]
            if len(found) <= MOST_MARKS:
                break
        return tuple(Mark(self.x(size), short_bytes(size)) for size in found)

    @property
    def y_marks(self) -> tuple[Mark, ...]:
        """Round percentages."""
        low, high = self._range
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 7)
        first = math.ceil(round(low / step, 6))
        found = []
        while first * step <= high + 1e-9:
            found.append(Mark(self.y(first * step), f"{100 * first * step:.0f}"))
            first += 1
        return tuple(found)

    @property
    def _sizes(self) -> tuple[float, float]:
        sizes = [max(point.nbytes, 1) for point in self.points]
        return min(sizes) / 1.4, max(sizes) * 1.4

    @property
    def _range(self) -> tuple[float, float]:
        values = [value for p in self.points for value in (p.top1, *(p.interval or ()))]
        low, high = max(0.0, min(values)), min(1.0, max(values))
        room = max(LEAST_SPAN, high - low) * 0.1
        middle = (low + high) / 2
        half = max(LEAST_SPAN, high - low) / 2 + room
        return max(0.0, middle - half), min(1.0, middle + half)


def plots(entries: Iterable[Entry]) -> tuple[Plot, ...]:
    """A plot for every group of sets that were scored in the same way; unscored ones are left out.

    The accuracy is that with the labels that a set is sold with; protocol, student and source must
    be equal.
    """
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.sold is not None and entry.bytes_total is not None and entry.headline is not None:
            regime = "hard" if entry.report.labels.dtype is None else "soft_stored"
            protocol = entry.headline.protocols.get(regime, "")  # type: ignore[call-overload]
            key = (entry.report.source.id, f"{protocol}, {entry.headline.arch}")
            groups.setdefault(key, []).append(entry)
    return tuple(
        Plot(f"plot-{number}", f"{source}: {scored}", _points(found))
        for number, ((source, scored), found) in enumerate(sorted(groups.items()), 1)
    )


def short_bytes(count: float) -> str:
    """812 B, 3.4 kB, 27.7 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def beaten(size: int, top1: float, others: Iterable[tuple[int, float]]) -> bool:
    """Whether another set, of bytes and accuracy, is as good in both and better in one."""
    return any(
        other <= size and value >= top1 and (other < size or value > top1)
        for other, value in others
    )


def _points(entries: Sequence[Entry]) -> tuple[Point, ...]:
    known = [
        (entry, entry.bytes_total or 0, entry.sold.value or 0.0, entry.sold.ci95)
        for entry in entries
        if entry.sold is not None
    ]
    places = [(size, top1) for _, size, top1, _ in known]
    return tuple(
        Point(number, entry, size, top1, interval, not beaten(size, top1, places))
        for number, (entry, size, top1, interval) in enumerate(known, 1)
    )
