"""Which layers of an observer are measured, and what of their inputs."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from pydantic import Field
from torch import Tensor, nn

from distillhub.models.statistics_tables import Kind
from distillhub.ops.feature_moments import FeatureMoments, feature_moments
from distillhub.spec import Spec

KINDS: Mapping[Kind, type[nn.Module]] = {"bn": nn.BatchNorm2d, "conv": nn.Conv2d}


class TapSpec(Spec):
    """Which layers are measured, at their inputs."""

    bn: bool = True
    """Batch norms: channel moments."""
    conv: bool = True
    """Convolutions: channel moments."""
    patch: bool = True
    """Patch moments of the convolutions."""
    patch_side: int = Field(default=4, gt=0)
    """In pixels of the feature maps; the authors take 4 for images up to 64 pixels, 16 for 224."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of layers that are measured."""
        switches: tuple[tuple[Kind, bool], ...] = (("bn", self.bn), ("conv", self.conv))
        return tuple(kind for kind, on in switches if on)

    def side(self, kind: Kind) -> int | None:
        """The patch side for that kind of layer; None where patches are not measured."""
        return self.patch_side if kind == "conv" and self.patch else None


def layers_of(net: nn.Module, taps: TapSpec) -> dict[str, Kind]:
    """The layers that `taps` name, by their paths, in the order of `named_modules`."""
    return {
        path: kind
        for path, module in net.named_modules()
        for kind in taps.kinds
        if isinstance(module, KINDS[kind])
    }


@contextmanager
def measured(
    net: nn.Module, taps: TapSpec, *, skip: Collection[str] = ()
) -> Iterator[dict[str, FeatureMoments]]:
    """Inside, every forward pass puts the moments of the input of each layer into the mapping.

    Keys are the paths of the layers in the order of their first run; a new pass replaces the
    moments, which stay part of the graph. Layers that see the very same tensor share the work.

    Args:
        net: Looked through with all its parts; nothing is left behind.
        taps: What is measured.
        skip: Paths that are not.

    Raises:
        ValueError: If there is nothing to measure.
    """
    there = layers_of(net, taps)
    if not there:
        raise ValueError(f"{type(net).__name__} has no layer to measure with {taps!r}")
    kinds = {path: kind for path, kind in there.items() if path not in skip}
    found: dict[str, FeatureMoments] = {}
    known: dict[int, tuple[Tensor, FeatureMoments]] = {}

    def measure(path: str, maps: Tensor) -> None:
        if path == next(iter(found), path):  # a new pass
            known.clear()
        side = taps.side(kinds[path])
        seen = known.get(id(maps))
        if seen is None or (side is not None and seen[1].patch_mean is None):
            seen = known[id(maps)] = maps, feature_moments(maps, side)
        found[path] = seen[1] if side is not None else FeatureMoments(*seen[1][:2])

    hooks = [
        net.get_submodule(path).register_forward_pre_hook(
            lambda _, inputs, path=path: measure(path, inputs[0])
        )
        for path in kinds
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
