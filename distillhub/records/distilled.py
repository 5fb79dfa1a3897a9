"""A packaged data set, opened with `datasets` as a user would.

Sets of others work too, as long as they have images and labels.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distillhub.errors import DataError
from distillhub.records.arrow_cache import arrow_cache
from distillhub.records.columns import (
    GEOMETRY,
    SOFT,
    VIEWS_CONFIG,
    Entries,
    read_entries,
    read_entry_table,
)
from distillhub.records.images import EncodedImages
from distillhub.records.references import REFERENCE, Reference, read_references
from distillhub.records.replay import replay
from distillhub.records.snapshot import snapshot
from distillhub.records.soft_labels import SoftLabels, Views

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from distillhub.records.unpacked import Unpacked
    from distillhub.records.view_dataset import ViewDataset

LABEL_COLUMNS = ("label", "labels", "class_id", "class", "target", "fine_label")
"""Names of label columns, for sets without a single ClassLabel column; the first one counts."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """One split of a data set; images are decoded when asked for, labels are in memory."""

    source: EncodedImages
    labels: Tensor
    """[N] int64."""
    class_names: tuple[str, ...]
    soft: SoftLabels | None
    views: Views | None
    meta: Mapping[str, object]
    """The `distillhub:` block of the README's front matter; empty for sets of others."""
    revision: str | None = None
    """Commit of the Hub repository; None for a local folder."""
    named: tuple[Reference | None, ...] | None = None
    """Of every row, the real image that it names; None: the set names none."""

    @classmethod
    def open(
        cls, folder: Path, split: str = "train", *, cache: Path | None = None
    ) -> "DistilledSet":
        """Open a local folder.

        Args:
            folder: Holds Parquet or image files that `load_dataset` understands.
            split: Name of the split.
            cache: Where `datasets` keeps its Arrow copy; None: a temporary folder that goes with
                this object, so that a changed folder is never mistaken for the one that was opened
                before.

        Raises:
            DataError: If the folder cannot be opened, or has no images or labels.
        """
        folder = folder.resolve()  # `load_dataset(".")` finds no name for the data set
        with arrow_cache(folder, cache) as (arrow, forget):
            table = _load(folder, None, split, arrow)
            meta = _front_matter(folder)
            columns = _find_columns(table, str(folder))
            source = EncodedImages(
                _Files(table, columns.image, str(folder)), len(table), where=str(folder)
            )
            labels, class_names = _labels(table, columns.label, str(folder))
            try:
                soft, views = _entries(table, meta, source, len(class_names), folder, split, arrow)
                named = _named(table)
            except ValueError as error:
                raise DataError(
                    f"the columns beside the images cannot be read: {error}",
                    where=str(folder),
                    mend="build or fetch the data set again",
                ) from error
            opened = cls(source, labels, class_names, soft, views, meta, named=named)
            forget(source)
        return opened

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.source.channels

    @property
    def height(self) -> int:
        """Of a stored image, in pixels."""
        return self.source.height

    @property
    def width(self) -> int:
        """Of a stored image, in pixels."""
        return self.source.width

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Images per class."""
        return tuple(torch.bincount(self.labels, minlength=self.num_classes).tolist())

    @property
    def views_per_image(self) -> int:
        """Labelled entries per image; 0 without soft labels."""
        return 0 if self.soft is None else self.soft.entries

    @property
    def view_size(self) -> tuple[int, int]:
        """Height and width of a view in pixels."""
        return (self.height, self.width) if self.views is None else self.views.size

    @property
    def formation(self) -> int:
        """Sub-images per side of a stored image; 1 unless the images are mosaics."""
        found = self.meta.get("formation", 1)
        return found if isinstance(found, int) else 1

    def unpacked(self) -> "DistilledSet | Unpacked":
        """The images to train on: the stored ones, or the sub-images of mosaics at full size."""
        from distillhub.records.unpacked import Unpacked

        return self if self.formation == 1 else Unpacked(self)

    def pixels(self, rows: Tensor | Sequence[int]) -> Tensor:
        """Stored images, uint8 [n, C, H, W]."""
        return self.source.pixels(rows)

    def images(self, rows: Tensor | Sequence[int]) -> Tensor:
        """Stored images, float32 [n, C, H, W] in [0, 1]."""
        return self.source.pixels(rows).float() / 255

    def view_batch(
        self,
        rows: Tensor,
        views: Tensor,
        temperature: float | None,
        *,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Views of images with their soft labels.

        Args:
            rows: [n] int64 image rows.
            views: [n] int64: which of its views each image shows.
            temperature: At which the softmax of the labels will be taken; see `SoftLabels.logits`.
            device: Where the images are rendered and the logits go.

        Returns:
            Images [n, C, h, w] in [0, 1] and logits [n, num_classes].

        Raises:
            DataError: If the set has no soft labels.
        """
        if self.soft is None:
            raise DataError("the data set has no soft labels", mend="use images() and labels")
        logits = self.soft.logits(rows, views, temperature)
        images = replay(self.source.pixels, self.views, rows, views, device=device)
        return images, logits if device is None else logits.to(device)

    def torch_dataset(self, temperature: float | None = None, *, seed: int = 0) -> "ViewDataset":
        """A map-style data set of (image, logits, label) that shows a fresh view at every access.

        Without soft labels it gives (image, label, label). Mosaics are taken apart. Pass its
        `collate` to the data loader.
        """
        from distillhub.records.view_dataset import ViewDataset

        return ViewDataset(self.unpacked(), temperature, seed=seed)


