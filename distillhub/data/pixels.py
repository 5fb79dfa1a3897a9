"""Encoded rows -> uint8 pixels: all at once where they fit into memory, else on access."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillhub.data.pictures import (
    CANNOT_DECODE,
    Pixels,
    natural_channels,
    pixels_of,
    undecodable,
)
from distillhub.data.real import PixelSource, ResidentPixels
from distillhub.data.rows import BLOCK, Chunk, EncodedRows, Index
from distillhub.errors import DataError

RESIDENT_BYTES = 2 * 1024**3
"""A split is decoded once and kept if its uint8 pixels take no more than this."""
THREADED_BYTES = 8 * 1024
"""Mean size of stored images from which threads pay; below it the interpreter takes most time."""


class Geometry(NamedTuple):
    """What every image of a data set is turned into."""

    channels: int
    height: int
    width: int
    size: int | None
    """Side to resize to; None: images must already be height x width."""
    resize: Literal["crop", "squash"]
    grey_only: bool
    """Whether a colored image is an error, because the set was found to be grey."""


def decode_row(rows: EncodedRows, row: int, stored: bytes, geometry: Geometry) -> Pixels:
    """The pixels of one stored image, uint8 [C, H, W].

    Raises:
        DataError: If the bytes are no picture, or one that does not fit the others; names the row.
    """
    try:
        with rows.open(stored) as image:
            if geometry.grey_only and natural_channels(image) != 1:
                raise DataError(
                    "the image has colors, but those looked at by `resolve` were all grey",
                    where=rows.where(row),
                    mend="set dataset.channels to 3, or to 1 to turn every image grey",
                )
            pixels = pixels_of(image, geometry.channels, geometry.size, geometry.resize)
    except CANNOT_DECODE as error:
        raise DataError.of([undecodable(rows.where(row), error)]) from error
    if pixels.shape[1:] != (geometry.height, geometry.width):
        size, others = pixels.shape[1:], (geometry.height, geometry.width)
        raise DataError(
            f"the image has {size[0]} x {size[1]} pixels, others have {others[0]} x {others[1]}",
            where=rows.where(row),
            mend="set dataset.size, so that all images get one size",
        )
    return pixels


class HeldRows:
    """Some rows of a split whose stored images are held in memory."""

    slow_bytes: float | None = None

    def __init__(self, rows: EncodedRows, chosen: Index) -> None:
        """Read the chosen rows, in one pass.

        Args:
            rows: The split as stored.
            chosen: Ascending row numbers.
        """
        self._rows = rows
        self.names, self.labels, self.fingerprint = rows.names, rows.labels, rows.fingerprint
        self._held: dict[int, bytes] = {}
        for start in range(0, len(chosen), BLOCK):
            block = chosen[start : start + BLOCK]
            self._held.update(zip(block.tolist(), rows.take(block), strict=True))

    def chunks(self) -> Iterator[Chunk]:
        """All rows of the split, read anew."""
        return self._rows.chunks()

    def take(self, rows: Index) -> list[bytes]:
        """The stored bytes of chosen rows."""
        return [self._held[row] for row in rows.tolist()]

    def where(self, row: int) -> str:
        """The place of a row."""
        return self._rows.where(row)

    def open(self, stored: bytes) -> Image.Image:
        """The picture in the stored bytes."""
        return self._rows.open(stored)


class LazyPixels:
    """A split that is decoded row by row on access; holds no pixels."""

    def __init__(self, rows: EncodedRows, chosen: Index, geometry: Geometry) -> None:
        """Decode nothing yet.

        Args:
            rows: The split as stored.
            chosen: Rows that can be read, [N].
            geometry: What each becomes.
        """
        self._rows = rows
        self._chosen = chosen
        self._geometry = geometry

    def read(self, rows: Tensor) -> Tensor:
        """The images of `rows` as uint8 [n, C, H, W]; each is decoded once per call.

        Raises:
            DataError: If an image cannot be decoded; names the row.
        """
        wanted = self._chosen[rows.numpy()]
        size = self._geometry
        pixels = np.empty((len(wanted), size.channels, size.height, size.width), dtype=np.uint8)
        for start in range(0, len(wanted), BLOCK):
            block = wanted[start : start + BLOCK]
            for place, image in enumerate(self._decoded(block, self._rows.take(block)), start):
                pixels[place] = image
        return torch.from_numpy(pixels)

    def _decoded(self, block: Index, stored: Sequence[bytes]) -> Iterator[Pixels]:
        """The pixels of a block, in order; large images are decoded by one thread per processor."""

        def decoded(row: int, image: bytes) -> Pixels:
            return decode_row(self._rows, row, image, self._geometry)

        numbers = block.tolist()
        if sum(map(len, stored)) < THREADED_BYTES * len(stored) or len(stored) == 1:
            yield from map(decoded, numbers, stored)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(decoded, numbers, stored)


def open_pixels(rows: EncodedRows, chosen: Index, geometry: Geometry) -> PixelSource:
    """The pixels of the chosen rows, resident if they take at most `RESIDENT_BYTES`.

    Where only the stored images are small enough for that, and single rows are slow to read, the
    stored images are held and decoded on access.

    Args:
        rows: The split as stored.
        chosen: Rows to open, [N], in the order of the result.
        geometry: What each becomes.

    Raises:
        DataError: If an image of a resident split cannot be decoded; names the row.
    """
    if len(chosen) * geometry.channels * geometry.height * geometry.width <= RESIDENT_BYTES:
        lazy = LazyPixels(rows, chosen, geometry)
        return ResidentPixels(lazy.read(torch.arange(len(chosen))))
    if rows.slow_bytes is not None and len(chosen) * rows.slow_bytes <= RESIDENT_BYTES:
        rows = HeldRows(rows, chosen)
    return LazyPixels(rows, chosen, geometry)
