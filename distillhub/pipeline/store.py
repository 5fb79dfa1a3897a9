"""Things made once and shared by recipes: trained networks and the resources of methods."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from distillhub.pipeline.files import replaced_folder

COMPLETE = "complete"


def stored(
    root: Path, key: str, build: Callable[[Path], None], on_wait: Callable[[], None] | None = None
) -> Path:
    """The folder `root/key`, built by `build(empty folder)` unless it is there.

    One process at a time builds it.

    A folder that a killed process left half-made has no mark of completion and is built again.
    """
    folder = root / key
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f"{key}.lock", on_wait):
        if not (folder / COMPLETE).exists():
            with replaced_folder(folder) as fresh:
                build(fresh)
                (fresh / COMPLETE).touch()
    os.utime(folder)  # `distillhub clean` goes by the last use
    return folder


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file; `on_wait` is told where another process has it."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if on_wait is not None:
            on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
