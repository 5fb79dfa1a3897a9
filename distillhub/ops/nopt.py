"""NOpt: the noise of one denoising step, optimised so that samples spread like real ones.

Symbols: mu, sigma -> posterior of the step; eps -> its noise, N samples of each of B classes;
g -> features of mu + sigma eps, normalised by mean m and deviation s of the target; t -> pivots,
the means of N equal shares of the sorted target features; absn2(x) = |x| + x^2.

Source: Liu et al., Dataset Concentration (arXiv 2603.27987), with the constants of the authors'
code. All losses are one number per class; classes do not meet.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distillhub.ops.projector import Projector

WARM_UP = 3
"""Iterations outside a CUDA graph before it is captured; their effect is undone."""
TINY = 1e-12
"""Variances below it get no gradient: that of a deviation is infinite at 0."""


class Target(NamedTuple):
    """What the features of the samples of B classes are to be like."""

    mean: Tensor
    """[B, J]."""
    std: Tensor
    """[B, J]."""
    pivots: Tensor | None = None
    """[B, J, N], ascending along N; None where mean and deviation are all that is known."""


def absn2(x: Tensor) -> Tensor:
    """|x| + x^2 of each element; its derivative at 0 is 0."""
    return x.abs() + x.square()


def real_loss(eps: Tensor) -> Tensor:
    """How far noise is from the sphere of radius sqrt(C H W).

    Args:
        eps: [B, N, C, H, W].

    Returns:
        [B]: absn2 of the distance, summed over the samples.
    """
    flat = eps.flatten(2)
    radius = math.sqrt(flat.shape[2])
    return absn2(torch.linalg.vector_norm(flat, dim=2) - radius).sum(dim=1)


def make_pivots(features: Tensor, n: int) -> Target:
    """The target of one class for n samples.

    Args:
        features: Of the diffused real latents, [J, N_diff]; n divides N_diff. Overwritten.
        n: Samples.

    Raises:
        ValueError: If n does not divide N_diff.
    """
    if features.shape[1] % n:
        raise ValueError(f"{features.shape[1]} features cannot be cut into {n} equal shares")
    std, mean = torch.std_mean(features, dim=1, correction=0)
    normal = features.sub_(mean[:, None]).div_(std[:, None])
    pivots = _sorted(normal).view(len(normal), n, -1).mean(dim=2)
    return Target(mean[None], std[None], pivots[None])


def _sorted(values: Tensor) -> Tensor:
    """Rows in ascending order; on a CPU by numpy, which is some 20 times faster without indices."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def align_loss(features: Tensor, target: Target) -> Tensor:
    """1-D optimal transport of each channel to the pivots.

    Args:
        features: Pooled, [B, J, N].
        target: With pivots.

    Returns:
        [B]: N times the sum of absn2 over channels and ranks.
    """
    if target.pivots is None:
        raise ValueError("the target has no pivots")
    normal = (features - target.mean[..., None]) / target.std[..., None]
    apart = normal.sort(dim=2).values - target.pivots
    return features.shape[2] * absn2(apart).sum(dim=(1, 2))


def normalize_map(features: Tensor, target: Target) -> Tensor:
    """Feature maps [B, N, J, K, L] by the target's mean and deviation of each channel."""
    mean, std = (part[:, None, :, None, None] for part in (target.mean, target.std))
    return (features - mean) / std


def overlap_loss(normal: Tensor) -> Tensor:
    """Cosine to the nearest other sample of the class, summed over samples.

    Args:
        normal: [B, N, J, K, L].

    Returns:
        [B]; 0 for a lone sample, which has no other.
    """
    if normal.shape[1] == 1:
        return normal.new_zeros(len(normal))
    unit = functional.normalize(normal.flatten(2), dim=2)
    cosine = unit @ unit.transpose(1, 2)  # [B, N, N]
    itself = torch.eye(cosine.shape[1], dtype=torch.bool, device=cosine.device)
    return cosine.masked_fill(itself, -torch.inf).amax(dim=2).sum(dim=1)


def stats_loss(normal: Tensor, scale: float) -> Tensor:
    """How far the channels are from mean 0 and deviation 1.

    Args:
        normal: [B, N, J, K, L].
        scale: Factor; 1 in the paper, K * L in the code.

    Returns:
        [B]: sum of absn2 of both over the channels.
    """
    variance, mean = torch.var_mean(normal, dim=(1, 3, 4), correction=0)  # [B, J]
    std = variance.clamp_min(TINY).sqrt()
    return scale * (absn2(mean) + absn2(std - 1)).sum(dim=1)


