"""Fits the two estimators of `igds` to the real images, and keeps them as resources."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from distillhub.data.real import RealData
from distillhub.errors import PipelineError
from distillhub.methods._base import Workbench
from distillhub.methods._scores import (
    Context,
    ContextSpec,
    LatentPrototype,
    PixelPrototype,
    PrototypeSpec,
    Scorer,
    seen_by,
)
from distillhub.models.latent_nets import Contrast, LatentNet, LatentNetSpec, train_latent_net
from distillhub.models.tensorfile import fill, read_tensors, write_tensors
from distillhub.models.zoo import seeded
from distillhub.ops.information import (
    calibrated_temperature,
    conditional_information,
    log_mean,
    norms,
    prototype_bound,
    prototype_score,
    spread_score,
    whitening,
)
from distillhub.ops.selection import sample
from distillhub.units import derive_seed

FILE = "network.safetensors"
BALANCE = "balance.json"
CHUNK = 512
"""Images or latents per pass where no gradient is needed."""
BALANCE_CLASSES, BALANCE_IMAGES, BALANCE_NOISE = 32, 16, 0.25
"""The calibration batch of `balance`: at most so many classes, images of each, and the deviation of
the noise on them."""
FITTING = 1
"""Bumped when the same settings give other estimators."""
_LEAST = 1e-12
"""Of a mean gradient norm; a context of single images has none."""


class Balance(NamedTuple):
    """Mean gradient norm of each score on a calibration batch."""

    prototype: float
    context: float


class RealLatents:
    """The encoded real images, in one or both orientations; encoded when first asked for."""

    def __init__(self, bench: Workbench, *, flip: bool) -> None:
        self._bench = bench
        self.flip = flip

    @property
    def key(self) -> dict[str, object]:
        """What the latents depend on beside the data."""
        identity = self._bench.diffusion().identity
        return {"generator": identity, "flip": self.flip, "fitting": FITTING}

    @cached_property
    def fit(self) -> Tensor:
        """Of the part that networks may be trained on, [N, V, c, h, w] on the device."""
        return self._of(self._bench.data.fit, "fit")

    @cached_property
    def held_out(self) -> Tensor:
        """Of the held-out part."""
        return self._of(held_out(self._bench.data), "held-out")

    def _of(self, data: RealData, name: str) -> Tensor:
        diffusion = self._bench.diffusion()
        if diffusion.latent_shape == diffusion.image_shape:  # pixels: quicker made than read
            return self._encoded(data, name)

        def build(folder: Path) -> None:
            write_tensors(folder / FILE, {"latents": self._encoded(data, name)}, {})

        folder = self._bench.resource("igds-latents", {**self.key, "part": name}, build)
        return read_tensors(folder / FILE)[0]["latents"].to(self._bench.device)

    def _encoded(self, data: RealData, name: str) -> Tensor:
        views = []
        for flipped in (False, True) if self.flip else (False,):
            seed = derive_seed("igds", "latents", name, int(flipped))
            generator = torch.Generator().manual_seed(seed)
            parts = []
            for rows in torch.split(torch.arange(len(data)), CHUNK):
                images = data.images(rows)
                images = images.flip(-1) if flipped else images
                parts.append(self._bench.diffusion().encode(images, generator))
            views.append(torch.cat(parts))
        return torch.stack(views, dim=1)


def held_out(data: RealData) -> RealData:
    """The images that estimators are calibrated on.

    Raises:
        PipelineError: If the recipe keeps none.
    """
    found = data.held_out
    if len(found) == 0:
        raise PipelineError(
            "igds calibrates its estimators on held-out training images, and there are none",
            where="dataset.holdout",
            mend="set it to 0.1",
        )
    return found


def fit_prototype(spec: PrototypeSpec, bench: Workbench, latents: RealLatents) -> Scorer:
    """The estimator of I(X;Y); what was trained before is taken from the resources."""
    if spec.space == "pixel":
        return _calibrated_teacher(spec, bench, flip=latents.flip)
    members = []
    bounds = []
    for number in range(spec.ensemble):
        folder = bench.resource(
            "igds-prototype",
            prototype_key(spec, bench, latents) | {"member": number},
            partial(_build_member, spec, bench, latents, number),
        )
        tensors, facts = read_tensors(folder / FILE)
        net = _filled(spec.network, bench, tensors, folder)
        members.append((net, _number(facts, "temperature")))
        bounds.append(_number(facts, "bound"))
    # The mean score of the ensemble is the mean of its members' scores, and so is the bound.
    return LatentPrototype(members, latents.flip, sum(bounds) / len(bounds))


def prototype_key(spec: PrototypeSpec, bench: Workbench, latents: RealLatents) -> dict[str, object]:
    """What an estimator of I(X;Y) depends on beside the data."""
    if spec.space == "pixel":
        teacher = _digest(bench.network("teacher"))
        return {"teacher": teacher, "temperature": spec.temperature, **latents.key}
    network = spec.network.model_dump(mode="json")
    return {**latents.key, "network": network, "temperature": spec.temperature}


def _build_member(
    spec: PrototypeSpec, bench: Workbench, latents: RealLatents, number: int, folder: Path
) -> None:
    """Train a member of the ensemble and calibrate it on the held-out latents."""
    data, views = bench.data, latents.held_out.shape[1]
    net = train_latent_net(
        spec.network, latents.fit, data.fit.labels, data.num_classes, "prototype", number
    )
    logits = _in_chunks(net, latents.held_out.flatten(0, 1)).cpu()
    facts = _calibration(spec, logits, held_out(data).labels.repeat_interleave(views))
    write_tensors(folder / FILE, net.state_dict(), dict(facts))


def _calibrated_teacher(spec: PrototypeSpec, bench: Workbench, *, flip: bool) -> PixelPrototype:
    """The recipe's teacher, asked about the held-out images."""
    teacher, data = bench.network("teacher"), held_out(bench.data)
    logits, views = [], (False, True) if flip else (False,)
    for flipped in views:
        for rows in torch.split(torch.arange(len(data)), CHUNK):
            images = data.images(rows).to(bench.device)
            logits.append(seen_by(teacher, images.flip(-1) if flipped else images).cpu())
    facts = _calibration(spec, torch.cat(logits), data.labels.repeat(len(views)))
    return PixelPrototype(teacher, bench.diffusion(), facts["temperature"], flip, facts["bound"])


