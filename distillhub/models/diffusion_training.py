"""Train a small generator from a `GeneratorTrainSpec`: an autoencoder where asked, then the DiT.

The loss is that of DiT: the squared error of the noise, and with a learned variance the variational
bound in bits per dimension, whose gradient reaches the variance alone (Nichol and Dhariwal 2021,
equation 16 with lambda = 0.001 and 1000 steps). Latents of an autoencoder are scaled to unit
deviation (Rombach et al. 2022, section G).
"""

import copy
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from distillhub.models.diffusion_files import build_vae, fresh
from distillhub.models.specs import GeneratorTrainSpec
from distillhub.models.training import LabelledImages, Watch, learning_rate_factor
from distillhub.models.zoo import seeded
from distillhub.ops.crops import flip
from distillhub.ops.diffusion import Schedule, variational_bound
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.units import derive_seed

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

TRAIN_STEPS = 1000
"""Levels of the schedule in training."""


@dataclass(frozen=True)
class TrainedGenerator:
    """A finished training; the networks are on the device."""

    transformer: "DiTTransformer2DModel"
    """The averaged weights."""
    vae: "AutoencoderKL | None"
    scaling: float
    losses: dict[str, float]
    """Means over the last tenth of the steps: `loss` and, of an autoencoder, `vae_loss`."""


class _Parts:
    """Everything of a training that a snapshot holds."""

    def __init__(
        self, spec: GeneratorTrainSpec, data: LabelledImages, device: torch.device
    ) -> None:
        shape = (data.channels, data.height, data.width)
        net = fresh(spec, shape, len(data.class_names), derive_seed(spec.seed, "init"))
        # Its own label dropout draws anew in every block; labels are dropped here instead.
        self.net = net.eval().to(device)
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), spec.lr, weight_decay=spec.weight_decay, fused=True
        )
        self.scaling = torch.ones((), device=device)
        self.sums = torch.zeros(2, device=device)
        """Losses of the last tenth of the autoencoder's and of the transformer's steps."""
        self.all: dict[str, nn.Module | torch.optim.Optimizer | Tensor] = {
            "net": self.net,
            "ema": self.average,
            "opt": self.optimizer,
            "scaling": self.scaling,
            "sums": self.sums,
        }
        self.vae: AutoencoderKL | None = None
        if spec.vae is not None:
            with seeded(derive_seed(spec.seed, "vae")):
                self.vae = build_vae(spec.vae, data.channels).to(device)
            self.vae_optimizer = torch.optim.AdamW(
                self.vae.parameters(), spec.vae.lr, weight_decay=0.0, fused=True
            )
            self.all |= {"vae": self.vae, "vae_opt": self.vae_optimizer}


def train_generator(
    spec: GeneratorTrainSpec,
    data: LabelledImages,
    *,
    device: torch.device,
    state: State | None = None,
) -> Generator[Progress, None, TrainedGenerator]:
    """Train a generator from scratch, one step per progress report.

    All random numbers of a step come from a generator of its own on the CPU, so a training that was
    cut and goes on from a snapshot ends with the same weights.

    Args:
        spec: What and how.
        data: The training images.
        device: Where to train; the result stays there.
        state: A snapshot of an earlier run of the same spec.

    Raises:
        DivergedError: If the loss becomes NaN or infinite; the step is named.
        ValueError: If the architecture does not fit the images.
    """
    parts = _Parts(spec, data, device)
    done = restore(state, **parts.all)
    first = 0 if spec.vae is None else spec.vae.steps
    total = first + spec.steps
    schedule = Schedule.linear(TRAIN_STEPS, TRAIN_STEPS)
    watch = Watch(spec.arch, device)
    for step in range(done, total):
        if step < first:
            loss = _vae_step(spec, data, parts, step, device)
        else:
            if step == first and spec.vae is not None:
                parts.scaling.copy_(_unit_scale(spec, data, parts, device))
            loss = _step(spec, data, parts, step - first, schedule, device)
        _keep(parts.sums, loss, spec, step, first)
        watch.add(step, loss)

        def snapshot(step: int = step) -> State:
            watch.look()
            return capture(step + 1, **parts.all)

        yield Progress(step + 1, total, {"loss": watch.last}, snapshot)
    watch.look()
    losses = {"loss": parts.sums[1].item()}
    if spec.vae is not None:
        losses["vae_loss"] = parts.sums[0].item()
    return TrainedGenerator(parts.average, parts.vae, parts.scaling.item(), losses)


def training_loss(
    net: nn.Module,
    x0: Tensor,
    labels: Tensor,
    *,
    index: Tensor,
    noise: Tensor,
    schedule: Schedule,
    learned_variance: bool,
) -> Tensor:
    """The loss of each latent, [n].

    Args:
        net: The transformer.
        x0: Clean latents, [n, c, h, w].
        labels: [n] int64, the null label where it is dropped.
        index: Steps, [n] int64 on the CPU, where the tables of the schedule are.
        noise: Like `x0`.
        schedule: All levels of the training, so that a step is its timestep.
        learned_variance: Whether the output has a second half for the variance.
    """
    abar = schedule.abar[index].to(x0.device, torch.float32).view(-1, 1, 1, 1)
    z = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
    tau = index.to(x0.device)
    out = net(z, timestep=tau, class_labels=labels, return_dict=False)[0].float()
    eps: Tensor = out[:, : x0.shape[1]]
    loss = (eps - noise).square().mean(dim=(1, 2, 3))
    if learned_variance:
        v: Tensor = out[:, x0.shape[1] :]
        return loss + variational_bound(x0, z, eps, v, index, schedule)
    return loss


