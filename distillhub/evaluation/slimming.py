"""Network slimming: channels whose batch-norm scale is small are cut out of the network.

Training adds the L1 norm of all scales to the loss; of the trained network the channels with the
smallest scales in the whole network go, and what is left is fine-tuned without that norm.

Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming (ICCV 2017),
section 3, with the subgradient of the authors' code. Theirs starts scales at 0.5, ours at 1, as
networks do here.
"""

import copy
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillhub.evaluation.continual import measured
from distillhub.evaluation.feed import Feed, ImageSet, Space
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.runner import score
from distillhub.evaluation.training import fit
from distillhub.models.classifier import Classifier
from distillhub.ops.progress import Progress, State
from distillhub.records.report import Arm
from distillhub.records.uses import SlimPoint, SlimRun
from distillhub.units import derive_seed

SILENT = (nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.MaxPool2d, nn.AvgPool2d, nn.Identity)
"""Layers that leave a channel of zeros as it is."""


class Link(NamedTuple):
    """One layer of a chain."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d


@dataclass(frozen=True)
class Kept:
    """The channels that stay."""

    masks: tuple[Tensor, ...]
    """Per layer, [channels] bool."""
    spared: tuple[int, ...]
    """Layers that would have been emptied; each keeps the channel with its largest scale."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Per layer."""
        return tuple(int(mask.sum()) for mask in self.masks)

    @property
    def pruned(self) -> float:
        """Share of all channels that goes."""
        return 1 - sum(self.channels) / sum(len(mask) for mask in self.masks)


class Cost(NamedTuple):
    """Of a network on one image."""

    parameters: int
    flops: int
    """Convolutions and matrix products, 2 per multiply-add."""


def chain(student: Classifier) -> tuple[Link, ...]:
    """The convolutions of a network that is one chain of them, each followed by its norm.

    Raises:
        ValueError: If it has no batch norm, or is not such a chain.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in student.net.modules()):
        raise ValueError(f"{student.arch} has no batch norm, whose scales say which channels go")
    blocks = getattr(student.net, "blocks", None)
    layers = list(blocks) if isinstance(blocks, nn.Sequential) else []
    links = []
    for layer, follower in pairwise(layers):
        if isinstance(layer, nn.Conv2d) and isinstance(follower, nn.BatchNorm2d):
            links.append(Link(layer, follower))
    linked = {id(layer) for link in links for layer in link}
    rest = [layer for layer in student.net.modules() if id(layer) not in linked]
    held = [layer for layer in layers if id(layer) not in linked]
    if (
        not links
        or not all(isinstance(layer, SILENT) for layer in held)
        or any(isinstance(layer, nn.Conv2d | nn.BatchNorm2d) for layer in rest)
        or any(link.conv.groups > 1 for link in links)
    ):
        raise ValueError(
            f"{student.arch} is not one chain of convolutions with batch norm and ReLU: "
            "its channels cannot be cut layer by layer"
        )
    return tuple(links)


@contextmanager
def sparse(student: Classifier, strength: float) -> Iterator[None]:
    """Inside, gradients of the scales have that of strength * sum |scale| added to them."""
    handles = [
        link.norm.weight.register_hook(  # type: ignore[no-untyped-call]
            partial(_with_sign, link.norm.weight, strength)
        )
        for link in chain(student)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_sign(scale: nn.Parameter, strength: float, gradient: Tensor) -> Tensor:
    return gradient + strength * scale.detach().sign()


def train_sparse(
    student: Classifier,
    feed: Feed,
    protocol: Protocol,
    *,
    sparsity: float,
    seed: int,
    what: str,
    state: State | None = None,
) -> Generator[Progress, None, None]:
    """Train in place as `training.fit`, with the L1 norm of the scales in the loss."""
    with sparse(student, sparsity):
        yield from fit(student, feed, protocol, seed=seed, what=what, state=state)


def choose(scales: Sequence[Tensor], ratio: float) -> Kept:
    """The channels that stay when a share of all goes, the smallest scales first.

    Args:
        scales: Of the batch norms, per layer [channels].
        ratio: Share of the channels of all layers together; rounded to whole channels.

    Raises:
        ValueError: If the ratio is not in [0, 1).
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"a pruning ratio is at least 0 and below 1, not {ratio:g}")
    sizes = [scale.abs().detach().cpu().double() for scale in scales]
    everything = torch.cat(sizes)
    stays = torch.ones(len(everything), dtype=torch.bool)
    order = torch.argsort(everything, stable=True)
    stays[order[: round(ratio * len(everything))]] = False
    masks = list(torch.split(stays, [len(size) for size in sizes]))
    spared = tuple(layer for layer, mask in enumerate(masks) if not bool(mask.any()))
    for layer in spared:
        masks[layer][sizes[layer].argmax()] = True
    return Kept(tuple(masks), spared)


def masked(student: Classifier, kept: Kept) -> Classifier:
    """A copy whose pruned channels are silent: scale and shift are 0."""
    silenced = copy.deepcopy(student)
    with torch.no_grad():
        for (_, norm), mask in zip(chain(silenced), kept.masks, strict=True):
            stays = mask.to(norm.weight.device)
            norm.weight.mul_(stays)
            norm.bias.mul_(stays)
    return silenced


