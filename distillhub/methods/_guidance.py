"""From two scores to the shift of a sampling step, for `igds`; symbols as there."""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from distillhub.methods._scores import Context, Scorer
from distillhub.ops.diffusion import Posterior, Schedule
from distillhub.ops.information import capped, normalized_gradient, norms
from distillhub.spec import Spec

SCALE_OF_WINDOWS = 50
"""Windows are given in steps of a sampler of so many, whatever `steps` is."""
Window = tuple[int, int]
Sampler = Literal["ddpm", "ddim"]


class Guidance(Spec):
    """How the gradient moves a step."""

    scale: float = Field(default=1.0, ge=0)
    """s; 0 is the plain sampler."""
    prototype_window: Window | None = (45, 10)
    """First and last step index that G_I guides, of 49 .. 0 and scaled to `steps`; null: none. The
    last step is never guided."""
    context_window: Window | None = (45, 20)
    """The same for G_H."""
    gradient: Literal["stop", "full"] = "stop"
    """`stop`: x0 depends on z as 1 / sqrt(abar) alone; `full`: through the transformer."""
    normalise: bool = True
    """Whether g gets the norm of the predicted noise, per sample, so that the scale has no unit."""
    clip: float | None = Field(default=0.5, gt=0)
    """Longest shift of a step, in norms of sigma."""

    @property
    def windows(self) -> tuple[Window | None, Window | None]:
        """Of G_I (term 0) and of G_H (1)."""
        return self.prototype_window, self.context_window

    @model_validator(mode="after")
    def _from_noisy_to_clean(self) -> "Guidance":
        for window in self.windows:
            if window is not None and not SCALE_OF_WINDOWS > window[0] >= window[1] >= 0:
                raise ValueError(
                    f"window {window} does not run from a noisy step to a clean one within "
                    f"{SCALE_OF_WINDOWS - 1} .. 0"
                )
        return self

    def inside(self, term: int, index: int, steps: int) -> bool:
        """Whether a step of so many lies in the window of a term; the last one never does."""
        window = self.windows[term]
        if window is None or index == 0:
            return False
        return window[0] >= index * (SCALE_OF_WINDOWS - 1) / (steps - 1) >= window[1]

    def shift(
        self, step: Posterior, gradient: Tensor, index: int, schedule: Schedule, sampler: Sampler
    ) -> Tensor:
        """What z_(i-1) gets: s Sigma g, or the effect of s sqrt(1 - abar) g less noise [B].

        Args:
            step: Of the plain sampler.
            gradient: g, like its latents.
            index: i, above 0.
            schedule: The levels.
            sampler: `ddpm` for the first, `ddim` for the second.
        """
        if self.normalise:
            gradient = normalized_gradient(gradient, step.eps)
        if sampler == "ddpm":
            shift = self.scale * step.sigma.square() * gradient
        else:
            abar, before = schedule.abar[index].item(), schedule.abar_before[index].item()
            # Less noise means another x0, too.
            gain = math.sqrt(before / abar) * (1 - abar) - math.sqrt((1 - before) * (1 - abar))
            shift = self.scale * gain * gradient
        return shift if self.clip is None else capped(shift, self.clip * norms(step.sigma))


class Beta(Spec):
    """The weight of the context by images per class."""

    table: dict[int, float] | None = None
    """Values by ipc, e.g. published ones; they replace the rule."""
    beta_max: float = Field(default=0.3, ge=0)
    """Of the rule beta_max log(ipc) / log(100)."""
    balance: bool = True
    """Whether both scores are first divided by their mean gradient norm on real latents."""


class Terms(NamedTuple):
    """What a sampling is guided by."""

    prototype: Scorer
    context: Context | None
    weights: tuple[float, float]
    """Of G_I and of G_H in J."""

    @property
    def bounds(self) -> dict[str, float]:
        """What the estimators show of the real images' information, in nats."""
        found = {"i_bound": self.prototype.bound}
        return found if self.context is None else found | {"h_bound": self.context.bound}


def guide(
    terms: Terms | None,
    weights: tuple[float, float],
    z: Tensor,
    step: Posterior,
    labels: Tensor,
    index: int,
    schedule: Schedule,
    *,
    full: bool,
) -> tuple[Tensor | None, dict[str, float]]:
    """The gradient of J for z, None where nothing guides, and the mean scores that were taken.

    Args:
        terms: The estimators; None: nothing is guided.
        weights: Of G_I and G_H in J at this step.
        z: The latents, [G * N, c, h, w]; they require a gradient where `full`.
        step: What the generator says of them, with a graph where `full`.
        labels: Of the classes, [G] int64.
        index: i; at 0 the scores are taken of the result, and nothing is guided.
        schedule: The levels.
        full: Whether the way back goes through the generator.
    """
    if terms is None or not (any(weights) or index == 0):
        return None, {}
    x0 = step.x0 if full else step.x0.detach().requires_grad_(any(weights))
    samples = x0.view(len(labels), -1, *x0.shape[1:])  # [G, N, c, h, w]
    scores, total = {}, torch.zeros((), device=x0.device)
    scorers = {"prototype": terms.prototype, "context": terms.context}
    for (name, scorer), weight in zip(scorers.items(), weights, strict=True):
        if scorer is not None and (weight != 0 or index == 0):
            found = scorer.score(samples, labels)
            scores[name] = found.mean().item()
            total = total + weight * found.sum()
    if not any(weights):
        return None, scores
    (gradient,) = torch.autograd.grad(total, z if full else x0)
    return gradient if full else gradient / math.sqrt(schedule.abar[index].item()), scores