def _step(
    spec: GeneratorTrainSpec,
    data: LabelledImages,
    parts: _Parts,
    step: int,
    schedule: Schedule,
    device: torch.device,
) -> Tensor:
    """One step of the transformer and its average; the mean loss."""
    generator = _generator(spec, "step", step)
    images, labels = _batch(spec, data, spec.batch, step, generator)
    x0 = _latents(parts, images.to(device), generator)
    index = torch.randint(TRAIN_STEPS, (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    hidden = torch.rand(len(x0), generator=generator) < spec.label_dropout
    labels = labels.masked_fill(hidden, len(data.class_names))
    for group in parts.optimizer.param_groups:
        group["lr"] = spec.lr * learning_rate_factor(spec, step, spec.steps)
    with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
        loss = training_loss(
            parts.net,
            x0,
            labels.to(device),
            index=index,
            noise=noise.to(device),
            schedule=schedule,
            learned_variance=spec.variance == "learned",
        ).mean()
    parts.optimizer.zero_grad()
    torch.autograd.backward(loss)
    parts.optimizer.step()
    _follow(parts.average, parts.net, decay=min(spec.ema, (1 + step) / (10 + step)))
    return loss.detach()


def _vae_step(
    spec: GeneratorTrainSpec, data: LabelledImages, parts: _Parts, step: int, device: torch.device
) -> Tensor:
    """One step of the autoencoder: squared error and divergence from a standard normal."""
    if parts.vae is None or spec.vae is None:
        raise AssertionError("an autoencoder's step without an autoencoder")
    generator = _generator(spec, "vae step", step)
    images, _ = _batch(spec, data, spec.vae.batch, step, generator)
    signed = 2 * images.to(device) - 1
    law = parts.vae.encode(signed).latent_dist
    noise = torch.randn(law.mean.shape, generator=generator).to(device)
    made = parts.vae.decode(law.mean + law.std * noise).sample
    loss = (made - signed).square().mean() + spec.vae.kl * law.kl().mean() / signed[0].numel()
    parts.vae_optimizer.zero_grad()
    torch.autograd.backward(loss)
    parts.vae_optimizer.step()
    result: Tensor = loss.detach()
    return result


@torch.no_grad()
def _unit_scale(
    spec: GeneratorTrainSpec, data: LabelledImages, parts: _Parts, device: torch.device
) -> Tensor:
    """One over the deviation of the latents of a first batch of at most 1024 images."""
    if parts.vae is None:
        raise AssertionError("a scale without an autoencoder")
    rows = torch.randperm(len(data), generator=_generator(spec, "scale"))[:1024]
    means = [
        parts.vae.encode(2 * data.images(part).to(device) - 1).latent_dist.mean
        for part in torch.split(rows, 64)
    ]
    return 1 / torch.cat(means).std()


@torch.no_grad()
def _latents(parts: _Parts, images: Tensor, generator: torch.Generator) -> Tensor:
    """Latents to train on; an autoencoder's are drawn from its posterior."""
    signed = 2 * images - 1
    if parts.vae is None:
        return signed
    law = parts.vae.encode(signed).latent_dist
    noise = torch.randn(law.mean.shape, generator=generator).to(images.device)
    drawn: Tensor = (law.mean + law.std * noise) * parts.scaling
    return drawn


def _batch(
    spec: GeneratorTrainSpec,
    data: LabelledImages,
    batch: int,
    step: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Images and labels of a step; every epoch is a permutation, its incomplete end dropped."""
    batch = min(batch, len(data))
    epoch, place = divmod(step, len(data) // batch)
    order = torch.randperm(len(data), generator=_generator(spec, "epoch", batch, epoch))
    rows = order[place * batch : (place + 1) * batch]
    images = data.images(rows)
    if spec.augment == "flip":
        images = flip(images, generator=generator)
    return images, data.labels[rows]


def _generator(spec: GeneratorTrainSpec, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(spec.seed, "generator", *names))


@torch.no_grad()
def _follow(average: nn.Module, net: nn.Module, *, decay: float) -> None:
    """Move the average towards the weights by 1 - decay."""
    mine: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(net.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - decay)


def _keep(sums: Tensor, loss: Tensor, spec: GeneratorTrainSpec, step: int, first: int) -> None:
    """Add to the mean loss over the last tenth of its phase."""
    phase, done, steps = (1, step - first, spec.steps) if step >= first else (0, step, first)
    last = max(1, steps // 10)
    if done >= steps - last:
        sums[phase] += loss / last