def _calibration(spec: PrototypeSpec, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Temperature and bound of a classifier, from its logits of held-out images."""
    given = spec.temperature
    temperature = calibrated_temperature(logits, labels) if given == "calibrated" else given
    scores = prototype_score(logits, labels, temperature=temperature)
    return {"temperature": temperature, "bound": prototype_bound(scores, logits.shape[1])}


def fit_context(spec: ContextSpec, bench: Workbench, latents: RealLatents) -> Context:
    """The estimator of H(X|Y); what was trained before is taken from the resources."""
    build = partial(_build_context, spec, bench, latents)
    folder = bench.resource("igds-context", context_key(spec, latents), build)
    tensors, facts = read_tensors(folder / FILE)
    log_q, whiten = (tensors.pop(name).to(bench.device) for name in ("log_q", "whitening"))
    net = _filled(spec.network, bench, tensors, folder)
    return Context(spec, net, log_q, whiten, latents.flip, _number(facts, "bound"))


def context_key(spec: ContextSpec, latents: RealLatents) -> dict[str, object]:
    """What an estimator of H(X|Y) depends on beside the data."""
    return {**latents.key, "context": spec.model_dump(mode="json", exclude={"centroid"})}


def _build_context(spec: ContextSpec, bench: Workbench, latents: RealLatents, folder: Path) -> None:
    """Train the network and note what it says of the real images."""
    data, views = bench.data, latents.fit.shape[1]
    contrast = Contrast(weight=spec.weight, share=spec.share, temperature=spec.temperature)
    net = train_latent_net(
        spec.network, latents.fit, data.fit.labels, data.num_classes, "context", contrast=contrast
    )

    def outputs(x: Tensor) -> tuple[Tensor, Tensor]:
        features = _in_chunks(net.embed, x.flatten(0, 1))
        return features, (net.head(features) / spec.temperature).log_softmax(1)

    features, log_p = outputs(latents.fit)
    known = data.fit.labels.repeat_interleave(views).to(bench.device)
    centers = [log_mean(log_p[known == label]) for label in range(data.num_classes)]
    whiten = whitening(features, known)
    seen, log_seen = outputs(latents.held_out)
    labels = held_out(data).labels.repeat_interleave(views).to(bench.device)
    if spec.kind == "logdet":
        groups = [(seen @ whiten)[labels == label].unsqueeze(0) for label in torch.unique(labels)]
        volumes = [spread_score(group, noise=spec.noise).sum().item() for group in groups]
        bound = sum(volumes) / len(volumes)
    else:
        bound = conditional_information(log_seen, labels).item()
    kept = {"log_q": torch.stack(centers), "whitening": whiten}
    write_tensors(folder / FILE, net.state_dict() | kept, {"bound": bound})


def balance(
    prototype: Scorer, context: Context, bench: Workbench, latents: RealLatents, key: object
) -> Balance:
    """Mean gradient norms of the scores for noisy real latents; kept as a resource.

    Args:
        prototype: The estimator of I(X;Y).
        context: That of H(X|Y).
        bench: Where resources are.
        latents: The real images.
        key: What both estimators depend on.
    """
    scorers: tuple[Scorer, ...] = (prototype, context)

    def build(folder: Path) -> None:
        known = bench.data.fit.labels
        sizes: list[list[Tensor]] = [[] for _ in scorers]
        for label in range(min(bench.data.num_classes, BALANCE_CLASSES)):
            generator = torch.Generator().manual_seed(derive_seed("igds", "balance", label))
            rows = sample(torch.nonzero(known == label).flatten(), BALANCE_IMAGES, generator)
            x = latents.fit[rows.to(bench.device), 0]
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            x = (x + BALANCE_NOISE * noise).unsqueeze(0).requires_grad_()
            labels = torch.tensor([label], device=x.device)
            for found, scorer in zip(sizes, scorers, strict=True):
                (gradient,) = torch.autograd.grad(scorer.score(x, labels).sum(), x)
                found.append(norms(gradient[0]).flatten())
        means = [torch.cat(found).mean().item() for found in sizes]
        (folder / BALANCE).write_text(json.dumps(means), encoding="utf-8")

    folder = bench.resource("igds-balance", {"of": key}, build)
    means = json.loads((folder / BALANCE).read_text(encoding="utf-8"))
    return Balance(*(max(mean, _LEAST) for mean in means))


@torch.no_grad()
def _in_chunks(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([work(part) for part in torch.split(x, CHUNK)])


def _filled(
    spec: LatentNetSpec, bench: Workbench, tensors: Mapping[str, Tensor], folder: Path
) -> LatentNet:
    """A network with stored weights, frozen, on the device."""
    shape = bench.diffusion().latent_shape
    with seeded(spec.seed):
        net = LatentNet(shape, bench.data.num_classes, width=spec.width, depth=spec.depth)
    fill(net, tensors, where=str(folder))
    return net.to(bench.device).eval().requires_grad_(requires_grad=False)


def _number(facts: Mapping[str, JsonValue], name: str) -> float:
    value = facts[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{name} of an estimator is {value!r}, a number is needed")
    return float(value)


def _digest(net: nn.Module) -> str:
    """sha256 of a network's tensors, by name."""
    found = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
