"""Images of a set whose named ones are read from the real data while they are looked at."""

import torch
from torch import Tensor

from distillhub.data.real import RealData
from distillhub.errors import DataError
from distillhub.records.images import EncodedImages
from distillhub.records.references import Reference, pixels_digest


class FilledImages(EncodedImages):
    """Stored images as they are; named ones with the pixels of the training split.

    Args:
        stored: Of the set; its first image is not a named one.
        named: Of every row, the real image that it names; None where its own is stored.
        real: The training split that the set was made from.
        where: Name of the set for messages.
    """

    def __init__(
        self,
        stored: EncodedImages,
        named: tuple[Reference | None, ...],
        real: RealData,
        *,
        where: str,
    ) -> None:
        self._named = named
        self._real = real
        self._places = {row: place for place, row in enumerate(real.source_rows.tolist())}
        super().__init__(stored.files, len(stored), where=where)

    def _decoded(self, rows: list[int]) -> Tensor:
        pixels = torch.empty((len(rows), self.channels, self.height, self.width), dtype=torch.uint8)
        held = [place for place, row in enumerate(rows) if self._named[row] is None]
        if held:
            pixels[held] = super()._decoded([rows[place] for place in held])
        for place, row in enumerate(rows):
            reference = self._named[row]
            if reference is not None:
                pixels[place] = self._real_pixels(row, reference)
        return pixels

    def _real_pixels(self, row: int, reference: Reference) -> Tensor:
        place = self._places.get(reference.row)
        found = None if place is None else self._real.pixels([place])[0]
        if found is None or pixels_digest(found.numpy()) != reference.pixels:
            raise DataError(
                f"row {row} names {reference.file}, which is another image here",
                where=self._where,
                mend="bring the source back that the set was made from",
            )
        return found
