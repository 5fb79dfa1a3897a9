"""Soft labels for stored images: networks look at replayable views, as many as the budget holds."""

from collections.abc import Generator, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from distillhub.errors import DivergedError, RecipeError
from distillhub.ops.progress import Progress, State
from distillhub.records.columns import label_bytes
from distillhub.records.label_statistics import LabelStatistics, label_statistics
from distillhub.records.replay import replay
from distillhub.records.soft_labels import Codec, SoftLabels, Views
from distillhub.relabel.ledger import Ledger
from distillhub.relabel.spec import RelabelSpec
from distillhub.relabel.views import draw_views, whole_sub_images
from distillhub.spec import Spec

BATCH = 128
"""Views shown to the networks at a time; fixed, since it changes the last bits of the logits."""
PILOT_IMAGES = 256
PILOT_VIEWS = 2
HOPELESS = 1.25
"""A fixed count whose estimated bytes are so many times the budget is refused before the work."""


class Pictures(Protocol):
    """Decoded images of the set, all of one size."""

    height: int
    width: int

    def __len__(self) -> int:
        """Images."""

    def pixels(self, rows: Tensor) -> Tensor:
        """uint8 [n, C, H, W]."""


class Teacher(Protocol):
    """A network in eval mode on the device."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Images [n, C, h, w] of any size, in [0, 1], to logits [n, num_classes]."""


class LabelRecord(Spec):
    """How labels were made, and what storing has changed."""

    views: int
    """Per image, or per sub-image of a grid packing."""
    kept: int
    """Classes stored per label."""
    classes: int
    codec: Literal["float16", "uint8"]
    temperature: None = None
    """Logits are stored; any temperature can be applied."""
    formation: int
    """Sub-images per side of a stored image."""
    view_size: tuple[int, int] | None
    """Height and width of a view in pixels; None: labels of whole images, without geometry."""
    bytes: dict[str, int]
    """Compressed Parquet bytes per column."""
    bytes_labels: int
    """Their sum."""
    bytes_images: int
    """Bytes of the image files, which the budget is a multiple of."""
    kl_1: float
    """Mean KL(true || stored) of the softmax at temperature 1, in nats."""
    kl_4: float
    """The same at temperature 4."""
    kl_20: float | None = None
    """The same at temperature 20; None: not measured when these labels were made."""
    mse: float | None = None
    """Mean squared difference of true and stored logits; None: as above."""
    top1_agreement: float
    """Share of labels whose true highest logit is still the highest when decoded."""
    statistics: LabelStatistics

    @property
    def divergences(self) -> dict[str, float]:
        """The KL divergences that were measured, by temperature."""
        found = {"1": self.kl_1, "4": self.kl_4, "20": self.kl_20}
        return {temperature: loss for temperature, loss in found.items() if loss is not None}


class Labels(NamedTuple):
    """What `relabel` makes."""

    soft: SoftLabels
    views: Views | None
    """None: the labels are of whole images."""
    record: LabelRecord


def relabel(
    images: Tensor | Pictures,
    labels: Tensor,
    spec: RelabelSpec,
    teachers: Sequence[Teacher],
    *,
    image_bytes: int,
    device: torch.device,
    state: State | None = None,
    formation: int = 1,
) -> Generator[Progress, None, Labels]:
    """Label every image with the mean logits of the teachers on each of its views.

    Args:
        images: The images as decoded from what is published: uint8 [N, C, H, W], or read on demand.
        labels: [N] int64 classes, for the statistics.
        spec: What to make.
        teachers: At least one; their logits are averaged.
        image_bytes: Of all image files together.
        device: Where the teachers are.
        state: A snapshot to go on from.
        formation: Sub-images per side of a stored image; each has views of its own.

    Yields:
        Progress per batch of views.

    Returns:
        The labels, their views and a record.

    Raises:
        RecipeError: If the labels do not fit into the byte budget.
        DivergedError: If a teacher gives NaN or infinite logits.
    """
    pictures = _Resident(images) if isinstance(images, Tensor) else images
    views = _views(spec, pictures, formation)
    most = 1 if spec.views is None else spec.max_count if spec.count == "budget" else spec.count
    budget = spec.budget * image_bytes
    desk = _Desk(pictures, views, teachers, device, image_bytes)
    top_k, codec, guess = _plan(spec, desk, most, budget)
    ledger = Ledger(len(pictures), formation**2, codec=codec, top_k=top_k, state=state)

    fits, too_many = 0, most + 1
    wanted = guess
    while True:
        yield from _label(desk, ledger, wanted)
        used = desk.measure(ledger.soft(wanted), wanted)
        if sum(used.values()) > budget:
            too_many = wanted
        else:
            fits = wanted
        if spec.count != "budget" or too_many - fits == 1:
            break
        scaled = int(wanted * budget / sum(used.values()))
        wanted = min(max(scaled, fits + 1), too_many - 1)
    if not fits:
        raise _too_large(spec, wanted, sum(used.values()), image_bytes)
    soft = ledger.soft(fits)
    used = desk.measure(soft, fits)
    error = ledger.error(fits)
    record = LabelRecord(
        views=fits,
        kept=soft.kept,
        classes=soft.num_classes,
        codec=soft.codec,
        formation=formation,
        view_size=None if views is None else views.size,
        bytes=used,
        bytes_labels=sum(used.values()),
        bytes_images=image_bytes,
        kl_1=error.kl_1.double().mean().item(),
        kl_4=error.kl_4.double().mean().item(),
        kl_20=error.kl_20.double().mean().item(),
        mse=error.mse.double().mean().item(),
        top1_agreement=error.agree.double().mean().item(),
        statistics=label_statistics(soft, labels),
    )
    return Labels(soft, None if views is None else views.first(fits), record)


