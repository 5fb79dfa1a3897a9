"""What the command line prints goes through one object: rich on a terminal, else plain lines."""

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from distillhub.errors import DistillhubError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PLAIN_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


class Output:
    """Words, tables and errors for the user; data on stdout, errors on stderr."""

    def __init__(self, stream: TextIO, errors: TextIO) -> None:
        self._stream = stream
        self._errors = errors

    @property
    def _terminal(self) -> bool:
        return self._stream.isatty()

    def say(self, text: str = "") -> None:
        """A line of plain text; markup is not read."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def heading(self, text: str) -> None:
        """The title of what follows."""
        if self._terminal:
            _console(self._stream).print(text, style="bold", markup=False, highlight=False)
        else:
            self.say(text)

    def json(self, content: object) -> None:
        """For programs."""
        self.say(json.dumps(content, indent=1, allow_nan=False))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values under one another; pairs with an empty value are left out."""
        shown = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            first, *more = value.splitlines()
            self.say(f"  {name:<{width}}  {first}")
            for line in more:
                self.say(f"  {'':<{width}}  {line}")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns; those that hold only numbers are aligned to the right."""
        content = [tuple(map(str, row)) for row in rows]
        right = [
            bool(content) and all(_is_number(row[i]) for row in content) for i in range(len(header))
        ]
        if self._terminal:
            self._rich_table(header, content, right)
            return
        columns = list(zip(header, *content, strict=True))
        widths = [max(map(len, column)) for column in columns]
        for row in (tuple(header), *content):
            cells = [
                cell.rjust(w) if r else cell.ljust(w)
                for cell, w, r in zip(row, widths, right, strict=True)
            ]
            self.say("  " + "  ".join(cells).rstrip())

    def _rich_table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
    ) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name, is_right in zip(header, right, strict=True):
            table.add_column(Text(name), justify="right" if is_right else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        _console(self._stream).print(table)

    def next(self, *commands: str) -> None:
        """What the user may want to type now."""
        self.say("next:")
        for command in commands:
            self.say(f"  {command}")

    def error(self, error: DistillhubError) -> None:
        """What is wrong, where, and how to mend it; all faults of the error."""
        self._errors.write(render_error(error))
        self._errors.flush()

    @contextlib.contextmanager
    def reporter(self) -> "Iterator[PlainReporter | RichReporter]":
        """Progress bars on a terminal, a line now and then elsewhere; for the length of a block."""
        reporter = RichReporter(self._stream) if self._terminal else PlainReporter(self._stream)
        try:
            yield reporter
        finally:
            reporter.close()


def output() -> Output:
    """The output of this process; asked for anew because tests replace the streams."""
    return Output(sys.stdout, sys.stderr)


def quoted(*words: object) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(map(str, words))


def render_error(error: DistillhubError) -> str:
    """An error as text: one fault, or all of them under a count."""
    faults = error.faults
    lines = [f"{len(faults)} faults:"] if len(faults) > 1 else []
    for fault in faults:
        lines.append(f"error: {fault.what}")
        if fault.where:
            lines.append(f"  where: {fault.where}")
        if fault.mend:
            lines.append(f"  mend:  {fault.mend}")
    return "\n".join(lines) + "\n"


def _is_number(cell: str) -> bool:
    return (
        not cell
        or cell in "-–—"
        or cell[0].isdigit()
        or (cell[0] in "+-−~<" and cell[1:2].isdigit())
    )


def duration(seconds: float) -> str:
    """0:07, 12:05, 1:02:03 or 2 d 3 h."""
    whole = round(seconds)
    if whole >= 86_400:
        return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def size(count: float) -> str:
    """Bytes for people: 812 B, 3.4 kB, 27.7 MB, 1.2 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def operations(count: float) -> str:
    """Floating-point operations for people: 0, 35 MFLOP, 4.7 TFLOP, 1,260,000 TFLOP."""
    if count >= 1e16:
        return f"{float(f'{count / 1e12:.3g}'):,.0f} TFLOP"
    for unit, scale in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f}"


def figures(metrics: Mapping[str, float]) -> str:
    """Metrics of a step in a few words."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


class Pace:
    """Time left, from the steps that this process has done itself (a resumed one starts high)."""

    def __init__(self, done: int, now: float) -> None:
        self._first = done
        self._began = now

    def left(self, done: int, total: int, now: float) -> float | None:
        """Seconds to go, or None while nothing is known."""
        if done <= self._first or now <= self._began:
            return None
        return (now - self._began) / (done - self._first) * (total - done)


class PlainReporter:
    """Lines that read well in a log: the start, one now and then, the end of each piece of work."""

    def __init__(self, stream: TextIO, every: float = PLAIN_EVERY) -> None:
        self._stream = stream
        self._every = every
        self._label = ""
        self._pace = Pace(0, 0.0)
        self._began = self._spoke = 0.0

    def stage(self, name: str, stem: str) -> None:
        """A stage begins."""
        self._write(f"[{name}] {stem}")

    def progress(self, label: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """`done` of `total` steps of the work called `label` are finished."""
        now = time.monotonic()
        if label != self._label:
            self._label, self._pace, self._began, self._spoke = label, Pace(done, now), now, now
            if done < total:
                return
        if done < total and now - self._spoke < self._every:
            return
        if done >= total and now - self._began < 1 and self._spoke == self._began:
            return  # work of less than a second is not worth a line
        self._spoke = now
        left = self._pace.left(done, total, now)
        parts = [f"  {label}: {done:,}/{total:,}", figures(metrics), duration(now - self._began)]
        if left is not None and done < total:
            parts.append(f"{duration(left)} left")
        self._write("  ".join(filter(None, parts)))

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._write(f"  {text}")

    def close(self) -> None:
        """The work has ended."""
        self._label = ""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class RichReporter:
    """One bar per piece of work, with the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._screen = _console(stream)
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._pace = Pace(0, 0.0)

    def stage(self, name: str, stem: str) -> None:
        """A stage begins."""
        self.close()
        self._screen.print(f"{name}  {stem}", style="bold", markup=False, highlight=False)

    def progress(self, label: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """`done` of `total` steps of the work called `label` are finished."""
        now = time.monotonic()
        if self._bars is None:
            self._bars = self._new_bars()
            self._bars.start()
        if label != self._label or self._task is None:
            self._finish_task()
            self._label, self._pace = label, Pace(done, now)
            self._task = self._bars.add_task(label, total=total, figures="", left="")
        left = self._pace.left(done, total, now)
        self._bars.update(
            self._task,
            completed=done,
            total=total,
            figures=figures(metrics),
            left="" if left is None or done >= total else f"{duration(left)} left",
        )

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._screen.print(f"  {text}", markup=False, highlight=False)

    def close(self) -> None:
        """The work has ended."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._task, self._label = None, None, ""

    def _finish_task(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)

    def _new_bars(self) -> "Progress":
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        return Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=self._screen,
            transient=False,
        )


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream, highlight=False)
