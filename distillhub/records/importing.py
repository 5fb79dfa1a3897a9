"""Sets that others made, as images, labels and views: files and folders of the usual kinds.

Nothing is guessed in silence: what had to be taken for granted is a sentence in `Foreign.assumed`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distillhub.data.folders import class_folders, image_files
from distillhub.digests import sha256_of
from distillhub.errors import DataError, UsageError
from distillhub.records.imported import ImportKind
from distillhub.records.importing_arrays import Arrays, from_arrays, paired
from distillhub.records.importing_pictures import Pictures, from_folder, from_set
from distillhub.records.importing_views import Order, label_files, with_labels
from distillhub.records.manifest import MANIFEST
from distillhub.records.restricted import load_npz, load_pt
from distillhub.records.soft_labels import MAX_CLASSES, SoftLabels, Views

Kind = Literal["auto", "folder", "pt", "npz", "hub"]
PT_SUFFIXES = (".pt", ".pth", ".tar")
NPZ_SUFFIXES = (".npz",)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Wishes:
    """What the person who imports says of the files."""

    kind: Kind = "auto"
    classes: tuple[str, ...] = ()
    """Class names in label order."""
    mean: tuple[float, ...] = ()
    """Per channel: the arrays are normalised with it, of images in [0, 1]."""
    std: tuple[float, ...] = ()
    labels: Path | None = None
    """A file with the labels of an array file without any, or a folder of label batches."""
    entry: int = 0
    """Of a file that holds several sets."""
    values: Literal["auto", "logits", "probabilities"] = "auto"
    """What rows of numbers in place of class numbers are."""
    order: Order = "auto"
    """In which order the label batches went through the images."""
    view_size: tuple[int, int] | None = None
    """Height and width of a view of the label batches; None: of an image."""
    revision: str | None = None
    split: str = "train"


@dataclass(frozen=True)
class Foreign:
    """A set that was not made here."""

    kind: ImportKind
    origin: str
    files: tuple[bytes, ...]
    """N encoded images of one size and kind."""
    size: tuple[int, int, int]
    """Channels, height, width."""
    labels: Tensor
    """[N] int64."""
    class_names: tuple[str, ...]
    soft: SoftLabels | None
    views: Views | None
    inputs: dict[str, str]
    """sha256 of what was read."""
    assumed: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Images per class."""
        return tuple(torch.bincount(self.labels, minlength=len(self.class_names)).tolist())


def read_foreign(source: str, wishes: Wishes) -> Foreign:
    """Read a set from an image folder, a `.pt` or `.npz` file, or in the layout of the Hub.

    Args:
        source: File, folder or Hub id.
        wishes: What is known of it.

    Raises:
        UsageError: If source and wishes do not fit together, or the set is one of ours.
        DataError: If something cannot be read or cannot be right.
    """
    path = Path(source).expanduser()
    if (path / MANIFEST).is_file():
        raise UsageError(
            "the folder is an artifact of distillhub already",
            where=source,
            mend=f"use it as it is: distillhub show {source}",
        )
    if bool(wishes.mean) != bool(wishes.std):
        raise UsageError(
            "mean and standard deviation go together",
            where="--mean, --std",
            mend="give both, or neither",
        )
    kind = wishes.kind if wishes.kind != "auto" else kind_of(source)
    batches = label_files(wishes.labels) if wishes.labels and wishes.labels.is_dir() else ()
    if kind in ("pt", "npz"):
        pictures = _from_file(path, kind, wishes)
    else:
        if wishes.mean or (wishes.labels and not batches):
            raise UsageError(
                "--mean, --std and a file of labels belong to .pt and .npz files",
                where=source,
                mend="leave them out",
            )
        pictures = (
            from_folder(path)
            if kind == "folder"
            else from_set(source, revision=wishes.revision, split=wishes.split)
        )
    names = _names(pictures, wishes.classes, source)
    soft, views, assumed = pictures.soft, pictures.views, pictures.assumed
    inputs = dict(pictures.inputs or _inputs(path, pictures))
    if wishes.labels is not None and not batches:
        inputs[wishes.labels.name] = sha256_of(wishes.labels)
    if batches:
        if soft is not None:
            raise UsageError(
                "the set has soft labels of its own",
                where=str(wishes.labels),
                mend="leave --labels out",
            )
        read = with_labels(
            batches,
            pictures.labels,
            num_classes=len(names),
            image=pictures.size[1:],
            view=wishes.view_size or pictures.size[1:],
            order=wishes.order,
        )
        soft, views, assumed = read.soft, read.views, (*assumed, *read.assumed)
        inputs[f"labels/{wishes.labels.name if wishes.labels else ''}"] = _digest(batches)
    return Foreign(
        kind=kind,
        origin=pictures.origin or path.resolve().name,
        files=pictures.files,
        size=pictures.size,
        labels=pictures.labels,
        class_names=names,
        soft=soft,
        views=views,
        inputs=inputs,
        assumed=assumed,
    )


