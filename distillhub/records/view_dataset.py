"""A torch data set that shows another stored view of an image each time it is asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from distillhub.ops.views import pick_views

if TYPE_CHECKING:
    from distillhub.records.distilled import DistilledSet
    from distillhub.records.unpacked import Unpacked


class Sample(NamedTuple):
    """One image, or a batch of them with a first dimension more."""

    image: Tensor
    """[C, h, w] float32 in [0, 1]."""
    target: Tensor
    """[num_classes] float32 logits; the label itself where the set has no soft labels."""
    label: Tensor
    """int64."""


class Rows(list[Sample]):
    """Samples that were rendered together; `collate` takes the batch and saves the stacking."""

    batch: Sample


class ViewDataset(Dataset[Sample]):
    """Every access to an image shows its next view; all of them come up before one is repeated.

    Which view an access shows depends on the seed, the row and how often the row was asked for
    before, and on nothing else: not on shuffling, batch size or the number of workers. The counts
    are in memory that workers share.

    Args:
        data: An opened set.
        temperature: At which the softmax of the labels will be taken; see `SoftLabels.logits`.
        seed: Of the order of the views.
    """

    def __init__(
        self, data: "DistilledSet | Unpacked", temperature: float | None = None, *, seed: int = 0
    ) -> None:
        self.data = data
        self.temperature = temperature
        self.seed = seed
        self.visits = torch.zeros(len(data), dtype=torch.int64)
        self.visits.share_memory_()  # type: ignore[no-untyped-call]
        data.source.decode_all()  # once here, not once in every worker

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> Sample:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Rows:
        """What a data loader calls for a batch: all rows in one go."""
        wanted = torch.as_tensor(rows, dtype=torch.int64)
        labels = self.data.labels[wanted]
        if self.data.soft is None:
            batch = Sample(self.data.images(wanted), labels, labels)
        else:
            views = pick_views(
                wanted, self._visit(wanted), self.data.views_per_image, seed=self.seed
            )
            batch = Sample(*self.data.view_batch(wanted, views, self.temperature), labels)
        found = Rows(map(Sample, batch.image.unbind(), batch.target.unbind(), labels.unbind()))
        found.batch = batch
        return found

    def _visit(self, rows: Tensor) -> Tensor:
        """How often each row was asked for before; a row may come up several times in a batch."""
        order = rows.argsort(stable=True)
        ordered = rows[order]
        place = torch.arange(len(rows))
        first = torch.searchsorted(ordered, ordered)
        earlier = torch.empty_like(rows)
        earlier[order] = place - first
        visit: Tensor = self.visits[rows] + earlier
        self.visits.index_add_(0, rows, torch.ones_like(rows))
        return visit

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Sample:
        """For `DataLoader(collate_fn=...)`; `default_collate` gives the same, slower."""
        if isinstance(samples, Rows):
            return samples.batch
        stacked: Sample = default_collate(list(samples))
        return stacked
