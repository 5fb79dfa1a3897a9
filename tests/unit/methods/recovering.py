"""A workbench with small observers that have batch norms, and the published loop written out."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillhub.data.real import RealData
from distillhub.methods._recover import Recover
from distillhub.methods._recover_match import Matching
from distillhub.methods._recover_specs import MatchSpec
from distillhub.models.classifier import Classifier
from distillhub.models.measuring import TapSpec
from distillhub.models.statistics import CollectSpec, ObserverStatistics, collect
from distillhub.models.zoo import build
from distillhub.ops.progress import MARK, Progress
from distillhub.units import derive_seed
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of

TAPS = TapSpec(patch_side=2)


class RecoverBench(TinyBench):
    """Observers are `arch`, with running statistics as if they had been trained."""

    def __init__(
        self,
        data: RealData,
        *,
        seed: int = 0,
        folder: Path | None = None,
        archs: Sequence[str] = ("convnet2-w8-bn", "convnet2-w8-bn"),
    ) -> None:
        super().__init__(data, seed=seed, folder=folder)
        self.archs = tuple(archs)
        self.asked: list[str] = []
        """Roles of the networks that were asked for."""

    def observers(self) -> tuple[str, ...]:
        return tuple(f"observer-{number}" for number in range(len(self.archs)))

    def network(self, role: str) -> Classifier:
        self.asked.append(role)
        if role not in self.networks:
            number = int(role.rpartition("-")[2]) if role.startswith("observer-") else 0
            self.networks[role] = observer(self.data, self.archs[number], role)
        return self.networks[role]


def observer(data: RealData, arch: str = "convnet2-w8-bn", role: str = "observer-0") -> Classifier:
    """An untrained network whose batch norms have seen something."""
    seed = derive_seed("network", role)
    net = build(
        arch,
        num_classes=data.num_classes,
        channels=data.channels,
        height=data.height,
        width=data.width,
        mean=data.mean,
        std=data.std,
        seed=seed,
    ).freeze()
    net.net.head.weight *= 20  # logits like those of a trained network
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return net


def statistics_of(
    data: RealData, net: Classifier, taps: TapSpec = TAPS, **spec: object
) -> ObserverStatistics:
    """Collected, not rounded to a file."""
    work = collect(
        net, "it", data, taps, CollectSpec.model_validate(spec), device=torch.device("cpu")
    )
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: ObserverStatistics = end.value
            return found


def matching(
    statistics: ObserverStatistics, labels: Sequence[int], *, swapped: bool = False, **match: object
) -> Matching:
    """Of a batch with these labels."""
    spec = MatchSpec.model_validate({"momentum": 0.0} | match)
    return Matching(
        statistics, torch.tensor(labels), spec, swapped=swapped, device=torch.device("cpu")
    )


def distance_of(match: Matching, net: Classifier, x: Tensor) -> Tensor:
    """r of images in normalised space."""
    return match.distance(match.look(net, x).moments)


def synthesize(
    method: Recover, bench: TinyBench, ipc: int = 2, reports: list[Progress] | None = None
) -> Tensor:
    """All images in the order of the units; reports are those of the method itself."""
    everything: list[Progress] = []
    units = units_of(method, target_of(bench.data, ipc), seed=bench.seed)
    images = made_by(method, units, bench, reports=everything)
    if reports is not None:
        reports += [r for r in everything if r.snapshot is None or MARK not in r.snapshot()]
    return images


def small_bench(**settings: object) -> RecoverBench:
    """Three classes of six grey 8 x 8 images, two observers."""
    return RecoverBench(tiny_data(), **settings)  # type: ignore[arg-type]


# ---- the published code, written out


def hooked(net: Classifier, x: Tensor) -> tuple[Tensor, list[tuple[str, nn.Module, Tensor]]]:
    """Logits, and the input of every batch norm and convolution, in the order of the modules."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, ins, __, name=name: inputs.update({name: ins[0]}))
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d)
    ]
    logits = net.normalized(x)
    for hook in hooks:
        hook.remove()
    modules = dict(net.named_modules())
    ordered = [name for name in modules if name in inputs]
    return logits, [(name, modules[name], inputs[name]) for name in ordered]


def plain_moments(maps: Tensor, patch_side: int | None) -> list[Tensor]:
    """Channel mean and variance, then those of the cells, one operation after another."""
    c = maps.shape[1]
    flat = maps.permute(1, 0, 2, 3).reshape(c, -1)
    found = [flat.mean(1), flat.var(1, unbiased=False)]
    if patch_side is None:
        return found
    height, width = (-(-side // patch_side) * patch_side for side in maps.shape[2:])
    if (height, width) != maps.shape[2:]:
        maps = functional.interpolate(maps, (height, width), mode="bilinear")
    cells = functional.unfold(maps.flatten(0, 1)[:, None], patch_side, stride=patch_side)
    cells = cells.permute(2, 0, 1).flatten(1)  # [P, b c s s]
    return [*found, cells.mean(1), cells.var(1, unbiased=False)]


def plain_distance(
    net: Classifier,
    x: Tensor,
    labels: Tensor,
    statistics: ObserverStatistics,
    *,
    alpha: float = 0.5,
    first_multiplier: float = 10.0,
    running: dict[str, list[Tensor]] | None = None,
    momentum: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Logits and r, as the hooks of the published code have them."""
    logits, layers = hooked(net, x)
    total = torch.zeros(())
    for place, (name, module, maps) in enumerate(layers):
        conv = isinstance(module, nn.Conv2d)
        own = plain_moments(maps, statistics.taps.patch_side if conv else None)
        if running is not None:
            before = running.get(name)
            now = [s.detach() for s in own]
            running[name] = (
                now
                if before is None
                else [momentum * a + (1 - momentum) * b for a, b in zip(before, now, strict=True)]
            )
            own = [r + s - s.detach() for r, s in zip(running[name], own, strict=True)]
        layer = statistics.layers[name]
        count = len(own)
        whole = sum(torch.norm(a - b) for a, b in zip(layer.overall[:count], own, strict=True))
        classes = sum(
            torch.norm(a[labels].mean(0) - b)
            for a, b in zip(layer.classes[:count], own, strict=True)
        )
        weight = first_multiplier if place == 0 else 1.0
        total = total + weight * (alpha * whole + (1 - alpha) * classes)
    return logits, total
