"""The networks that guide a recover loop, with the statistics that they are to find in it."""

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from distillhub.errors import RecipeError
from distillhub.methods._base import CostPart, Workbench
from distillhub.models.architecture import parse_arch
from distillhub.models.classifier import Classifier
from distillhub.models.statistics import (
    CollectSpec,
    LayerStatistics,
    ObserverStatistics,
    TapSpec,
    collect,
    layers_of,
)
from distillhub.models.taps import tap
from distillhub.models.zoo import build
from distillhub.ops.feature_moments import FeatureMoments
from distillhub.ops.pixels import denormalize
from distillhub.ops.progress import Progress, State
from distillhub.units import Target

FILE = "statistics.safetensors"


class Observer(NamedTuple):
    """A frozen network and its targets."""

    role: str
    net: Classifier
    statistics: ObserverStatistics | None
    """None where no statistics are matched."""
    mean: tuple[float, ...]
    """Of the data set, in whose normalised space the images are; per channel."""
    std: tuple[float, ...]

    def shown(self, x: Tensor) -> Tensor:
        """The images in the network's own normalised space."""
        if (self.net.mean_values, self.net.std_values) == (self.mean, self.std):
            return x
        return self.net.normalize(denormalize(x, self.mean, self.std))


def guiding(
    roles: Sequence[str],
    bench: Workbench,
    taps: TapSpec,
    spec: CollectSpec,
    *,
    matched: bool,
    by_class: bool,
    state: State | None,
) -> Generator[Progress, None, list[Observer]]:
    """The guiding observers; statistics that are not there yet are collected, with progress.

    Args:
        roles: Of the networks.
        bench: Of the recipe.
        taps: What is measured.
        spec: How, or which files hold the result.
        matched: Whether statistics are matched at all.
        by_class: Whether those of the classes are.
        state: A snapshot that this generator reported; any other is left alone.

    Raises:
        RecipeError: If an observer has no such layer, or a file is of another one.
    """
    if matched and spec.files and len(spec.files) != len(roles):
        raise RecipeError(
            f"{len(spec.files)} files of statistics for {len(roles)} guiding observers",
            where="method.statistics.files",
            mend="name one file per guiding observer, in their order, or none",
        )
    observers = []
    for place, role in enumerate(roles):
        net = bench.network(role)
        found = None
        if matched:
            if not layers_of(net, taps):
                raise RecipeError(
                    _nothing(role, net.arch, taps),
                    where="method.taps",
                    mend="tap other layers, or let other observers guide",
                )
            if spec.files:
                found = _from_file(spec.files[place], role, bench, taps, spec)
            elif taps.conv or by_class:
                found = yield from _collected(role, bench, taps, spec, state)
            else:
                found = _running(net, bench.weights(role), taps, bench)
        observers.append(Observer(role, net, found, tuple(bench.data.mean), tuple(bench.data.std)))
    return observers


def unfit(
    target: Target, archs: Sequence[str], chosen: Sequence[int] | None, taps: TapSpec | None
) -> Iterator[str]:
    """Which chosen observers do not exist, or have no layer to match.

    Args:
        target: Of the recipe.
        archs: Architectures of its observers.
        chosen: Their numbers; None: all.
        taps: What is matched; None: nothing.
    """
    for number in range(len(archs)) if chosen is None else chosen:
        if number >= len(archs):
            yield f"observers names {number}, but there are {len(archs)}, counted from 0"
        elif taps is not None and parse_arch(archs[number]).library == "own":
            net = _sketch(archs[number], target)
            if net is not None and not layers_of(net, taps):
                yield _nothing(f"observer-{number}", archs[number], taps)