def kind_of(source: str) -> ImportKind:
    """What a source looks like.

    Raises:
        UsageError: If it looks like nothing that can be imported.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix.lower() in PT_SUFFIXES:
            return "pt"
        if path.suffix.lower() in NPZ_SUFFIXES:
            return "npz"
        raise UsageError(
            f"a file of kind '{path.suffix}' cannot be imported",
            where=source,
            mend="give a .pt or .npz file, a folder of images by class, or a Hub id",
        )
    if path.is_dir():
        return "hub" if next(path.rglob("*.parquet"), None) else "folder"
    if HUB_ID.fullmatch(source) and not source.startswith("."):
        return "hub"
    raise UsageError(
        "no such file, folder or Hub id", where=source, mend="check the path, or give org/name"
    )


def _from_file(path: Path, kind: Literal["pt", "npz"], wishes: Wishes) -> Pictures:
    where = str(path)
    if not path.is_file():
        raise UsageError(
            f"--kind {kind} needs a file", where=where, mend="name one, or another --kind"
        )
    content: object = load_pt(path) if kind == "pt" else load_npz(path)
    arrays = paired(content, wishes.entry, where)
    if wishes.labels is not None and wishes.labels.is_file():
        lone = wishes.labels
        given = load_npz(lone) if lone.suffix.lower() in NPZ_SUFFIXES else load_pt(lone)
        held = paired(given, wishes.entry, str(lone), labels=True)
        arrays = Arrays(arrays.images, held.labels, held.soft, (*arrays.assumed, *held.assumed))
    if arrays.images is None:
        raise DataError("holds no array of images", where=where, mend="name it `images`")
    if arrays.labels is None and arrays.soft is None:
        raise DataError(
            "holds images and no labels",
            where=where,
            mend="store them together as {'images': ..., 'labels': ...}, or give --labels FILE",
        )
    return from_arrays(arrays, mean=wishes.mean, std=wishes.std, values=wishes.values, where=where)


def _names(pictures: Pictures, wanted: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names in label order.

    Raises:
        UsageError: If another number of names was given than there are classes.
        DataError: If there are too few or too many classes, or a name cannot be printed.
    """
    highest = int(pictures.labels.max()) + 1
    known = pictures.class_names
    count = len(known) or pictures.classes or highest
    if wanted:
        fixed = bool(known) or pictures.soft is not None
        if (fixed and len(wanted) != count) or len(wanted) < highest:
            raise UsageError(
                f"{len(wanted)} class names for {count} classes",
                where="--classes",
                mend="give one name per class, in the order of the labels",
            )
        names = tuple(wanted)
    else:
        present = len(set(pictures.labels.tolist()))
        if not known and pictures.soft is None and highest > 2 * present:
            raise DataError(
                f"labels go up to {highest - 1}, images are of {present} classes",
                where=where,
                mend="name all classes in label order with --classes, if that is right",
            )
        names = known or tuple(map(str, range(count)))
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(f"{len(names)} classes; 2 to {MAX_CLASSES} can be stored", where=where)
    odd = next((name for name in names if not name.strip() or _CONTROL.search(name)), None)
    if odd is not None or len(set(names)) != len(names):
        raise DataError(
            f"class name {odd!r} cannot be printed" if odd is not None else "class names repeat",
            where=where,
            mend="give other names with --classes",
        )
    return names


def _inputs(path: Path, pictures: Pictures) -> dict[str, str]:
    """The file's digest, or one over all files of a folder."""
    if path.is_file():
        return {path.name: sha256_of(path)}
    files = [file for folder in class_folders(pictures.top or path) for file in image_files(folder)]
    return {path.resolve().name: _digest(files)}


def _digest(files: Sequence[Path]) -> str:
    """One sha256 over the digests of files in order."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(sha256_of(file)))
    return whole.hexdigest()
