"""Random real images to stand beside a set that comes alone, drawn per class by a seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillhub.data import codec
from distillhub.data.sources import RealData
from distillhub.errors import DataError
from distillhub.evaluation.feed import ImageSet
from distillhub.ops.formation import expand_one, pack
from distillhub.ops.selection import sample


def random_images(
    train: RealData,
    counts: Sequence[int],
    formation: int,
    generator_for: Callable[[int], torch.Generator],
) -> ImageSet:
    """As many random real images of each class as a set has.

    Args:
        train: Where they are drawn from.
        counts: Stored images per class of the set.
        formation: l; above 1 l * l times as many are drawn, and seen as the parts of mosaics are:
            shrunk, rounded to 8 bits, enlarged.
        generator_for: Of the draws of a class.

    Raises:
        DataError: If a class has fewer.
    """
    parts = [count * formation**2 for count in counts]
    drawn = train.part(twin_rows(train, parts, generator_for))
    return drawn if formation == 1 else Packed(drawn, formation)


@dataclass(frozen=True, eq=False)
class Packed:
    """Images as they come out of mosaics of l x l, which are not put together for it."""

    whole: RealData
    formation: int
    """l."""

    @property
    def labels(self) -> Tensor:
        """[N] int64."""
        return self.whole.labels

    def __len__(self) -> int:
        return len(self.whole)

    def images(self, rows: Tensor) -> Tensor:
        """[n, C, H, W] float32 in [0, 1]."""
        images = self.whole.images(rows)
        mosaics = pack(images.repeat_interleave(self.formation**2, dim=0), self.formation)
        stored = codec.to_float(codec.to_uint8(mosaics))
        return expand_one(stored, self.formation, torch.zeros(len(images), dtype=torch.int64))


def twin_rows(
    train: RealData, counts: Sequence[int], generator_for: Callable[[int], torch.Generator]
) -> Tensor:
    """Rows of as many random real images of each class as asked for, [sum(counts)] int64.

    Raises:
        DataError: If a class has fewer.
    """
    picked = []
    for label, count in enumerate(counts):
        rows = train.rows_of(label)
        if len(rows) < count:
            raise DataError(
                f"the set has {count} images of class '{train.class_names[label]}', "
                f"the real images {len(rows)}: no random ones can be drawn",
                where="arm rnd_hard",
                mend="name the data set that the set was made from",
            )
        picked.append(sample(rows, count, generator_for(label)))
    return torch.cat(picked)
