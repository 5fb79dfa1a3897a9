"""Statistical matching of a batch of images under one observer, as distances of one vector.

Symbols (EDC): s -> moments of what goes into the layers of a network, layer after layer in one
vector; T, K -> targets of the whole training set and of the classes; D -> Euclidean distance, not
squared; m -> momentum; sg -> stop gradient.

    running <- m running + (1 - m) sg(s),    s~ = running + s - sg(s)
    r = alpha sum_l w_l D(s~_l, T_l) + (1 - alpha) sum_l w_l D(s~_l, K_l)

D stands for one distance per kind of moment: means, variances, and both of the patches.

Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024), Eq. 5, and
the authors' code; the running statistics are those of G-VBSM (CVPR 2024).
"""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from distillhub.methods._recover_specs import MatchSpec
from distillhub.models.classifier import Classifier
from distillhub.models.measuring import KINDS, measured
from distillhub.models.statistics import LayerStatistics, ObserverStatistics
from distillhub.models.taps import tap
from distillhub.ops.feature_moments import FeatureMoments, feature_moments
from distillhub.ops.progress import State
from distillhub.ops.recovering import piece_norms


class Seen(NamedTuple):
    """A pass of a batch through an observer."""

    logits: Tensor
    """[n, K]."""
    moments: Tensor
    """s, [F, S]: of the batch as a whole, then of each of its classes, as far as they are needed;
    0 where a layer was left out."""


class Matching:
    """What the statistics of a batch are compared with; gathered once per batch and observer."""

    def __init__(
        self,
        statistics: ObserverStatistics,
        labels: Tensor,
        match: MatchSpec,
        *,
        swapped: bool,
        device: torch.device,
    ) -> None:
        """Gather the targets.

        Args:
            statistics: Of the observer.
            labels: Of the batch, [n] int64 on the CPU.
            match: How to compare.
            swapped: Let the means and variances of the classes' patches change places.
            device: Where the batch is.
        """
        self.taps = statistics.taps
        self.convs = tuple(
            path for path, layer in statistics.layers.items() if layer.kind == "conv"
        )
        layers = statistics.layers.values()
        self._widths = {
            path: [len(part) for part in _parts(layer.overall)]
            for path, layer in statistics.layers.items()
        }
        lengths = [length for widths in self._widths.values() for length in widths]
        self._lengths = torch.tensor(lengths, device=device)  # [M]

        present, counts = torch.unique(labels, return_counts=True)
        shares = counts / len(labels)  # p(c)
        overall = torch.cat([part for layer in layers for part in _parts(layer.overall)])  # T

        alpha = match.alpha
        per_class = match.category_matching == "per_class" and alpha < 1
        self._whole = alpha > 0 or not per_class
        self._classes = [(labels == c).nonzero()[:, 0].to(device) for c in present] * per_class
        rows: list[tuple[int, Tensor, float]] = []  # place in s, target, weight
        if alpha > 0:
            rows.append((0, overall, alpha))
        if alpha < 1:
            tables = [t for layer in layers for t in _class_targets(layer, match, swapped)]
            of_classes = torch.cat([table[present] for table in tables], 1)  # K, [k, S]
            if per_class:
                places = range(int(self._whole), int(self._whole) + len(present))
                weights = ((1 - alpha) * shares).tolist()
                rows += zip(places, of_classes, weights, strict=True)
            else:
                rows.append((0, shares @ of_classes, 1 - alpha))
        self._places = torch.tensor([place for place, _, _ in rows], device=device)
        self._targets = torch.stack([target for _, target, _ in rows]).to(device)  # [R, S]
        terms = torch.tensor([weight for _, _, weight in rows])
        self._weights = torch.outer(terms, self._piece_weights(match)).to(device)  # [R, M]

    def look(self, net: Classifier, x: Tensor, *, skip: Collection[str] = ()) -> Seen:
        """Pass a batch, in the network's normalised space, and take the moments of its layers.

        Args:
            net: The observer.
            x: [n, C, H, W].
            skip: Paths of layers that are left out.
        """
        if not self._classes:
            with measured(net, self.taps, skip=skip) as moments:
                logits = net.normalized(x)
            return Seen(logits, self._vector(moments)[None])
        with tap(net, tuple(KINDS[kind] for kind in self.taps.kinds)) as maps:
            logits = net.normalized(x)
        groups = [torch.arange(len(x), device=x.device)] * self._whole + self._classes
        return Seen(logits, torch.stack([self._of(maps, rows, skip) for rows in groups]))

    def distance(self, moments: Tensor, *, skip: Collection[str] = ()) -> Tensor:
        """r, a scalar, of the (running) moments [F, S]; layers left out add nothing."""
        weights = self._weights
        if skip:
            weights = weights * self._mask(skip, pieces=True)
        differences = moments[self._places] - self._targets
        return (weights * piece_norms(differences, self._lengths)).sum()

    def kept(self, skip: Collection[str]) -> Tensor | None:
        """[S] bool: which moments are those of layers that are not left out; None: all."""
        return self._mask(skip, pieces=False) if skip else None

    def _mask(self, skip: Collection[str], *, pieces: bool) -> Tensor:
        """For every piece, [M], or every moment, [S], whether its layer is kept."""
        mask = [
            path not in skip
            for path, widths in self._widths.items()
            for _ in range(len(widths) if pieces else sum(widths))
        ]
        return torch.tensor(mask, device=self._targets.device)

    def _piece_weights(self, match: MatchSpec) -> Tensor:
        """The w of every distance, [M]."""
        weights = []
        for number, widths in enumerate(self._widths.values()):
            layer = match.first_multiplier if number == 0 else 1.0
            if match.layer_norm != "sum":
                layer /= len(self._widths)
            rms = match.layer_norm == "per_channel"
            weights += [layer / math.sqrt(width) if rms else layer for width in widths]
        return torch.tensor(weights)

    def _of(self, maps: Mapping[str, Tensor], rows: Tensor, skip: Collection[str]) -> Tensor:
        """The s of some images of the batch."""
        found = {
            path: feature_moments(maps[path][rows], self._side(path))
            for path in self._widths
            if path not in skip
        }
        return self._vector(found)

    def _side(self, path: str) -> int | None:
        return self.taps.side("conv" if path in self.convs else "bn")

    def _vector(self, moments: Mapping[str, FeatureMoments]) -> Tensor:
        parts: list[Tensor] = []
        for path, widths in self._widths.items():
            if path in moments:
                parts += _parts(moments[path])
            else:
                parts.append(self._targets.new_zeros(sum(widths)))
        return torch.cat(parts)


