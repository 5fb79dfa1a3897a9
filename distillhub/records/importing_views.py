"""Label folders of FKD and its kin: soft labels of augmented views, one file per batch.

A file holds, for a batch of B images, [crops, flips, labels], or as SRe2L writes it [crops, flips,
mix index, mix ratio, mix box, labels]; or a dictionary of these names. Crops are top, left, height
and width as fractions of the image; a pasted box is first row, first column, end row, end column
in pixels of the view. Which images a batch shows is not in the files of SRe2L: it follows from the
seed of its sampler. Here an order is only believed when the labels fit the images in it.

Source: Shen and Xing, A Fast Knowledge Distillation Framework for Visual Recognition (ECCV 2022);
Yin et al., Squeeze, Recover and Relabel (NeurIPS 2023), their relabel/utils_fkd.py.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from distillhub.errors import DataError
from distillhub.records.restricted import MAX_BYTES, as_tensor, load_pt
from distillhub.records.soft_labels import SoftLabels, Views

Order = Literal["auto", "stored"] | int
"""`stored`: batch by batch through the rows; a number: the seed of a RandomSampler, as in SRe2L."""
SUFFIXES = (".tar", ".pt", ".pth")
USUAL_SEED = 42
"""Of SRe2L's `--fkd-seed`; tried when nothing is said."""
MOST_BY_CHANCE = 1e-4
"""Labels of other images would fit as well with at most this probability."""


class Batch(NamedTuple):
    """One file."""

    crop: Tensor
    """[B, 4] float: top, left, height, width as fractions."""
    flip: Tensor
    """[B] bool."""
    partner: Tensor | None
    """[B] int64: places in the batch."""
    box: tuple[int, int, int, int] | None
    logits: Tensor
    """[B, C] float."""
    rows: Tensor | None
    """[B] int64: image rows, where the file tells them."""


class Labelled(NamedTuple):
    """What the folder gives for the images."""

    soft: SoftLabels
    views: Views
    assumed: tuple[str, ...]


def label_files(folder: Path) -> tuple[Path, ...]:
    """The files of batches in the order of the numbers in their paths.

    Raises:
        DataError: If there are none.
    """
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    files = [path for path in found if path.is_file() and not path.is_symlink()]
    if not files:
        raise DataError(
            f"holds no label batches ({', '.join(SUFFIXES)})",
            where=str(folder),
            mend="expected: epoch_0/batch_0.tar, ...",
        )
    return tuple(sorted(files, key=lambda path: _numbers(path.relative_to(folder))))


def with_labels(
    files: Sequence[Path],
    labels: Tensor,
    *,
    num_classes: int,
    image: tuple[int, int],
    view: tuple[int, int],
    order: Order,
) -> Labelled:
    """Read the batches and find out whose labels they are.

    Args:
        files: In order; every so many batches show all images once.
        labels: [N] int64 classes of the images.
        num_classes: Of the set.
        image: Height and width of the images, pixels.
        view: Height and width of a view, pixels.
        order: How the batches went through the images.

    Raises:
        DataError: If a file cannot be read, numbers are impossible, or the labels do not fit the
            images in the order that was named or in any usual one.
    """
    batches = []
    size = 0
    for path in files:
        batches.append(_batch(load_pt(path), str(path), num_classes, view))
        size += batches[-1].logits.numel() * 4
        if size > MAX_BYTES:
            raise DataError(f"more than {MAX_BYTES:,} bytes of labels", where=str(path))
    rows, n = sum(len(batch.flip) for batch in batches), len(labels)
    if rows % n:
        raise DataError(
            f"{rows} labels cannot be looks at {n} images",
            where=str(files[0].parent),
            mend="give the folder of all batches, and the images that they were made for",
        )
    looks = rows // n
    best, told = _order(batches, labels, looks, order, str(files[0].parent))
    logits = torch.empty(n, looks, num_classes)
    crop = torch.empty(n, looks, 4, dtype=torch.int32)
    flip = torch.empty(n, looks, dtype=torch.bool)
    partner = torch.arange(n, dtype=torch.int32).unsqueeze(1).repeat(1, looks)
    box = torch.zeros(n, looks, 4, dtype=torch.int32)
    start = 0
    for batch, path in zip(batches, files, strict=True):
        places = torch.arange(start, start + len(batch.flip))
        start += len(places)
        own, look = best[places], places // n
        if batch.partner is not None and int(look[0]) != int(look[-1]):
            raise DataError("a mixed batch spans two looks at the images", where=str(path))
        logits[own, look] = batch.logits
        crop[own, look] = _pixels(batch.crop, image, str(path))
        flip[own, look] = batch.flip
        if batch.partner is not None and batch.box is not None:
            partner[own, look] = own[batch.partner].int()
            box[own, look] = torch.tensor(batch.box, dtype=torch.int32)
    mixed = any(batch.partner is not None for batch in batches)
    return Labelled(
        SoftLabels.encode(logits, codec="float16"),
        Views(crop, flip, None, partner if mixed else None, box if mixed else None, view),
        (
            told,
            "Soft labels of the batches are taken for logits; they are stored as float16.",
            f"Views are {view[0]} x {view[1]} pixels, resampled bilinearly; how they were when "
            "they were labelled is not in the files.",
        ),
    )