class _Resident:
    """A tensor of pixels as `Pictures`."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[2:]

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, rows: Tensor) -> Tensor:
        return self._pixels[rows]


class _Desk(NamedTuple):
    """Images, all the views that may be wanted, and the networks."""

    pictures: Pictures
    views: Views | None
    teachers: Sequence[Teacher]
    device: torch.device
    image_bytes: int

    def logits(self, rows: Tensor, entries: Tensor) -> Tensor:
        """Mean logits [n, num_classes] of some views, on the CPU."""
        with torch.inference_mode():
            shown = replay(self.pictures.pixels, self.views, rows, entries, device=self.device)
            mean = torch.stack([teacher(shown).float() for teacher in self.teachers]).mean(0).cpu()
        if not bool(mean.isfinite().all()):
            bad = int((~mean.isfinite().all(1)).nonzero()[0])
            raise DivergedError(
                f"the networks give no finite logits for image {int(rows[bad])}, "
                f"view {int(entries[bad])}",
                where="relabel",
                mend="look at the training of the teacher; its weights or statistics are broken",
            )
        return mean.clone()  # an inference tensor cannot be changed later

    def entry(self, sub_image: int, view: int) -> int:
        """Position of a view among the entries of an image."""
        if self.views is None:
            return 0
        return sub_image * (self.views.entries // self.views.formation**2) + view

    def measure(self, soft: SoftLabels, count: int) -> dict[str, int]:
        """Bytes per column of the labels with their first `count` views."""
        views = None if self.views is None else self.views.first(count)
        return label_bytes(soft, views, self.image_bytes)


def _views(spec: RelabelSpec, pictures: Pictures, formation: int) -> Views | None:
    if spec.views is None:
        if formation == 1:
            return None
        return whole_sub_images(
            len(pictures), height=pictures.height, width=pictures.width, formation=formation
        )
    return draw_views(
        spec.views,
        len(pictures),
        count=spec.max_count if spec.count == "budget" else spec.count,
        height=pictures.height,
        width=pictures.width,
        seed=spec.seed,
        formation=formation,
    )


class _Plan(NamedTuple):
    top_k: int
    codec: Codec
    guess: int
    """Views to try first."""


def _plan(spec: RelabelSpec, desk: _Desk, most: int, budget: float) -> _Plan:
    """Codec and number of views from a small sample; the number is corrected later by measuring."""
    total = len(desk.pictures)
    rows = torch.linspace(0, total - 1, min(total, PILOT_IMAGES)).long()
    count = min(most, PILOT_VIEWS)
    sample = torch.stack(
        [desk.logits(rows, torch.full_like(rows, desk.entry(0, view))) for view in range(count)], 1
    )
    kept = spec.kept(sample.shape[2])

    views = None
    if desk.views is not None:
        views = desk.views.first(count).rows(rows)
        subs = desk.views.formation**2
        sample = sample.repeat(1, subs, 1)
    affordable: dict[Codec, float] = {}
    for codec in _codecs(spec, most):
        used = label_bytes(SoftLabels.encode(sample, codec=codec, top_k=kept), views, 0)
        affordable[codec] = budget / (sum(used.values()) / count * total / len(rows))
    best = max(affordable, key=lambda codec: min(int(affordable[codec]), most))
    if spec.count == "budget":
        return _Plan(kept, best, max(1, min(most, int(affordable[best]))))
    if max(affordable.values()) * HOPELESS < most:
        estimate = most / affordable[best] * budget
        raise _too_large(spec, most, round(estimate), desk.image_bytes)
    return _Plan(kept, best, most)


def _codecs(spec: RelabelSpec, most: int) -> tuple[Codec, ...]:
    """The codecs to choose from, the better one first."""
    if spec.codec == "auto":
        return ("float16",) if most == 1 else ("float16", "uint8")
    return (spec.codec,)


def _label(desk: _Desk, ledger: "Ledger", count: int) -> Generator[Progress, None, None]:
    """Go on until every image has its first `count` views labelled."""
    total = ledger.size(count)
    while ledger.done < total:
        view, sub_image, start = ledger.place()
        rows = torch.arange(start, min(start + BATCH, ledger.images))
        entries = torch.full_like(rows, desk.entry(sub_image, view))
        ledger.add(desk.logits(rows, entries))
        yield Progress(ledger.done, total, {"views": float(view + 1)}, ledger.snapshot)


def _too_large(spec: RelabelSpec, count: int, needed: int, image_bytes: int) -> RecipeError:
    needed_budget = needed / max(image_bytes, 1)
    fewer = " or less views" if count > 1 else ""
    return RecipeError(
        f"labels of {count} view{'s' if count > 1 else ''} per image take {needed} bytes; "
        f"the budget of {spec.budget:g} x {image_bytes} bytes of images holds "
        f"{int(spec.budget * image_bytes)}",
        where="relabel.budget",
        mend=f"set relabel.budget to {needed_budget + 0.005:.2f} or more, or choose a smaller "
        f"top_k{fewer}",
    )
