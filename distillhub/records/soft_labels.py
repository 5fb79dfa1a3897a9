"""Soft labels and the views that they belong to, as they are stored.

A label is the mean logit vector of the teachers for one *view* of one image. Logits are stored, not
probabilities, so that the temperature stays a choice of the training. All entries of a set are
dense arrays indexed [image row, entry]; an entry is a view, or with a grid packing of f x f a view
of a sub-image (sub-image major).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distillhub.ops.views import ViewBatch

Codec = Literal["float16", "uint8"]

MAX_CLASSES = 65535
"""Class numbers are stored as uint16."""


@dataclass(frozen=True)
class SoftLabels:
    """Logits of N images x E entries, all C classes or the T highest.

    Raises:
        ValueError: If the arrays do not fit together.
    """

    values: Tensor
    """[N, E, T] float16 logits, or uint8 steps between the two ends of `range`."""
    classes: Tensor | None
    """[N, E, T] uint16, highest logit first; None when all classes are stored, in class order."""
    range: Tensor | None
    """[N, E, 2] float16: the logits of steps 0 and 255; only with uint8."""
    rest: Tensor | None
    """[N, E, 2] float16: mean and standard deviation of the dropped logits; only with `classes`."""
    num_classes: int

    def __post_init__(self) -> None:
        n, entries, kept = self.values.shape
        expected = {
            "values": (self.values, torch.uint8 if self.range is not None else torch.float16, kept),
            "classes": (self.classes, torch.uint16, kept),
            "range": (self.range, torch.float16, 2),
            "rest": (self.rest, torch.float16, 2),
        }
        for name, (array, dtype, width) in expected.items():
            if array is not None and (array.shape != (n, entries, width) or array.dtype != dtype):
                raise ValueError(
                    f"{name} is {array.dtype} {tuple(array.shape)}, "
                    f"needs {dtype} {(n, entries, width)}"
                )
        if (self.classes is None) != (self.rest is None):
            raise ValueError(
                "classes and rest go together: both for the highest logits, or neither"
            )
        if self.classes is None and kept != self.num_classes:
            raise ValueError(
                f"{kept} values per label for {self.num_classes} classes, but no class numbers"
            )
        if kept > self.num_classes or self.num_classes > MAX_CLASSES:
            raise ValueError(
                f"{kept} values per label for {self.num_classes} classes; at most {MAX_CLASSES}"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def entries(self) -> int:
        """Labels per image."""
        return self.values.shape[1]

    @property
    def kept(self) -> int:
        """Classes stored per label."""
        return self.values.shape[2]

    @property
    def codec(self) -> Codec:
        """How one logit is stored."""
        return "float16" if self.range is None else "uint8"

    def logits(self, rows: Tensor, entries: Tensor, temperature: float | None) -> Tensor:
        """Dense logits of some labels.

        A dropped class gets `mean + std^2 / (2 temperature)`: for a Gaussian tail the log of the
        mean of exp(z/T), times T, so that the residual mass is right at every temperature. It is
        capped at the lowest stored logit, which no dropped logit exceeds.

        Args:
            rows: [n] int64 image rows.
            entries: [n] int64 entry of each row.
            temperature: At which the softmax will be taken; None: dropped classes get their mean,
                the least-squares constant, for losses on logits.

        Returns:
            [n, num_classes] float32, not divided by the temperature.

        Source: mean of a log-normal variable, exp(mu + sigma^2 / 2).
        """
        kept = self.values[rows, entries].float()  # [n, T]
        if self.range is not None:
            low, high = self.range[rows, entries].float().unsqueeze(2).unbind(1)
            kept = low + kept * ((high - low) / 255)
        if self.classes is None or self.rest is None:
            return kept
        mean, std = self.rest[rows, entries].float().unsqueeze(2).unbind(1)
        fill = mean if temperature is None else mean + std.square() / (2 * temperature)
        fill = torch.minimum(fill, kept[:, -1:])
        dense = fill.expand(len(kept), self.num_classes).clone()
        return dense.scatter_(1, self.classes[rows, entries].long(), kept)

    @classmethod
    def encode(cls, logits: Tensor, *, codec: Codec, top_k: int | None = None) -> "SoftLabels":
        """Store logits; the error is at most 2^-11 of a value (float16) or half a step (uint8).

        Args:
            logits: [N, E, C], finite, at most 65504 in size.
            codec: `uint8` spans each label's own range in 255 steps.
            top_k: Classes kept per label; None or >= C: all.

        Raises:
            ValueError: If a logit is not finite or too large for float16.
        """
        logits = logits.detach().float().cpu()
        if not bool((logits.abs() <= 65504).all()):
            raise ValueError("logits are not finite, or beyond the range of float16")
        num_classes = logits.shape[2]
        classes = rest = None
        if top_k is not None and top_k < num_classes:
            order = logits.argsort(dim=2, descending=True, stable=True)
            dropped = logits.gather(2, order[..., top_k:])
            classes = order[..., :top_k].to(torch.uint16)
            rest = torch.stack([dropped.mean(2), dropped.std(2, correction=0)], dim=2).half()
            logits = logits.gather(2, order[..., :top_k])
        if codec == "float16":
            return cls(logits.half(), classes, None, rest, num_classes)
        low = _half(logits.amin(2), towards=-np.inf)
        high = _half(logits.amax(2), towards=np.inf)
        step = ((high.float() - low.float()) / 255).unsqueeze(2)
        steps = (logits - low.float().unsqueeze(2)) / torch.where(step > 0, step, 1.0)
        values = steps.round().clamp(0, 255).to(torch.uint8)
        return cls(values, classes, torch.stack([low, high], dim=2), rest, num_classes)

    @classmethod
    def concatenate(cls, parts: Sequence["SoftLabels"]) -> "SoftLabels":
        """One set from the rows of several with the same entries, codec and classes."""
        first = parts[0]
        return cls(
            torch.cat([p.values for p in parts]),
            None if first.classes is None else torch.cat([_there(p.classes) for p in parts]),
            None if first.range is None else torch.cat([_there(p.range) for p in parts]),
            None if first.rest is None else torch.cat([_there(p.rest) for p in parts]),
            first.num_classes,
        )

    def reorder(self, index: Tensor) -> "SoftLabels":
        """The labels at flat positions `index` [N', E'] (row * entries + entry) as a new set."""
        return SoftLabels(
            _taken(self.values, index),
            None if self.classes is None else _taken(self.classes, index),
            None if self.range is None else _taken(self.range, index),
            None if self.rest is None else _taken(self.rest, index),
            self.num_classes,
        )


class CodecError(NamedTuple):
    """What storing has changed, per label."""

    kl_1: Tensor
    """[N, E] KL(true || decoded) of the softmax at temperature 1, in nats."""
    kl_4: Tensor
    """The same at temperature 4."""
    kl_20: Tensor
    """The same at temperature 20."""
    mse: Tensor
    """[N, E] mean squared difference of the logits of a label, for losses on logits."""
    agree: Tensor
    """[N, E] bool: the true highest class has the highest decoded logit."""


def codec_error(logits: Tensor, stored: SoftLabels) -> CodecError:
    """Compare labels [N, E, C] with what is read back of them."""
    n, entries, num_classes = logits.shape
    rows = torch.arange(n).repeat_interleave(entries)
    cols = torch.arange(entries).repeat(n)
    true = logits.detach().float().cpu().reshape(-1, num_classes)
    divergences = []
    for temperature in (1.0, 4.0, 20.0):
        decoded = stored.logits(rows, cols, temperature)
        log_p = (true / temperature).log_softmax(1)
        log_q = (decoded / temperature).log_softmax(1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum(1).clamp_min(0).reshape(n, entries))
    decoded = stored.logits(rows, cols, None)
    mse = (decoded - true).square().mean(1).reshape(n, entries)
    best = decoded.gather(1, true.argmax(1, keepdim=True)).squeeze(1)
    kl_1, kl_4, kl_20 = divergences
    agree = (best >= decoded.amax(1)).reshape(n, entries)
    return CodecError(kl_1, kl_4, kl_20, mse, agree)


@dataclass(frozen=True)
class Views:
    """Geometry of N images x E entries: enough to show again what the teacher saw.

    Raises:
        ValueError: If the arrays do not fit together.
    """

    crop: Tensor
    """[N, E, 4] int32: top, left, height, width in pixels of the stored image."""
    flip: Tensor
    """[N, E] bool."""
    ops: Tensor | None
    """[N, E, 4] uint8: RandAugment operation and level, twice; see `ops.randaugment`."""
    partner: Tensor | None
    """[N, E] int32: image row whose view of the same entry is pasted in `box`."""
    box: Tensor | None
    """[N, E, 4] int32: first row, first column, end row, end column in view pixels; or zeros."""
    size: tuple[int, int]
    """Height and width of a view in pixels."""
    formation: int = 1
    """Sub-images per side of a stored image; entries are sub-image major."""

    def __post_init__(self) -> None:
        n, entries, _ = self.crop.shape
        expected = {
            "crop": (self.crop, torch.int32, (n, entries, 4)),
            "flip": (self.flip, torch.bool, (n, entries)),
            "ops": (self.ops, torch.uint8, (n, entries, 4)),
            "partner": (self.partner, torch.int32, (n, entries)),
            "box": (self.box, torch.int32, (n, entries, 4)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array is not None and (array.shape != shape or array.dtype != dtype):
                raise ValueError(
                    f"{name} is {array.dtype} {tuple(array.shape)}, needs {dtype} {shape}"
                )
        if (self.partner is None) != (self.box is None):
            raise ValueError("partner and box go together: both for mixed views, or neither")

    def __len__(self) -> int:
        return len(self.crop)

    @property
    def entries(self) -> int:
        """Views per image, times the sub-images."""
        return self.crop.shape[1]

    def batch(self, rows: Tensor, entries: Tensor) -> ViewBatch:
        """The geometry of some views without mixing, for `ops.views.render`."""
        return ViewBatch(
            self.crop[rows, entries],
            self.flip[rows, entries],
            None if self.ops is None else self.ops[rows, entries],
        )

    def rows(self, rows: Tensor) -> "Views":
        """The views of some images; partners keep their row numbers."""
        return Views(
            self.crop[rows],
            self.flip[rows],
            None if self.ops is None else self.ops[rows],
            None if self.partner is None else self.partner[rows],
            None if self.box is None else self.box[rows],
            self.size,
            self.formation,
        )

    def first(self, views: int) -> "Views":
        """The same with only the first `views` views of every sub-image."""
        subs = self.formation**2
        per = self.entries // subs
        keep = torch.cat([torch.arange(s * per, s * per + views) for s in range(subs)])
        return Views(
            self.crop[:, keep],
            self.flip[:, keep],
            None if self.ops is None else self.ops[:, keep],
            None if self.partner is None else self.partner[:, keep],
            None if self.box is None else self.box[:, keep],
            self.size,
            self.formation,
        )


def _half(values: Tensor, *, towards: float) -> Tensor:
    """The nearest float16 on the side of `towards`, so that the range holds every value."""
    exact = values.numpy()
    rounded = exact.astype(np.float16)
    outside = rounded > exact if towards < 0 else rounded < exact
    moved = np.nextafter(rounded, np.float16(towards))
    return torch.from_numpy(np.where(outside, moved, rounded))


def _there(array: Tensor | None) -> Tensor:
    if array is None:
        raise ValueError("the parts are stored in different ways")
    return array


def _taken(array: Tensor, index: Tensor) -> Tensor:
    return array.flatten(0, 1)[index]
