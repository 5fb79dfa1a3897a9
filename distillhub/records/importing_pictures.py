"""Image files of others: folders by class, and sets in the layout of the Hub."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillhub.data.folders import class_folders, image_files
from distillhub.data.pictures import CANNOT_DECODE, natural_channels, pixels_of
from distillhub.errors import DataError
from distillhub.records.distilled import load
from distillhub.records.soft_labels import SoftLabels, Views

MAX_PIXELS = 1 << 26
"""Of one image: 8192 x 8192; larger ones are refused before they are decoded."""
AS_THEY_ARE = ("PNG", "JPEG", "WEBP")
"""Files of these kinds are stored byte by byte."""
BLOCK = 256


class Pictures(NamedTuple):
    """Images of one size with their labels."""

    files: tuple[bytes, ...]
    size: tuple[int, int, int]
    """Channels, height, width."""
    labels: Tensor
    """[N] int64."""
    class_names: tuple[str, ...]
    """Empty: classes are numbers."""
    classes: int | None
    """How many there are, where the labels tell more than the highest of them."""
    soft: SoftLabels | None = None
    views: Views | None = None
    assumed: tuple[str, ...] = ()
    origin: str = ""
    """What it is called; empty: by the name of the file or folder."""
    inputs: dict[str, str] | None = None
    """sha256 of what was read; None: of the file or folder."""
    top: Path | None = None
    """Folder of the class folders."""


def from_folder(folder: Path) -> Pictures:
    """Image files in one folder per class, or below `train/`.

    Raises:
        DataError: If there are none, or an image cannot be decoded or has another size.
    """
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), mend="check the path")
    top = folder / "train" if [f.name for f in class_folders(folder)] == ["train"] else folder
    listed = [(place, image_files(place)) for place in class_folders(top)]
    files = [file for _, found in listed for file in found]
    if not files:
        raise DataError(
            "holds no image files in class folders",
            where=str(folder),
            mend="expected: <class>/*.png or train/<class>/*.png",
        )
    labels = np.repeat(np.arange(len(listed)), [len(found) for _, found in listed])
    assumed = ["Classes are in the order of the names of their folders."]
    try:
        content = [file.read_bytes() for file in files]
    except OSError as error:
        raise DataError(
            error.strerror or "cannot be read", where=str(error.filename), mend="restore the file"
        ) from error
    names = [file.relative_to(folder).as_posix() for file in files]
    stored, size = uniform(content, names, assumed)
    return Pictures(
        files=stored,
        size=size,
        labels=torch.from_numpy(labels.astype(np.int64)),
        class_names=tuple(place.name for place, _ in listed),
        classes=None,
        assumed=tuple(assumed),
        top=top,
    )


def from_set(source: str, *, revision: str | None, split: str) -> Pictures:
    """A set that `load_dataset` opens, from a folder or the Hub: images with a class each.

    Raises:
        DataError: If it cannot be opened, or has no images or labels.
    """
    import hashlib

    opened = load(source, revision=revision, split=split)
    assumed = [f"Rows of the split '{split}'."]
    content: list[bytes] = []
    for start in range(0, len(opened), BLOCK):
        content += opened.source.files(range(start, min(start + BLOCK, len(opened))))
    names = [f"row {row}" for row in range(len(content))]
    stored, size = uniform(content, names, assumed)
    if size[0] != opened.channels:
        assumed.append("The first image is grey and others are not; all are stored as RGB.")
    digest = hashlib.sha256()
    for file, label in zip(content, opened.labels.tolist(), strict=True):
        digest.update(hashlib.sha256(file).digest() + label.to_bytes(8, "little"))
    numbered = opened.class_names == tuple(map(str, range(opened.num_classes)))
    at = f"@{opened.revision}" if opened.revision else ""
    origin = f"{source}{at}" if opened.revision else Path(source).resolve().name
    if numbered:
        assumed.append("Classes are numbers; their names were not said.")
    return Pictures(
        files=stored,
        size=size,
        labels=opened.labels,
        class_names=() if numbered else opened.class_names,
        classes=opened.num_classes,
        soft=opened.soft,
        views=opened.views,
        assumed=tuple(assumed),
        origin=origin,
        inputs={f"{origin}/{split}": digest.hexdigest()},
    )


def uniform(
    files: Sequence[bytes], names: Sequence[str], assumed: list[str]
) -> tuple[tuple[bytes, ...], tuple[int, int, int]]:
    """Image files of one size and one number of channels; usual ones stay as they are.

    Args:
        files: Encoded images.
        names: What they are called in messages.
        assumed: A sentence is added where files were changed.

    Returns:
        The files, and channels, height and width.

    Raises:
        DataError: If one cannot be decoded, is too large, or has another size than the first.
    """
    looked = [_looked(file, name) for file, name in zip(files, names, strict=True)]
    channels = max(found.channels for found in looked)
    first = looked[0].pixels.shape[1:]
    stored, changed = [], 0
    for file, name, found in zip(files, names, looked, strict=True):
        if found.pixels.shape[1:] != first:
            raise DataError(
                f"{found.pixels.shape[1]} x {found.pixels.shape[2]} pixels, "
                f"the first image has {first[0]} x {first[1]}",
                where=name,
                mend="bring all images to one size",
            )
        if found.plain and found.channels == channels:
            stored.append(file)
            continue
        changed += 1
        stored.append(_png(found.pixels, channels))
    if changed:
        assumed.append(
            f"{changed} of {len(files)} image files were stored anew as 8-bit PNG: "
            "they are of an unusual kind, or grey among colored ones."
        )
    return tuple(stored), (channels, int(first[0]), int(first[1]))


class _Looked(NamedTuple):
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    channels: int
    plain: bool


def _looked(file: bytes, name: str) -> _Looked:
    """An image's pixels, and whether its file can be stored as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(file)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{image.width} x {image.height} pixels", where=name)
                plain = (
                    image.format in AS_THEY_ARE
                    and image.mode in ("L", "RGB")
                    and "exif" not in image.info
                    and "transparency" not in image.info
                    and getattr(image, "n_frames", 1) == 1
                )
                channels = natural_channels(image)
                return _Looked(pixels_of(image, channels, None, "crop"), channels, plain)
    except (*CANNOT_DECODE, Warning, MemoryError, OverflowError) as error:
        told = str(error)
        reason = "not an image of a known kind" if "BytesIO" in told else told
        raise DataError(
            f"the image cannot be decoded: {reason or type(error).__name__}",
            where=name,
            mend="replace or remove it",
        ) from error


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], channels: int) -> bytes:
    shown = np.repeat(pixels, 3, axis=0) if len(pixels) < channels else pixels
    picture = Image.fromarray(
        np.ascontiguousarray(shown[0] if channels == 1 else shown.transpose(1, 2, 0))
    )
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=9)
    return out.getvalue()
