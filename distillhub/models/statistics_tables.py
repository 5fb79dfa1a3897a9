"""The targets of an observer's layers as the tensors of a file.

Overall targets are kept in float32. Of class tables the mean over the classes is, too, and what
tells a class from it in half precision, scaled by a power of two so that none of the values is too
large: about half as many bytes, and an error of 0.0005 of what tells classes apart.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from distillhub.ops.feature_moments import FeatureMoments

Kind = Literal["bn", "conv"]
_STATS = ("mean", "var", "patch_mean", "patch_var")


class LayerStatistics(NamedTuple):
    """Targets of one layer: c channels, C classes, P patches."""

    kind: Kind
    overall: FeatureMoments
    """[c], [c], [P], [P]."""
    classes: FeatureMoments
    """[C, c], [C, c], [C, P], [C, P], with the variance inside images."""
    totals: FeatureMoments
    """The same with the total variance of a class."""

    def to(self, device: torch.device) -> "LayerStatistics":
        """The same on another device."""
        parts = (self.overall, self.classes, self.totals)
        return LayerStatistics(self.kind, *(_moved(moments, device) for moments in parts))


def packed(layers: Mapping[str, LayerStatistics]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors of a file, by `path.kind.statistic`, and the exponents of the scaled ones."""
    tensors: dict[str, Tensor] = {}
    exponents: dict[str, int] = {}
    for path, layer in layers.items():
        place = f"{path}.{layer.kind}"
        for stat, value in _parts(layer.overall):
            tensors[f"{place}.{stat}"] = value.float()
        for stat, value in _class_parts(layer):
            centre = value.mean(0, keepdim=True)
            spread = value - centre
            exponent = math.frexp(float(spread.abs().max()))[1] - 15
            tensors[f"{place}.{stat}.centre"] = centre
            tensors[f"{place}.{stat}.spread"] = torch.ldexp(spread, torch.tensor(-exponent)).half()
            exponents[f"{place}.{stat}"] = exponent
    return tensors, exponents


def unpacked(
    kinds: Iterable[tuple[str, Kind]], tensors: Mapping[str, Tensor], exponents: Mapping[str, int]
) -> dict[str, LayerStatistics]:
    """The targets of these layers, in float32.

    Raises:
        KeyError: If a tensor or its exponent is not there.
    """
    return {path: _unpacked(f"{path}.{kind}", kind, tensors, exponents) for path, kind in kinds}


def _unpacked(
    place: str, kind: Kind, tensors: Mapping[str, Tensor], exponents: Mapping[str, int]
) -> LayerStatistics:
    def table(stat: str) -> Tensor:
        name = f"{place}.class_{stat}"
        spread = torch.ldexp(tensors[f"{name}.spread"].float(), torch.tensor(exponents[name]))
        return tensors[f"{name}.centre"] + spread

    stats = _STATS if f"{place}.patch_mean" in tensors else _STATS[:2]
    overall = FeatureMoments(*(tensors[f"{place}.{stat}"] for stat in stats))
    classes = FeatureMoments(*(table(stat) for stat in stats))
    totals = classes._replace(var=classes.var + table("between").clamp_min(0))
    if classes.patch_var is not None:
        between = table("patch_between").clamp_min(0)
        totals = totals._replace(patch_var=classes.patch_var + between)
    return LayerStatistics(kind, overall, classes, totals)


def _parts(moments: FeatureMoments) -> Iterator[tuple[str, Tensor]]:
    for stat, value in zip(_STATS, moments, strict=True):
        if value is not None:
            yield stat, value


def _class_parts(layer: LayerStatistics) -> Iterator[tuple[str, Tensor]]:
    """Means, variances inside images, and what the total variances have beside them."""
    classes, totals = layer.classes, layer.totals
    for stat, value in _parts(classes):
        yield f"class_{stat}", value
    yield "class_between", totals.var - classes.var
    if totals.patch_var is not None and classes.patch_var is not None:
        yield "class_patch_between", totals.patch_var - classes.patch_var


def _moved(moments: FeatureMoments, device: torch.device) -> FeatureMoments:
    mean, var, patch_mean, patch_var = (
        None if part is None else part.to(device) for part in moments
    )
    if mean is None or var is None:
        raise AssertionError("moments without channels")
    return FeatureMoments(mean, var, patch_mean, patch_var)
