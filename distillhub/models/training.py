"""Train one classifier from a `TrainSpec`, and measure one: used for teachers and observers."""

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from distillhub.errors import DivergedError
from distillhub.models.classifier import Classifier
from distillhub.models.specs import GeneratorTrainSpec, TrainSpec
from distillhub.models.zoo import build
from distillhub.ops.crops import flip, resized_crop, shift
from distillhub.ops.losses import cross_entropy
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.ops.schedules import warmup, warmup_cosine
from distillhub.units import derive_seed

CHECK_EVERY = 16
"""Steps between looks at the loss where a look stops the queue; the CPU looks at every step."""


class LabelledImages(Protocol):
    """What training needs of a data set; `data.sources.RealData` is one."""

    @property
    def labels(self) -> Tensor:
        """[N] int64."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In label order."""

    @property
    def channels(self) -> int:
        """1 or 3."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of images in [0, 1]."""

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel."""

    def __len__(self) -> int:
        """Images."""

    def images(self, rows: Tensor, /) -> Tensor:
        """[n, C, H, W] float32 in [0, 1]."""


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    classifier: Classifier
    """Frozen; the averaged weights where the spec asks for an average."""
    top1: float | None
    """Accuracy on the held-out part, a fraction; None without one."""
    steps: int


def train(
    spec: TrainSpec,
    data: LabelledImages,
    held_out: LabelledImages | None,
    *,
    device: torch.device,
    state: State | None = None,
) -> Generator[Progress, None, Trained]:
    """Train a network from scratch, one step per progress report.

    Every epoch is a permutation that depends on the seed and the number of the epoch alone, its
    incomplete last batch dropped; every step has a generator of its own for augmentation. A
    training that was cut and goes on from a snapshot therefore ends with the same weights.

    Args:
        spec: What and how.
        data: The training images.
        held_out: Images to measure the result on; never trained on.
        device: Where to train; the result stays there.
        state: A snapshot of an earlier run of the same spec.

    Raises:
        DivergedError: If the loss becomes NaN or infinite; the step is named.
        ValueError: If the architecture does not fit the images.
    """
    classifier = build(
        spec.arch,
        num_classes=len(data.class_names),
        channels=data.channels,
        height=data.height,
        width=data.width,
        mean=data.mean,
        std=data.std,
        seed=derive_seed(spec.seed, "init"),
        class_names=data.class_names,
    ).to(device)
    average = None if spec.ema is None else copy.deepcopy(classifier)
    optimizer = _optimizer(spec, classifier)
    parts: dict[str, nn.Module | torch.optim.Optimizer] = {"net": classifier, "opt": optimizer}
    if average is not None:
        parts["ema"] = average
    done = restore(state, **parts)
    total, last = spec.total_steps(len(data)), spec.taken_steps(len(data))
    watch = Watch(spec.arch, device)
    classifier.train()
    for step, rows in _batches(spec, len(data), start=done, stop=last):
        images = augment(
            data.images(rows).to(device), spec.augment, seed=derive_seed(spec.seed, "augment", step)
        )
        labels = data.labels[rows].to(device)
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * learning_rate_factor(spec, step, total)
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            logits = classifier(images)
        loss = cross_entropy(logits.float(), labels, smoothing=spec.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if average is not None and spec.ema is not None:
            _follow(average, classifier, decay=spec.ema if step > 0 else 0.0)
        watch.add(step, loss.detach())
        yield Progress(step + 1, last, {"loss": watch.last}, _snapshot(step + 1, parts, watch))
    watch.look()
    result = (classifier if average is None else average).freeze()
    top1 = None if held_out is None else accuracy(result, held_out, device=device)
    return Trained(result, top1, last)


def learning_rate_factor(spec: TrainSpec | GeneratorTrainSpec, step: int, total: int) -> float:
    """Share of `spec.lr` in a step, counted from 0, of a schedule of `total` steps."""
    rise = round(spec.warmup * total)
    if spec.schedule == "constant" or rise >= total:
        return warmup(step, rise)
    return warmup_cosine(step, total, warmup_steps=rise)


def augment(images: Tensor, how: str, *, seed: int) -> Tensor:
    """`TrainSpec.augment` for images [n, C, H, W] in [0, 1]; what a shift leaves free is black."""
    if how == "none":
        return images
    generator = torch.Generator().manual_seed(seed)
    if how == "crop_flip":
        return flip(resized_crop(images, generator=generator), generator=generator)
    limit = max(1, max(images.shape[-2:]) // 8)
    if how == "flip_shift":
        images = flip(images, generator=generator)
    return shift(images, limit, generator=generator)


@torch.no_grad()
def predict(
    classifier: Classifier, data: LabelledImages, *, device: torch.device, batch: int = 1000
) -> Tensor:
    """Logits of all images in eval mode, [N, K] float32 on the CPU."""
    was_training = classifier.training
    classifier.eval()
    rows = torch.arange(len(data))
    logits = [
        classifier(data.images(part).to(device)).float().cpu() for part in torch.split(rows, batch)
    ]
    classifier.train(was_training)
    return torch.cat(logits) if logits else torch.empty(0, classifier.num_classes)


def accuracy(
    classifier: Classifier, data: LabelledImages, *, device: torch.device, batch: int = 1000
) -> float:
    """Share of the images whose largest logit is that of their label.

    Raises:
        ValueError: If there are no images.
    """
    if len(data) == 0:
        raise ValueError("the accuracy on no images is not defined")
    right = predict(classifier, data, device=device, batch=batch).argmax(1) == data.labels.cpu()
    return right.double().mean().item()


@dataclass
class Watch:
    """Looks at losses for NaN and infinity without stopping an accelerator at every step."""

    arch: str
    device: torch.device
    last: float = float("nan")
    pending: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, step: int, loss: Tensor) -> None:
        """Note the loss of a step, counted from 0; it may stay on the device."""
        self.pending.append((step, loss))
        if self.device.type == "cpu" or step == 0 or len(self.pending) >= CHECK_EVERY:
            self.look()

    def look(self) -> None:
        """Check what was noted.

        Raises:
            DivergedError: If a loss is NaN or infinite.
        """
        if not self.pending:
            return
        losses = torch.stack([loss for _, loss in self.pending]).tolist()
        for (step, _), loss in zip(self.pending, losses, strict=True):
            if not -float("inf") < loss < float("inf"):
                raise DivergedError(
                    f"the loss became {loss}",
                    where=f"training of {self.arch}, step {step + 1}",
                    mend="lower lr, or give it a warmup",
                )
        self.last = losses[-1]
        self.pending.clear()


def _snapshot(
    step: int, parts: dict[str, nn.Module | torch.optim.Optimizer], watch: Watch
) -> Callable[[], State]:
    def snapshot() -> State:
        watch.look()
        return capture(step, **parts)

    return snapshot


def _batches(spec: TrainSpec, size: int, *, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
    """(step, rows [batch]) from step `start` on; a set smaller than a batch is one batch."""
    batch, per_epoch = min(spec.batch, size), spec.epoch_steps(size)
    order, known = torch.empty(0, dtype=torch.int64), -1
    for step in range(start, stop):
        epoch, place = divmod(step, per_epoch)
        if epoch != known:
            generator = torch.Generator().manual_seed(derive_seed(spec.seed, "epoch", epoch))
            order, known = torch.randperm(size, generator=generator), epoch
        yield step, order[place * batch : (place + 1) * batch]


def _optimizer(spec: TrainSpec, classifier: Classifier) -> torch.optim.Optimizer:
    weights: Sequence[nn.Parameter] = list(classifier.parameters())
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            weights,
            spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
            fused=True,
        )
    return torch.optim.AdamW(weights, spec.lr, weight_decay=spec.weight_decay, fused=True)


@torch.no_grad()
def _follow(average: Classifier, classifier: Classifier, *, decay: float) -> None:
    """Move the average towards the weights by 1 - decay; running statistics are copied."""
    weights = dict(classifier.named_parameters())
    for name, mean in average.named_parameters():
        mean.lerp_(weights[name], 1 - decay)
    for ours, theirs in zip(average.buffers(), classifier.buffers(), strict=True):
        ours.copy_(theirs)