class Running:
    """Running statistics of one observer: their value, with the gradient of the latest."""

    def __init__(self, momentum: float, *, from_zero: bool = False) -> None:
        """Before the first observation.

        Args:
            momentum: m.
            from_zero: Begin at 0 in place of the first observation, as the authors' code does.
        """
        self._momentum, self._from_zero = momentum, from_zero
        self._value: Tensor | None = None
        self._known: Tensor | None = None

    def follow(self, moments: Tensor, kept: Tensor | None = None) -> Tensor:
        """s~ after an observation.

        Args:
            moments: s, [F, S].
            kept: [S] bool: which of them were observed; None: all.
        """
        if self._momentum == 0:
            return moments
        now = moments.detach()
        if self._value is None or self._known is None:
            self._value = torch.zeros_like(now)
            self._known = torch.full_like(now[0], self._from_zero, dtype=torch.bool)
        after = torch.where(self._known, torch.lerp(now, self._value, self._momentum), now)
        if kept is None:
            self._value, self._known = after, torch.ones_like(self._known)
        else:
            self._value = torch.where(kept, after, self._value)
            self._known = self._known | kept
        return self._value + (moments - now)

    def parts(self, name: str) -> dict[str, Tensor]:
        """What a snapshot holds of it."""
        if self._value is None or self._known is None:
            return {}
        return {f"{name}/value": self._value, f"{name}/known": self._known}

    def restore(self, name: str, state: State, device: torch.device) -> None:
        """Go on from a snapshot."""
        value, known = state.get(f"{name}/value"), state.get(f"{name}/known")
        if isinstance(value, Tensor) and isinstance(known, Tensor):
            self._value, self._known = value.to(device), known.to(device)


def _parts(moments: FeatureMoments) -> list[Tensor]:
    return [part for part in moments if part is not None]


def _class_targets(layer: LayerStatistics, match: MatchSpec, swapped: bool) -> list[Tensor]:
    """The class tables of a layer, [C, c] or [C, P] each, in the order of `_parts`."""
    table = layer.classes if match.class_variance == "within_image" else layer.totals
    if swapped:
        table = table._replace(patch_mean=table.patch_var, patch_var=table.patch_mean)
    return _parts(table)