def _order(
    batches: Sequence[Batch], labels: Tensor, looks: int, order: Order, where: str
) -> tuple[Tensor, str]:
    """Image row of every label, [N * looks], and a sentence on why.

    Raises:
        DataError: If the labels fit the images no better than by chance.
    """
    n = len(labels)
    best = torch.cat([batch.logits.argmax(1) for batch in batches])
    frequency = torch.bincount(best, minlength=int(labels.max()) + 1).double() / len(best)
    chance = float(frequency[labels].mean())
    tried: list[tuple[float, str, Tensor]] = []
    for name, rows in _candidates(batches, n, looks, order, where):
        tried.append((float((best == labels[rows]).double().mean()), name, rows))
    agreement, name, rows = max(tried, key=lambda found: found[0])
    evidence = len(best) * _divergence(agreement, chance)
    if agreement <= chance or evidence < -math.log(MOST_BY_CHANCE):
        raise DataError(
            f"labels do not fit the images ({name}): the highest logit is the class in "
            f"{agreement:.1%} of the views, by chance it would be in {chance:.1%}",
            where=where,
            mend="name the sampler's seed with --order SEED, and give the images they are of",
        )
    return rows, (
        f"Label batches went through the images {name}: the highest logit is the class in "
        f"{100 * agreement:.1f} % of the views, by chance it would be in {100 * chance:.1f} %."
    )


def _divergence(share: float, chance: float) -> float:
    """KL(share || chance) of two coins, nats: n times it bounds -log P(at least n share hits).

    Source: Chernoff's bound for the binomial tail.
    """
    parts = ((share, chance), (1 - share, 1 - chance))
    return sum(p * math.log(p / max(q, 1e-300)) for p, q in parts if p > 0)


def _candidates(
    batches: Sequence[Batch], n: int, looks: int, order: Order, where: str
) -> Iterator[tuple[str, Tensor]]:
    told = [batch.rows for batch in batches if batch.rows is not None]
    if told:
        rows = torch.cat(told)
        per_look = rows.reshape(looks, -1).sort(1).values if len(rows) == n * looks else None
        if per_look is None or not bool((per_look == torch.arange(n)).all()):
            raise DataError("the rows of the batches do not name every image once", where=where)
        yield "in the order that they name", rows
        return
    if order in ("auto", "stored"):
        yield "in the order of their rows", torch.arange(n).repeat(looks)
    if order != "stored":
        seed = USUAL_SEED if order == "auto" else int(order)
        generator = torch.Generator().manual_seed(seed)
        sampler = RandomSampler(range(n), generator=generator)
        drawn = list(itertools.chain.from_iterable(list(sampler) for _ in range(looks)))
        yield f"as a RandomSampler with seed {seed} shuffles them", torch.tensor(drawn)


