"""The two scores that guide `igds`: what they are made of, and how a sampler asks for them.

Both are ours: of the paper only the idea is public. Symbols as in `ops.information`; samples come
as [G, N, c, h, w], the N samples of a class being the group that the contextual score looks at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from distillhub.models.classifier import Classifier
from distillhub.models.diffusion import Diffusion
from distillhub.models.latent_nets import LatentNet, LatentNetSpec
from distillhub.ops.information import divergence_score, over_views, prototype_score, spread_score
from distillhub.spec import Fraction, Spec


class PrototypeSpec(Spec):
    """The classifier behind G_I = log q(y|x)."""

    space: Literal["latent", "pixel"] = "latent"
    """`latent`: an ensemble on latents, trained here; `pixel`: the recipe's teacher on the decoded
    estimate, which costs a decoding and its way back per guided step."""
    network: LatentNetSpec = LatentNetSpec()
    ensemble: int = Field(default=3, gt=0)
    """Networks of different seeds, whose log-probabilities are averaged; of `latent`."""
    temperature: Literal["calibrated"] | float = "calibrated"
    """Of the softmax; `calibrated`: the best on the held-out images."""


class ContextSpec(Spec):
    """The score G_H of the variability within a class."""

    kind: Literal["cmi", "logdet", "none"] = "cmi"
    """`cmi`: divergence of a sample's softmax from the centroid of its class; `logdet`: volume of
    the whitened features of the samples of a class."""
    centroid: Literal["self", "real"] = "self"
    """Of `cmi`: that of the samples made together, or that of the real images."""
    temperature: float = Field(default=4.0, gt=0)
    """Of `cmi`'s softmax."""
    noise: float = Field(default=0.5, gt=0)
    """Of `logdet`: deviation of the noise that ends the reward for ever larger distances."""
    network: LatentNetSpec = LatentNetSpec()
    weight: float = Field(default=0.05, ge=0)
    """Of the variability that the network is trained to show, in the last `share` of its steps."""
    share: Fraction = 0.2


class Scorer(Protocol):
    """An estimator that was fitted."""

    @property
    def bound(self) -> float:
        """What it shows of its information on held-out real images, in nats."""

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        """Scores [G, N] of samples [G, N, c, h, w] of the classes `labels` ([G] int64)."""


@dataclass(frozen=True)
class LatentPrototype:
    """An ensemble on latents."""

    members: Sequence[tuple[LatentNet, float]]
    """Networks with their temperatures."""
    flip: bool
    bound: float

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        """G_I, averaged over members and mirror images."""
        flat, known = x.flatten(0, 1), labels.repeat_interleave(x.shape[1])

        def member(net: LatentNet, temperature: float) -> Callable[[Tensor], Tensor]:
            return lambda view: prototype_score(net(view), known, temperature=temperature)

        scores = over_views([member(*found) for found in self.members], flat, flip=self.flip)
        return scores.view(x.shape[:2])


@dataclass(frozen=True)
class PixelPrototype:
    """The recipe's teacher on decoded latents."""

    teacher: Classifier
    diffusion: Diffusion
    temperature: float
    flip: bool
    bound: float

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        """G_I, averaged over mirror images."""
        images = self.diffusion.decode(x.flatten(0, 1), differentiable=True)
        known = labels.repeat_interleave(x.shape[1])

        def score(view: Tensor) -> Tensor:
            logits = seen_by(self.teacher, view)
            return prototype_score(logits, known, temperature=self.temperature)

        return over_views([score], images, flip=self.flip).view(x.shape[:2])


@dataclass(frozen=True)
class Context:
    """A network of its own seed, with what it says of the real images."""

    spec: ContextSpec
    net: LatentNet
    log_q: Tensor
    """Logarithm of the centroid of each class, [K, K]."""
    whiten: Tensor
    """[D, D]."""
    flip: bool
    bound: float

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        """G_H, averaged over mirror images."""
        return over_views([lambda view: self._score(view, labels)], x, flip=self.flip)

    def _score(self, x: Tensor, labels: Tensor) -> Tensor:
        features = self.net.embed(x.flatten(0, 1)).view(*x.shape[:2], -1)  # [G, N, D]
        if self.spec.kind == "logdet":
            return spread_score(features @ self.whiten, noise=self.spec.noise)
        log_p = (self.net.head(features) / self.spec.temperature).log_softmax(-1)
        log_q = self.log_q[labels] if self.spec.centroid == "real" else None
        return divergence_score(log_p, log_q)


def seen_by(teacher: Classifier, images: Tensor) -> Tensor:
    """The teacher's logits of images of any size."""
    sides = teacher.input_shape[1:]
    if tuple(images.shape[-2:]) != tuple(sides):
        images = functional.interpolate(
            images, size=list(sides), mode="bilinear", align_corners=False, antialias=True
        )
    logits: Tensor = teacher(images)
    return logits