def pruned(student: Classifier, kept: Kept) -> Classifier:
    """A smaller copy without the pruned channels; in eval mode its logits are those of `masked`."""
    small = copy.deepcopy(student)
    links = chain(small)
    entering = torch.ones(links[0].conv.in_channels, dtype=torch.bool)
    for (conv, norm), mask in zip(links, kept.masks, strict=True):
        stays, comes = (part.to(conv.weight.device) for part in (mask, entering))
        conv.weight = nn.Parameter(conv.weight.detach()[stays][:, comes].clone())
        conv.out_channels, conv.in_channels = conv.weight.shape[:2]
        if conv.bias is not None:
            conv.bias = nn.Parameter(conv.bias.detach()[stays].clone())
        norm.weight = nn.Parameter(norm.weight.detach()[stays].clone())
        norm.bias = nn.Parameter(norm.bias.detach()[stays].clone())
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean = norm.running_mean[stays].clone()
            norm.running_var = norm.running_var[stays].clone()
        norm.num_features = len(norm.weight)
        entering = mask
    head = small.net.head
    columns = entering.repeat_interleave(head.in_features // len(entering))
    head.weight = nn.Parameter(head.weight.detach()[:, columns.to(head.weight.device)].clone())
    head.in_features = head.weight.shape[1]
    return small


def cost(student: Classifier) -> Cost:
    """Parameters and the FLOPs of one image, counted while the network runs; left in eval mode."""
    flops = 0

    def add(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal flops
        if isinstance(layer, nn.Conv2d | nn.Linear):
            flops += 2 * out.numel() * layer.weight[0].numel()

    student.eval()
    handles = [layer.register_forward_hook(add) for layer in student.net.modules()]
    with torch.no_grad():
        student.normalized(torch.zeros(1, *student.input_shape, device=student.mean.device))
    for handle in handles:
        handle.remove()
    return Cost(sum(parameter.numel() for parameter in student.parameters()), flops)


def shorter(protocol: Protocol, share: float, images: int, classes: int) -> Protocol:
    """The same training in a share of its steps, with the fall of the rate at the same place."""
    if share == 1:
        return protocol
    whole = protocol.length(images, classes)
    steps = max(1, round(share * whole.steps))
    changes: dict[str, object] = {"steps": steps, "epochs": None, "epochs_by_ipc": ()}
    if whole.drop is not None:  # in steps from here on
        changes["drop_after"] = max(1, round(share * whole.drop))
    if protocol.warmup is not None:
        changes["warmup"] = max(1, round(share * protocol.warmup))
    return protocol.model_copy(update={**changes, "min_steps": 0})


def slim(
    dense: Classifier,
    ratio: float,
    *,
    arm: Arm,
    seed: int,
    feed: Feed,
    test: ImageSet,
    space: Space,
    protocol: Protocol,
    what: str,
    state: State | None = None,
) -> Generator[Progress, None, SlimRun]:
    """Prune a trained network, test it, fine-tune it and test it again.

    Args:
        dense: Trained with `train_sparse`; left as it is.
        ratio: Share of all channels that goes.
        arm: Which images `feed` holds.
        seed: Of the run; order and augmentation of fine-tuning are drawn from it.
        feed: What to fine-tune on.
        test: The test images.
        space: Of the network.
        protocol: Of fine-tuning.
        what: Names the run in an error.
        state: A snapshot to go on from.

    Raises:
        DivergedError: If a loss or a logit is not finite.
    """
    kept = choose([link.norm.weight for link in chain(dense)], ratio)
    small = pruned(dense, kept)
    classes = small.num_classes
    before = score(small, test, space, classes=classes, what=what).top1
    tuning = derive_seed("slim", "finetune", seed)
    yield from fit(small, feed, protocol, seed=tuning, what=what, state=state)
    after = score(small, test, space, classes=classes, what=what).top1
    parameters, flops = cost(small)
    return SlimRun(
        arm=arm,
        seed=seed,
        ratio=ratio,
        channels=kept.channels,
        pruned=kept.pruned,
        spared=kept.spared,
        parameters=parameters,
        flops=flops,
        top1_pruned=before,
        top1=after,
        steps=protocol.length(feed.size, classes).steps,
    )


def point(ratio: float, arms: tuple[Arm, Arm], runs: Sequence[SlimRun]) -> SlimPoint:
    """The figures of one ratio.

    Args:
        ratio: Runs of others are left out.
        arms: Distilled, random.
        runs: Of both.
    """
    found = {arm: {r.seed: r for r in runs if r.arm == arm and r.ratio == ratio} for arm in arms}
    ours, theirs = (found[arm] for arm in arms)
    return SlimPoint(
        ratio=ratio,
        parameters={arm: _mean([r.parameters for r in found[arm].values()]) for arm in arms},
        flops={arm: _mean([r.flops for r in found[arm].values()]) for arm in arms},
        top1_pruned={arm: measured([r.top1_pruned for r in found[arm].values()]) for arm in arms},
        top1={arm: measured([r.top1 for r in found[arm].values()]) for arm in arms},
        gain=measured([ours[seed].top1 - theirs[seed].top1 for seed in ours], "difference"),
    )


def _mean(values: Sequence[int]) -> float:
    return math.fsum(values) / len(values)
