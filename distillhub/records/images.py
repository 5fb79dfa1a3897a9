"""Encoded images of a set, decoded when they are asked for."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from distillhub.data.pictures import CANNOT_DECODE, natural_channels, pixels_of, upright
from distillhub.errors import DataError

RESIDENT_BYTES = 2 * 2**30
"""Sets up to this size in memory keep their decoded pixels."""


class EncodedImages:
    """Images of one size behind a function that gives their files' bytes.

    Args:
        fetch: Bytes of the image files of some rows.
        count: Rows.
        where: Name of the set for messages.
        resident: Bytes of pixels kept in memory; above it every access decodes anew.

    Raises:
        DataError: If there is no image, or the first one cannot be decoded.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[int]], list[bytes]],
        count: int,
        *,
        where: str,
        resident: int = RESIDENT_BYTES,
    ) -> None:
        if not count:
            raise DataError(
                "there is no image", where=where, mend="check the path, the split and the revision"
            )
        self._fetch = fetch
        self._count = count
        self._where = where
        from PIL import Image

        try:
            with Image.open(io.BytesIO(fetch([0])[0])) as first:
                self.channels = natural_channels(first)
                self.width, self.height = upright(first).size
        except CANNOT_DECODE as error:
            raise self._corrupt(0, error) from error
        shape = (count, self.channels, self.height, self.width)
        self._kept: Tensor | None = None
        self._known = torch.zeros(count, dtype=torch.bool)
        if count * self.channels * self.height * self.width <= resident:
            self._kept = torch.empty(shape, dtype=torch.uint8)

    @classmethod
    def of(cls, files: Sequence[bytes], *, where: str = "images") -> "EncodedImages":
        """Images whose files are in memory."""
        return cls(lambda rows: [files[row] for row in rows], len(files), where=where)

    def __len__(self) -> int:
        return self._count

    def files(self, rows: Sequence[int]) -> list[bytes]:
        """The stored bytes of some images."""
        return self._fetch(rows)

    def pixels(self, rows: Tensor | Sequence[int]) -> Tensor:
        """The images of some rows, uint8 [n, C, H, W].

        Raises:
            DataError: If an image is corrupt or has another size than the first.
        """
        wanted = torch.as_tensor(rows, dtype=torch.int64)
        if self._kept is None:
            return self._decoded(wanted.tolist())
        missing = sorted(set(wanted[~self._known[wanted]].tolist()))
        for start in range(0, len(missing), 1024):
            part = missing[start : start + 1024]
            self._kept[part] = self._decoded(part)
            self._known[part] = True
        return self._kept[wanted]

    def decode_all(self) -> None:
        """Decode every image now, if they are kept in memory at all."""
        if self._kept is not None:
            self.pixels(range(self._count))

    def _decoded(self, rows: list[int]) -> Tensor:
        from PIL import Image

        shape = (len(rows), self.channels, self.height, self.width)
        pixels = np.empty(shape, dtype=np.uint8)
        for place, (row, file) in enumerate(zip(rows, self._fetch(rows), strict=True)):
            try:
                with Image.open(io.BytesIO(file)) as image:
                    found = pixels_of(image, self.channels, None, "crop")
            except CANNOT_DECODE as error:
                raise self._corrupt(row, error) from error
            if found.shape[1:] != (self.height, self.width):
                raise DataError(
                    f"image of row {row} has {found.shape[1]} x {found.shape[2]} pixels, "
                    f"the first one {self.height} x {self.width}",
                    where=self._where,
                    mend="store all images of a set at one size",
                )
            pixels[place] = found
        return torch.from_numpy(pixels)

    def _corrupt(self, row: int, error: Exception) -> DataError:
        return DataError(
            f"image of row {row} cannot be decoded: {error}",
            where=self._where,
            mend="fetch or build the data set again",
        )
