"""Arrays of images and labels, in the forms in which people save distilled sets.

{"images": ..., "labels": ...} under the usual names, [images, labels], a lone array of images, or
{"data": [[images, labels], ...]}, one pair per experiment, as the code of DC, DSA and DM writes it.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distillhub.data import codec
from distillhub.data.specs import ImageFormat
from distillhub.errors import DataError, UsageError
from distillhub.records.importing_pictures import Pictures
from distillhub.records.restricted import as_tensor
from distillhub.records.soft_labels import MAX_CLASSES, SoftLabels

IMAGES = ("images", "image", "imgs", "x", "image_syn", "images_train", "x_train", "data")
LABELS = ("labels", "label", "targets", "target", "y", "label_syn", "labels_train", "y_train")
SOFT = ("soft_labels", "soft_label", "logits", "soft")
MAX_SIDE = 4096
LEAST_PROBABILITY = 1e-7
"""Smaller ones are stored as this one: a logarithm of zero cannot be."""
MAX_LOGIT = 65504.0
"""Of float16."""


class Arrays(NamedTuple):
    """What a file holds."""

    images: object | None
    labels: object | None
    soft: object | None
    assumed: tuple[str, ...] = ()


def paired(content: object, entry: int, where: str, *, labels: bool = False) -> Arrays:
    """Find images and labels in what a file holds.

    Args:
        content: What was read.
        entry: Which of several sets.
        where: The file, for messages.
        labels: Whether a lone array is the labels instead of the images.

    Raises:
        DataError: If there are none.
        UsageError: If there is no such entry.
    """
    if _is_array(content):
        return Arrays(None, content, None) if labels else Arrays(content, None, None)
    if isinstance(content, Mapping):
        named = {str(key).lower(): value for key, value in content.items()}
        listed = named.get("data")
        if isinstance(listed, list | tuple):
            return paired(listed, entry, where)
        found = [
            next((named[name] for name in names if _is_array(named.get(name))), None)
            for names in (IMAGES, LABELS, SOFT)
        ]
        if any(part is not None for part in found):
            return Arrays(found[0], found[1], found[2])
        raise DataError(
            f"no images or labels among the keys {', '.join(sorted(named)[:20]) or '(none)'}",
            where=where,
            mend="save {'images': ..., 'labels': ...}",
        )
    if isinstance(content, list | tuple):
        if len(content) == 2 and all(map(_is_array, content)):
            return Arrays(content[0], content[1], None)
        pairs = [
            part
            for part in content
            if isinstance(part, list | tuple) and len(part) == 2 and all(map(_is_array, part))
        ]
        if pairs and len(pairs) == len(content):
            if not 0 <= entry < len(pairs):
                raise UsageError(
                    f"there are {len(pairs)} sets, from 0 on",
                    where=f"--entry {entry}",
                    mend=f"name one of 0 to {len(pairs) - 1}",
                )
            told = (
                () if len(pairs) == 1 else (f"Of {len(pairs)} sets in the file, number {entry}.",)
            )
            return Arrays(pairs[entry][0], pairs[entry][1], None, told)
    raise DataError(
        f"no images and labels in a {type(content).__name__}",
        where=where,
        mend="save {'images': ..., 'labels': ...} or [images, labels]",
    )


def from_arrays(
    arrays: Arrays,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    values: Literal["auto", "logits", "probabilities"],
    where: str,
) -> Pictures:
    """Encode images as PNG and split labels into classes and soft labels.

    Raises:
        DataError: If shapes, types or values cannot be those of images and labels.
        UsageError: If the pixels are normalised and it is not known how.
    """
    assumed = list(arrays.assumed)
    images = _shaped(as_tensor(arrays.images, "images", where), where, assumed)
    pixels = _unit(images, mean, std, where, assumed)
    labels, soft = _labels(arrays, len(images), values, where, assumed)
    return Pictures(
        files=tuple(codec.encode(pixels, ImageFormat(codec="png"))),
        size=(pixels.shape[1], pixels.shape[2], pixels.shape[3]),
        labels=labels,
        class_names=(),
        classes=None if soft is None else soft.num_classes,
        soft=soft,
        assumed=tuple(assumed),
    )


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _shaped(images: Tensor, where: str, assumed: list[str]) -> Tensor:
    """Images as [N, C, H, W].

    Raises:
        DataError: If they cannot be that.
    """
    shape = tuple(images.shape)
    if images.ndim == 3:
        images = images.unsqueeze(1)
        assumed.append("Arrays of three dimensions are grey images.")
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"images have shape {shape}",
            where=where,
            mend="[N, C, H, W] or [N, H, W, C] with 1 or 3 channels, or [N, H, W], is needed",
        )
    n, _, height, width = images.shape
    if not n or not 0 < min(height, width) <= max(height, width) <= MAX_SIDE:
        raise DataError(
            f"{n} images of {height} x {width} pixels; 1 to {MAX_SIDE} pixels can be stored",
            where=where,
        )
    return images


def _unit(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], where: str, assumed: list[str]
) -> Tensor:
    """Images in [0, 1], float32; says how they were understood.

    Raises:
        DataError: If a pixel is NaN or infinite.
        UsageError: If they are normalised and it is not known how, or mean and std do not fit.
    """
    whole = not images.dtype.is_floating_point
    found = images.float()
    if not bool(torch.isfinite(found).all()):
        raise DataError("images hold NaN or infinite values", where=where)
    low, high = float(found.min()), float(found.max())
    told = f"Pixel values run from {low:.4g} to {high:.4g}"
    if mean:
        if not len(mean) == len(std) == images.shape[1] or min(std) <= 0:
            raise UsageError(
                f"{len(mean)} means and {len(std)} deviations for {images.shape[1]} channels",
                where="--mean, --std",
                mend="give a positive deviation and a mean for each channel, with commas",
            )
        shape = (1, -1, 1, 1)
        found = found * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
        outside = float(((found < 0) | (found > 1)).double().mean())
        numbers = f"mean {_listed(mean)}, deviation {_listed(std)}"
        assumed.append(f"{told}; they are normalised with {numbers}, as the importer said.")
        if outside:
            assumed.append(f"{100 * outside:.2f} % of the values were outside [0, 1] and were cut.")
    elif low >= 0 and high <= 1 and not whole:
        assumed.append(f"{told}; they are taken for pixels in [0, 1].")
    elif low >= 0 and high <= 255 and (whole or high > 2):
        assumed.append(f"{told}; they are taken for 8-bit levels, 255 for white.")
        found = found / 255
    else:
        raise UsageError(
            f"pixel values run from {low:.4g} to {high:.4g}: they are normalised, and how is not "
            "in the file",
            where=where,
            mend="give --mean and --std per channel, such as "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        )
    if not whole:
        assumed.append("Pixels are stored with 8 bits; values between two levels were rounded.")
    return found.clamp(0, 1)


def _labels(
    arrays: Arrays,
    count: int,
    values: Literal["auto", "logits", "probabilities"],
    where: str,
    assumed: list[str],
) -> tuple[Tensor, SoftLabels | None]:
    """Classes [N] int64, and soft labels where the file has them.

    Raises:
        DataError: If their number differs from that of the images, or they cannot be labels.
    """
    given = [
        None if part is None else as_tensor(part, what, where)
        for part, what in ((arrays.labels, "labels"), (arrays.soft, "soft labels"))
    ]
    for part in given:
        if part is not None and (part.ndim == 0 or len(part) != count):
            found = len(part) if part.ndim else 0
            raise DataError(f"{found} labels for {count} images", where=where)
    hard, soft = (None if part is None else part.reshape(count, -1) for part in given)
    if hard is not None and hard.shape[1] > 1:
        if soft is not None:
            raise DataError("two kinds of soft labels", where=where, mend="keep one of them")
        hard, soft = None, hard
    logits = None if soft is None else _logits(soft.float(), values, where, assumed)
    classes = None
    if hard is not None:
        classes = hard[:, 0] if hard.shape[1] else hard.new_full((count,), -1)
        numbers = classes.double()
        if not bool(torch.isfinite(numbers).all()) or bool((numbers != numbers.round()).any()):
            raise DataError("labels are no class numbers", where=where)
        if bool(((numbers < 0) | (numbers >= MAX_CLASSES)).any()):
            raise DataError(
                f"labels run from {int(numbers.min())} to {int(numbers.max())}; "
                f"0 to {MAX_CLASSES - 1} can be stored",
                where=where,
            )
    if soft is None or logits is None:
        return _known(classes).long(), None
    if classes is None:
        classes = logits.argmax(1)
        assumed.append("The class of an image is that of its highest label.")
    if bool((classes.long() >= logits.shape[1]).any()):
        raise DataError(f"a class is beyond the {logits.shape[1]} of the soft labels", where=where)
    if _one_hot(soft):
        return classes.long(), None
    return classes.long(), SoftLabels.encode(logits.unsqueeze(1), codec="float16")


def _known(classes: Tensor | None) -> Tensor:
    if classes is None:
        raise AssertionError("neither classes nor soft labels")
    return classes


def _one_hot(rows: Tensor) -> bool:
    return bool(((rows == 0) | (rows == 1)).all()) and bool((rows.sum(1) == 1).all())


def _logits(rows: Tensor, values: str, where: str, assumed: list[str]) -> Tensor:
    """Rows of numbers as logits, [N, C].

    Raises:
        DataError: If they are not finite, or not probabilities where these were named.
    """
    if not 2 <= rows.shape[1] <= MAX_CLASSES or not bool(torch.isfinite(rows).all()):
        raise DataError(
            f"soft labels of {rows.shape[1]} classes, or NaN or infinite values", where=where
        )
    if _one_hot(rows):
        assumed.append("Labels are one-hot rows, which say no more than the class.")
        return rows
    likely = bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-2).all())
    if values == "probabilities" and not likely:
        raise DataError("soft labels are no probabilities: rows do not sum to 1", where=where)
    if values == "probabilities" or (values == "auto" and likely):
        assumed.append(
            "Soft labels are probabilities, stored as their logarithms; none below "
            f"{LEAST_PROBABILITY:g}."
        )
        return rows.clamp_min(LEAST_PROBABILITY).log()
    if float(rows.abs().max()) > MAX_LOGIT:
        raise DataError(f"soft labels are beyond {MAX_LOGIT:g}", where=where)
    assumed.append("Soft labels are taken for logits.")
    return rows


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