def _batch(content: object, where: str, num_classes: int, view: tuple[int, int]) -> Batch:
    """The parts of one file, checked.

    Raises:
        DataError: If they are not what a batch holds.
    """
    parts = _parts(content, where)
    logits = as_tensor(parts["labels"], "labels", where)
    crop = as_tensor(parts["crops"], "crops", where)
    raw_flip = parts["flips"]
    flip = torch.tensor(raw_flip) if _flags(raw_flip) else as_tensor(raw_flip, "flips", where)
    count = len(logits) if logits.ndim else 0
    shapes = (tuple(logits.shape), tuple(crop.shape), tuple(flip.shape))
    if not count or shapes != ((count, num_classes), (count, 4), (count,)):
        raise DataError(
            f"labels, crops and flips have shapes {shapes}",
            where=where,
            mend=f"[B, {num_classes}], [B, 4] and [B] are needed",
        )
    logits, crop = logits.float(), crop.double()
    if not bool((logits.abs() <= 65504).all()):
        raise DataError("labels hold NaN, infinite or too large values", where=where)
    if not bool(((flip == 0) | (flip == 1)).all()):
        raise DataError("flips are neither 0 nor 1", where=where)
    rows = parts["index"]
    partner, box = _mixing(parts, count, view, where)
    return Batch(
        crop,
        flip.bool(),
        partner,
        box,
        logits,
        None if rows is None else _places(rows, count, "index", where),
    )


def _mixing(
    parts: Mapping[str, object], count: int, view: tuple[int, int], where: str
) -> tuple[Tensor | None, tuple[int, int, int, int] | None]:
    index, box = parts["mix_index"], parts["mix_bbox"]
    if index is None:
        return None, None
    if box is None:
        raise DataError(
            "views are mixed by adding them up (Mixup), which cannot be stored",
            where=where,
            mend="import labels of CutMix or of plain views",
        )
    partner = _places(index, count, "mix index", where)
    if not bool((partner < count).all()):
        raise DataError("the mix index is beyond the batch", where=where)
    sides = box.tolist() if isinstance(box, Tensor) else box
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 4
        or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        or not 0 <= sides[0] <= sides[2] <= view[0]
        or not 0 <= sides[1] <= sides[3] <= view[1]
    ):
        raise DataError(
            f"the mix box {str(sides)[:80]} does not lie in a view of {view[0]} x {view[1]} pixels",
            where=where,
            mend="give the views' size with --view-size",
        )
    top, left, bottom, right = sides
    return (partner, (top, left, bottom, right)) if top < bottom and left < right else (None, None)


def _parts(content: object, where: str) -> dict[str, object]:
    names: tuple[str, ...] = ("crops", "flips", "mix_index", "mix_lam", "mix_bbox", "labels")
    found: dict[str, object] = dict.fromkeys((*names, "index"))
    if isinstance(content, Mapping):
        found |= {key: value for key, value in content.items() if key in found}
    elif isinstance(content, list | tuple) and len(content) in (3, 6):
        kept = names if len(content) == 6 else ("crops", "flips", "labels")
        found |= dict(zip(kept, content, strict=True))
    if any(found[name] is None for name in ("crops", "flips", "labels")):
        raise DataError(
            "is no batch of labels",
            where=where,
            mend="[crops, flips, labels], or with mix index, ratio and box before the labels",
        )
    return found


def _places(value: object, count: int, what: str, where: str) -> Tensor:
    found = as_tensor(value, what, where)
    if found.dtype.is_floating_point or tuple(found.shape) != (count,) or bool((found < 0).any()):
        raise DataError(f"{what} holds no {count} places", where=where)
    return found.long()


def _flags(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(flag, bool | int) for flag in value)


def _pixels(crop: Tensor, image: tuple[int, int], where: str) -> Tensor:
    """Fractions of the image as whole pixels, [B, 4] int32.

    Raises:
        DataError: If a crop is empty or leaves the image.
    """
    sides = torch.tensor([*image, *image], dtype=torch.float64)
    if not bool(torch.isfinite(crop).all()) or not bool(((crop >= 0) & (crop <= 1.001)).all()):
        raise DataError("crops are no fractions of the image", where=where)
    found = (crop * sides).round()
    end = found[:, :2] + found[:, 2:]
    if bool((found[:, 2:] < 1).any()) or bool((end > sides[:2]).any()):
        raise DataError("a crop is empty or leaves the image", where=where)
    return found.int()


def _numbers(path: Path) -> tuple[tuple[object, ...], ...]:
    """Natural order: batch_2 before batch_10."""
    return tuple(
        tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in split if part)
        for split in (re.split(r"(\d+)", part) for part in path.parts)
    )
