"""Training a student as a protocol says; resumable after any report."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distillhub.errors import DivergedError
from distillhub.evaluation.average import Average
from distillhub.evaluation.feed import Feed, augment_generator, epoch_rows, epoch_views
from distillhub.evaluation.pace import Settling
from distillhub.evaluation.protocols import Protocol
from distillhub.models.classifier import Classifier
from distillhub.ops import randaugment
from distillhub.ops.augment import dsa
from distillhub.ops.colors import jitter, lighting
from distillhub.ops.crops import cut_boxes, draw_boxes, flip, resized_crop, shift
from distillhub.ops.cutmix import Mix, draw_mix, mixed, mixed_cross_entropy
from distillhub.ops.losses import cross_entropy, kl_divergence, mse_gt
from distillhub.ops.mixup import blended, draw_mixup
from distillhub.ops.patches import shuffle_patches
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.units import derive_seed

REPORT_EVERY = 10
"""Steps between two reports; only then the loss is looked at, for which a GPU has to wait."""

SHIFT = 8
"""The side of an image over this is how far `shift_flip` moves it, in pixels: 4 of 32."""

Labeller = Callable[[Tensor], Tensor]
"""From a batch in the student's normalised space, [n, C, H, W], to logits [n, K]."""


def fit(
    student: Classifier,
    feed: Feed,
    protocol: Protocol,
    *,
    seed: int,
    what: str,
    labeller: Labeller | None = None,
    state: State | None = None,
) -> Generator[Progress, None, None]:
    """Train `student` in place, to the last step of the protocol.

    A report comes every ten steps, after the steps that the protocol looks at, and at the end. At
    every report, and when all is done, the student is what a test is to see: where the protocol has
    an average of the weights, it has that.

    All draws come from (seed, epoch) or (seed, step): a snapshot holds weights, optimizer, average
    and the losses of `alrs` only.

    Args:
        student: On the device of the feed.
        feed: Targets are classes (cross-entropy) or logits (the protocol's loss).
        protocol: Length, optimizer, schedule, augmentation, precision.
        seed: Of order, views and augmentation.
        what: Names the run in an error.
        labeller: Gives the targets of every augmented and mixed batch; None: those of the feed.
        state: A snapshot to go on from.

    Raises:
        DivergedError: If the loss becomes NaN or infinite.
    """
    length = protocol.length(feed.size, student.num_classes)
    looks = protocol.looks(length)
    optimizer = _optimizer(student, protocol)
    device = next(student.parameters()).device
    average = None if protocol.ema is None else Average(student, protocol.ema)
    alrs = protocol.schedule == "alrs"
    settling = Settling(protocol.gamma or 1.0, device) if alrs else None
    kept = {
        **({} if average is None else average.parts),
        **({} if settling is None else settling.parts),
    }
    done = restore(state, net=student, opt=optimizer, **kept)
    student.train()
    summed = torch.zeros((), device=device)
    since = done
    epoch, rows, views = -1, torch.empty(0), torch.empty(0)
    for step in range(done, length.steps):
        if step == length.drop:
            optimizer = _optimizer(student, protocol)
        rate = protocol.rate(step, length) * (1.0 if settling is None else settling.factor)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if epoch != step // length.per_epoch:
            epoch = step // length.per_epoch
            rows = epoch_rows(feed.size, seed, epoch)
            views = epoch_views(feed.size, feed.views, seed, epoch)
        start = step % length.per_epoch * length.batch
        chosen = rows[start : start + length.batch]
        x, target = feed.batch(chosen, views[chosen])
        mix = None
        if feed.augmented:
            generator = augment_generator(seed, step)
            x = _augmented(x, protocol, student, generator)
            if protocol.cutmix:
                mix = draw_mix(len(x), *x.shape[2:], generator=generator)
                x = mixed(x, mix)
            elif protocol.mixup is not None:
                mix = draw_mixup(len(x), protocol.mixup, generator=generator)
                x = blended(x, mix)
        if labeller is not None:
            target, mix = labeller(x), None
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bfloat16"),
            _own_noise(student, derive_seed("evaluation", seed, "noise", step), device),
        ):
            logits = student.normalized(x)
        value = loss(
            logits.float(),
            target,
            temperature=protocol.temperature,
            scaled=protocol.scaled,
            mix=mix,
            classes=feed.labels[chosen.to(device)] if protocol.loss == "mse_gt" else None,
            ce_weight=protocol.ce_weight,
        )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        optimizer.step()
        if average is not None:
            average.follow()
        summed += value.detach()
        finished = step + 1
        if settling is not None:
            settling.saw(value.detach())
            if finished % length.per_epoch == 0:
                settling.ends(length.per_epoch)
        if finished % REPORT_EVERY and finished != length.steps and finished not in looks:
            continue
        mean = float(summed) / (finished - since)
        if not math.isfinite(mean):
            raise DivergedError(
                f"the training loss became {mean}",
                where=f"run {what}, step {since + 1} to {finished}",
                mend="look at the images and labels of this arm; they may hold extreme values",
            )
        summed, since = torch.zeros((), device=device), finished
        snapshot = partial(_snapshot, finished, student, optimizer, average, settling)
        with nullcontext() if average is None else average.shown():
            yield Progress(finished, length.steps, {"loss": mean}, snapshot)
    if average is not None:
        average.show()


