"""Where `datasets` puts its Arrow copy of a data set that is opened from a local folder."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Forget:
    """Removes a temporary folder when its owner is gone; only in the process that made it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._maker = os.getpid()

    def __call__(self, owner: object) -> None:
        """Remove the folder when `owner` is gone."""
        if self._folder is not None:
            weakref.finalize(owner, self.now)

    def now(self) -> None:
        """Remove the folder, unless this is a forked worker."""
        if self._folder is not None and os.getpid() == self._maker:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def arrow_cache(source: Path, cache: Path | None) -> Iterator[tuple[Path, Forget]]:
    """A folder for the Arrow copy of `source`, and what ties its life to an object.

    In a given cache the copy stays, under a name that changes with the files of `source`.
    """
    if cache is not None:
        yield cache / _state(source), Forget(None)
        return
    folder = Path(tempfile.mkdtemp(prefix="distillhub-open-"))
    forget = Forget(folder)
    try:
        yield folder, forget
    except BaseException:
        forget.now()
        raise


def _state(source: Path) -> str:
    """Name for the present state of a folder: path, size and time of every file."""
    found = hashlib.sha256(str(source.resolve()).encode())
    for path in sorted(source.rglob("*")):
        if path.is_file():
            facts = path.stat()
            found.update(
                f"{path.relative_to(source)} {facts.st_size} {facts.st_mtime_ns}\n".encode()
            )
    return found.hexdigest()[:16]
