"""Real images with labels: one split of a data set, or a part of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from distillhub.data.splits import stratified

Rows = Tensor | Sequence[int]


class PixelSource(Protocol):
    """Where the pixels of a split come from: memory, or files that are decoded on access."""

    def read(self, rows: Tensor) -> Tensor:
        """The images of `rows` ([n] int64) as uint8 [n, C, H, W]."""


class ResidentPixels:
    """A split that is decoded as a whole: uint8 [N, C, H, W] in memory."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels

    def read(self, rows: Tensor) -> Tensor:
        """The images of `rows` as uint8 [n, C, H, W]; a copy."""
        return self._pixels[rows]


@dataclass(frozen=True, eq=False)
class RealData:
    """One split of a data set, or a part of it; never changes.

    Row numbers run from 0 to len - 1 in every part; `origin` leads back to the whole split.
    """

    source: PixelSource
    labels: Tensor
    """[N] int64: position in `class_names`."""
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]."""
    std: tuple[float, ...]
    source_rows: Tensor
    """[N] int64: row numbers in the source, before any choice of classes."""
    origin: Tensor
    """[N] int64: row numbers in the split that was opened; 0 .. N-1 for the split itself."""
    holdout: float | None = None
    """Share of a training split that `held_out` takes; None for test splits and parts."""

    @classmethod
    def in_memory(
        cls,
        pixels: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        holdout: float | None = 0.1,
    ) -> "RealData":
        """A split whose images are at hand.

        Args:
            pixels: uint8 [N, C, H, W].
            labels: [N] int64.
            class_names: In label order.
            mean: Per channel; 0.5 by default.
            std: Per channel; 0.5 by default.
            holdout: Share of `held_out`; None for a test split.

        Raises:
            ValueError: If the images are not uint8 or the lengths differ.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"uint8 [N, C, H, W] is needed, not {pixels.dtype} {tuple(pixels.shape)}"
            )
        if len(labels) != len(pixels):
            raise ValueError(f"{len(pixels)} images but {len(labels)} labels")
        rows = torch.arange(len(labels))
        channels, height, width = (int(side) for side in pixels.shape[1:])
        return cls(
            source=ResidentPixels(pixels),
            labels=labels.to(torch.int64),
            class_names=tuple(class_names),
            channels=channels,
            height=height,
            width=width,
            mean=tuple(mean) if mean is not None else (0.5,) * channels,
            std=tuple(std) if std is not None else (0.5,) * channels,
            source_rows=rows,
            origin=rows,
            holdout=holdout,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes; each has at least one training image."""
        return len(self.class_names)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Images per class."""
        return tuple(torch.bincount(self.labels, minlength=self.num_classes).tolist())

    @cached_property
    def _by_class(self) -> tuple[Tensor, ...]:
        order = torch.argsort(self.labels, stable=True)
        return tuple(torch.split(order, list(self.counts)))

    def rows_of(self, label: int) -> Tensor:
        """The rows of one class, [n_c] int64, ascending.

        Raises:
            ValueError: If there is no such label.
        """
        if not 0 <= label < self.num_classes:
            raise ValueError(f"label {label} is not one of 0 .. {self.num_classes - 1}")
        return self._by_class[label]

    def pixels(self, rows: Rows) -> Tensor:
        """The images of `rows` as stored: uint8 [n, C, H, W].

        Raises:
            IndexError: If a row does not exist.
            DataError: If an image that is decoded on access cannot be.
        """
        return self.source.read(self.origin[self._index(rows)])

    def images(self, rows: Rows) -> Tensor:
        """The images of `rows`: float32 [n, C, H, W] in [0, 1].

        Raises:
            IndexError: If a row does not exist.
            DataError: If an image that is decoded on access cannot be.
        """
        return self.pixels(rows).to(torch.float32).div_(255)

    def batches(
        self, batch: int, generator: torch.Generator, *, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled epoch of (images float32 [b, C, H, W], labels int64 [b]).

        Args:
            batch: Images per batch.
            generator: A CPU generator; one permutation of all rows is drawn from it.
            drop_last: Leave out a last batch that is smaller than the others.
        """
        for rows in torch.split(torch.randperm(len(self), generator=generator), batch):
            if drop_last and len(rows) < batch:
                return
            yield self.images(rows), self.labels[rows]

    def part(self, rows: Tensor) -> "RealData":
        """A view of the given rows, in the given order; no pixel is copied."""
        index = self._index(rows)
        return RealData(
            source=self.source,
            labels=self.labels[index],
            class_names=self.class_names,
            channels=self.channels,
            height=self.height,
            width=self.width,
            mean=self.mean,
            std=self.std,
            source_rows=self.source_rows[index],
            origin=self.origin[index],
        )

    @property
    def fit(self) -> "RealData":
        """The rows that networks may be trained on; every class keeps at least one.

        Raises:
            ValueError: If this is not a whole training split.
        """
        return self._fit_and_held_out[0]

    @property
    def held_out(self) -> "RealData":
        """The rows kept out of network training, a fixed share of every class; may be empty.

        Raises:
            ValueError: If this is not a whole training split.
        """
        return self._fit_and_held_out[1]

    @cached_property
    def _fit_and_held_out(self) -> tuple["RealData", "RealData"]:
        if self.holdout is None:
            raise ValueError("only a whole training split has a held-out part")
        kept, drawn = stratified(self.labels, round(self.holdout * len(self)))
        return self.part(kept), self.part(drawn)

    def _index(self, rows: Rows) -> Tensor:
        index = torch.as_tensor(rows, dtype=torch.int64)
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise IndexError(
                f"rows {int(index.min())} .. {int(index.max())} of a set of {len(self)} images"
            )
        return index
