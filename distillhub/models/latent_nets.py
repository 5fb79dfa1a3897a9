"""Small classifiers of latents: a specification, the network, and its training.

They tell a sampler what it is about to make. It asks them about clean estimates of noisy states,
which are blurred at first, so half of each training batch carries noise.
"""

from collections.abc import Callable, Iterator

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from distillhub.models.network import Network
from distillhub.models.training import Watch
from distillhub.models.zoo import seeded
from distillhub.ops.information import divergence_score, log_mean
from distillhub.ops.losses import cross_entropy
from distillhub.ops.schedules import cosine
from distillhub.spec import Fraction, Spec
from distillhub.units import derive_seed

GROUP = 4
"""Channels per group of the norm: 32 groups at width 128."""
SMALLEST = 4
"""Maps with a shorter side than this are not halved."""
CENTROID_DECAY = 0.9
"""Of the running mean distribution of a class, per batch that holds it."""


class LatentNetSpec(Spec):
    """A ConvNet on latents and how it is trained."""

    width: int = Field(default=128, ge=GROUP)
    depth: int = Field(default=4, gt=0)
    """Blocks of convolution, group norm and SiLU; each halves the map while it can."""
    epochs: int = Field(default=50, gt=0)
    batch: int = Field(default=128, gt=0)
    lr: float = Field(default=1e-3, gt=0)
    """Of AdamW, on half a cosine to 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    noise: float = Field(default=0.5, ge=0)
    """Largest standard deviation of the noise on half of each batch; uniform from 0."""
    seed: int = Field(default=0, ge=0)

    @field_validator("width")
    @classmethod
    def _in_groups(cls, width: int) -> int:
        if width % GROUP:
            raise ValueError(f"width {width} is not a multiple of {GROUP}")
        return width


class Contrast(Spec):
    """The end of a training that makes the softmax tell samples of one class apart."""

    weight: float = Field(default=0.05, ge=0)
    """Of the divergence from the running centroid of the class, which is subtracted."""
    share: Fraction = 0.2
    """Of the steps, the last ones."""
    temperature: float = Field(default=4.0, gt=0)
    """Of the softmax that is compared."""


class LatentNet(Network):
    """Blocks of convolution, group norm and SiLU, halved by averages; global average; linear."""

    def __init__(
        self, shape: tuple[int, int, int], num_classes: int, *, width: int, depth: int
    ) -> None:
        super().__init__()
        channels, *sides = shape
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.GroupNorm(width // GROUP, width),
                nn.SiLU(),
            ]
            if min(sides) >= SMALLEST:
                layers.append(nn.AvgPool2d(2))
                sides = [side // 2 for side in sides]
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """The average of the last map, [n, width]."""
        features: Tensor = self.body(x).mean(dim=(2, 3))
        return features


def train_latent_net(
    spec: LatentNetSpec,
    latents: Tensor,
    labels: Tensor,
    num_classes: int,
    *names: str | int,
    contrast: Contrast | None = None,
) -> LatentNet:
    """Train a classifier of latents; frozen, where the latents are.

    All random numbers come from CPU generators that depend on the seed, the names and the step.

    Args:
        spec: What and how.
        latents: [N, V, c, h, w]: V views of each image, of which every step takes one.
        labels: [N] int64, on the CPU.
        num_classes: K.
        names: Tell members of an ensemble apart.
        contrast: Added to the loss towards the end; None: cross-entropy alone.

    Raises:
        DivergedError: If the loss becomes NaN or infinite.
    """
    device = latents.device
    shape = (latents.shape[2], latents.shape[3], latents.shape[4])
    with seeded(derive_seed(spec.seed, "latent net", *names)):
        net = LatentNet(shape, num_classes, width=spec.width, depth=spec.depth).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), spec.lr, weight_decay=spec.weight_decay)
    watch = Watch("an estimator on latents", device)
    total = training_steps(spec, len(labels))
    late = total if contrast is None else total - round(contrast.share * total)
    running = torch.full((num_classes, num_classes), 1 / num_classes, device=device)
    for step, rows in _batches(spec, len(labels), total, *names):
        generator = _generator(spec, *names, "step", step)
        view = torch.randint(latents.shape[1], (len(rows),), generator=generator)
        x = latents[rows.to(device), view.to(device)]
        x = x + _noise(spec, x, generator)
        known = labels[rows].to(device)
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * cosine(step, total)
        logits = net(x)
        loss = cross_entropy(logits, known)
        if contrast is not None:
            log_p = (logits / contrast.temperature).log_softmax(1)
            _follow(running, log_p.detach(), known)
            if step >= late:
                apart = divergence_score(log_p.unsqueeze(1), running[known].log())
                loss = loss - contrast.weight * apart.mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        watch.add(step, loss.detach())
    watch.look()
    net.eval().requires_grad_(requires_grad=False)
    return net


def training_steps(spec: LatentNetSpec, images: int) -> int:
    """Optimizer steps on so many images."""
    return spec.epochs * max(1, images // spec.batch)


def probe(
    spec: LatentNetSpec,
    rows: int,
    num_classes: int,
    shape: tuple[int, int, int],
    device: torch.device,
) -> Callable[[], object]:
    """One pass of so many latents through a fresh network and back, to be timed."""
    with seeded(spec.seed):
        net = LatentNet(shape, num_classes, width=spec.width, depth=spec.depth).to(device)
    x = torch.zeros(rows, *shape, device=device, requires_grad=True)
    return lambda: torch.autograd.grad(net(x).sum(), x)


def forward_flops(spec: LatentNetSpec, shape: tuple[int, int, int]) -> float:
    """Operations of the convolutions for one sample, two per multiply-add."""
    channels, height, width = shape
    total = 0.0
    for _ in range(spec.depth):
        total += 2.0 * 9 * channels * spec.width * height * width
        if min(height, width) >= SMALLEST:
            height, width = height // 2, width // 2
        channels = spec.width
    return total


def _batches(
    spec: LatentNetSpec, size: int, total: int, *names: str | int
) -> Iterator[tuple[int, Tensor]]:
    """(step, rows); every epoch is a permutation, its incomplete end dropped."""
    batch = min(spec.batch, size)
    per_epoch = size // batch
    order = torch.empty(0, dtype=torch.int64)
    for step in range(total):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = torch.randperm(size, generator=_generator(spec, *names, "epoch", epoch))
        yield step, order[place * batch : (place + 1) * batch]


def _noise(spec: LatentNetSpec, x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise for the first half of a batch, each sample with a deviation of its own; 0 after it."""
    deviation = spec.noise * torch.rand(len(x), generator=generator)
    deviation[len(x) // 2 :] = 0
    noise = torch.randn(x.shape, generator=generator) * deviation.view(-1, 1, 1, 1)
    return noise.to(x.device)


@torch.no_grad()
def _follow(running: Tensor, log_p: Tensor, labels: Tensor) -> None:
    """Move the running centroids of the classes in a batch towards their means."""
    for label in torch.unique(labels):
        running[label].lerp_(log_mean(log_p[labels == label]).exp(), 1 - CENTROID_DECAY)


def _generator(spec: LatentNetSpec, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(spec.seed, "latent net", *names))
