"""Encoded rows of one split: the common face of Parquet files, image folders and arrays."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Index = NDArray[np.int64]

BLOCK = 1024
"""Rows whose stored bytes are handed on at a time."""


class Chunk(NamedTuple):
    """Consecutive rows as they are stored."""

    start: int
    """Row number of the first."""
    images: Sequence[bytes]


class EncodedRows(Protocol):
    """One split of a source: labels at hand, images as stored bytes, in the order of the source."""

    names: tuple[str, ...]
    """Class names of the source, in the order of its labels."""
    labels: Index
    """[N]: position in `names`."""
    fingerprint: str
    """Changes when the files do (path, size, time of change); never part of a pin."""
    slow_bytes: float | None
    """Mean bytes of a stored image where reading single rows is slow; None where it is not."""

    def chunks(self) -> Iterator[Chunk]:
        """All rows once, in order, a bounded number of bytes at a time."""

    def take(self, rows: Index) -> list[bytes]:
        """The stored bytes of `rows`, in that order."""

    def where(self, row: int) -> str:
        """The place of a row for messages: file and row, relative to the source."""

    def open(self, stored: bytes) -> Image.Image:
        """The picture in the stored bytes; may raise whatever the decoder raises."""


def open_file(stored: bytes) -> Image.Image:
    """The picture in the bytes of an image file.

    Raises:
        ValueError: If there are no bytes.
        OSError: If they are no image.
    """
    if not stored:
        raise ValueError("there is no image")
    return Image.open(io.BytesIO(stored))


def file_facts(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """What changes when a file does: path, bytes, time of the last change in nanoseconds."""
    facts = []
    for path in paths:
        status = path.stat()
        facts.append((str(path.absolute()), status.st_size, status.st_mtime_ns))
    return facts


class Digits:
    """The 8 x 8 digits of scikit-learn: 1797 grey images, stored as 64 raw uint8 values each."""

    SIDE = 8
    TEST_ROWS = 500
    names = tuple("0123456789")
    fingerprint = "sklearn:digits"
    slow_bytes: float | None = None

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        levels = np.asarray(digits.images, dtype=np.float64)  # [1797, 8, 8], 0 .. 16
        self._pixels = np.rint(levels * 255 / 16).astype(np.uint8)
        self.labels: Index = np.asarray(digits.target, dtype=np.int64)

    def chunks(self) -> Iterator[Chunk]:
        """All rows in one piece."""
        yield Chunk(0, self.take(np.arange(len(self.labels))))

    def take(self, rows: Index) -> list[bytes]:
        """The raw values of `rows`, row-major."""
        return [self._pixels[row].tobytes() for row in rows]

    def where(self, row: int) -> str:
        """The row number."""
        return f"sklearn:digits: row {row}"

    def open(self, stored: bytes) -> Image.Image:
        """A grey picture."""
        return Image.frombytes("L", (self.SIDE, self.SIDE), stored)
