"""What the layers of an observer see of the real data: the targets of statistical matching.

One pass over the training split, in eval mode, measures the input of every batch norm and every
convolution: moments per channel and, for convolutions, per patch.

- Overall targets are the running statistics of a batch norm. Of a convolution they are the mean
  over the batches of the batch's moments, weighted by their sizes; the mean of batch variances
  depends on `CollectSpec.batch`, which is therefore kept with the result.
- Class targets are the mean over the images of a class of the image's own moments, for both kinds
  of layers. The variance is the one inside the images, as the authors' code has it, or the total
  one of the class, which has the variance of the images' means beside it.

Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024), section
3.2 and the authors' code, whose exchange of a class's patch means and variances is not repeated.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor, nn

from distillhub.errors import DataError
from distillhub.models.classifier import Classifier
from distillhub.models.measuring import KINDS, TapSpec, layers_of, measured
from distillhub.models.statistics_tables import Kind, LayerStatistics, packed, unpacked
from distillhub.models.taps import tap
from distillhub.models.tensorfile import read_tensors, write_tensors
from distillhub.models.training import LabelledImages, augment
from distillhub.ops.crops import flip
from distillhub.ops.feature_moments import (
    ClassSums,
    FeatureMoments,
    class_sums,
    image_moments,
    patch_count,
    pooled_moments,
)
from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.spec import Spec
from distillhub.units import derive_seed

__all__ = [
    "CollectSpec",
    "Kind",
    "LayerStatistics",
    "ObserverStatistics",
    "TapSpec",
    "collect",
    "layers_of",
    "measured",
    "shown_batches",
]


class CollectSpec(Spec):
    """How the real images are shown to an observer."""

    augment: Literal["none", "flip", "flip_shift", "crop_flip"] = "flip_shift"
    """`flip_shift`: flips and shifts up to 1/8 of the side; `crop_flip`: random resized crops (8 to
    100 % of the area) and flips, as for ImageNet."""
    batch: int = Field(default=64, gt=0)
    """Images per batch; overall variances of convolutions depend on it."""
    seed: int = Field(default=0, ge=0)
    """Of order and augmentation."""
    files: tuple[str, ...] = ()
    """Statistics that exist already: one file per guiding observer, in their order."""


FILE_KIND = "observer statistics"


class _FileHeader(Spec):
    kind: Literal["observer statistics"]
    observer: str
    taps: TapSpec
    spec: CollectSpec
    class_names: tuple[str, ...]
    images: int
    layers: tuple[tuple[str, Kind], ...]
    exponents: dict[str, int]


@dataclass(frozen=True, eq=False)
class ObserverStatistics:
    """The targets of one observer."""

    observer: str
    """sha256 of its weights."""
    taps: TapSpec
    spec: CollectSpec
    """How they were collected; `files` is empty."""
    class_names: tuple[str, ...]
    """In the order of the class tables."""
    images: int
    """That were looked at."""
    layers: Mapping[str, LayerStatistics]
    """By the layer's path in the network, in the order of the first run."""

    def to(self, device: torch.device) -> "ObserverStatistics":
        """The same on another device."""
        layers = {path: layer.to(device) for path, layer in self.layers.items()}
        return replace(self, layers=layers)

    def save(self, path: Path) -> None:
        """Write one safetensors file; the same statistics give the same bytes.

        Of the class tables, what tells classes apart is rounded to half precision.

        Raises:
            StorageError: If the folder cannot be written.
        """
        tensors, exponents = packed(self.layers)
        header: dict[str, JsonValue] = {
            "kind": FILE_KIND,
            "observer": self.observer,
            "taps": self.taps.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
            "class_names": list(self.class_names),
            "images": self.images,
            "layers": [[name, layer.kind] for name, layer in self.layers.items()],
            "exponents": dict(exponents),
        }
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path) -> "ObserverStatistics":
        """Read what `save` wrote, on the CPU in float32.

        Raises:
            ValueError: If it is not such a file.
        """
        try:
            tensors, header = read_tensors(path)
        except DataError as error:
            raise ValueError(f"{path}: {error.faults[0].what}") from error
        if header.get("kind") != FILE_KIND:
            raise ValueError(f"{path}: a safetensors file, but not one with statistics")
        try:
            facts = _FileHeader.model_validate(header)
            layers = unpacked(facts.layers, tensors, facts.exponents)
        except (ValidationError, KeyError) as error:
            raise ValueError(f"{path}: its statistics are not whole: {error}") from error
        return cls(facts.observer, facts.taps, facts.spec, facts.class_names, facts.images, layers)


