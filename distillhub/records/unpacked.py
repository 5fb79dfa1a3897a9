"""A set of mosaics as its students see it: every sub-image an image of its own."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillhub.ops.formation import corners, expand_one, repeat_labels

if TYPE_CHECKING:
    from distillhub.records.distilled import DistilledSet
    from distillhub.records.images import EncodedImages
    from distillhub.records.soft_labels import SoftLabels, Views


@dataclass(frozen=True, eq=False)
class Unpacked:
    """N * l^2 images of a set with l x l sub-images in each of its N stored ones.

    The sub-images of one stored image follow one another, row by row.
    """

    packed: "DistilledSet"

    @property
    def formation(self) -> int:
        """l: sub-images per side."""
        return self.packed.formation

    @property
    def class_names(self) -> tuple[str, ...]:
        """In label order."""
        return self.packed.class_names

    @cached_property
    def labels(self) -> Tensor:
        """[N * l^2] int64."""
        return repeat_labels(self.packed.labels, self.formation)

    @property
    def source(self) -> "EncodedImages":
        """The stored image files."""
        return self.packed.source

    @property
    def soft(self) -> "SoftLabels | None":
        """Of the stored images, sub-image major."""
        return self.packed.soft

    @cached_property
    def views(self) -> "Views | None":
        """Geometry of the views in the stored images; None: the labels are of whole sub-images."""
        views, size = self.packed.views, (self.packed.height, self.packed.width)
        if views is None or views.entries != self.formation**2 or views.size != size:
            return views
        drawn = (views.ops, views.partner, views.box)
        whole = corners(*size, self.formation)
        plain = all(part is None for part in drawn) and not bool(views.flip.any())
        return None if plain and bool((views.crop == whole).all()) else views

    @property
    def views_per_image(self) -> int:
        """Labelled views per sub-image; 0 without soft labels."""
        return self.packed.views_per_image // self.formation**2

    def __len__(self) -> int:
        return len(self.packed) * self.formation**2

    def images(self, rows: Tensor) -> Tensor:
        """Sub-images brought to the size of the stored image, [n, C, H, W] in [0, 1]."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        stored, places = rows // self.formation**2, rows % self.formation**2
        return expand_one(self.packed.images(stored), self.formation, places)

    def view_batch(
        self,
        rows: Tensor,
        views: Tensor,
        temperature: float | None,
        *,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Views of sub-images with their soft labels; see `DistilledSet.view_batch`."""
        stored, places = rows // self.formation**2, rows % self.formation**2
        entries = places * self.views_per_image + views
        return self.packed.view_batch(stored, entries, temperature, device=device)