def load(
    path_or_id: str | Path,
    revision: str | None = None,
    split: str = "train",
    *,
    cache: Path | None = None,
) -> DistilledSet:
    """Open a data set from a local folder or from the Hub.

    Args:
        path_or_id: Local folder, or Hub id.
        revision: Branch, tag or commit on the Hub; None: the default branch.
        split: Name of the split.
        cache: For a local folder, see `DistilledSet.open`; for a Hub id, where the files are kept
            (None: the usual cache).

    Returns:
        The split; its soft labels and views are None where the set has none.

    Raises:
        DataError: If there is no such data set, revision or split, or it has no images or labels.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise DataError(
                f"a local folder has no revision {revision!r}",
                where=str(path_or_id),
                mend="leave the revision out, or give a Hub id",
            )
        return DistilledSet.open(folder, split, cache=cache)
    if isinstance(path_or_id, Path) or not HUB_ID.fullmatch(path_or_id):
        raise DataError(
            "no such folder",
            where=str(path_or_id),
            mend="check the path, or give a Hub id: name/set",
        )
    files = snapshot(path_or_id, revision, cache)
    return replace(DistilledSet.open(files, split), revision=files.name)


class _Columns(NamedTuple):
    image: str
    label: str


class _Files:
    """Bytes of the image files of a split, in any order of rows."""

    def __init__(self, table: "datasets.Dataset", column: str, where: str) -> None:
        self._where = where
        self._table = table.select_columns([column]).with_format("arrow")
        self._column = column

    def __call__(self, rows: Sequence[int]) -> list[bytes]:
        found: pa.Table = self._table[list(rows)]
        return [
            self._file(row, cell)
            for row, cell in zip(rows, found[self._column].to_pylist(), strict=True)
        ]

    def _file(self, row: int, cell: Mapping[str, object] | None) -> bytes:
        match cell:
            case {"bytes": bytes(content)}:
                return content
            case {"path": str(path)}:
                return Path(path).read_bytes()
        raise DataError(
            f"row {row} holds no image, it names a real one",
            where=self._where,
            mend="fill the pixels in from a copy of the source: distillhub materialize",
        )


def _load(folder: Path, config: str | None, split: str, cache: Path) -> "datasets.Dataset":
    import datasets
    from yaml import YAMLError  # type: ignore[import-untyped]

    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(str(folder), config, split=split, cache_dir=str(cache))
    except (OSError, ValueError, KeyError, YAMLError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise DataError(
            f"split {split!r} cannot be opened with load_dataset: {lines[0]}",
            where=str(folder),
            mend="check the folder and the name of the split, or build the data set again",
        ) from error
    finally:
        if not quiet:
            datasets.enable_progress_bars()
    return table


def _front_matter(folder: Path) -> dict[str, object]:
    """The `distillhub:` block of README.md."""
    from huggingface_hub.repocard import metadata_load

    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    block = (metadata_load(readme) or {}).get("distillhub")
    return block if isinstance(block, dict) else {}


def _find_columns(table: "datasets.Dataset", where: str) -> _Columns:
    import datasets

    features = table.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if len(images) != 1:
        raise DataError(
            f"{len(images)} columns hold images: columns are {', '.join(features)}",
            where=where,
            mend="one column of type Image is needed",
        )
    typed = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = next(
        (name for name in LABEL_COLUMNS if name in typed), typed[0] if len(typed) == 1 else None
    )
    label = label or next((name for name in LABEL_COLUMNS if name in features), None)
    if label is None:
        raise DataError(
            f"no label column: columns are {', '.join(features)}",
            where=where,
            mend="one column of type ClassLabel is needed, or one called "
            + " or ".join(LABEL_COLUMNS),
        )
    return _Columns(images[0], label)


def _labels(table: "datasets.Dataset", column: str, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """[N] int64 and the class names; plain numbers name themselves."""
    import datasets

    kind = table.features[column]
    column_of: pa.Table = table.select_columns([column]).with_format("arrow")[:]
    values = np.asarray(column_of[column].to_pylist(), dtype=object)
    missing = [row for row, value in enumerate(values) if value is None or value == -1]
    if missing:
        raise DataError(
            f"{len(missing)} images have no label, the first is row {missing[0]}",
            where=f"{where}: {column}",
            mend="choose a split with labels",
        )
    if isinstance(values[0], str):
        names, numbers = np.unique(values.astype(str), return_inverse=True)
        return torch.from_numpy(numbers.astype(np.int64)), tuple(names.tolist())
    labels = values.astype(np.int64)
    known = isinstance(kind, datasets.ClassLabel)
    named = kind.names if known else [str(number) for number in range(int(labels.max()) + 1)]
    outside = np.flatnonzero((labels < 0) | (labels >= len(named)))
    if len(outside):
        raise DataError(
            f"row {outside[0]} has label {labels[outside[0]]}, there are {len(named)} classes",
            where=f"{where}: {column}",
            mend="build or fetch the data set again",
        )
    return torch.from_numpy(labels), tuple(named)


def _entries(
    table: "datasets.Dataset",
    meta: Mapping[str, object],
    source: EncodedImages,
    num_classes: int,
    folder: Path,
    split: str,
    cache: Path,
) -> Entries:
    """Soft labels and views, from the rows of the images or from the table of views."""
    size, formation = _view_facts(meta, source)
    names = tuple(name for name in table.column_names if name in (*SOFT, *GEOMETRY))
    if names:
        columns: pa.Table = table.select_columns(list(names)).with_format("arrow")[:]
        return read_entries(columns, num_classes=num_classes, size=size, formation=formation)
    said = meta.get("views")
    if isinstance(said, Mapping) and said.get("config") == VIEWS_CONFIG:
        apart = _load(folder, VIEWS_CONFIG, split, cache).with_format("arrow")[:]
        return read_entry_table(
            apart, len(table), num_classes=num_classes, size=size, formation=formation
        )
    return Entries(None, None)


def _named(table: "datasets.Dataset") -> tuple[Reference | None, ...] | None:
    """The real images that rows name; None where none does."""
    known = [name for name in REFERENCE if name in table.column_names]
    if not known:
        return None
    found = tuple(read_references(table.select_columns(known).with_format("arrow")[:]))
    return found if any(found) else None


def _view_facts(meta: Mapping[str, object], source: EncodedImages) -> tuple[tuple[int, int], int]:
    """Size of a view in pixels (else the image's own) and sub-images per side (else 1)."""
    block = meta.get("views")
    size, formation = (source.height, source.width), 1
    if isinstance(block, Mapping):
        said = block.get("size")
        if isinstance(said, Sequence) and len(said) == 2:
            size = (int(said[0]), int(said[1]))
        formation = int(block.get("formation", 1))
    return size, formation