def shown_batches(
    data: LabelledImages, spec: CollectSpec, *, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a pass: augmented images [b, C, H, W] in [0, 1] and labels [b] int64.

    They are cut from a permutation that depends on the seed alone; the augmentation of a batch
    depends on the seed and its number alone.

    Args:
        data: All of it is shown once.
        spec: How.
        first: Number of the first batch.
    """
    order = torch.randperm(len(data), generator=_generator(spec, "order"))
    for number, rows in enumerate(torch.split(order, spec.batch)[first:], first):
        yield _augmented(data.images(rows), spec, number), data.labels[rows].to("cpu", torch.int64)


def collect(
    net: Classifier,
    identity: str,
    data: LabelledImages,
    taps: TapSpec,
    spec: CollectSpec,
    *,
    device: torch.device,
    state: State | None = None,
) -> Generator[Progress, None, ObserverStatistics]:
    """Measure the targets of an observer in one pass, one batch per report.

    A pass that was cut and goes on from a snapshot ends with the same statistics, bit for bit.

    Args:
        net: The observer, on the device; measured in eval mode, left as it was.
        identity: sha256 of its weights.
        data: The whole training split, which the published code takes; a held-out part that the
            observer was not trained on is not left out.
        taps: What is measured.
        spec: How.
        device: Where to work; sums are kept on the CPU in float64.
        state: A snapshot of an earlier pass with the same arguments.

    Raises:
        ValueError: If the observer has no such layer, or one without running statistics.
    """
    layers = _layout(net, taps, data, device)
    total = sum(layer.width for layer in layers)
    sums = ClassSums.zeros(len(data.class_names), total)
    overall = torch.zeros(2, total, dtype=torch.float64)
    done = restore(state, **sums._asdict(), overall=overall)
    batches = -(-len(data) // spec.batch)
    for images, labels in shown_batches(data, spec, first=done):
        mean, var = _flat_moments(net, images.to(device), taps, layers)
        class_sums(mean, var, labels, into=sums)
        batch = pooled_moments(FeatureMoments(mean, var))
        overall.add_(torch.stack([batch.mean, batch.var]), alpha=len(labels) / len(data))
        done += 1
        yield Progress(done, batches, {}, partial(capture, done, **sums._asdict(), overall=overall))
    return ObserverStatistics(
        identity,
        taps,
        spec.model_copy(update={"files": ()}),
        tuple(data.class_names),
        len(data),
        _statistics(net, layers, sums, overall),
    )


# ---- the pass


class _Layer(NamedTuple):
    """A layer in the flat tables: c channels, then P patches."""

    path: str
    kind: Kind
    channels: int
    patches: int

    @property
    def width(self) -> int:
        return self.channels + self.patches


def _generator(spec: CollectSpec, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(spec.seed, "statistics", *names))


def _augmented(images: Tensor, spec: CollectSpec, number: int) -> Tensor:
    generator = _generator(spec, "augment", number)
    if spec.augment == "flip":
        return flip(images, generator=generator)
    return augment(images, spec.augment, seed=generator.initial_seed())


@torch.no_grad()
def _inputs(net: Classifier, images: Tensor, taps: TapSpec) -> dict[str, Tensor]:
    """Inputs of the layers by path, in the order of the first run."""
    was_training = net.training
    net.eval()
    try:
        with tap(net, tuple(KINDS[kind] for kind in taps.kinds)) as seen:
            net(images)
    finally:
        net.train(was_training)
    return seen


def _layout(
    net: Classifier, taps: TapSpec, data: LabelledImages, device: torch.device
) -> list[_Layer]:
    """The layers in the order in which they run, found with one image."""
    kinds = layers_of(net, taps)
    if not kinds:
        raise ValueError(f"{net.arch} has no layer to measure with {taps!r}")
    layers = []
    for path, maps in _inputs(net, data.images(torch.tensor([0])).to(device), taps).items():
        channels, height, width = maps.shape[1:]
        side = taps.side(kinds[path])
        patches = 0 if side is None else patch_count(height, width, side)
        layers.append(_Layer(path, kinds[path], channels, patches))
        module = net.get_submodule(path)
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
            raise ValueError(f"{net.arch}: {path} keeps no running statistics")
    return layers


def _flat_moments(
    net: Classifier, images: Tensor, taps: TapSpec, layers: Sequence[_Layer]
) -> tuple[Tensor, Tensor]:
    """Means and variances of every image, layer after layer: [b, d] each, on the CPU."""
    seen = _inputs(net, images, taps)
    means: list[Tensor] = []
    variances: list[Tensor] = []
    for layer in layers:
        moments = image_moments(seen.pop(layer.path), taps.side(layer.kind))
        means += [part for part in (moments.mean, moments.patch_mean) if part is not None]
        variances += [part for part in (moments.var, moments.patch_var) if part is not None]
    return torch.cat(means, 1).cpu(), torch.cat(variances, 1).cpu()


def _statistics(
    net: Classifier, layers: Sequence[_Layer], sums: ClassSums, overall: Tensor
) -> dict[str, LayerStatistics]:
    means, within = sums.means(), sums.within()
    total = within + sums.between()
    starts = accumulate((layer.width for layer in layers), initial=0)
    found = {}
    for layer, start in zip(layers, starts, strict=False):

        def cut(
            mean: Tensor, var: Tensor, layer: _Layer = layer, start: int = start
        ) -> FeatureMoments:
            sizes = [layer.channels, layer.patches]
            parts = [t[..., start : start + layer.width].float() for t in (mean, var)]
            (mean, patch_mean), (var, patch_var) = (torch.split(t, sizes, -1) for t in parts)
            if layer.patches == 0:
                return FeatureMoments(mean, var)
            return FeatureMoments(mean, var, patch_mean, patch_var)

        if layer.kind == "bn":
            module = cast("nn.BatchNorm2d", net.get_submodule(layer.path))
            running = module.running_mean, module.running_var
            whole = FeatureMoments(*(cast("Tensor", t).cpu().float().clone() for t in running))
        else:
            whole = cut(overall[0], overall[1])
        found[layer.path] = LayerStatistics(
            layer.kind, whole, cut(means, within), cut(means, total)
        )
    return found
