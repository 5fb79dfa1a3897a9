"""The loss of a step of the recover loop, term by term, and the watch over it."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from distillhub.methods._matching import refuse_divergence
from distillhub.methods._recover_match import Matching, Running
from distillhub.methods._recover_observers import Observer
from distillhub.methods._recover_specs import LossesSpec
from distillhub.ops.losses import cross_entropy
from distillhub.ops.recovering import (
    Look,
    densification,
    flatness,
    image_norm,
    total_variation,
)
from distillhub.units import WorkUnit

CHECK_EVERY = 16
"""Steps between looks at the loss on an accelerator, which each look would stop."""


class Step(NamedTuple):
    """Who looks at a batch in a step, and how."""

    observer: Observer
    matching: Matching | None
    running: Running
    look: Look
    skip: tuple[str, ...]
    """Layers whose statistics do not count."""


def loss_terms(
    x: Tensor,
    labels: Tensor,
    average: Tensor,
    step: Step,
    weights: LossesSpec,
    *,
    bfloat16: bool = False,
) -> dict[str, Tensor]:
    """The weighted terms of L by name; those of weight 0 are not there.

    Args:
        x: X, [n, C, H, W].
        labels: y, [n].
        average: E, like `x`.
        step: Who looks at them, and how.
        weights: Of the terms.
        bfloat16: Run the observer under autocast.
    """
    observer, matching, running, look, skip = step
    half = torch.autocast(x.device.type, torch.bfloat16, bfloat16)
    view = look.at(x)  # A(X)
    terms: dict[str, Tensor] = {}
    if matching is None:
        with half:
            logits = observer.net.normalized(observer.shown(view))
    else:
        with half:
            logits, moments = matching.look(observer.net, observer.shown(view), skip=skip)
        moments = running.follow(moments, matching.kept(skip))
        terms["stat"] = weights.stat * matching.distance(moments, skip=skip)
    logits = logits.float()
    if weights.ce:
        terms["ce"] = weights.ce * cross_entropy(logits, labels)
    if weights.flatness.weight:
        flat = weights.flatness
        with torch.no_grad(), half:
            steady = observer.net.normalized(observer.shown(look.at(average)))
        terms["flatness"] = flat.weight * flatness(
            logits,
            steady.float(),
            tau=flat.tau,
            direction=flat.direction,
            reduction=flat.reduction,
        )
    if weights.densify.weight:
        dense = weights.densify
        density = densification(view, labels, tau=dense.tau, side=dense.side)
        terms["densify"] = dense.weight * density
    if weights.tv:
        terms["tv"] = weights.tv * total_variation(view)
    if weights.l2:
        terms["l2"] = weights.l2 * image_norm(view)
    return terms


class Watch:
    """Looks at the losses of a batch for NaN and infinity; on an accelerator not at every step."""

    def __init__(self, device: torch.device, unit: WorkUnit) -> None:
        self.last: dict[str, float] = {}
        """The latest terms that were looked at."""
        self._every = 1 if device.type == "cpu" else CHECK_EVERY
        self._unit = unit
        self._names: list[str] = []
        self._pending: list[tuple[int, Tensor]] = []

    def add(self, step: int, terms: Mapping[str, Tensor], gradient: Tensor) -> None:
        """Note the terms of a step, the loss first; a gradient that is NaN spoils them."""
        values = torch.stack([value.detach() for value in terms.values()])
        self._names = list(terms)
        self._pending.append((step, values + 0 * gradient.sum()))
        if not self.last or len(self._pending) >= self._every:
            self.look()

    def look(self) -> None:
        """Check what was noted.

        Raises:
            DivergedError: Naming the step and the unit.
        """
        mend = "lower method.lr, or the weight of the term that grew: see method.losses"
        if not self._pending:
            return
        noted = torch.stack([values for _, values in self._pending]).cpu()  # [steps, terms]
        for (step, _), values in zip(self._pending, noted, strict=True):
            refuse_divergence(values[:1], step, [self._unit], mend)
        self.last = dict(zip(self._names, noted[-1].tolist(), strict=True))
        self._pending.clear()