def _snapshot(
    finished: int,
    student: Classifier,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    settling: Settling | None,
) -> State:
    kept = {} if settling is None else settling.parts
    if average is None:
        return capture(finished, net=student, opt=optimizer, **kept)
    with average.hidden():
        return capture(finished, net=student, opt=optimizer, **kept, **average.parts)


NOISY = frozenset({"StochasticDepth", "DropPath"})
"""Layers of torchvision and timm that draw from the global generator, beside dropout."""


@contextmanager
def _own_noise(student: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Layers that drop at random draw from `seed`, so that a run can be repeated and resumed."""
    layers = student.modules()
    if not any(isinstance(m, nn.Dropout) or type(m).__name__ in NOISY for m in layers):
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        yield


def augment(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Augment a batch in normalised space as a protocol's `augment` says.

    Args:
        x: [n, C, H, W].
        how: `none`, `rrc`, `rrc_flip`, `shift_flip` or `dsa:` and a strategy.
        generator: On the CPU.
    """
    if how == "none":
        return x
    if how.startswith("rrc"):
        x = resized_crop(x, generator=generator)
        return flip(x, generator=generator) if how == "rrc_flip" else x
    if how == "shift_flip":
        limit = max(x.shape[2:]) // SHIFT
        return flip(shift(x, limit, generator=generator), generator=generator)
    return dsa(x, how.removeprefix("dsa:"), generator, siamese=False)


def _augmented(
    x: Tensor, protocol: Protocol, student: Classifier, generator: torch.Generator
) -> Tensor:
    """A batch in normalised space as the protocol augments it; colours change in [0, 1]."""
    if protocol.randaugment:
        ops = randaugment.draw(len(x), generator=generator).to(x.device)
        x = student.normalize(randaugment.apply(student.denormalize(x), ops))
    if protocol.shuffle_patches is not None:
        x = shuffle_patches(x, protocol.shuffle_patches, generator=generator)
    if protocol.crop is None:
        x = augment(x, protocol.augment, generator)
    else:
        boxes = draw_boxes(len(x), *x.shape[2:], generator=generator, scale=protocol.crop)
        x = cut_boxes(x, boxes, protocol.resolution(*x.shape[2:]))
        x = flip(x, generator=generator) if protocol.augment == "rrc_flip" else x
    if not protocol.jitter and not protocol.lighting:
        return x
    pixels = student.denormalize(x)
    if protocol.jitter:
        pixels = jitter(pixels, protocol.jitter, generator=generator)
    if protocol.lighting:
        pixels = lighting(pixels, protocol.lighting, generator=generator)
    return student.normalize(pixels)


def online(teachers: Sequence[Classifier], student: Classifier) -> Labeller:
    """What labels the student's batches: networks, each at its own size and normalisation.

    The label is the mean of their logits as they are, without a temperature.

    Args:
        teachers: At least one; frozen, on the device of the student.
        student: Whose normalised space the batches are in.

    Raises:
        ValueError: If there is no teacher.

    Source: one network in SRe2L and RDED, the mean of several in G-VBSM (CVPR 2024) and EDC
    (NeurIPS 2024), as in their public code.
    """
    if not teachers:
        raise ValueError("no network to label with")

    def labels(x: Tensor) -> Tensor:
        with torch.no_grad():
            images = student.denormalize(x)
            each = [net.at_own_size(images).float() for net in teachers]
        return each[0] if len(each) == 1 else torch.stack(each).mean(0)

    return labels


def loss(
    logits: Tensor,
    target: Tensor,
    *,
    temperature: float,
    scaled: bool,
    mix: Mix | None = None,
    classes: Tensor | None = None,
    ce_weight: float | None = None,
) -> Tensor:
    """Cross-entropy for classes; for logits KL at `temperature`, or MSE-GT.

    Args:
        logits: [n, K].
        target: [n] int64, or [n, K] logits.
        temperature: Of KL.
        scaled: Whether KL is multiplied by the temperature squared.
        mix: How the images were mixed; classes then count by their shares of the pixels.
        classes: [n] int64, of the base images; with logits the loss then is MSE-GT.
        ce_weight: Of the cross-entropy with them in MSE-GT.

    Raises:
        ValueError: If logits were made before the images were mixed.
    """
    if mix is not None:
        if target.ndim != 1:
            raise ValueError("labels of single images do not say what those of mixed ones are")
        return mixed_cross_entropy(logits, target, mix)
    if target.ndim == 1:
        return cross_entropy(logits, target)
    if classes is not None:
        return mse_gt(logits, target, classes, ce_weight=ce_weight or 0.0)
    return kl_divergence(logits, target, temperature=temperature, scaled=scaled)


def _optimizer(student: Classifier, protocol: Protocol) -> torch.optim.Optimizer:
    parameters = list(student.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not protocol.decay_vectors:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    lr, decay = protocol.lr, protocol.weight_decay
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=protocol.momentum, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=lr, weight_decay=decay)
