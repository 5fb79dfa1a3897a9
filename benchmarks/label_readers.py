"""The same views and labels behind four readers, for `labels.py`.

Each reader gives, for rows [n] and views [n], images [n, 1, H, W] in [0, 1] and dense logits
[n, 1000] at T = 4. One reader of the nested lists is given our renderer and images in memory, so
that only the reading of its labels is left to compare.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from distillhub.data import codec
from distillhub.data.real import RealData
from distillhub.data.specs import ImageFormat
from distillhub.packaging.parquet import write
from distillhub.records.distilled import load
from distillhub.records.replay import replay
from distillhub.records.soft_labels import SoftLabels, Views
from distillhub.relabel.spec import ViewSpec
from distillhub.relabel.views import draw_views

CLASSES, VIEWS, KEPT = 1000, 10, 10
TEMPERATURE = 4.0
Reader = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Sample(NamedTuple):
    """The set in the three ways of storage."""

    rows: int
    views: int
    flat: Path
    """Our Parquet."""
    nested: Path
    """Parquet with lists of lists."""
    folder: Path
    """PNG files and labels.pt."""


def prepare(real: RealData, workspace: Path) -> Sample:
    """Write up to 4000 real images with made-up top-10 logits of 1000 classes in all three ways."""
    rows = min(4000, len(real) // 1000 * 1000)
    files = codec.encode(real.images(torch.arange(rows)), ImageFormat())
    geometry = draw_views(
        ViewSpec(flip=True), rows, count=VIEWS, height=real.height, width=real.width, seed=0
    )
    generator = torch.Generator().manual_seed(0)
    parts = [
        SoftLabels.encode(
            torch.randn(500, VIEWS, CLASSES, generator=generator) * 2, codec="float16", top_k=KEPT
        )
        for _ in range(rows // 500)
    ]
    soft = SoftLabels.concatenate(parts)
    labels = torch.arange(rows) % CLASSES
    places = [workspace / name for name in ("flat", "nested", "folder")]
    for place in places:
        place.mkdir()
    names = [str(number) for number in range(CLASSES)]
    write(places[0], files, labels, names, soft, geometry, {})
    _write_nested(places[1], files, labels, soft, geometry)
    _write_folder(places[2], files, labels, soft, geometry)
    return Sample(rows, VIEWS, *places)


def _write_nested(
    place: Path, files: Sequence[bytes], labels: Tensor, soft: SoftLabels, views: Views
) -> None:
    if soft.classes is None or soft.rest is None:
        raise ValueError("the comparison is made with the highest logits only")

    def lists(kind: str, length: int) -> datasets.List:
        return datasets.List(datasets.List(datasets.Value(kind), length=length), length=VIEWS)

    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.Value("int64"),
        crop=lists("uint16", 4),
        flip=datasets.List(datasets.Value("bool"), length=VIEWS),
        index=lists("uint16", KEPT),
        value=lists("float16", KEPT),
        rest=lists("float16", 2),
    )
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": file, "path": None} for file in files],
            "label": labels.tolist(),
            "crop": list(views.crop.numpy().astype(np.uint16)),
            "flip": list(views.flip.numpy()),
            "index": list(soft.classes.numpy()),
            "value": list(soft.values.numpy()),
            "rest": list(soft.rest.numpy()),
        },
        features=features,
    )
    with _quiet():
        table.to_parquet(place / "train.parquet")


def _write_folder(
    place: Path, files: Sequence[bytes], labels: Tensor, soft: SoftLabels, views: Views
) -> None:
    for row, file in enumerate(files):
        (place / f"{row:06d}.png").write_bytes(file)
    stored = {
        "label": labels,
        "crop": views.crop,
        "flip": views.flip,
        "index": soft.classes,
        "value": soft.values,
        "rest": soft.rest,
    }
    torch.save(stored, place / "labels.pt")  # noqa: TID251 - what this storage is


def _dense(index: Tensor, value: Tensor, rest: Tensor) -> Tensor:
    """Logits [n, 1000] from index, value [n, 10] and rest [n, 2]."""
    mean, std = rest.float()[:, :1], rest.float()[:, 1:]
    fill = torch.minimum(mean + std.square() / (2 * TEMPERATURE), value[:, -1:].float())
    return fill.expand(-1, CLASSES).clone().scatter_(1, index.long(), value.float())


def _shown(image: Tensor, crop: Sequence[int], flip: bool) -> Tensor:
    """One view of one image [C, H, W], as one writes it by hand."""
    top, left, tall, wide = crop
    cut = image[None, :, top : top + tall, left : left + wide]
    seen = F.interpolate(cut, image.shape[1:], mode="bilinear", align_corners=False)[0]
    return seen.flip(2) if flip else seen


def ours(sample: Sample) -> Reader:
    """`DistilledSet.view_batch`."""
    opened = load(sample.flat)
    return lambda rows, views: opened.view_batch(rows, views, TEMPERATURE)


def nested_decoded(sample: Sample) -> Reader:
    """Nested lists and images through `datasets`, views one by one."""
    with _quiet():
        table = datasets.Dataset.from_parquet(
            str(sample.nested / "train.parquet"), cache_dir=str(sample.nested / "cache")
        ).with_format("torch")

    def read(rows: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        found = table[rows.tolist()]
        n = torch.arange(len(rows))
        crop, flip = found["crop"][n, views].tolist(), found["flip"][n, views].tolist()
        images = [
            _shown(image.float() / 255, box, mirrored)
            for image, box, mirrored in zip(found["image"], crop, flip, strict=True)
        ]
        picked = (found[name][n, views] for name in ("index", "value", "rest"))
        return torch.stack(images), _dense(*picked)

    return read


def nested_resident(sample: Sample) -> Reader:
    """Nested lists through `datasets`; images in memory, views by our renderer."""
    with _quiet():
        table = datasets.Dataset.from_parquet(
            str(sample.nested / "train.parquet"), cache_dir=str(sample.nested / "cache")
        )
    bytes_of = table.cast_column("image", datasets.Image(decode=False))["image"]
    pixels = codec.decode([cell["bytes"] for cell in bytes_of], 1)
    table = table.remove_columns("image").with_format("torch")

    def read(rows: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        found = table[rows.tolist()]
        n = torch.arange(len(rows))
        size = (pixels.shape[2], pixels.shape[3])
        crop, flip = found["crop"].int(), found["flip"].bool()
        geometry = Views(crop, flip, None, None, None, size)
        images = replay(lambda place: pixels[rows[place]], geometry, n, views)
        picked = (found[name][n, views] for name in ("index", "value", "rest"))
        return images, _dense(*picked)

    return read


class _Folder(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, place: Path) -> None:
        self.place = place
        self.stored = torch.load(place / "labels.pt", weights_only=True)  # noqa: TID251 - ditto

    def __getitem__(self, pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        row, view = pair
        with Image.open(io.BytesIO((self.place / f"{row:06d}.png").read_bytes())) as picture:
            image = torch.from_numpy(np.array(picture))[None].float() / 255
        crop, flip, *label = (
            self.stored[name][row, view] for name in ("crop", "flip", "index", "value", "rest")
        )
        dense = _dense(*(part[None] for part in label))[0]
        return _shown(image, crop.tolist(), bool(flip)), dense


def folder(sample: Sample) -> Reader:
    """PNG files and a tensor of labels, through a `DataLoader` without workers."""
    data = _Folder(sample.folder)

    def read(rows: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        pairs = list(zip(rows.tolist(), views.tolist(), strict=True))
        images, logits = next(iter(DataLoader(data, batch_sampler=[pairs])))
        return images, logits

    return read


@contextmanager
def _quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


READERS: dict[str, Callable[[Sample], Reader]] = {
    "ours: view_batch": ours,
    "nested lists, images in memory, our renderer": nested_resident,
    "nested lists, images decoded on access": nested_decoded,
    "folder of PNG files and labels.pt": folder,
}