def shared_out(
    part: CostPart, chosen: Literal["all"] | Sequence[int], *, turns: bool = False
) -> list[CostPart]:
    """Work of the guiding observers, for `Method.cost`.

    Args:
        part: What one of them does; all of them together where they take `turns`.
        chosen: Their numbers.
        turns: Whether each call is of one of them.
    """
    if chosen == "all":
        return [part._replace(network="observers" if turns else "every observer")]
    calls = -(-part.calls // len(chosen)) if turns else part.calls
    return [part._replace(calls=calls, network=f"observer-{number}") for number in chosen]


def _nothing(role: str, arch: str, taps: TapSpec) -> str:
    wanted = " or ".join({"bn": "batch norm", "conv": "convolution"}[kind] for kind in taps.kinds)
    return f"{role} ({arch}) has no {wanted or 'tapped layer'} whose statistics could be matched"


def _sketch(arch: str, target: Target) -> Classifier | None:
    """A network without meaning; None where the images are too small for it."""
    half = (0.5,) * target.channels
    try:
        return build(
            arch,
            num_classes=target.num_classes,
            channels=target.channels,
            height=target.height,
            width=target.width,
            mean=half,
            std=half,
            seed=0,
        )
    except ValueError:  # `resolve` says so of every network
        return None


def _collected(
    role: str, bench: Workbench, taps: TapSpec, spec: CollectSpec, state: State | None
) -> Generator[Progress, None, ObserverStatistics]:
    """The statistics of an observer, collected once for all recipes."""
    identity = bench.weights(role)

    def grow(begun: State | None) -> Generator[Progress, None, Callable[[Path], None]]:
        net, device = bench.network(role), bench.device
        found = yield from collect(
            net, identity, bench.data, taps, spec, device=device, state=begun
        )
        return lambda folder: found.save(folder / FILE)

    key: dict[str, object] = {
        "observer": identity,
        "taps": taps.model_dump(mode="json"),
        "collect": spec.model_dump(mode="json", exclude={"files"}),
    }
    folder = yield from bench.grown("statistics", key, grow, state)
    return ObserverStatistics.load(folder / FILE)


def _from_file(
    name: str, role: str, bench: Workbench, taps: TapSpec, spec: CollectSpec
) -> ObserverStatistics:
    where = f"method.statistics.files: {name}"
    try:
        found = ObserverStatistics.load(bench.file(name))
    except ValueError as error:
        raise RecipeError(
            str(error),
            where=where,
            mend="name a file that was collected from the observer, or none",
        ) from error
    wanted = spec.model_copy(update={"files": ()})
    faults = {
        f"the statistics are of observer {found.observer[:12]}, {role} is "
        f"{bench.weights(role)[:12]}": found.observer != bench.weights(role),
        f"the statistics are of {found.taps!r}, the recipe taps {taps!r}": found.taps != taps,
        f"the statistics were collected by {found.spec!r}, the recipe says {wanted!r}": (
            found.spec != wanted
        ),
        f"the statistics are of {found.images} images, the data set has {len(bench.data)}": (
            found.images != len(bench.data)
        ),
        "the statistics are of other classes": found.class_names != bench.data.class_names,
    }
    for what, wrong in faults.items():
        if wrong:
            raise RecipeError(
                what, where=where, mend="leave files out, and the statistics are collected anew"
            )
    return found


@torch.no_grad()
def _running(net: Classifier, identity: str, taps: TapSpec, bench: Workbench) -> ObserverStatistics:
    """What batch norms keep themselves; no class tables, and no pass over the data."""
    blank = torch.zeros(1, bench.data.channels, bench.data.height, bench.data.width)
    with tap(net, nn.BatchNorm2d) as inputs:
        net(blank.to(bench.device))
    layers = {}
    for path in inputs:  # in the order of their first run
        norm = net.get_submodule(path)
        mean, var = norm.running_mean, norm.running_var
        if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
            raise RecipeError(
                f"{path} of {net.arch} keeps no running statistics",
                where="method.taps",
                mend="let other observers guide",
            )
        none = FeatureMoments(mean.new_zeros(0, len(mean)), var.new_zeros(0, len(var)))
        whole = FeatureMoments(mean.cpu().clone(), var.cpu().clone())
        layers[path] = LayerStatistics("bn", whole, none, none)
    return ObserverStatistics(identity, taps, CollectSpec(), bench.data.class_names, 0, layers)
