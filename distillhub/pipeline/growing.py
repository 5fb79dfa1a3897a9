"""Resources that take long: they report progress and go on where they were cut."""

import os
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from distillhub.ops.progress import MARK, Progress, State, marked
from distillhub.pipeline.store import COMPLETE, locked, stored

Writer = Callable[[Path], None]
"""Writes a result into an empty folder."""


def grown(
    root: Path,
    key: str,
    grow: Callable[[State | None], Generator[Progress, None, Writer]],
    state: State | None,
) -> Generator[Progress, None, Path]:
    """The folder `root/key`, made by `grow` unless it is there; see `Workbench.grown`.

    One process at a time makes it; others wait.

    Args:
        root: Where resources are kept.
        key: Name of the folder, and mark of the snapshots.
        grow: Is given its own snapshot, or None, and returns what writes the result.
        state: A snapshot to go on from; one that is not marked with `key` is left alone.
    """
    folder = root / key
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f"{key}.growing.lock"):
        if not (folder / COMPLETE).exists():
            mine = state if state is not None and state.get(MARK) == key else None
            with closing(grow(mine)) as work:
                write = yield from _marked(work, key)
            stored(root, key, write)
    os.utime(folder)  # `distillhub clean` goes by the last use
    return folder


def _marked(work: Generator[Progress, None, Writer], key: str) -> Generator[Progress, None, Writer]:
    while True:
        try:
            report = next(work)
        except StopIteration as end:
            write: Writer = end.value
            return write
        yield marked(report, key)
