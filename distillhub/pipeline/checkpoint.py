"""Snapshots of running work: atomic, sparse, and one more when the process is asked to stop."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeVar

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distillhub.errors import PipelineError
from distillhub.ops.progress import Progress, Scalar, State
from distillhub.pipeline.reporting import Reporter

PERIOD = "DISTILLHUB_SNAPSHOT_SECONDS"
BUILDER = "DISTILLHUB_BUILDER_PID"
_TEMPORARY = ".tmp"
KEPT_BYTES = 1 << 28
"""Allocations up to this size, and so much free memory, stay with the process."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
T = TypeVar("T")


class Interrupted(PipelineError):  # noqa: N818 - not a fault: somebody asked for it
    """The process was asked to stop; everything up to the last step is saved."""

    exit_code = 130


class StopRequest:
    """Whether SIGTERM or SIGINT has arrived, or the process that wanted the work is gone."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None:  # asked twice: stop at once
            raise KeyboardInterrupt
        self.signal = number

    @contextlib.contextmanager
    def watched(self, *, parents: bool) -> Iterator["StopRequest"]:
        """Listen while the block runs.

        Args:
            parents: Whether to stop when the process that started this one, or the build that it
                belongs to, is gone: right for a stage that DVC started, wrong for a build that a
                user left running behind a closed terminal.
        """
        before = {n: signal.signal(n, self._arrived) for n in (signal.SIGTERM, signal.SIGINT)}
        done = threading.Event()
        if parents:
            threading.Thread(target=_watch_parents, args=(done,), daemon=True).start()
        try:
            yield self
        finally:
            done.set()
            for number, handler in before.items():
                signal.signal(number, handler)


def _watch_parents(done: threading.Event) -> None:
    """Ask this process to stop when its parent, or the build that it belongs to, has died.

    A killed DVC leaves its stage running; the next build would start a second copy beside it.
    """
    parent = os.getppid()
    builder = int(os.environ.get(BUILDER, "0"))
    while not done.wait(0.5):
        if os.getppid() != parent or (builder and not _alive(builder)):
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Checkpoint:
    """One snapshot file, replaced atomically, and a log of the seconds that its work has taken."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.safetensors")
        self._cost = 0.0
        self._due = time.monotonic() + self._period()

    def _period(self) -> float:
        return max(float(os.environ.get(PERIOD, "5")), 50 * self._cost)

    @property
    def due(self) -> bool:
        """Whether the next snapshot should be taken: every max(5 s, 50 x its own cost)."""
        return time.monotonic() >= self._due

    def save(self, state: State) -> None:
        """Write a snapshot."""
        start = time.monotonic()
        tensors = {k: v.contiguous() for k, v in state.items() if isinstance(v, Tensor)}
        scalars = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
        temporary = self.path.with_suffix(_TEMPORARY)
        save_file(tensors, temporary, metadata={"scalars": json.dumps(scalars)})
        temporary.replace(self.path)
        self._cost = time.monotonic() - start
        self._due = time.monotonic() + self._period()

    def load(self, note: Callable[[str], None]) -> State | None:
        """The last snapshot, or None where there is none."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                scalars: dict[str, Scalar] = json.loads((file.metadata() or {})["scalars"])
                return {**scalars, **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118 - no iterator
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            note(f"snapshot {self.path.name} cannot be read ({error}); its work starts again")
            return None

    def clear(self) -> None:
        """Remove the snapshot."""
        self.path.unlink(missing_ok=True)


def drive(
    work: Callable[[State | None], Generator[Progress, None, T]],
    *,
    label: str,
    checkpoint: Checkpoint,
    reporter: Reporter,
    stop: StopRequest,
) -> T:
    """Run a generator of progress to its end, from its last snapshot on.

    Raises:
        Interrupted: After a snapshot, when the process was asked to stop.
    """
    state = checkpoint.load(reporter.note)
    if state is not None:
        reporter.note(f"{label}: resumed at step {state.get('step')}")
    steps = work(state)
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        reporter.progress(label, progress.done, progress.total, progress.metrics)
        if progress.snapshot is not None and (checkpoint.due or stop.signal is not None):
            checkpoint.save(progress.snapshot())
        if stop.signal is not None:
            name = signal.Signals(stop.signal).name
            raise Interrupted(
                f"stopped by {name} at step {progress.done} of {progress.total}",
                where=label,
                mend="build again: it goes on from here",
            )


class WorkFolder:
    """Scratch of one stage of one build, held by one process at a time.

    It is `.distillhub/work/<stage>/<digest>/` and holds everything that is needed to write the
    stage's output: finished pieces and snapshots.
    """

    def __init__(self, root: Path, stage: str, digest: str) -> None:
        self.path = root / stage / digest
        self._lock = filelock.FileLock(root / stage / f"{digest}.lock")

    @contextlib.contextmanager
    def held(self, reporter: Reporter) -> Iterator["WorkFolder"]:
        """Hold the folder; remove it when the block ends well."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            reporter.note("another process is at this stage; waiting for it")
            self._lock.acquire()
        try:
            self.path.mkdir(exist_ok=True)
            yield self
            shutil.rmtree(self.path)
        finally:
            self._lock.release()

    def checkpoint(self, name: str) -> Checkpoint:
        """The snapshot of one piece of work."""
        return Checkpoint(self.path / f"{name}.snapshot")

    def finished(self, name: str) -> Path:
        """Where the result of a piece is kept once it is whole."""
        return self.path / f"{name}.done"

    def elapsed(self) -> float:
        """Seconds that earlier, interrupted processes spent on this stage."""
        try:
            return float((self.path / "seconds").read_text())
        except (OSError, ValueError):
            return 0.0

    def log_elapsed(self, seconds: float) -> None:
        """Keep the seconds spent so far for a process that comes after this one."""
        if self.path.exists():
            (self.path / "seconds").write_text(f"{seconds:.3f}")


def save_tensors(path: Path, tensors: dict[str, Tensor], **record: Scalar) -> None:
    """Write finished tensors with a record beside them, atomically, in one file."""
    temporary = path.with_suffix(_TEMPORARY)
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        temporary,
        metadata={"record": json.dumps(record)},
    )
    temporary.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Scalar]]:
    """Read what `save_tensors` wrote."""
    with safe_open(path, "pt") as file:
        record: dict[str, Scalar] = json.loads((file.metadata() or {}).get("record", "{}"))
        return {key: file.get_tensor(key) for key in file.keys()}, record  # noqa: SIM118 - no iterator


def threads() -> int:
    """Threads that a stage computes with: `DISTILLHUB_THREADS`, else 2.

    More would change the last bits.
    """
    return int(os.environ.get("DISTILLHUB_THREADS", "2"))


def pin_threads() -> None:
    """Fix the number of threads of this process, and let its memory be used again.

    glibc takes fresh pages from the kernel for every large tensor and gives them back after it;
    clearing those pages is a fifth of a training step of a small network. Results do not change.
    """
    torch.set_num_threads(threads())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not on macOS
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