class Weights(NamedTuple):
    """Of the parts of the data-free loss; that of `real_loss` is 1."""

    overlap: float
    stats: float
    scale: float | None
    """Of `stats_loss`; None: the positions of the map, K * L, as in the code."""


def da_loss(projector: Projector, weight: float, x: Tensor, eps: Tensor, target: Target) -> Tensor:
    """Data-accessible loss of samples `x` made with noise `eps`, both [B, N, C, H, W]: [B]."""
    return real_loss(eps) + weight * align_loss(projector.pooled(x), target)


def df_loss(
    projector: Projector, weights: Weights, x: Tensor, eps: Tensor, target: Target
) -> Tensor:
    """Data-free loss of samples `x` made with noise `eps`, both [B, N, C, H, W]: [B]."""
    normal = normalize_map(projector(x), target)
    scale = normal.shape[3] * normal.shape[4] if weights.scale is None else weights.scale
    apart = weights.overlap * overlap_loss(normal)
    return real_loss(eps) + apart + weights.stats * stats_loss(normal, scale)


Objective = Callable[[Tensor, Tensor, Target], Tensor]
"""Samples [B, N, C, H, W], their noise, the target -> loss per class, [B]."""


class NoiseSearch:
    """SGD with momentum on the noise of a denoising step; its buffers serve all steps.

    On a GPU one iteration is captured as a CUDA graph and replayed: an iteration is some 60 short
    kernels, and starting them takes longer than their work.
    """

    def __init__(
        self,
        objective: Objective,
        shape: Sequence[int],
        *,
        lr: float,
        momentum: float,
        device: torch.device,
        graph: bool = True,
    ) -> None:
        """Make the buffers.

        Args:
            objective: What is to become small.
            shape: [B, N, C, H, W].
            lr: Learning rate.
            momentum: Without damping.
            device: Where it works.
            graph: Use a CUDA graph where the device has them.
        """
        self.eps = torch.zeros(*shape, device=device)
        self.velocity = torch.zeros_like(self.eps)
        self.loss = torch.zeros(shape[0], device=device)
        """[B], before the last iteration."""
        self._mean = torch.zeros_like(self.eps)
        self._sigma = torch.zeros_like(self.eps)
        self._target: Target | None = None
        self._objective = objective
        self._lr = lr
        self._momentum = momentum
        self._wants_graph = graph and device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None

    def begin(
        self, mean: Tensor, sigma: Tensor, eps: Tensor, velocity: Tensor, target: Target
    ) -> None:
        """Start or go on with a denoising step; all [B, N, C, H, W] but the target."""
        self._mean.copy_(mean)
        self._sigma.copy_(sigma)
        self.eps.copy_(eps)
        self.velocity.copy_(velocity)
        if self._target is None:
            pivots = None if target.pivots is None else target.pivots.clone()
            self._target = Target(target.mean.clone(), target.std.clone(), pivots)
            return
        for kept, new in zip(self._target, target, strict=True):
            if kept is not None and new is not None:
                kept.copy_(new)

    def run(self, iterations: int) -> None:
        """So many iterations on `eps` and `velocity`, in place."""
        if iterations and self._wants_graph and self._graph is None:
            self._graph = self._capture()
        for _ in range(iterations):
            if self._graph is None:
                self._iterate()
            else:
                self._graph.replay()

    def _iterate(self) -> None:
        if self._target is None:
            raise ValueError("an optimisation of noise begins with `begin`")
        noise = self.eps.detach().requires_grad_()
        with torch.enable_grad():
            losses = self._objective(self._mean + self._sigma * noise, noise, self._target)
            (gradient,) = torch.autograd.grad(losses.sum(), noise)
        self.loss.copy_(losses.detach())
        self.velocity.mul_(self._momentum).add_(gradient)
        self.eps.sub_(self.velocity, alpha=self._lr)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Record one iteration; noise and velocity are afterwards what they were."""
        eps, velocity = self.eps.clone(), self.velocity.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._iterate()
        torch.cuda.current_stream().wait_stream(side)
        self.eps.copy_(eps)
        self.velocity.copy_(velocity)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._iterate()
        self.eps.copy_(eps)
        self.velocity.copy_(velocity)
        return graph
