"""Training a student as a protocol says; resumable after any report."""

import math
from collections.abc import Generator
from functools import partial

import torch
from torch import Tensor

from distillhub.errors import DivergedError
from distillhub.evaluation.feed import Feed, augment_generator, epoch_rows, epoch_views
from distillhub.evaluation.protocols import Protocol
from distillhub.models.classifier import Classifier
from distillhub.ops.augment import dsa
from distillhub.ops.crops import flip, resized_crop
from distillhub.ops.losses import cross_entropy, kl_divergence
from distillhub.ops.progress import Progress, State, capture, restore

REPORT_EVERY = 10
"""Steps between two reports; only then the loss is looked at, for which a GPU has to wait."""


def fit(
    student: Classifier,
    feed: Feed,
    protocol: Protocol,
    *,
    seed: int,
    what: str,
    state: State | None = None,
) -> Generator[Progress, None, None]:
    """Train `student` in place, to the last step of the protocol.

    All draws come from (seed, epoch) or (seed, step): a snapshot holds weights and optimizer only.

    Args:
        student: On the device of the feed.
        feed: Targets are classes (cross-entropy) or logits (KL at the protocol's temperature).
        protocol: Length, optimizer, schedule, augmentation, precision.
        seed: Of order, views and augmentation.
        what: Names the run in an error.
        state: A snapshot to go on from.

    Raises:
        DivergedError: If the loss becomes NaN or infinite.
    """
    length = protocol.length(feed.size)
    optimizer = _optimizer(student, protocol)
    done = restore(state, net=student, opt=optimizer)
    device = next(student.parameters()).device
    student.train()
    summed = torch.zeros((), device=device)
    since = done
    epoch, rows, views = -1, torch.empty(0), torch.empty(0)
    for step in range(done, length.steps):
        if step == length.drop:
            optimizer = _optimizer(student, protocol)
        for group in optimizer.param_groups:
            group["lr"] = protocol.rate(step, length)
        if epoch != step // length.per_epoch:
            epoch = step // length.per_epoch
            rows = epoch_rows(feed.size, seed, epoch)
            views = epoch_views(feed.size, feed.views, seed, epoch)
        start = step % length.per_epoch * protocol.batch
        chosen = rows[start : start + protocol.batch]
        x, target = feed.batch(chosen, views[chosen])
        if feed.augmented:
            x = augment(x, protocol.augment, augment_generator(seed, step))
        with torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bfloat16"):
            logits = student.normalized(x)
        value = loss(
            logits.float(), target, temperature=protocol.temperature, scaled=protocol.scaled
        )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        optimizer.step()
        summed += value.detach()
        finished = step + 1
        if finished % REPORT_EVERY and finished != length.steps:
            continue
        mean = float(summed) / (finished - since)
        if not math.isfinite(mean):
            raise DivergedError(
                f"the training loss became {mean}",
                where=f"run {what}, step {since + 1} to {finished}",
                mend="look at the images and labels of this arm; they may hold extreme values",
            )
        summed, since = torch.zeros((), device=device), finished
        snapshot = partial(capture, finished, net=student, opt=optimizer)
        yield Progress(finished, length.steps, {"loss": mean}, snapshot)


def augment(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Augment a batch in normalised space as a protocol's `augment` says.

    Args:
        x: [n, C, H, W].
        how: `none`, `rrc_flip` or `dsa:` and a strategy.
        generator: On the CPU.
    """
    if how == "none":
        return x
    if how == "rrc_flip":
        return flip(resized_crop(x, generator=generator), generator=generator)
    return dsa(x, how.removeprefix("dsa:"), generator, siamese=False)


def loss(logits: Tensor, target: Tensor, *, temperature: float, scaled: bool) -> Tensor:
    """Cross-entropy for classes, KL at `temperature` for logits.

    Args:
        logits: [n, K].
        target: [n] int64, or [n, K] logits.
        temperature: Of KL.
        scaled: Whether KL is multiplied by the temperature squared.
    """
    if target.ndim == 1:
        return cross_entropy(logits, target)
    return kl_divergence(logits, target, temperature=temperature, scaled=scaled)


def _optimizer(student: Classifier, protocol: Protocol) -> torch.optim.Optimizer:
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(
            student.parameters(),
            lr=protocol.lr,
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
        )
    return torch.optim.AdamW(
        student.parameters(), lr=protocol.lr, weight_decay=protocol.weight_decay
    )
