"""Whether existing weights suit a data set: its images, and which outputs are its classes."""

from collections import Counter
from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from distillhub.data.subsets import imagenet_labels
from distillhub.errors import RecipeError
from distillhub.models.specs import ModelSpec

IMAGENET_CLASSES = 1000
SLACK = 0.1
"""How far below its recorded accuracy a network may be, sampling errors apart: another size or crop
costs a few points, another order of ten classes nearly all."""


def refuse_other_images(
    spec: ModelSpec, made_for: tuple[int, int, int], images: tuple[int, int, int]
) -> None:
    """Refuse weights for images of another kind.

    Networks of a library serve any size; those of a file are for the size that they were made for.

    Args:
        spec: Of the network.
        made_for: Channels, height and width in pixels.
        images: The same of the data set.

    Raises:
        RecipeError: If channels differ, or the sizes of a file.
    """
    sized = spec.weights.endswith(".safetensors")
    if made_for[0] == images[0] and (made_for[1:] == images[1:] or not sized):
        return
    raise RecipeError(
        f"the weights are for images of {_sides(made_for)}, the data set's have {_sides(images)}",
        where="weights",
        mend="set dataset.size or dataset.channels to that of the weights, name others, or train "
        "a network here",
    )


def _sides(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels in {channels} channel{'s' if channels > 1 else ''}"


def outputs_of(
    spec: ModelSpec, names: Sequence[str] | None, count: int, classes: Sequence[str]
) -> list[int] | None:
    """The outputs of a network in the order of the data set's classes; None: all, as they are.

    Args:
        spec: Of the network.
        names: What its file says of its outputs; those of the spec go before. None: nothing.
        count: Outputs.
        classes: Of the data set, in label order.

    Raises:
        RecipeError: If a class has no output, or more than one.
    """
    if spec.class_names is not None and len(spec.class_names) != count:
        raise RecipeError(
            f"{len(spec.class_names)} classes are named, the weights have {count} outputs",
            where="class_names",
            mend="list the class of every output in order",
        )
    known = spec.class_names or names
    if known is not None and tuple(known) == tuple(classes):
        return None
    if known is None and count == len(classes) != IMAGENET_CLASSES:
        return None
    if known is not None and set(classes) <= set(known):
        often = Counter(known)
        twice = [name for name in classes if often[name] > 1]
        if not twice:
            return [known.index(name) for name in classes]
        if spec.class_names is not None:
            raise RecipeError(
                f"{often[twice[0]]} outputs are called '{twice[0]}'",
                where="class_names",
                mend="give every output a name of its own",
            )
    if spec.class_names is None and count == IMAGENET_CLASSES:
        labels = imagenet_labels(classes)
        if None not in labels:
            return [label for label in labels if label is not None]
    unknown = classes if known is None else [name for name in classes if name not in known]
    told = f"it knows {count} classes, " + (
        "and does not say which"
        if known is None
        else f"but not {len(unknown)} of the data set's {len(classes)}, e.g. '{unknown[0]}'"
    )
    raise RecipeError(
        told,
        where="class_names",
        mend="list the class of every output of the weights in order, name weights trained on "
        "these classes, or train a network here",
    )


def checked_top1(
    spec: ModelSpec, logits: Tensor, labels: Tensor, classes: Sequence[str]
) -> float | None:
    """The accuracy on held-out images, if it is about the one that the weights are known for.

    A network whose outputs are in another order than the data set's classes makes images and labels
    that are worth nothing, without any other sign.

    Args:
        spec: Of the network, with the accuracy to expect.
        logits: [n, C] of the held-out images.
        labels: [n] int64.
        classes: Of the data set, in label order.

    Returns:
        A fraction; None where there are no images.

    Raises:
        RecipeError: If it is lower by more than `SLACK` and three standard errors.
    """
    if not len(labels):
        return None
    found = (logits.argmax(1) == labels).double().mean().item()
    known = spec.top1
    if known is None or found >= known - SLACK - 3 * sqrt(known * (1 - known) / len(labels)):
        return found
    raise RecipeError(
        f"{100 * found:.1f} % of {len(labels)} held-out images are told rightly, the weights are "
        f"known for {100 * known:.1f} %{_taken_for(logits, labels, classes)}",
        where="top1",
        mend="bring class_names into the order of the outputs, or the data set's classes into that "
        "of the weights; if these are other images, correct top1",
    )


def _taken_for(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """The class that is most often taken for one and the same other, if another order tells it."""
    table = torch.zeros(len(classes), len(classes))
    table.index_put_((labels, logits.argmax(1)), torch.ones(len(labels)), accumulate=True)
    table.fill_diagonal_(0)
    truth, answer = divmod(int(table.argmax()), len(classes))
    if table[truth, answer] == 0:
        return ""
    return f"; '{classes[truth]}' is often taken for '{classes[answer]}'"
